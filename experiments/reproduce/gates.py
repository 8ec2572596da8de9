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
    found = {}
    for name, gate in GATES.items():
        with jax.enable_x64(True):
            parts = broja(gate.joint, unit="bits")
        ours = np.array([float(part) for part in parts[:4]])
        known = np.array([getattr(gate.pid, part) for part in PARTS]) / math.log(2)
        found[name] = ours, known, float(parts.gap)
    return found


def main(_: list[str]) -> None:
    """Print the table, and judge it."""
    print(f"{'':24}" + "".join(f"{part:>22}" for part in PARTS) + f"{'gap':>10}")
    worst = 0.0
    for name, (ours, known, gap) in compared().items():
        cells = "".join(f"{a:>11.6f} ({b:.6f})" for a, b in zip(ours + 0.0, known, strict=True))
        print(f"{name:24}{cells}{gap:>10.0e}")
        worst = max(worst, float(np.max(np.abs(ours - known))))
    print(f"ours (known), bits; the largest difference is {worst:.1e}")
    if worst > ALLOWED:
        raise SystemExit(f"error: a part is off by more than {ALLOWED:.0e} bits")


if __name__ == "__main__":
    app.run(main)
