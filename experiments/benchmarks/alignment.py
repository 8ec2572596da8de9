"""Time of soft-DTW and of Sinkhorn beside other libraries, in one run.

::

    python -m experiments.benchmarks.alignment

Value and gradient of soft-DTW with respect to both sets of sequences, squared Euclidean costs
included, and entropic transport of a table of costs to the same error of the marginals. Compiling
is timed apart: it is the first call less the median. All take turns, turn after turn, so that a
busy machine hurts all of them alike. Libraries that are not installed (ott-jax, pysdtw, tslearn
with torch, POT) are left out; those that run answer the same question, which the column ``differs``
shows: the relative difference of their value from ours. Nothing is asserted.
"""

import dataclasses
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from mmjax.alignment import sinkhorn, soft_dtw, squared_costs
from mmjax.atomic import replacing

TURNS = flags.DEFINE_integer("turns", 9, "timed runs of each", lower_bound=1)
PAIRS = flags.DEFINE_integer("pairs", 64, "pairs of sequences", lower_bound=1)
LENGTH = flags.DEFINE_integer("sequence_length", 128, "steps of a sequence", lower_bound=1)
DIMENSIONS = flags.DEFINE_integer("dimensions", 8, "features of a step or point", lower_bound=1)
POINTS = flags.DEFINE_integer("points", 512, "points of a cloud", lower_bound=1)
EPSILON = flags.DEFINE_float("epsilon", 0.05, "of transport, times the mean cost", lower_bound=1e-6)
REPORT = flags.DEFINE_string("report", None, "also write everything to this file, in JSON")

GAMMA = 1.0
ERROR = 1e-3  # of the marginals, at which transport stops


@dataclasses.dataclass
class Entrant:
    """One library.

    Attributes:
        name: what the table calls it.
        run: answers once, waits for it and returns the value.
        value: of the last run.
        seconds: of the first run, and of every timed one.
    """

    name: str
    run: Callable[[], float]
    value: float = float("nan")
    seconds: list[float] = dataclasses.field(default_factory=list)

    def take_turn(self) -> None:
        """Run once more and note the time."""
        begin = time.perf_counter()
        self.value = self.run()
        self.seconds.append(time.perf_counter() - begin)


def compiled(name: str, function: Callable, *arrays: np.ndarray) -> Entrant:
    """A function of JAX whose first result is the value."""
    jitted, arguments = jax.jit(function), [jnp.asarray(x) for x in arrays]
    return Entrant(name, lambda: float(jax.block_until_ready(jitted(*arguments))[0]))


