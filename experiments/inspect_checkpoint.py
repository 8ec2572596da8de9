"""Look into checkpoints: ``python -m experiments.inspect_checkpoint --workdir=runs/icons``.

Lists the checkpoints with their metrics; of one of them (``--step``, the newest if not given) the
configuration and every array with shape, type and size. It reads the arrays of that one and
compares them with their checksums, and ends with code 1 if something is damaged. It needs neither
the data nor the configuration file, and runs nothing that is in the folder.
"""

import json
import math
import pathlib
from collections.abc import Mapping

import numpy as np
from absl import flags

from experiments.command_line import run_command
from mmjax.training.checkpoints import Checkpoints
from mmjax.training.description import DamagedCheckpoint

WORKDIR = flags.DEFINE_string("workdir", None, "the run's work folder", required=True)
STEP = flags.DEFINE_integer("step", None, "which checkpoint; the newest if not given")


def main() -> None:
    """Print and check."""
    folder = pathlib.Path(WORKDIR.value, "checkpoints")
    if not folder.is_dir():
        raise FileNotFoundError(f"{WORKDIR.value} holds no run: it has no folder checkpoints")
    unfinished = sorted(folder.glob("*.orbax-checkpoint-tmp*"))
    damaged = sorted(folder.glob("damaged-*"))
    with Checkpoints(folder, writes=False) as checkpoints:
        steps = checkpoints.steps
        if not steps:
            raise FileNotFoundError(f"no checkpoint in {folder}")
        if STEP.value not in (None, *steps):
            raise FileNotFoundError(f"no checkpoint of step {STEP.value}; there are {steps}")
        for step in steps:
            print(_summary(checkpoints, step))
        for path in [*damaged, *unfinished]:
            print(f"{path.name}: {'set aside' if path in damaged else 'unfinished'}")
        step = steps[-1] if STEP.value is None else STEP.value
        print(f"\nstep {step}: configuration")
        said = checkpoints.description(step)
        print(json.dumps(said["config"], indent=2))
        print(f"\nstep {step}: arrays")
        print(_table(said["arrays"]))
        if problem := checkpoints.verify(step):
            raise DamagedCheckpoint(f"the checkpoint of step {step} is damaged: {problem}")
        print(f"\nstep {step}: all {len(said['arrays'])} arrays have the checksums that they had")


def _summary(checkpoints: Checkpoints, step: int) -> str:
    """One line a checkpoint."""
    try:
        said = checkpoints.description(step)
    except DamagedCheckpoint as error:
        return f"step {step}: damaged: {error}"
    size = sum(_bytes(shape, dtype) for shape, dtype, _ in said["arrays"].values())
    scores = (f"{name} {value:.4g}" for name, value in said["metrics"].items())
    return "; ".join([f"step {step}: {size / 2**20:,.1f} MiB", *scores])


def _bytes(shape: list[int], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _table(arrays: Mapping[str, list]) -> str:
    """A line an array, and the sum of each part of the state."""
    width = max(map(len, arrays))
    lines, totals = [], dict.fromkeys((name.partition("/")[0] for name in arrays), 0)
    for name, (shape, dtype, _) in arrays.items():
        totals[name.partition("/")[0]] += _bytes(shape, dtype)
        size = f"{_bytes(shape, dtype):>14,} B"
        lines.append(f"  {name:{width}s}  {dtype:8s} {tuple(shape)!s:20s} {size}")
    lines += [f"  {name:{width}s}  {'sum':29s} {size:>14,} B" for name, size in totals.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
