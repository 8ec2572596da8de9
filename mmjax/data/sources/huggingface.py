"""Folders that Hugging Face ``datasets`` wrote with ``save_to_disk``; that package is not needed.

A data set that was saved as Parquet is the source ``parquet``.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from mmjax.data.sources.arrow import ArrowFiles, ArrowShard, open_arrow_shards
from mmjax.data.sources.fields import path_inside
from mmjax.data.sources.shards import ALL, MAX_RECORD_BYTES, Shards


class ArrowStream:
    """A file in Arrow's streaming format, mapped into memory; its blocks are record batches.

    Args:
        path: of the file.

    Raises:
        pa.ArrowException: if it is no such file, cut short or compressed.
    """

    def __init__(self, path: pathlib.Path):
        self._path, self._size = path, path.stat().st_size
        self._batches: list[pa.RecordBatch] = []
        held = 0
        with pa.memory_map(os.fspath(path)) as file, pa.ipc.open_stream(file) as stream:
            self.schema = stream.schema
            for batch in stream:
                self._batches.append(batch)
                held += batch.get_total_buffer_size()
                if held > self._size:  # What is mapped cannot be: it was unpacked into memory.
                    raise pa.ArrowInvalid("it is compressed; save it uncompressed or as Parquet")
        self.counts = [batch.num_rows for batch in self._batches]

    @property
    def largest(self) -> int:
        """Nothing: a batch is mapped, not copied."""
        return 0

    def read(self, number: int, columns: Sequence[str]) -> pa.Table:
        """Return some columns of a batch."""
        if self._path.stat().st_size != self._size:  # A map that is too long ends the process.
            raise ValueError("the file has changed since it was opened")
        return pa.Table.from_batches([self._batches[number].select(list(columns))])


def load_huggingface(
    split: str,
    *,
    root: str | os.PathLike[str],
    fields: Mapping[str, str | Sequence[str]],
    max_broken_share: float = 0.0,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Shards[ArrowShard]:
    """Open one split of a saved data set.

    Args:
        split: one of a ``DatasetDict``; ``all`` for a ``Dataset``, which has no splits.
        root: the folder that ``save_to_disk`` made.
        fields: columns by key of the record, see :class:`mmjax.data.sources.fields.Fields`. An
            image is bytes, an ``Image`` column, or a path inside the folder.
        max_broken_share: largest share of the files that may be left out as missing or broken.
        max_record_bytes: largest row that is read.

    Returns:
        The rows in order; ``ClassLabel`` columns give names. Unless a column is named for it, the
        id is file and number.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it is no saved data set, has no such split or column, or is broken.
    """
    folder = pathlib.Path(root)
    several = folder / "dataset_dict.json"
    if several.is_file():
        splits = _read_json(several, "splits", str)
        if split not in splits:
            raise ValueError(f"split must be one of {sorted(splits)}, got {split!r}")
        folder = folder / path_inside(split)
    elif split != ALL and (folder / "state.json").is_file():
        raise ValueError(f"{folder} is one data set without splits: its split is {ALL!r}")
    names = [str(x.get("filename")) for x in _read_json(folder / "state.json", "_data_files", dict)]
    files = ArrowFiles(
        ArrowStream,
        names=fields,
        root=folder,
        max_block_bytes=0,
        max_record_bytes=max_record_bytes,
    )
    paths = [folder / path_inside(name) for name in names]
    return open_arrow_shards(paths, files, max_broken_share=max_broken_share)


def _read_json(path: pathlib.Path, key: str, kind: type) -> list[Any]:
    """Return the list under one key of an object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))[key]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no data set that Hugging Face saved with save_to_disk at {path.parent}: it has no "
            f"{path.name}"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} has no list {key!r}: {error}") from error
    if not isinstance(values, list) or not values or not all(isinstance(x, kind) for x in values):
        raise ValueError(f"{path}: {key!r} must be a list of {kind.__name__}, got {values!r}")
    return values
