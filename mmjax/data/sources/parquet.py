"""Parquet files: a row group is read when one of its rows is."""

import os
import pathlib
import threading
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from mmjax.data.sources.arrow import ArrowFiles, ArrowShard, open_arrow_shards
from mmjax.data.sources.shards import MAX_RECORD_BYTES, Patterns, Shards, shard_paths

MAX_ROW_GROUP_BYTES = 256 * 2**20


class ParquetFile:
    """A file whose blocks are row groups.

    Args:
        path: of the file.

    Raises:
        pa.ArrowException: if it is no Parquet file, or its footer is broken.
    """

    def __init__(self, path: pathlib.Path):
        self._file, self._lock = pq.ParquetFile(path), threading.Lock()
        self._metadata = self._file.metadata
        groups = range(self._metadata.num_row_groups)
        self.counts = [self._metadata.row_group(group).num_rows for group in groups]
        if min(self.counts, default=0) < 0 or sum(self.counts) != self._metadata.num_rows:
            raise pa.ArrowInvalid(
                f"its row groups say {self.counts[:5]}... rows, {self._metadata.num_rows} in all"
            )

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._file.schema_arrow

    @property
    def largest(self) -> int:
        """Uncompressed bytes of the largest row group, all columns.

        Those of single columns are behind a call that ends the process where a footer is broken.
        """
        groups = range(len(self.counts))
        return max((self._metadata.row_group(n).total_byte_size for n in groups), default=0)

    def read(self, number: int, columns: Sequence[str]) -> pa.Table:
        """Read some columns of a row group."""
        with self._lock:  # Arrow's reader is for one thread.
            return self._file.read_row_group(number, columns=list(columns), use_threads=False)


def load_parquet(
    split: str,
    *,
    shards: Patterns | Mapping[str, Patterns],
    fields: Mapping[str, str | Sequence[str]],
    root: str | os.PathLike[str] | None = None,
    max_broken_share: float = 0.0,
    max_record_bytes: int = MAX_RECORD_BYTES,
    max_row_group_bytes: int = MAX_ROW_GROUP_BYTES,
) -> Shards[ArrowShard]:
    """Open the Parquet files of one split.

    A record costs the reading of its row group, unless that was used just before: files with
    groups of about a hundred images, as Hugging Face writes them, can be trained from in random
    order, and others are better converted (``python -m experiments.convert``).

    Args:
        split: name of the split.
        shards: the files, see :func:`mmjax.data.sources.shards.shard_paths`.
        fields: columns by key of the record, see :class:`mmjax.data.sources.fields.Fields`. An
            image is bytes, Hugging Face's struct of them, or a path; a text a string or a list.
        root: folder that the paths of images are relative to.
        max_broken_share: largest share of the shards that may be left out as missing or broken.
        max_record_bytes: largest row that is read.
        max_row_group_bytes: largest row group, all columns, uncompressed.

    Returns:
        The rows in order. Unless a column is named for it, the id is file and number.

    Raises:
        FileNotFoundError: if a pattern finds no file.
        ValueError: if shards are broken, their row groups too large, or a column is not there.
    """
    files = ArrowFiles(
        ParquetFile,
        names=fields,
        root=None if root is None else pathlib.Path(root),
        max_block_bytes=max_row_group_bytes,
        max_record_bytes=max_record_bytes,
    )
    return open_arrow_shards(shard_paths(shards, split), files, max_broken_share=max_broken_share)
