"""Open files and decoded blocks: made when they are needed, in each process for itself."""

import collections
import os
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class PerProcess(Generic[Key, Value]):
    """A bounded cache of things that must not reach another process. Safe to use from threads.

    Neither a fork nor a pickle carries anything across: a copy of a file's handle would share its
    position, and a copy of a thread pool its dead threads. What falls out of the cache is dropped
    by it and lives on for the thread that still uses it.

    Args:
        make: makes the value of a key; picklable, if this shall be. Called once at a time per key.
        limit: largest sum of the sizes of what is kept. The newest is kept whatever its size.
        size: of a value; picklable, if this shall be. By default each counts 1.

    >>> squares = PerProcess(lambda x: x * x, limit=2)
    >>> squares[3], squares[4], squares[3]
    (9, 16, 9)
    """

    def __init__(
        self,
        make: Callable[[Key], Value],
        *,
        limit: int,
        size: Callable[[Value], int] | None = None,
    ):
        self._make, self._limit, self._size = make, limit, size
        self._kept: _Kept[Key, Value] = _Kept()

    def __getitem__(self, key: Key) -> Value:
        if self._kept.process != os.getpid():  # A lock that was held while forking stays held.
            self._kept = _Kept()
        kept = self._kept
        with kept.lock:
            entry = kept.entries.setdefault(key, _Entry())
            kept.entries.move_to_end(key)
        with entry.lock:
            if not entry.made:
                try:
                    entry.made.append(self._make(key))
                except BaseException:
                    with kept.lock:
                        kept.entries.pop(key, None)
                    raise
                self._drop(kept, entry, 1 if self._size is None else self._size(entry.made[0]))
            return entry.made[0]

    def _drop(self, kept: "_Kept[Key, Value]", entry: "_Entry[Value]", size: int) -> None:
        """Count what has been made and forget the least recently used above the limit."""
        with kept.lock:
            entry.size = size
            total = sum(entry.size for entry in kept.entries.values())
            for key, other in list(kept.entries.items()):
                if total <= self._limit:
                    break
                if other is not entry and other.size:
                    total -= other.size
                    del kept.entries[key]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_kept": _Kept()}


class _Entry(Generic[Value]):
    def __init__(self) -> None:
        self.lock, self.size = threading.Lock(), 0
        self.made: list[Value] = []


class _Kept(Generic[Key, Value]):
    def __init__(self) -> None:
        self.process, self.lock = os.getpid(), threading.Lock()
        self.entries: collections.OrderedDict[Key, _Entry[Value]] = collections.OrderedDict()

    def __reduce__(self) -> tuple:
        return _Kept, ()
