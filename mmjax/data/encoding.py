"""A record as bytes and back: what the shards hold that ``experiments.convert`` writes.

A record is the four bytes ``MMR1`` and a MessagePack map, so that any language can read it:

============================  ==================================================================
key                           value
============================  ==================================================================
``id``, ``group``, ``label``  str
``text``                      array of str
``image``                     bin (an encoded image) or an array of numbers
any other                     an array of numbers: the map ``{"dtype": str, "shape": array of int,
                              "data": bin}``, elements in C order, little-endian
============================  ==================================================================
"""

import math
import os
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from mmjax.data.images import image_file
from mmjax.data.records import NAMES, Record, check_record

MAGIC = b"MMR1"

_KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class NotARecord(ValueError):
    """The bytes are not what :func:`encode_record` writes; the message says why not."""


def encode_record(record: Record) -> bytes:
    """Turn a record into bytes.

    Args:
        record: an image that is a path is read.

    Returns:
        The bytes, equal for equal records whose keys come in the same order.

    Raises:
        ValueError: if the record is malformed.
        UnreadableImage: if the file of an image cannot be read.

    >>> decode_record(encode_record({"id": "cat-1", "text": ("a cat", "one cat")}))
    {'id': 'cat-1', 'text': ('a cat', 'one cat')}
    """
    check_record(record)
    return MAGIC + msgpack.packb({key: _packed(value) for key, value in record.items()})


def decode_record(encoded: bytes) -> Record:
    """Turn the bytes of :func:`encode_record` back into the record.

    Args:
        encoded: may come from anyone: nothing in it is executed, and what it makes takes no more
            memory than a small multiple of it.

    Returns:
        The record; its arrays are read-only views of the bytes.

    Raises:
        NotARecord: for any other bytes.
    """
    if encoded[:4] != MAGIC:
        raise NotARecord(f"a record starts with {MAGIC!r}, these bytes with {encoded[:4]!r}")
    try:
        unpacked = msgpack.unpackb(encoded[4:], strict_map_key=True)
    except Exception as error:  # MessagePack's errors have no base of their own.
        raise NotARecord(f"not MessagePack: {type(error).__name__}: {error}") from error
    if not isinstance(unpacked, dict):
        raise NotARecord(f"a record is a map, got {type(unpacked).__name__}")
    record = {key: _unpacked(key, value) for key, value in unpacked.items()}
    try:
        check_record(record)
    except ValueError as error:
        raise NotARecord(str(error)) from error
    return record


def _packed(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return image_file(value)
    if not isinstance(value, np.ndarray):
        return value
    little = value.astype(value.dtype.newbyteorder("<"), order="C", copy=False)
    kind = little.dtype.str.lstrip("<|")
    if kind not in _KINDS:
        raise ValueError(f"arrays of {value.dtype} have no encoding; convert them to float32")
    return {"dtype": kind, "shape": list(value.shape), "data": little.tobytes()}


def _unpacked(key: str, value: Any) -> Any:
    if key == "text" and isinstance(value, list):
        return tuple(value)
    if key in (*NAMES, "text") or isinstance(value, bytes):
        return value
    if not isinstance(value, Mapping) or set(value) != {"dtype", "shape", "data"}:
        raise NotARecord(f"{key!r} is neither bytes nor an array, but {type(value).__name__}")
    kind, shape, data = value["dtype"], value["shape"], value["data"]
    if kind not in _KINDS or not isinstance(data, bytes) or not isinstance(shape, list):
        raise NotARecord(f"{key!r} is no array of numbers: dtype {kind!r}, shape {shape!r}")
    if len(shape) > 32 or not all(isinstance(n, int) and 0 <= n < 2**40 for n in shape):
        raise NotARecord(f"{key!r} has the shape {shape!r}")
    dtype = np.dtype(f"<{kind}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise NotARecord(f"{key!r} has shape {shape}, dtype {kind} and {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)
