"""Time of the decompositions and of CLUB: ``python -m experiments.benchmarks.information``.

Ours beside the independent packages that are installed; what is not is left out, and nothing is
asserted. Compiling is not in the times of ours; setting up a problem is in those of cvxpy and of
dit, who do it anew for each distribution. Examples::

    python -m experiments.benchmarks.information --json=information.json
    python -m experiments.benchmarks.information --dit --rounds=10   # dit takes minutes
    python -m experiments.benchmarks.information --noclub --problems=1000
"""

import dataclasses
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags

from experiments.benchmarks.club import club_seconds
from mmjax.atomic import replacing
from mmjax.information import broja

ROUNDS = flags.DEFINE_integer("rounds", 20, "timed runs of each", lower_bound=1)
SHAPES = flags.DEFINE_list("shapes", ["20x20x2", "20x20x10"], "of single problems")
PROBLEMS = flags.DEFINE_integer("problems", 10_000, "of 2 x 2 x 2, as one batch", lower_bound=1)
DIT = flags.DEFINE_bool("dit", False, "also dit, on 10 x 10 x 2: a minute and a half, or more")
CLUB = flags.DEFINE_bool("club", True, "also CLUB; its quadratic form takes 8 GiB in torch")
CLUB_ROWS = flags.DEFINE_integer("club_rows", 4096, "rows for CLUB", lower_bound=2)
JSON = flags.DEFINE_string("json", None, "also write everything to this file")


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long an entrant took.

    Attributes:
        task: what was done.
        name: who did it.
        seconds: the median of its rounds.
        compiling: seconds before the first of them; None if nothing is compiled.
        union: union information in bits, to see that it is the same; None where there are many.
    """

    task: str
    name: str
    seconds: float
    compiling: float | None = None
    union: float | None = None


def distribution(*shape: int) -> np.ndarray:
    """Seeded probabilities over the last three axes."""
    p = np.random.default_rng(0).exponential(size=shape)
    return p / p.sum(axis=(-3, -2, -1), keepdims=True)


def median_seconds(run: Callable[[], Any], rounds: int) -> float:
    """Of calls that wait for their result; one more goes before and is not timed."""
    run()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def ours(task: str, p: np.ndarray, rounds: int) -> Timing:
    """The interior-point method, of one problem or of a batch."""
    with jax.enable_x64(True):
        start = time.perf_counter()
        on_device = jax.device_put(p)
        run = jax.jit(lambda p: broja(p, unit="bits")).lower(on_device).compile()
        compiling = time.perf_counter() - start
        parts = run(on_device)
        seconds = median_seconds(lambda: jax.block_until_ready(run(on_device)), rounds)
        union = float(sum(parts[:3])) if p.ndim == 3 else None
    return Timing(task, "mmjax", seconds, compiling, union)


def by_cvxpy(task: str, p: np.ndarray, rounds: int) -> Timing:
    """The same program as exponential cones, without a loop in Python, solved by CLARABEL."""
    import cvxpy

    n, m, classes = p.shape
    rows, columns = np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))
    target = p.sum(axis=(0, 1))

    def run() -> float:
        q = cvxpy.Variable((n * m, classes), nonneg=True)
        total = cvxpy.sum(q, axis=1, keepdims=True) @ np.ones((1, classes))
        problem = cvxpy.Problem(
            cvxpy.Minimize(cvxpy.sum(cvxpy.rel_entr(q, total))),
            [rows @ q == p.sum(axis=1), columns @ q == p.sum(axis=0)],
        )
        problem.solve(solver=cvxpy.CLARABEL)
        return float(problem.value - np.sum(target * np.log(target))) / np.log(2)

    union = run()
    return Timing(task, "cvxpy, CLARABEL", median_seconds(run, min(rounds, 5)), union=union)


def by_dit(task: str, p: np.ndarray) -> Timing:
    """The optimiser of dit, once: it is too slow for more."""
    import dit

    letters = "0123456789"
    cells = {"".join(letters[i] for i in cell): p[cell] for cell in np.ndindex(p.shape)}
    start = time.perf_counter()
    found = dit.pid.PID_BROJA(dit.Distribution(list(cells), list(cells.values())), [[0], [1]], [2])
    nodes = (((0,), (1,)), ((0,),), ((1,),))
    union = sum(float(found[node]) for node in nodes)
    return Timing(task, "dit", time.perf_counter() - start, union=union)


def installed(*names: str) -> bool:
    """Whether all of these packages are there."""
    return all(importlib.util.find_spec(name) is not None for name in names)


def measured() -> list[Timing]:
    """All that the flags ask for."""
    rounds, found = ROUNDS.value, []
    for shape in SHAPES.value:
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){2}", shape):
            raise ValueError(f"--shapes are like 20x20x2, for x1, x2 and y; got {shape}")
        p = distribution(*(int(size) for size in shape.split("x")))
        found.append(ours(f"BROJA {shape}", p, rounds))
        if installed("cvxpy", "clarabel"):
            found.append(by_cvxpy(f"BROJA {shape}", p, rounds))
    if DIT.value:
        p = distribution(10, 10, 2)
        found += [ours("BROJA 10x10x2", p, rounds), by_dit("BROJA 10x10x2", p)]
    task = f"BROJA 2x2x2, {PROBLEMS.value:,} of them"
    found.append(ours(task, distribution(PROBLEMS.value, 2, 2, 2), rounds))
    if CLUB.value:
        task = f"CLUB, {CLUB_ROWS.value:,} rows"
        times = club_seconds(CLUB_ROWS.value)
        found += [
            Timing(task, "mmjax" if name == "ours" else name, seconds)
            for name, seconds in times.items()
        ]
    return found


def table(found: list[Timing]) -> str:
    """Times, and how many times that of ours for the same task."""
    base = {timing.task: timing.seconds for timing in found if timing.name == "mmjax"}
    lines = [f"{'':32}{'':18}{'ms':>12}{'of ours':>12}{'compiling, s':>14}{'union, bits':>14}"]
    for timing in found:
        ratio = f"{timing.seconds / base[timing.task]:,.1f}"
        compiling = "" if timing.compiling is None else f"{timing.compiling:.1f}"
        union = "" if timing.union is None else f"{timing.union:.8f}"
        lines.append(
            f"{timing.task:32}{timing.name:18}{1e3 * timing.seconds:>12,.2f}{ratio:>12}"
            f"{compiling:>14}{union:>14}"
        )
    return "\n".join(lines)


def main(_: list[str]) -> None:
    """Do what the flags say."""
    told: dict[str, Any] = {
        "command": shlex.join(
            ["python", "-m", "experiments.benchmarks.information", *sys.argv[1:]]
        ),
        "date": datetime.date.today().isoformat(),
        "host": f"{os.cpu_count()} cores, {platform.machine()}",
        "versions": f"Python {platform.python_version()}, JAX {jax.__version__}",
    }
    try:
        for name, fact in told.items():
            print(f"{name}: {fact}")
        found = measured()
        print(f"\n{table(found)}")
        told["timings"] = [dataclasses.asdict(timing) for timing in found]
        if JSON.value:
            with replacing(pathlib.Path(JSON.value)) as file:
                file.write(json.dumps(told, indent=2).encode())
            print(f"\nwritten to {JSON.value}")
    except (ValueError, OSError, ImportError) as error:  # what a user can mend
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    app.run(main)