def has(*modules: str) -> bool:
    """Whether all of these can be imported."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


def soft_dtw_entrants(batch: int, steps: int, features: int) -> list[Entrant]:
    """Value and gradient with respect to both sequences; random walks, seeded."""
    walks = np.random.default_rng(0).normal(size=(2, batch, steps, features)).cumsum(axis=2)
    x, y = (0.1 * walks).astype(np.float32)

    def ours(x, y):
        return jnp.sum(soft_dtw(squared_costs(x, y), gamma=GAMMA))

    found = [compiled("mmjax", jax.value_and_grad(ours, (0, 1)), x, y)]
    if has("ott"):
        from ott.geometry import costs

        each = jax.vmap(costs.SoftDTW(gamma=GAMMA))
        total = jax.value_and_grad(lambda x, y: jnp.sum(each(x, y)), (0, 1))
        found.append(compiled("ott-jax", total, x, y))
    if has("torch", "pysdtw"):
        import pysdtw

        distance = pysdtw.distance.pairwise_l2_squared
        loss = pysdtw.SoftDTW(gamma=GAMMA, dist_func=distance, use_cuda=False)
        found.append(of_torch("pysdtw", loss, x, y))
    if has("torch", "tslearn"):
        from tslearn.metrics import SoftDTWLossPyTorch

        found.append(of_torch("tslearn", SoftDTWLossPyTorch(gamma=GAMMA), x, y))
    return found


def of_torch(name: str, loss: Callable, *arrays: np.ndarray) -> Entrant:
    """Value and gradient of one value per row by torch."""
    import torch

    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]

    def run():
        value = loss(*tensors).sum()
        torch.autograd.grad(value, tensors)
        return value.item()

    return Entrant(name, run)


def sinkhorn_entrants(points: int, features: int, epsilon: float) -> list[Entrant]:
    """Cost of the plan between two clouds of equal masses."""
    clouds = np.random.default_rng(1).normal(size=(2, points, features))
    clouds[1] += 0.5
    cost = np.asarray(squared_costs(*clouds.astype(np.float32)))
    epsilon = epsilon * float(cost.mean())

    def ours(cost):
        found = sinkhorn(cost, epsilon=epsilon, tolerance=ERROR)
        return found.cost, found.error

    found = [compiled("mmjax", ours, cost)]
    mass = np.full(points, 1 / points, np.float32)
    if has("ott"):
        from ott.geometry import geometry
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import sinkhorn as solver

        def theirs(cost):
            table = geometry.Geometry(cost_matrix=cost, epsilon=epsilon)
            solved = solver.Sinkhorn(threshold=ERROR)(linear_problem.LinearProblem(table))
            return jnp.sum(solved.matrix * cost), solved.errors

        found.append(compiled("ott-jax", theirs, cost))
    if has("ot"):
        import ot

        for name, method in (("POT, logarithms", "sinkhorn_log"), ("POT, scalings", "sinkhorn")):

            def run(method=method):
                # It compares a norm of squares; this is the like in the mean.
                options = {"method": method, "stopThr": ERROR / points**0.5, "numItermax": 10_000}
                return float(np.sum(ot.sinkhorn(mass, mass, cost, epsilon, **options) * cost))

            found.append(Entrant(name, run))
    return found


def measured(entrants: list[Entrant], rounds: int) -> list[dict[str, Any]]:
    """Let all take turns; one row each, the first of them being ours."""
    for _ in range(rounds + 1):
        for entrant in entrants:
            entrant.take_turn()
    rows = []
    for entrant in entrants:
        first, *timed = entrant.seconds
        median = statistics.median(timed)
        rows.append(
            {
                "name": entrant.name,
                "ms": 1e3 * median,
                "of ours": median / statistics.median(entrants[0].seconds[1:]),
                "first call less ms": 1e3 * max(first - median, 0),
                "differs": abs(entrant.value / entrants[0].value - 1),
            }
        )
    return rows


def table_of(rows: list[dict[str, Any]]) -> str:
    """Rows in Markdown."""
    lines = ["| library | median ms | of ours | compiling, ms | differs |", "|---|--:|--:|--:|--:|"]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['ms']:.1f} | {row['of ours']:.2f}"
            f" | {row['first call less ms']:,.0f} | {row['differs']:.0e} |"
        )
    return "\n".join(lines)


def main(_: list[str]) -> None:
    """Measure and print both tables."""
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is timed
    told: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "device": f"{jax.devices()[0].platform}, {os.cpu_count()} cores, {platform.machine()}",
        "versions": f"Python {platform.python_version()}, JAX {jax.__version__}",
    }
    for name, fact in told.items():
        print(f"{name}: {fact}")
    contests = {
        f"soft-DTW, value and gradient, {PAIRS.value} x {LENGTH.value} x {LENGTH.value}": (
            lambda: soft_dtw_entrants(PAIRS.value, LENGTH.value, DIMENSIONS.value)
        ),
        f"Sinkhorn, {POINTS.value} x {POINTS.value}, error {ERROR:g}": (
            lambda: sinkhorn_entrants(POINTS.value, DIMENSIONS.value, EPSILON.value)
        ),
    }
    for name, entrants in contests.items():
        told[name] = measured(entrants(), TURNS.value)
        print(f"\n{name}\n\n{table_of(told[name])}", flush=True)
    if REPORT.value:
        with replacing(pathlib.Path(REPORT.value)) as file:
            file.write(json.dumps(told, indent=2).encode())


if __name__ == "__main__":
    app.run(main)
