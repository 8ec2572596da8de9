"""What one example of a data set is, and what a data set has to be able to do."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

Record: TypeAlias = Mapping[str, Any]
"""One example of a data set.

=========  =============================  ==============================================
key        type                           meaning
=========  =============================  ==============================================
``id``     ``str``                        required; unique in its source
``group``  ``str``                        optional; shared by records that are near-duplicates
``label``  ``str``                        optional; the name of the class, for zero-shot tests
``text``   ``tuple[str, ...]``            a modality: every right text of this record
``image``  ``bytes | Path | uint8 array`` a modality: an encoded image, the file that holds
                                          it (read when it is decoded), or pixels [h, w, c]
any other  array of numbers               a modality: features of one fixed shape
=========  =============================  ==============================================

Every key but the first three names a modality; a record may lack any of them.
"""

NAMES = ("id", "group", "label")
"""The keys of a :data:`Record` that name it; every other key is a modality."""


class UnreadableRecord(ValueError):
    """One record of a source cannot be read, and the others can.

    Args:
        identity: the record's id or, where that cannot be read, its file and place there.
        cause: a few words that all records with this trouble share; what is counted.
        reason: what exactly is wrong with this one.

    >>> print(UnreadableRecord("a.tar, sample 3", "record too large", "300 bytes, at most 200"))
    a.tar, sample 3: record too large: 300 bytes, at most 200
    """

    def __init__(self, identity: str, cause: str, reason: str):
        super().__init__(identity, cause, reason)  # all three, so that it can be pickled
        self.identity, self.cause, self.reason = identity, cause, reason

    def __str__(self) -> str:
        return f"{self.identity}: {self.cause}: {self.reason}"


@runtime_checkable
class Source(Protocol):
    """A data set with random access. Must be readable from many threads at once."""

    def __len__(self) -> int:
        """Count the records."""
        ...

    def __getitem__(self, index: int, /) -> Record:
        """Return the record at ``0 <= index < len(self)``.

        Raises:
            UnreadableRecord: if this one cannot be read; who reads many skips and counts it.
        """
        ...


def check_record(record: Record) -> None:
    """Raise unless ``record`` keeps the promises of :data:`Record`.

    Args:
        record: what a source returned. The image is looked at, not decoded.

    Raises:
        ValueError: naming the record, the key, what was expected and what came.

    >>> check_record({"id": "cat-1", "text": "a cat"})
    Traceback (most recent call last):
    ...
    ValueError: record 'cat-1': 'text' must be a tuple of str (every right text), got 'a cat'
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"a record must be a mapping with an 'id', got {type(record).__name__}")
    identity = record.get("id")
    if not isinstance(identity, str):
        raise ValueError(
            f"a record must have an 'id' of type str, got {identity!r} (its keys: {sorted(record)})"
        )
    for key in ("group", "label"):
        if not isinstance(record.get(key, ""), str):
            raise ValueError(f"record {identity!r}: {key!r} must be a str, got {record[key]!r}")
    texts = record.get("text", ())
    if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"record {identity!r}: 'text' must be a tuple of str (every right text), got {texts!r}"
        )
    image = record.get("image", b"")
    if not isinstance(image, (bytes, os.PathLike, np.ndarray)):
        raise ValueError(
            f"record {identity!r}: 'image' must be encoded bytes, a path or a uint8 array "
            f"[h, w, c], got {type(image).__name__}"
        )
    for key in record.keys() - {*NAMES, "text", "image"}:
        value = record[key]
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise ValueError(
                f"record {identity!r}: {key!r} must be an array of numbers, got "
                f"{value.dtype if isinstance(value, np.ndarray) else type(value).__name__}"
            )


def all_texts(source: Source) -> Iterator[str]:
    """Yield every text in order, those of unreadable records apart: to train a tokenizer."""
    for index in range(len(source)):
        try:
            record = source[index]
        except UnreadableRecord:
            continue  # Whoever prepares the record counts it.
        yield from record.get("text", ())
