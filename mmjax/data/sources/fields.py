"""Which fields of a data set's own rows make a record."""

import dataclasses
import difflib
import io
import json
import math
import os
import pathlib
import reprlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.records import NAMES, Record, UnreadableRecord


@dataclasses.dataclass(frozen=True)
class Fields:
    """Makes records out of rows.

    A row is a mapping from the data set's own names to values. A name may go on into a value that
    is a mapping itself: ``json.caption`` is ``row["json"]["caption"]``.

    Args:
        names: by key of the record, the field that it comes from, or several: all of them give
            the texts, and anything else comes from the first that a row has.
        root: folder that the paths of images are relative to; None allows no path.
        labels: by field of a label, the names that its numbers stand for.

    >>> fields = Fields({"image": ("jpg", "png"), "text": "json.caption"})
    >>> fields.record({"png": b"...", "json": {"caption": "a cat"}}, identity="7")
    {'id': '7', 'image': b'...', 'text': ('a cat',)}
    """

    names: Mapping[str, str | Sequence[str]]
    root: pathlib.Path | None = None
    labels: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def wants(self, field: str) -> bool:
        """Whether a record needs this field of a row."""
        return any(_leads_into(path, field) for key in self.names for path in self._paths(key))

    def check(self, present: Collection[str], where: str) -> None:
        """Raise unless every key of the record has at least one field.

        Args:
            present: the fields that there are.
            where: what has them, for the message.

        Raises:
            ValueError: naming the key, its field and the fields that there are.
        """
        for key in self.names:
            paths = self._paths(key)
            if not any(_leads_into(path, field) for path in paths for field in present):
                near = difflib.get_close_matches(paths[0], list(present), n=1)
                meant = f": meant {near[0]!r}?" if near else ""
                raise ValueError(
                    f"{where} has no field {' or '.join(map(repr, paths))} for {key!r} (see the "
                    f"option fields); it has {', '.join(sorted(present))}{meant}"
                )

    def record(self, row: Mapping[str, Any], *, identity: str) -> Record:
        """Make the record of a row; what the row lacks the record lacks.

        Args:
            row: values by field.
            identity: the id, unless a field is named for it; a name for messages.

        Raises:
            UnreadableRecord: if a value cannot be what its key stands for.
        """
        record: dict[str, Any] = {"id": identity}
        for key in self.names:
            # A Hugging Face table has a column that is null where another row has a value.
            found = [(p, x) for p in self._paths(key) if (x := _look_up(row, p)) is not None]
            try:
                if key == "text":
                    record[key] = tuple(text for _, value in found for text in _texts(value))
                elif found:
                    record[key] = self._value(key, *found[0])
            except (TypeError, ValueError) as error:
                raise UnreadableRecord(identity, f"wrong {key}", str(error)) from error
        return record

    def _paths(self, key: str) -> Sequence[str]:
        paths = self.names[key]
        return (paths,) if isinstance(paths, str) else tuple(paths)

    def _value(self, key: str, path: str, value: Any) -> Any:
        if key == "image":
            return self._image(value)
        if key not in NAMES:
            return _numbers(value)
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            names, number = self.labels.get(path, ()) if key == "label" else (), int(value)
            return names[number] if 0 <= number < len(names) else str(number)
        return _string(value)

    def _image(self, value: Any) -> bytes | pathlib.Path | np.ndarray:
        if isinstance(value, Mapping):  # as Hugging Face stores it
            inside = value.get("bytes")
            value = value.get("path") if inside is None else inside
        if isinstance(value, bytes | np.ndarray):
            return value
        if isinstance(value, str) and self.root is not None:
            return self.root / path_inside(value)
        raise TypeError(f"expected encoded bytes or pixels, got {_shown(value)}")


def path_inside(path: str) -> str:
    """Normalise a relative path, which may not leave its folder.

    Raises:
        ValueError: if it is empty, absolute or leads outside. Symbolic links are the folder
            owner's own and followed.

    >>> path_inside("a/../b.png")
    'b.png'
    """
    normal = os.path.normpath(path)
    if not path or "\0" in path or os.path.isabs(normal) or normal.split(os.sep)[0] in ("..", "."):
        raise ValueError(f"a path must lead to a file inside the folder, got {path!r}")
    return normal


def parse(extension: str, content: bytes) -> Any:
    """Turn a file into the value of a field.

    Args:
        extension: its name from the first dot on, without that dot. ``json`` is parsed, ``npy``
            becomes an array, and everything else stays bytes.
        content: the file.

    Raises:
        ValueError: if the content is not of that kind.
    """
    kind = extension.rpartition(".")[2].lower()
    if kind == "json":
        try:
            return json.loads(content)
        except RecursionError as error:
            raise ValueError("JSON is nested too deeply") from error
    if kind == "npy":
        file = io.BytesIO(content)
        try:
            # Not numpy.load, which asks for memory before it knows that the data is there.
            first = np.lib.format.read_magic(file) == (1, 0)
            headers = np.lib.format
            read = headers.read_array_header_1_0 if first else headers.read_array_header_2_0
            shape, fortran, dtype = read(file)
            array = np.frombuffer(content, dtype, math.prod(shape), file.tell())
            return array.reshape(shape, order="F" if fortran else "C")
        except Exception as error:  # The header is Python text: its parser raises what it likes.
            raise ValueError(f"not an .npy file: {type(error).__name__}: {error}") from error
    return content


def _leads_into(path: str, field: str) -> bool:
    return path == field or path.startswith(f"{field}.")


def _look_up(row: Any, path: str) -> Any:
    if not isinstance(row, Mapping):
        return None
    if path in row:
        return row[path]
    head, _, rest = path.partition(".")
    return _look_up(row.get(head), rest) if rest else None


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, list | tuple | np.ndarray):
        return [_string(text).strip() for text in value]
    return [_string(value).strip()]


def _string(value: Any) -> str:
    """Return text that can be written down again: tokenizers refuse lone surrogates."""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {_shown(value)}")
    value.encode()
    return str(value)


def _numbers(value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"expected numbers of one shape, got {_shown(value)}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"expected numbers, got {_shown(value)}")
    return array


def _shown(value: Any) -> str:
    shown = f"of {len(value)} bytes" if isinstance(value, bytes) else reprlib.repr(value)
    return f"{type(value).__name__} {shown}"
