"""Many files that are one data set, read in any order."""

import concurrent.futures
import glob
import itertools
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from mmjax.data.records import Record

ALL = "all"  # the split of a data set that has no splits

MAX_RECORD_BYTES = 64 * 2**20
"""Largest record that is read, unless the options of a source say otherwise."""

Patterns: TypeAlias = str | Sequence[str]

_MOST_FILES = 1_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_OPENING = 16  # shards that are opened at a time: their tables of contents wait for the disk


class BrokenShard(ValueError):
    """A file that should be a shard is missing, cut short or something else; says what."""


class Shard(Protocol):
    """One file of records, or nothing else than its place and its size until one is read."""

    def __len__(self) -> int:
        """Count the records."""
        ...

    def __getitem__(self, row: int, /) -> Record:
        """Return a record or raise :class:`mmjax.data.records.UnreadableRecord`."""
        ...


AnyShard = TypeVar("AnyShard", bound=Shard)


class Shards(Generic[AnyShard]):
    """Shards one after the other as a source.

    Args:
        shards: in order.
    """

    def __init__(self, shards: Sequence[AnyShard]):
        self.shards = shards
        self._ends = np.cumsum([len(shard) for shard in shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int, /) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"expected an index in [0, {len(self)}), got {index}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        return self.shards[number][index - start]


def open_shards(
    paths: Sequence[pathlib.Path],
    open_shard: Callable[[pathlib.Path], AnyShard],
    *,
    max_broken_share: float,
) -> Shards[AnyShard]:
    """Open files as one source, less a stated share that may be broken.

    The position of a record depends on which shards there are: every process of a run has to see
    the same ones.

    Args:
        paths: of the shards, in order.
        open_shard: called with each, from several threads.
        max_broken_share: largest share of the shards, in [0, 1], that is left out with a warning
            because it is missing or broken.

    Raises:
        ValueError: past that share, naming the first shards and what is wrong with them; if a
            shard is not what the options say; or if no record is left.
    """
    if not 0 <= max_broken_share <= 1:
        raise ValueError(f"max_broken_share must lie in [0, 1], got {max_broken_share}")

    def attempt(path: pathlib.Path) -> AnyShard | BrokenShard:
        try:
            return open_shard(path)
        except BrokenShard as error:
            return error
        except OSError as error:
            return BrokenShard(f"{path}: {error.strerror or error}")

    with concurrent.futures.ThreadPoolExecutor(min(_OPENING, len(paths))) as pool:
        opened = list(pool.map(attempt, paths))
    broken = [shard for shard in opened if isinstance(shard, BrokenShard)]
    if broken:
        first = "; ".join(str(error) for error in broken[:3])
        message = f"{len(broken)} of {len(paths)} shards cannot be read: {first}"
        if len(broken) > max_broken_share * len(paths):
            raise ValueError(f"{message}. At most {max_broken_share:.1%} may be (max_broken_share)")
        logging.getLogger(__name__).warning("%s. They are left out", message)
    shards = [shard for shard in opened if not isinstance(shard, BrokenShard)]
    if not any(len(shard) for shard in shards):
        raise ValueError(f"no record in the {len(paths)} shards {paths[0]}, ...")
    return Shards(shards)


def shard_paths(patterns: Patterns | Mapping[str, Patterns], split: str) -> list[pathlib.Path]:
    """Return the files of one split.

    Args:
        patterns: one or several paths with ``{split}`` for the name of the split, ``{a,b}`` or
            ``{000..123}`` for alternatives, and the wildcards ``* ? [abc]``; or such patterns by
            split. Without either, the only split is ``all``.
        split: which.

    Returns:
        The paths, in the order of the patterns; those that a wildcard finds sorted. Those without
        a wildcard need not exist.

    Raises:
        FileNotFoundError: if a wildcard finds nothing.
        ValueError: if there is no such split, or a pattern means more than a million files.

    >>> [str(path) for path in shard_paths("/d/{split}-{08..10}.tar", "dev")]
    ['/d/dev-08.tar', '/d/dev-09.tar', '/d/dev-10.tar']
    """
    if isinstance(patterns, Mapping):
        if split not in patterns:
            raise ValueError(f"split must be one of {sorted(patterns)}, got {split!r}")
        patterns = patterns[split]
    else:
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if split != ALL and not all("{split}" in pattern for pattern in patterns):
            raise ValueError(
                f"the shards {', '.join(patterns)} have no split {split!r}, only {ALL!r}: write "
                "{split} where its name stands, or give patterns by split"
            )
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    expanded = [path for pattern in patterns for path in expand(pattern.replace("{split}", split))]
    paths: list[pathlib.Path] = []
    for path in expanded:
        if glob.escape(path) == path:
            paths.append(pathlib.Path(path))
            continue
        found = sorted(glob.glob(path))
        if not found:
            raise FileNotFoundError(f"no file is called {path}")
        paths.extend(map(pathlib.Path, found))
    if not paths:
        raise ValueError("expected at least one shard, got no pattern")
    return paths


def short_names(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
    """Return names by path that are as short as they can be and still distinct.

    >>> list(short_names([pathlib.Path("/d/a/0.tar"), pathlib.Path("/d/b/0.tar")]).values())
    ['a/0.tar', 'b/0.tar']
    """
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return {path: os.path.relpath(path.absolute(), common) for path in paths}


def expand(pattern: str) -> list[str]:
    """Write out the braces of a pattern.

    Args:
        pattern: ``{a,b}`` stands for either, ``{08..10}`` for each number from the first to the
            last, with the zeros of the first.

    Raises:
        ValueError: if that makes more than a million.

    >>> expand("{a,b}-{8..10}")
    ['a-8', 'a-9', 'a-10', 'b-8', 'b-9', 'b-10']
    """
    parts = _BRACES.split(pattern)  # text and what stands in braces, in turn
    choices: list[Iterable[str]] = []
    count = 1
    for number, part in enumerate(parts):
        numbers = _RANGE.fullmatch(part) if number % 2 else None
        if numbers:
            first, last = numbers.groups()
            size = int(last) - int(first) + 1
            choices.append(str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
        else:
            alternatives = part.split(",") if number % 2 else [part]
            size = len(alternatives)
            choices.append(alternatives)
        count *= size
        if not 1 <= count <= _MOST_FILES:
            raise ValueError(f"{pattern!r} means {count} files; at least 1 and at most a million")
    return ["".join(choice) for choice in itertools.product(*choices)]
