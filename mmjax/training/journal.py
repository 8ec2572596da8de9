"""What a run says while it goes: metrics on disk, TensorBoard events and one progress line."""

import contextlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping

import tqdm

from mmjax.atomic import replacing
from mmjax.training.meter import Meter, describe_rates

METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
TIMING_SECONDS = 5.0  # length of the intervals that timing.jsonl averages over


def read_metrics(workdir: pathlib.Path, *, name: str = METRICS) -> list[dict[str, float]]:
    """The lines of a run's ``metrics.jsonl``; a half-written last line is left out."""
    path, lines = workdir / name, []
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                break
            lines.append({name: math.nan if x is None else x for name, x in line.items()})
    return lines


def _as_line(step: int, scalars: Mapping[str, float]) -> str:
    """A line of a file of metrics. JSON has no word for what is not finite but null."""
    finite = {name: x if math.isfinite(x) else None for name, x in scalars.items()}
    return json.dumps({"step": step, **finite}) + "\n"


def _keep(workdir: pathlib.Path, name: str, step: int) -> None:
    """Drop what was written after ``step``: those steps come again, and come out the same."""
    kept = [line for line in read_metrics(workdir, name=name) if line["step"] <= step]
    with replacing(workdir / name) as file:
        file.writelines(_as_line(int(line.pop("step")), line).encode() for line in kept)


class _Lines:
    """Where there is no terminal to redraw a line on: each redrawing is a line of its own."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class Journal:
    """The records of one run, continued after ``step`` updates.

    ``metrics.jsonl`` holds what the run computed, one object a step, the same whenever it is
    repeated; ``timing.jsonl`` holds what the clock said. Both go to TensorBoard too.

    Args:
        workdir: where the files are.
        step: updates already made; later lines are dropped.
        steps: length of the run.
        batch_size: samples an update.
        meter: knows what samples per second mean for the devices.
        writes: whether this process keeps the files.
        shows: whether it shows the progress.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        step: int,
        steps: int,
        batch_size: int,
        meter: Meter,
        writes: bool = True,
        shows: bool = True,
    ) -> None:
        self._batch_size, self._meter, self._writes = batch_size, meter, writes
        self._waited, self._since_step, self._last = 0.0, step, step
        self._since: float | None = None
        if writes:
            for name in (METRICS, TIMING):
                _keep(workdir, name, step)
            self._metrics = (workdir / METRICS).open("a", buffering=1)
            self._timing = (workdir / TIMING).open("a", buffering=1)
            import tensorboardX  # only here: it loads torch where it finds it, which takes seconds

            self._board = tensorboardX.SummaryWriter(
                str(workdir / "tensorboard"), purge_step=step + 1 if step else None
            )
        terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=steps,
            initial=step,
            desc="step",
            disable=not shows,
            file=sys.stderr if terminal else _Lines(),
            mininterval=0.2 if terminal else 10.0,
            dynamic_ncols=terminal,
            bar_format="{desc} {n_fmt}/{total_fmt}{postfix} [{elapsed} gone, {remaining} left]",
        )

    def waited(self, seconds: float) -> None:
        """Count time that the devices spent waiting for data."""
        self._waited += seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is no training: it does not count in the rates."""
        begin = time.perf_counter()
        yield
        if self._since is not None:
            self._since += time.perf_counter() - begin

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """One step's scalars: a line, events and the progress."""
        if self._writes:
            self._metrics.write(_as_line(step, scalars))
            for name, value in scalars.items():
                if math.isfinite(value):
                    self._board.add_scalar(name, value, step)
        self._bar.set_postfix_str(f"loss {scalars['loss']:.4f}, {self._rates(step)}", refresh=False)
        self._bar.update(step - self._bar.n)
        self._last = step

    def _rates(self, step: int) -> str:
        """Samples per second and share of waiting since the last line of ``timing.jsonl``."""
        now = time.perf_counter()
        if self._since is None:  # The first step compiles: the clock starts after it.
            self._since, self._since_step, self._waited = now, step, 0.0
            return "compiled"
        rates = self._interval(step, now - self._since)
        if rates["seconds"] > TIMING_SECONDS:
            self._write_timing(step, rates)
            self._since, self._since_step, self._waited = now, step, 0.0
        return (
            f"{rates['samples_per_second']:.0f} samples/s, {describe_rates(rates)},"
            f" waiting for data {rates['data_wait_share']:.1%}"
        )

    def _interval(self, step: int, seconds: float) -> dict[str, float]:
        seconds = max(seconds, 1e-9)
        samples = (step - self._since_step) * self._batch_size
        return {
            "seconds": seconds,
            "samples_per_second": samples / seconds,
            "data_wait_share": self._waited / seconds,
            **self._meter.rates(samples / seconds),
        }

    def _write_timing(self, step: int, interval: Mapping[str, float]) -> None:
        if self._writes:
            self._timing.write(_as_line(step, interval))
            for name in interval.keys() - {"seconds"}:
                self._board.add_scalar(f"timing/{name}", interval[name], step)

    def say(self, text: str) -> None:
        """Print a line without breaking the progress line."""
        if not self._bar.disable:
            tqdm.tqdm.write(text, file=sys.stderr)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._since is not None and self._last > self._since_step:
            seconds = time.perf_counter() - self._since
            self._write_timing(self._last, self._interval(self._last, seconds))
        if self._writes:
            self._metrics.close()
            self._timing.close()
            self._board.close()
