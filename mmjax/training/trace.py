"""A profiler's trace of a few updates, for TensorBoard, XProf or Perfetto."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax


def check_profile_steps(steps: Sequence[int]) -> None:
    """Raise ValueError unless ``steps`` is empty or holds the first and the last update."""
    if len(steps) not in (0, 2) or (len(steps) == 2 and not 1 <= steps[0] <= steps[1]):
        raise ValueError(
            "profile_steps must be () or (a, b), the first and the last update to be traced,"
            f" 1 <= a <= b; got {tuple(steps)}"
        )


class Trace:
    """Traces updates ``a`` to ``b`` of a run into a folder; a context manager.

    Args:
        steps: ``(a, b)``, or empty to trace nothing.
        folder: made when the trace begins; each process writes its own file there.
    """

    def __init__(self, steps: Sequence[int], folder: pathlib.Path) -> None:
        check_profile_steps(steps)
        self._steps = range(steps[0], steps[1] + 1) if steps else range(0)
        self._folder, self._runs = folder, False

    def begin(self, step: int) -> None:
        """To be called before update ``step``."""
        if step in self._steps and not self._runs:
            jax.profiler.start_trace(str(self._folder))
            self._runs = True

    def end(self, step: int, results: Any) -> None:
        """To be called when update ``step`` is dispatched; waits for ``results`` of the last."""
        if self._runs and step >= self._steps[-1]:
            jax.block_until_ready(results)
            self._stop()

    def _stop(self) -> None:
        if self._runs:
            self._runs = False
            jax.profiler.stop_trace()

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
