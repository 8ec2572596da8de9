"""Time and memory of the contrastive losses: ``python -m experiments.benchmarks.contrastive``.

Value and gradient of the dense textbook loss in JAX, of ours in all their forms and of whatever
peer is installed, one table for each loss. Nothing is asserted. Examples::

    python -m experiments.benchmarks.contrastive --devices=8 --losses=clip_loss
    python -m experiments.benchmarks.contrastive --n=32768 --dtype=bfloat16 --rounds=0

Time is the median of rounds in which all take turns. Memory is for each device: ``compiled`` is
what XLA sets aside beside arguments and results, known without running anything; ``measured`` is
what was in use at most (the peak of JAX's allocator on an accelerator, of torch's everywhere,
gradients included). With bfloat16 rows, torch's peers also keep their scores in bfloat16, where
dense and ours have float32: their memory and time are then those of a less exact loss.
``--devices`` are virtual ones on a CPU and the first ones elsewhere. Of mmjax only the losses are
imported: what training needs does not have to be installed.
"""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import app, flags
from jax.sharding import Mesh

import mmjax.losses
from experiments.benchmarks import textbook
from experiments.benchmarks.entrants import (
    Entrant,
    Problem,
    dense,
    device_mesh,
    matmul_peak,
    of_peer,
    ours,
    take_times,
    warm_up,
)
from experiments.benchmarks.peers import PEERS
from mmjax.atomic import replacing

N = flags.DEFINE_integer("n", 4096, "rows of the batch, over all devices", lower_bound=2)
D = flags.DEFINE_integer("d", 512, "features of a row", lower_bound=1)
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "dtype of the rows")
DEVICES = flags.DEFINE_integer("devices", 1, "devices that the rows lie on", lower_bound=1)
LOSSES = flags.DEFINE_list("losses", None, "losses to time, all if not set")
CHUNKS = flags.DEFINE_list("chunks", ["none", "256"], "chunk sizes of ours beside the default")
ROUNDS = flags.DEFINE_integer("rounds", 5, "timed runs of each; 0 only compiles", lower_bound=0)
JSON = flags.DEFINE_string("json", None, "also write everything to this file")
QUICK = flags.DEFINE_bool("quick", False, "tiny sizes where none are given: does it all run?")

# Of scores, on each device. XLA (JAX 0.12) ends the process when it has to plan for four times as
# many in our undivided form; no device holds them anyway.
MOST_BYTES = 2**36

TINY: Mapping[str, Any] = {"n": 64, "d": 16, "rounds": 1, "chunks": ["16"]}


@dataclasses.dataclass(frozen=True)
class Contest:
    """What a loss is called with, and what its arithmetic is.

    Attributes:
        rows: how many positional arguments of rows it has.
        learned: scalars that are differentiated, with their values.
        temperature: the constant one, if the loss has one that is not learned.
        labels: whether rows have labels; four rows each.
        scored: rows that are scored against each other, as a multiple of n.
    """

    rows: int = 2
    learned: Mapping[str, float] = dataclasses.field(default_factory=dict)
    temperature: float | None = None
    labels: bool = False
    scored: int = 1

    def operations(self, n: int, d: int) -> float:
        """Floating-point operations of value and gradient in bounded memory.

        Each pair is scored (2 d) and once more in the backward pass (2 d), and it adds to the
        gradients of both its rows (4 d). Who keeps the scores saves a quarter, and is credited
        with the same number nevertheless: the fractions of the peak then compare times.
        """
        return 8.0 * (self.scored * n) ** 2 * d


CONTESTS: Mapping[str, Contest] = {
    "clip_loss": Contest(learned={"logit_scale": 10.0}),
    "siglip_loss": Contest(learned={"logit_scale": 10.0, "logit_bias": -10.0}),
    "info_nce": Contest(temperature=0.1),
    "nt_xent": Contest(temperature=0.1, scored=2),
    "supervised_contrastive": Contest(rows=1, temperature=0.1, labels=True),
}


