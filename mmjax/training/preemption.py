"""A notice to leave (SIGTERM) becomes one more checkpoint and an exit code that asks for more."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

PREEMPTED_EXIT = 75  # EX_TEMPFAIL of sysexits.h: a temporary failure, the caller should try again


class Preempted(Exception):
    """The run was told to leave; it has saved, and goes on with the same command."""


class Notice:
    """Listens for SIGTERM while it is entered.

    Where there are several processes, JAX listens; it tells the others, and all agree on an update
    at which to stop.
    """

    def __init__(self) -> None:
        self._came = False
        self._asked = 0
        self._listens = False
        self._before: Any = None

    def came(self) -> bool:
        """Whether to stop after this update; every process asks once after each of its updates."""
        self._asked += 1  # Not the step: that one goes back when a run is rolled back.
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(self._asked)
        return self._came

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._came = True

    def __enter__(self) -> "Notice":
        # Only the main thread may set a handler; from another one SIGTERM ends the process.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before, self._listens = signal.signal(signal.SIGTERM, self._take), True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)
