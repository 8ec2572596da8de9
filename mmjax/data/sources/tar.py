"""Reading single members out of an uncompressed tar, and the table of contents that this needs.

Only the headers are interpreted, nothing is ever extracted, and links are not followed.
"""

import hashlib
import logging
import os
import pathlib
import re
import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from mmjax.atomic import replacing
from mmjax.data.sources.fields import parse
from mmjax.data.sources.shards import BrokenShard

BLOCK = 512
VERSION = 1
"""Of the index: int64 [samples + 2, 2] as ``.npy``. The rows are (version, number of samples), then
(size in bytes, time of change in nanoseconds) of the tar, and for each sample (first byte, byte
after the last)."""

_LONG_NAME, _PAX, _REGULAR = b"L", b"x", (b"0", b"\0", b"7")

_LONGEST_NAME = 2**20  # bytes of an extended header; more is no name
_SAMPLE = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


class Descriptor:
    """A file that is read at any offset, from any number of threads, and closed with the object.

    Args:
        path: of the file.
    """

    def __init__(self, path: pathlib.Path):
        self._number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._number)

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset`` on, or fewer where the file ends."""
        return os.pread(self._number, count, offset)  # moves no shared position

    def stat(self) -> os.stat_result:
        """Return the size, the time of change and the rest."""
        return os.fstat(self._number)


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str
    start: int  # of its first header
    offset: int  # of its content
    size: int  # of its content, in bytes


def members(read: Callable[[int, int], bytes], size: int) -> Iterator[Member]:
    """Walk through the regular files of a tar: ustar, GNU or pax.

    Args:
        read: returns ``count`` bytes from ``offset``.
        size: of the tar, in bytes.

    Raises:
        BrokenShard: at the first header that is none, and where the tar is cut short. A tar that
            stops after a whole member is complete: many writers leave out the end mark.
    """
    position = start = 0
    long_name: str | None = None
    long_size: int | None = None
    while position < size:
        block = read(position, BLOCK)
        if len(block) < BLOCK:
            raise BrokenShard(f"cut short in a header at byte {position}")
        if not any(block):
            return
        header = _header(block, position)
        content = position + BLOCK
        count = header.size if long_size is None else long_size
        if count < 0 or content + count > size:
            raise BrokenShard(
                f"cut short: the member at byte {position}, {header.name!r}, has {count} bytes, "
                f"and the tar ends at byte {size}"
            )
        position = content + -(-count // BLOCK) * BLOCK
        if header.kind in (_LONG_NAME, _PAX):
            if count > _LONGEST_NAME:
                raise BrokenShard(f"the extended header at byte {content} has {count} bytes")
            text = read(content, count)
            if header.kind == _LONG_NAME:
                long_name = _text(text)
            else:
                long_name, long_size = _pax(text, long_name, content)
            continue
        if header.kind in _REGULAR and not header.name.endswith("/"):
            yield Member(long_name or header.name, start, content, count)
        start, long_name, long_size = position, None, None


class _Header(NamedTuple):
    name: str
    size: int
    kind: bytes


def _header(block: bytes, position: int) -> _Header:
    """Read what is needed of a header. Not tarfile's own, which takes five times as long."""
    stored = _number(block[148:156])
    # The sum of the bytes, those of the sum itself counted as blanks.
    if stored != sum(block) - sum(block[148:156]) + 256:
        gzipped = position == 0 and block[:2] == b"\x1f\x8b"
        remedy = ": it is compressed, and only an uncompressed tar can be read in any order"
        raise BrokenShard(f"no tar header at byte {position}{remedy if gzipped else ''}")
    size = _number(block[124:136])
    if size is None:
        raise BrokenShard(f"the header at byte {position} has no size")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:  # GNU has other things there.
        name = f"{_text(block[345:500])}/{name}"
    return _Header(name, size, block[156:157])


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _number(field: bytes) -> int | None:
    """Read octal digits, or GNU's binary number; None if it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return None


def _pax(text: bytes, name: str | None, position: int) -> tuple[str | None, int | None]:
    """Read the path and the size out of a pax header of lines ``length key=value``."""
    size = None
    while text.strip(b"\0"):
        length, _, _ = text.partition(b" ")
        if not length.isdigit() or len(length) > 8 or not 5 <= int(length) <= len(text):
            raise BrokenShard(f"a broken pax header at byte {position}")
        line, text = text[len(length) + 1 : int(length) - 1], text[int(length) :]
        key, _, value = line.partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "backslashreplace")
        elif key == b"size":
            if not value.isdigit() or len(value) > 18:
                raise BrokenShard(f"a pax header at byte {position} says a size of {value[:40]!r}")
            size = int(value)
    return name, size


def sample_name(member: str) -> tuple[str, str] | None:
    """Split the name of a member at the first dot of its file, as WebDataset does.

    Returns:
        The sample's key, folder included, and the extension in lower case; None for what belongs
        to no sample.

    >>> sample_name("a.b/0007.seg.png"), sample_name("README")
    (('a.b/0007', 'seg.png'), None)
    """
    match = _SAMPLE.fullmatch(member)
    return None if match is None else (match[1], match[2].lower())


def sample_spans(path: pathlib.Path) -> Int64[np.ndarray, "n 2"]:
    """Return where each sample of a shard starts and ends; from its index, if that is up to date.

    The index is made once: beside the shard (``x.tar.index.npy``), or, where nothing can be written
    there, in the user's folder for caches (``$XDG_CACHE_HOME/mmjax``). A shard of another size or
    time of change has an index of its own.

    Args:
        path: of the shard.

    Returns:
        In bytes, one row per sample: first byte, byte after the last.

    Raises:
        BrokenShard: naming the file, if it is no tar, cut short, or holds the members of a sample
            in several places.
        OSError: if it cannot be opened.
    """
    file = Descriptor(path)
    stat = file.stat()
    stamp = (stat.st_size, stat.st_mtime_ns)
    places = _index_paths(path)
    for place in places:
        spans = _load(place, *stamp)
        if spans is not None:
            return spans
    try:
        spans = _scan(file.read, stat.st_size)
    except BrokenShard as error:
        raise BrokenShard(f"{path}: {error}") from error
    index = np.concatenate([np.array([(VERSION, len(spans)), stamp], np.int64), spans])
    for place in places:
        try:
            with replacing(place) as out:
                np.save(out, index, allow_pickle=False)
            break
        except OSError as error:
            logging.getLogger(__name__).info("no index at %s: %s", place, error)
    return spans


def _scan(read: Callable[[int, int], bytes], size: int) -> Int64[np.ndarray, "n 2"]:
    spans: list[list[int]] = []
    seen: set[str] = set()
    last = None
    for member in members(read, size):
        names = sample_name(member.name)
        if names is None:
            continue
        end = member.offset + member.size
        if names[0] == last:
            spans[-1][1] = end
            continue
        last = names[0]
        if last in seen:
            raise BrokenShard(f"the files of sample {last!r} do not stand together")
        seen.add(last)
        spans.append([member.start, end])
    return np.array(spans, np.int64).reshape(-1, 2)


def _index_paths(path: pathlib.Path) -> list[pathlib.Path]:
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    name = hashlib.blake2b(os.fsencode(path.absolute()), digest_size=16).hexdigest()
    elsewhere = pathlib.Path(caches).expanduser() / "mmjax" / f"{name}.index.npy"
    return [path.with_name(f"{path.name}.index.npy"), elsewhere]


def _load(place: pathlib.Path, size: int, changed: int) -> Int64[np.ndarray, "n 2"] | None:
    """Return the spans of an index; None if it is not there, broken or of another tar."""
    try:
        # A sample has at least a header and an entry of 16 bytes.
        if place.stat().st_size > size // 32 + 4096:
            return None
        index = parse("npy", place.read_bytes())
    except (OSError, ValueError):
        return None
    if index.dtype != np.int64 or index.ndim != 2 or index.shape[1] != 2 or len(index) < 2:
        return None
    (version, count), stamp, spans = index[0], tuple(index[1]), index[2:]
    if version != VERSION or count != len(spans) or stamp != (size, changed):
        return None
    edges = spans.ravel()
    inside = not len(edges) or (edges[0] >= 0 and edges[-1] <= size)
    return spans if inside and (np.diff(edges) >= 0).all() else None
