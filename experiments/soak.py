"""Kill a run again and again: ``python -m experiments.soak --config=configs/smoke.py --kills=50``.

Trains once without interruption. Then trains again, in a process that is killed (SIGKILL) at random
moments and started anew until it has finished, and compares every line of ``metrics.jsonl`` and
every bit of the last checkpoint with the uninterrupted run; then once more from the beginning,
until there were as many kills as wanted. Ends with code 1 if anything differs. Leaves
``soak.json`` and ``soak.svg`` in ``--workdir``.

To have more to hit, the run evaluates every 7 steps and saves every 5. Half of the moments are
uniform over the time that the rest of the run takes; of the others, half lie in the start of the
process, and half follow, by up to 50 ms, the moment when a save began.
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from absl import flags
from tqdm import tqdm

from experiments.command_line import run_command
from mmjax.atomic import replacing
from mmjax.training.checkpoints import Checkpoints
from mmjax.training.journal import METRICS

CONFIG = flags.DEFINE_string("config", "configs/smoke.py", "the run")
WORKDIR = flags.DEFINE_string("workdir", "runs/soak", "where the runs and the result go; emptied")
KILLS = flags.DEFINE_integer("kills", 50, "how many", 1)
SEED = flags.DEFINE_integer("seed", 0, "of the moments")
SET = flags.DEFINE_multi_string("set", [], "a field of the configuration, steps=60; repeatable")

SAVING = "*.orbax-checkpoint-tmp*"
EVALUATES, SAVES = 7, 5  # every so many steps


class Differs(ValueError):
    """A run that was killed and continued did not come out as one that was not."""


@dataclasses.dataclass(frozen=True)
class Kill:
    """One of them: the run it hit, the steps whose metrics were written, and what was going on."""

    run: int
    after_seconds: float
    steps_written: int
    newest_checkpoint: int
    during: str


def main() -> None:
    """Run, kill, compare, tell."""
    root = pathlib.Path(WORKDIR.value)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    begin = time.monotonic()
    whole = root / "whole"
    timing = _uninterrupted(whole)
    kills: list[Kill] = []
    rng = np.random.default_rng(SEED.value)
    finished = 0
    with tqdm(total=KILLS.value, desc="kills", file=sys.stderr) as bar:
        while len(kills) < KILLS.value:
            victim = root / f"killed_{finished}"
            while len(kills) < KILLS.value and (kill := _kill_once(victim, rng, timing, finished)):
                kills.append(kill)
                bar.update()
            _finish(victim)
            _compare(whole, victim)
            shutil.rmtree(victim)
            finished += 1
    result = {
        "config": CONFIG.value,
        "fields": SET.value,
        "seed": SEED.value,
        "kills": len(kills),
        "during": dict(collections.Counter(kill.during for kill in kills).most_common()),
        "runs_compared": finished,
        "lines_compared": finished * _lines(whole),
        "lines_that_differ": 0,  # else this is not reached
        "seconds": round(time.monotonic() - begin),
        "each": [dataclasses.asdict(kill) for kill in kills],
    }
    with replacing(root / "soak.json") as file:
        file.write((json.dumps(result, indent=2) + "\n").encode())
    with replacing(root / "soak.svg") as file:
        file.write(_picture(kills, _lines(whole)).encode())
    print("\n".join(_summary(result)))


def _summary(result: dict) -> list[str]:
    where = ", ".join(f"{count} during {what}" for what, count in result["during"].items())
    return [
        f"{result['kills']} kills in {result['runs_compared']} runs: {where}",
        f"{result['lines_compared']} lines of metrics compared, none differs, nor do the final"
        f" checkpoints; {result['seconds']} s",
        f"written to {WORKDIR.value}/soak.json and soak.svg",
    ]


def _start(workdir: pathlib.Path) -> subprocess.Popen:
    command = [
        sys.executable, "-m", "experiments.pretrain", f"--config={CONFIG.value}",
        f"--workdir={workdir}", f"--config.evaluation.every={EVALUATES}",
        f"--config.checkpoint.every={SAVES}",
        *(f"--config.{field}" for field in SET.value),
    ]  # fmt: skip
    # Programs are compiled once; the time is for training.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(WORKDIR.value, "compiled").resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    log = (workdir.parent / f"{workdir.name}.log").open("ab")
    with log:
        return subprocess.Popen(
            command, env=cache | os.environ, stdout=log, stderr=subprocess.STDOUT
        )


def _finish(workdir: pathlib.Path) -> None:
    """Let the run come to its end."""
    process = _start(workdir)
    if process.wait():
        log = workdir.parent / f"{workdir.name}.log"
        raise Differs(f"a run that was continued failed; the end of {log}:\n{_tail(log)}")


def _tail(log: pathlib.Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _uninterrupted(workdir: pathlib.Path) -> tuple[float, float]:
    """Seconds until the first step, and from there to the end, of a process that has compiled."""
    _finish(workdir)  # compiles
    shutil.rmtree(workdir)
    begin = time.monotonic()
    process = _start(workdir)
    _until(lambda: _lines(workdir) > 0, process)
    first = time.monotonic()
    if process.wait():
        raise Differs(f"the run fails without being killed:\n{_tail(workdir.parent / 'whole.log')}")
    return first - begin, time.monotonic() - first


def _lines(workdir: pathlib.Path) -> int:
    path = workdir / METRICS
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _until(happened: Callable[[], bool], process: subprocess.Popen) -> None:
    """Wait until it happened, or the process ended."""
    while process.poll() is None and not happened():
        time.sleep(0.001)


def _kill_once(
    workdir: pathlib.Path, rng: np.random.Generator, timing: tuple[float, float], run: int
) -> Kill | None:
    """Start or continue the run and kill it at a random moment; None if it finished before."""
    starting, training = timing
    begin, before = time.monotonic(), _lines(workdir)
    process = _start(workdir)
    kind = rng.choice(["any", "start", "save"], p=[0.5, 0.25, 0.25])
    if kind == "start":
        delay = rng.uniform(0, starting)
    elif kind == "save":
        there = _saves(workdir)
        _until(lambda: bool(_saves(workdir) - there), process)
        delay = rng.uniform(0, 0.05)
    else:
        _until(lambda: _lines(workdir) > before, process)
        delay = rng.uniform(0, training)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=delay)
    process.kill()
    if process.wait() == 0:
        return None
    return Kill(
        run=run,
        after_seconds=round(time.monotonic() - begin, 3),
        steps_written=_lines(workdir),
        newest_checkpoint=_newest(workdir),
        during="the start" if kind == "start" else _what_was_hit(workdir),
    )


def _saves(workdir: pathlib.Path) -> set[str]:
    return {path.name for path in workdir.glob(f"checkpoints/{SAVING}")}


def _newest(workdir: pathlib.Path) -> int:
    names = (path.name for path in workdir.glob("checkpoints/*"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _what_was_hit(workdir: pathlib.Path) -> str:
    """What the files say the process was doing when it was killed."""
    if _saves(workdir):
        return "a save"
    # The line of such a step is written after its evaluation, which takes most of the time.
    return "an evaluation" if (_lines(workdir) + 1) % EVALUATES == 0 else "the steps"


def _compare(whole: pathlib.Path, killed: pathlib.Path) -> None:
    """Raise if the metrics or the last checkpoints differ in a bit."""
    expected, found = ((folder / METRICS).read_text().splitlines() for folder in (whole, killed))
    for number, (a, b) in enumerate(zip(expected, found, strict=False), 1):
        if a != b:
            raise Differs(f"{killed / METRICS}, line {number}: expected {a}, found {b}")
    if len(expected) != len(found):
        raise Differs(f"{killed / METRICS}: expected {len(expected)} lines, found {len(found)}")
    sums = []
    for folder in (whole, killed):
        with Checkpoints(folder / "checkpoints", writes=False) as checkpoints:
            sums.append(checkpoints.description(checkpoints.steps[-1])["arrays"])
    if sums[0] != sums[1]:
        names = [name for name in sums[0] if sums[0][name] != sums[1].get(name)]
        raise Differs(f"{killed}: the last checkpoint differs in {', '.join(names[:5])}")


def _picture(kills: list[Kill], steps: int) -> str:
    """Each kill as a dot over the steps that were written; the bar to the left is lost work."""
    kinds = list(dict.fromkeys(kill.during for kill in kills))
    colours = dict(zip(kinds, ("#2a6fdb", "#d97706", "#16a34a", "#9333ea"), strict=False))
    wide, high = 640.0, 14.0 * len(kills) + 60

    def x(step: int) -> float:
        return 40 + (wide - 60) * step / steps

    rows = "".join(
        f'<line x1="{x(kill.newest_checkpoint):.1f}" x2="{x(kill.steps_written):.1f}" y1="{y}"'
        f' y2="{y}" stroke="#bbb" stroke-width="3"/><circle cx="{x(kill.steps_written):.1f}"'
        f' cy="{y}" r="4" fill="{colours[kill.during]}"><title>run {kill.run}, step'
        f" {kill.steps_written}, {kill.during}</title></circle>"
        for y, kill in zip(range(40, 40 + 14 * len(kills), 14), kills, strict=True)
    )
    legend = "".join(
        f'<circle cx="{50 + 150 * i}" cy="14" r="4" fill="{colour}"/>'
        f'<text x="{58 + 150 * i}" y="18">{kind}</text>'
        for i, (kind, colour) in enumerate(colours.items())
    )
    axis = "".join(
        f'<text x="{x(step):.0f}" y="{high - 8}" text-anchor="middle">{step}</text>'
        for step in range(0, steps + 1, max(1, steps // 6))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}"'
        f' font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{legend}{rows}{axis}</svg>\n'
    )


if __name__ == "__main__":
    run_command(main)
