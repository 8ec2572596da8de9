"""What Parquet files and Hugging Face ``datasets`` folders have in common: Arrow tables."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from mmjax.data.records import Record, UnreadableRecord
from mmjax.data.sources.fields import Fields
from mmjax.data.sources.per_process import PerProcess
from mmjax.data.sources.shards import BrokenShard, Shards, open_shards, short_names

_OPEN_FILES = 64
_KEPT_BYTES = 512 * 2**20  # of the blocks that were used last

# What Arrow raises for files that are not what they should be.
_BROKEN = (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError)


class ArrowFile(Protocol):
    """An open file of blocks: some consecutive rows that are read together."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        ...

    @property
    def counts(self) -> Sequence[int]:
        """Rows of each block."""
        ...

    @property
    def largest(self) -> int:
        """Bytes of memory that reading any one block may take."""
        ...

    def read(self, number: int, columns: Sequence[str]) -> pa.Table:
        """Read some columns of a block; from one thread at a time per block."""
        ...


class _Opened(NamedTuple):
    file: ArrowFile
    fields: Fields
    columns: list[str]


class ArrowFiles:
    """The files of a source and the blocks of them that were used last.

    Args:
        open_file: opens one.
        names: columns by key of the record.
        root: folder that the paths of images are relative to.
        max_block_bytes: largest block.
        max_record_bytes: largest row.
    """

    def __init__(
        self,
        open_file: Callable[[pathlib.Path], ArrowFile],
        *,
        names: Mapping[str, str | Sequence[str]],
        root: pathlib.Path | None,
        max_block_bytes: int,
        max_record_bytes: int,
    ):
        self._open_file, self._names, self._root = open_file, names, root
        self._max_block_bytes, self._max_record_bytes = max_block_bytes, max_record_bytes
        self._files = PerProcess(self._open, limit=_OPEN_FILES)
        self._blocks = PerProcess(self._read, limit=_KEPT_BYTES, size=_bytes)

    def counts(self, path: pathlib.Path) -> Sequence[int]:
        """Return the rows of each block of a file.

        Raises:
            BrokenShard: if the file cannot be read.
            ValueError: if it lacks a column, or a block is too large.
        """
        file = self._files[path].file
        if file.largest > self._max_block_bytes:
            raise ValueError(
                f"a row group of {path} takes {file.largest} bytes, and each record would cost the "
                f"reading of one; at most {self._max_block_bytes} may be (max_row_group_bytes). "
                "Convert the data with python -m experiments.convert, and raise the limit for that"
            )
        return file.counts

    def record(self, path: pathlib.Path, block: int, row: int, identity: str) -> Record:
        """Return the record of a row of a block.

        Raises:
            UnreadableRecord: if it cannot be read.
        """
        place = f"{path}, row {row} of block {block}"
        try:
            values = self._row(path, block, row, place)
        except UnreadableRecord:
            raise
        except (BrokenShard, FileNotFoundError) as error:
            raise UnreadableRecord(place, "missing shard", str(error)) from error
        except _BROKEN as error:
            raise UnreadableRecord(place, "broken rows", str(error)) from error
        return self._files[path].fields.record(values, identity=identity)

    def _row(self, path: pathlib.Path, block: int, row: int, place: str) -> dict[str, Any]:
        line = self._blocks[path, block].slice(row, 1)
        if line.nbytes > self._max_record_bytes:
            raise UnreadableRecord(
                place,
                "record too large",
                f"{line.nbytes} bytes, at most {self._max_record_bytes} (max_record_bytes)",
            )
        (values,) = line.to_pylist()
        return values

    def _open(self, path: pathlib.Path) -> _Opened:
        try:
            file = self._open_file(path)
            names, labels = list(file.schema.names), label_names(file.schema)
        except FileNotFoundError as error:
            raise BrokenShard(f"{path}: no such file") from error
        except _BROKEN as error:
            raise BrokenShard(f"{path}: {error}") from error
        fields = Fields(self._names, self._root, labels)
        fields.check(names, str(path))
        return _Opened(file, fields, [name for name in names if fields.wants(name)])

    def _read(self, key: tuple[pathlib.Path, int]) -> pa.Table:
        path, block = key
        opened = self._files[path]
        table = opened.file.read(block, opened.columns)
        # Arrow trusts the offsets in a table: unchecked, those of a broken file would lead it to
        # memory that is not the table's.
        table.validate(full=True)
        if table.num_rows != opened.file.counts[block]:
            raise ValueError(f"{table.num_rows} rows, expected {opened.file.counts[block]}")
        return table


class ArrowShard:
    """The rows of one file.

    Args:
        path: of the file.
        name: short and distinct; begins the ids of the records.
        files: of the source.
    """

    def __init__(self, path: pathlib.Path, name: str, files: ArrowFiles):
        self.path, self._name, self._files = path, name, files
        self._ends = np.cumsum(np.array([0, *files.counts(path)], np.int64))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, row: int, /) -> Record:
        block = int(np.searchsorted(self._ends, row, side="right")) - 1
        start = int(self._ends[block])
        return self._files.record(self.path, block, row - start, f"{self._name}/{row}")


def open_arrow_shards(
    paths: Sequence[pathlib.Path], files: ArrowFiles, *, max_broken_share: float
) -> Shards[ArrowShard]:
    """Open files as one source, see :func:`mmjax.data.sources.shards.open_shards`."""
    names = short_names(paths)

    def open_shard(path: pathlib.Path) -> ArrowShard:
        return ArrowShard(path, names[path], files)

    return open_shards(paths, open_shard, max_broken_share=max_broken_share)


def label_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of the classes by column, where Hugging Face noted them in a schema."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in noted["info"]["features"].items()
            if feature["_type"] == "ClassLabel"
        }
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return {}  # No such note, as in any other table: its labels are what they are.


def _bytes(table: pa.Table) -> int:
    return max(1, table.nbytes)