def problem_of(contest: Contest, n: int, d: int, dtype: str) -> Problem:
    """Seeded rows of length 1, with the scalars and labels of a loss."""
    rows = np.random.default_rng(0).normal(size=(contest.rows, n, d)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    constants: dict[str, Any] = {}
    if contest.temperature is not None:
        constants["temperature"] = contest.temperature
    if contest.labels:
        constants["labels"] = np.arange(n, dtype=np.int32) // 4
    return Problem(tuple(rows), contest.learned, constants, dtype)


def entrants_of(name: str, problem: Problem, mesh: Mesh, chunks: list[int | None]) -> list[Entrant]:
    """All that take part for one loss; the first one is what the others are compared with."""
    loss: Callable = getattr(mmjax.losses, name)
    forms: dict[str, dict[str, Any]] = {"ours": {}}
    forms |= {f"ours, chunk_size={size}": {"chunk_size": size} for size in chunks}
    if mesh.size > 1:
        forms |= {f"{label}, ring": options | {"ring": True} for label, options in forms.items()}
    scores = 4 * (CONTESTS[name].scored * len(problem.rows[0])) ** 2 / mesh.size

    def ours_in(label: str, options: dict[str, Any]) -> Entrant:
        if options == {"chunk_size": None} and scores > MOST_BYTES:
            return Entrant(label, note=f"not compiled: {scores / 2**30:,.0f} GiB of scores")
        return ours(label, loss, problem, mesh, **options)

    return [
        dense("dense", getattr(textbook, name), problem, mesh),
        *(ours_in(label, options) for label, options in forms.items()),
        *(of_peer(label, peer, problem, mesh) for label, peer in PEERS[name].items()),
    ]


def row_of(entrant: Entrant, dense: Entrant, operations: float, peak: float | None) -> dict:
    """What the table and the file say of an entrant; None for what is not known."""
    median, base = (statistics.median(e.seconds) if e.seconds else None for e in (entrant, dense))
    return {
        "name": entrant.name,
        "ms": median and 1e3 * median,
        "of dense": median and base and median / base,
        "compiled MiB": _mebibytes(entrant.compiled),
        "measured MiB": _mebibytes(entrant.measured),
        "of matmul peak": median and peak and operations / median / peak,
        "note": entrant.note,
    }


def _mebibytes(count: int | None) -> float | None:
    return None if count is None else count / 2**20


FORMATS = {
    "ms": "{:,.1f}", "of dense": "{:.2f}", "compiled MiB": "{:,.1f}", "measured MiB": "{:,.1f}",
    "of matmul peak": "{:.0%}",
}  # fmt: skip


def table_of(rows: list[dict]) -> str:
    """A Markdown table, aligned for a terminal as well."""
    known = [key for key in rows[0] if any(row[key] not in (None, "") for row in rows)]
    cells = [known]
    for row in rows:
        shown = {k: "-" if row[k] is None else form.format(row[k]) for k, form in FORMATS.items()}
        cells.append([(row | shown)[key] for key in known])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = {i for i, key in enumerate(known) if key not in FORMATS}
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in cells
    ]
    rule = "|".join(
        "-" * (w + 2) if i in left else "-" * (w + 1) + ":" for i, w in enumerate(widths)
    )
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def header(mesh: Mesh, peak: float | None) -> dict[str, Any]:
    """What was measured on what, when, and by which command."""
    device = jax.devices()[0]
    told = {
        "command": shlex.join(
            ["python", "-m", "experiments.benchmarks.contrastive", *sys.argv[1:]]
        ),
        "date": datetime.date.today().isoformat(),
        "device": f"{mesh.size} x {device.platform}: {device.device_kind}",
        "host": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": f"Python {platform.python_version()}, JAX {jax.__version__}",
    }
    if peak is not None:
        told["matmul peak"] = f"{peak / 1e12:.1f} TFLOP/s a device, measured in this run"
    return told


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the flags say; ``--quick`` makes tiny what is not given."""

    n: int
    d: int
    dtype: str
    devices: int
    rounds: int
    losses: list[str]
    chunks: list[int | None]


def settings() -> Settings:
    """Read the flags; refuse what their types let through."""
    given: dict[str, Any] = {flag.name: flag.value for flag in (N, D, ROUNDS, CHUNKS)}
    if QUICK.value:
        given |= {name: tiny for name, tiny in TINY.items() if not flags.FLAGS[name].present}
    n, devices, losses = given["n"], DEVICES.value, LOSSES.value or list(CONTESTS)
    if n % (4 * devices):
        raise ValueError(f"--n must be a multiple of 4 rows for each of {devices} devices, got {n}")
    if unknown := [name for name in losses if name not in CONTESTS]:
        raise ValueError(f"--losses must be among {', '.join(CONTESTS)}; got {', '.join(unknown)}")
    try:
        chunks = [None if size == "none" else int(size) for size in given["chunks"]]
    except ValueError as error:
        raise ValueError(f"--chunks must be integers or none; {error}") from error
    return Settings(n, given["d"], DTYPE.value, devices, given["rounds"], losses, chunks)


def measured(name: str, chosen: Settings, mesh: Mesh, peak: float | None) -> list[dict]:
    """The rows of one loss's table."""
    contest = CONTESTS[name]
    problem = problem_of(contest, chosen.n, chosen.d, chosen.dtype)
    entrants = entrants_of(name, problem, mesh, chosen.chunks)
    if chosen.rounds:
        warm_up(entrants)
        take_times(entrants, chosen.rounds)
    else:
        entrants = [e for e in entrants if e.compiled is not None or e.name.startswith("ours")]
    operations = contest.operations(chosen.n, chosen.d) / mesh.size
    return [row_of(entrant, entrants[0], operations, peak) for entrant in entrants]


def report(chosen: Settings) -> None:
    """Measure all that was chosen; print it, and write it where that is wanted."""
    # Before JAX looks for its devices: virtual ones, and memory taken as it is needed, so that
    # torch finds some too and a run's peak is its own.
    jax.config.update("jax_num_cpu_devices", chosen.devices)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    mesh = device_mesh(chosen.devices)
    accelerated = jax.default_backend() != "cpu"
    peak = matmul_peak(chosen.dtype) if accelerated and chosen.rounds else None
    told = header(mesh, peak)
    for name, fact in told.items():
        print(f"{name}: {fact}")
    told |= {"settings": dataclasses.asdict(chosen), "losses": {}}
    for name in chosen.losses:
        rows = told["losses"][name] = measured(name, chosen, mesh, peak)
        size = f"n = {chosen.n:,}, d = {chosen.d:,}, {chosen.dtype}"
        print(f"\n{name}, {size}\n\n{table_of(rows)}", flush=True)
    if JSON.value:
        with replacing(pathlib.Path(JSON.value)) as file:
            file.write(json.dumps(told, indent=2).encode())
        print(f"\nwritten to {JSON.value}")


def main(_: list[str]) -> None:
    """Do what the flags say."""
    try:
        report(settings())
    except (ValueError, OSError) as error:  # what a user can mend
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    app.run(main)
