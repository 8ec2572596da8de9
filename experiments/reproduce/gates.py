"""The partial information decomposition of logic gates, ours beside the known one.

In bits, in a second or so besides compiling::

    python -m experiments.reproduce.gates

The known values follow from the definition (Bertschinger et al. 2014, arXiv:1311.2852, table 1, and
:data:`mmjax.data.synthetic.GATES`). Exits with an error if any of ours is off by more than 1e-6.
"""

import math

import jax
import numpy as np
from absl import app

from mmjax.data.synthetic import GATES
from mmjax.information import broja

PARTS = ("redundancy", "unique_1", "unique_2", "synergy")
ALLOWED = 1e-6  # bits


def compared() -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """By the name of a gate: our parts, the known ones, and the certified gap; bits."""
    # As one batch, with outcomes that never occur: compiling takes longer than anything else.
    joints = np.zeros((len(GATES), *np.max([gate.joint.shape for gate in GATES.values()], axis=0)))
    for table, gate in zip(joints, GATES.values(), strict=True):
        table[tuple(map(slice, gate.joint.shape))] = gate.joint
    with jax.enable_x64(True):
        *parts, gaps, _ = map(np.asarray, broja(joints, unit="bits"))
    known = [[getattr(gate.pid, part) for part in PARTS] for gate in GATES.values()]
    rows = zip(np.stack(parts, axis=1), np.array(known) / math.log(2), gaps.tolist(), strict=True)
    return dict(zip(GATES, rows, strict=True))


def main(_: list[str]) -> None:
    """Print the table, and judge it."""
    print(f"{'':24}" + "".join(f"{part:>22}" for part in PARTS) + f"{'gap':>10}")
    worst = 0.0
    for name, (ours, known, gap) in compared().items():
        pairs = zip(np.round(ours, 6) + 0.0, known, strict=True)  # without a sign of 0
        cells = "".join(f"{a:>11.6f} ({b:.6f})" for a, b in pairs)
        print(f"{name:24}{cells}{gap:>10.0e}")
        worst = max(worst, float(np.max(np.abs(ours - known))))
    print(f"ours (known), bits; the largest difference is {worst:.1e}")
    if worst > ALLOWED:
        raise SystemExit(f"error: a part is off by more than {ALLOWED:.0e} bits")


if __name__ == "__main__":
    app.run(main)
