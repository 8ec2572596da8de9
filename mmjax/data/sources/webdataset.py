"""Tar shards as WebDataset writes them, read in any order.

The files ``0007.jpg``, ``0007.txt`` and ``0007.json`` that stand together in a tar are one sample;
the extensions are the fields of its row.
"""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from mmjax.data.records import Record, UnreadableRecord
from mmjax.data.sources.fields import Fields, parse
from mmjax.data.sources.per_process import PerProcess
from mmjax.data.sources.shards import (
    MAX_RECORD_BYTES,
    BrokenShard,
    Patterns,
    Shards,
    open_shards,
    shard_paths,
    short_names,
)
from mmjax.data.sources.tar import Descriptor, members, sample_name, sample_spans

KEY = "__key__"  # the field that holds the name that the files of a sample share

FIELDS = {"image": ("jpg", "jpeg", "png", "webp"), "text": "txt"}

_OPEN_FILES = 256
_LOOKED_AT = 16  # samples in which every field has to be found at least once


class TarShard:
    """The samples of one tar.

    Args:
        path: of the tar.
        name: short and distinct; begins the ids of the records.
        spans: first byte and byte after the last, per sample.
        fields: which extensions make the record.
        files: the open tars by path.
        max_record_bytes: largest sample that is read.
    """

    def __init__(
        self,
        path: pathlib.Path,
        name: str,
        spans: Int64[np.ndarray, "n 2"],
        fields: Fields,
        files: PerProcess[pathlib.Path, Descriptor],
        max_record_bytes: int,
    ):
        self.path, self._name, self._spans, self._fields = path, name, spans, fields
        self._files, self._max_record_bytes = files, max_record_bytes

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, row: int, /) -> Record:
        sample = self.sample(row)
        return self._fields.record(sample, identity=f"{self._name}/{sample[KEY]}")

    def sample(self, row: int) -> dict[str, Any]:
        """Return the files of a sample by extension, None for those not wanted, and its key.

        Raises:
            UnreadableRecord: if it is too large or broken, or the tar has gone.
        """
        place = f"{self.path}, sample {row}"
        start, end = map(int, self._spans[row])
        if end - start > self._max_record_bytes:
            raise UnreadableRecord(
                place,
                "record too large",
                f"{end - start} bytes, at most {self._max_record_bytes} (max_record_bytes)",
            )
        try:
            span = self._files[self.path].read(start, end - start)
        except OSError as error:
            raise UnreadableRecord(place, "missing shard", str(error)) from error
        sample: dict[str, Any] = {}
        try:
            for member in members(lambda at, count: span[at : at + count], end - start):
                key, extension = sample_name(member.name) or (None, "")
                if key is None or sample.setdefault(KEY, key) != key:
                    continue
                content = span[member.offset : member.offset + member.size]
                wanted = self._fields.wants(extension)
                sample[extension] = parse(extension, content) if wanted else None
        except BrokenShard as error:
            raise UnreadableRecord(place, "broken tar", str(error)) from error
        except ValueError as error:
            raise UnreadableRecord(place, "broken field", f"{extension}: {error}") from error
        if KEY not in sample or len(span) < end - start:
            raise UnreadableRecord(place, "broken tar", "its index does not fit it any more")
        return sample


def load_webdataset(
    split: str,
    *,
    shards: Patterns | Mapping[str, Patterns],
    fields: Mapping[str, str | Sequence[str]] = FIELDS,
    max_broken_share: float = 0.0,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Shards[TarShard]:
    """Open the tar shards of one split.

    The first time, the headers of each shard are read through for its index (see
    :func:`mmjax.data.sources.tar.sample_spans`); it takes 16 bytes of memory a sample.

    Args:
        split: name of the split.
        shards: the tars, see :func:`mmjax.data.sources.shards.shard_paths`.
        fields: extensions by key of the record, see :class:`mmjax.data.sources.fields.Fields`;
            ``json.caption`` goes into a JSON file, and ``__key__`` is the sample's name.
        max_broken_share: largest share of the shards that may be left out as missing or broken.
        max_record_bytes: largest sample that is read.

    Returns:
        The samples, in the order of the shards and of their places there. Unless a field is named
        for it, the id is shard and name: ``00000.tar/0007``.

    Raises:
        FileNotFoundError: if a pattern finds no file.
        ValueError: if shards are broken, or a field is in none of the first samples.
    """
    paths = shard_paths(shards, split)
    names, chosen = short_names(paths), Fields(fields)
    files: PerProcess[pathlib.Path, Descriptor] = PerProcess(Descriptor, limit=_OPEN_FILES)

    def open_tar(path: pathlib.Path) -> TarShard:
        spans = sample_spans(path)
        return TarShard(path, names[path], spans, chosen, files, max_record_bytes)

    source = open_shards(paths, open_tar, max_broken_share=max_broken_share)
    first = next(shard for shard in source.shards if len(shard))
    found: set[str] = set()
    for row in range(min(len(first), _LOOKED_AT)):
        with contextlib.suppress(UnreadableRecord):
            found.update(first.sample(row))
    if found:
        chosen.check(found, f"{first.path}, in its first {_LOOKED_AT} samples,")
    return source
