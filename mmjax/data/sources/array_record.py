"""ArrayRecord shards of records, as ``python -m experiments.convert`` writes them."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from mmjax.data.encoding import NotARecord, decode_record
from mmjax.data.records import Record, UnreadableRecord
from mmjax.data.sources.per_process import PerProcess
from mmjax.data.sources.shards import (
    MAX_RECORD_BYTES,
    BrokenShard,
    Patterns,
    Shards,
    open_shards,
    shard_paths,
)

# Each record is a group of its own, so that one is read without its neighbours; what is large in
# them, encoded images, would not become smaller.
_WRITER_OPTIONS = "group_size:1,uncompressed"
_READER_OPTIONS = "readahead_buffer_size:0"  # Reading ahead is for those who read in order.
_OPEN_FILES = 256


@contextlib.contextmanager
def array_record_writer(path: pathlib.Path) -> Iterator[ArrayRecordWriter]:
    """Open a shard to ``write`` bytes to; it is complete, and on disk, once the body is left.

    Raises:
        OSError: if it cannot be written, as when the disk is full.
    """
    writer = ArrayRecordWriter(os.fspath(path), _WRITER_OPTIONS)
    try:
        yield writer
    finally:
        try:
            writer.close()
        except RuntimeError as error:
            raise OSError(f"could not write {path}: {error}") from error
    with path.open("rb") as file:
        os.fsync(file.fileno())


class ArrayRecordShard:
    """The records of one file.

    Args:
        path: of the file.
        count: number of records.
        files: readers by path.
        max_record_bytes: largest record that is decoded.
    """

    def __init__(
        self,
        path: pathlib.Path,
        count: int,
        files: PerProcess[pathlib.Path, ArrayRecordReader],
        max_record_bytes: int,
    ):
        self.path, self._count, self._files = path, count, files
        self._max_record_bytes = max_record_bytes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int, /) -> Record:
        place = f"{self.path}, record {row}"
        try:
            (encoded,) = self._files[self.path].read([row])
        except BrokenShard as error:
            raise UnreadableRecord(place, "missing shard", str(error)) from error
        except RuntimeError as error:  # ArrayRecord keeps a checksum of each record.
            raise UnreadableRecord(place, "broken ArrayRecord", str(error)) from error
        if len(encoded) > self._max_record_bytes:
            raise UnreadableRecord(
                place,
                "record too large",
                f"{len(encoded)} bytes, at most {self._max_record_bytes} (max_record_bytes)",
            )
        try:
            return decode_record(encoded)
        except NotARecord as error:
            raise UnreadableRecord(place, "not a record", str(error)) from error


def load_array_record(
    split: str,
    *,
    shards: Patterns | Mapping[str, Patterns],
    max_broken_share: float = 0.0,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Shards[ArrayRecordShard]:
    """Open the ArrayRecord shards of one split.

    Args:
        split: name of the split.
        shards: the files, see :func:`mmjax.data.sources.shards.shard_paths`; for a conversion
            ``/its/folder/{split}-*.array_record``.
        max_broken_share: largest share of the shards that may be left out as missing or broken.
        max_record_bytes: largest record that is decoded.

    Returns:
        The records as they were written, see :mod:`mmjax.data.encoding`.

    Raises:
        FileNotFoundError: if a pattern finds no file.
        ValueError: if shards are broken, or hold something else than such records.
    """
    files: PerProcess[pathlib.Path, ArrayRecordReader] = PerProcess(_open, limit=_OPEN_FILES)
    open_shard = functools.partial(_open_shard, files=files, max_record_bytes=max_record_bytes)
    return open_shards(shard_paths(shards, split), open_shard, max_broken_share=max_broken_share)


def _open(path: pathlib.Path) -> ArrayRecordReader:
    if not path.is_file():  # The reader would take it for an empty one.
        raise BrokenShard(f"{path}: no such file")
    try:
        reader = ArrayRecordReader(os.fspath(path), _READER_OPTIONS)
    except RuntimeError as error:
        raise BrokenShard(f"{path}: {error}") from error
    if not reader.ok():
        raise BrokenShard(f"{path}: no ArrayRecord file, or cut short: it has no valid footer")
    return reader


def _open_shard(
    path: pathlib.Path,
    *,
    files: PerProcess[pathlib.Path, ArrayRecordReader],
    max_record_bytes: int,
) -> ArrayRecordShard:
    shard = ArrayRecordShard(path, files[path].num_records(), files, max_record_bytes)
    if len(shard):
        try:
            shard[0]
        except UnreadableRecord as error:
            if error.cause == "not a record":
                raise BrokenShard(
                    f"{path}: its first record was not written by experiments.convert "
                    f"({error.reason}); a data set of TensorFlow Datasets is the source tfds"
                ) from error
    return shard
