"""A folder of images with a table of their texts, as CSV or as JSON lines."""

import csv
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mmjax.data.records import Record, UnreadableRecord
from mmjax.data.sources.fields import path_inside
from mmjax.data.sources.shards import ALL

_COLUMNS = ("image", "text", "id", "label", "group", "split")


class Folder:
    """Images in a folder as a source; ``image`` is a path, read when it is decoded.

    Args:
        root: folder that the paths of the images are relative to.
        images: one per record, in order.
    """

    def __init__(self, root: pathlib.Path, images: "list[_Image]"):
        self._root, self._images = root, images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int, /) -> Record:
        image = self._images[index]
        try:
            path = self._root / path_inside(image.path)
        except ValueError as error:
            identity = f"image {image.path!r} of the table in {self._root}"
            raise UnreadableRecord(identity, "path outside the folder", str(error)) from error
        given: dict[str, Any] = {
            key: image.fields[key] for key in ("label", "group") if key in image.fields
        }
        return {
            "id": image.fields.get("id", image.path),
            "image": path,
            "text": tuple(image.texts),
            **given,
        }


def load_folder(split: str, *, root: str | os.PathLike[str], texts: str = "texts.csv") -> Folder:
    """Read the table of texts of one split; the images are read when they are needed.

    The table has one row (CSV with a header) or one object a line (JSON lines) per text:

    =========  ========  ======================================================================
    column     needed    meaning
    =========  ========  ======================================================================
    ``image``  yes       path of the image, relative to ``root`` and inside it
    ``text``   yes       one right text; further rows of the same image add further texts. In
                         JSON lines also a list of texts. One that is blank is skipped and counted
    ``id``     no        unique name of the record; by default the path
    ``label``  no        name of its class
    ``group``  no        shared by near-duplicates
    ``split``  no        part of the data that the image belongs to
    =========  ========  ======================================================================

    Args:
        split: a value of the column ``split``; ``all`` takes every row. With one table a split,
            the name of the table.
        root: the folder.
        texts: path of the table relative to ``root``, ending in ``.csv`` or ``.jsonl``; with one
            table a split ``{split}`` stands for its name, as in ``{split}.csv``.

    Returns:
        One record per image, in the order in which the table first names them. One whose path
        leaves the folder cannot be read.

    Raises:
        FileNotFoundError: if the folder or the table is not there, saying what is.
        ValueError: if the table is malformed (with the line), the split is not in it, an image
            lies in two splits, or two images have one id.
    """
    folder = pathlib.Path(root)
    table = folder / texts.replace("{split}", split)
    if not table.is_file():
        there = sorted(p.name for p in folder.glob("*") if p.suffix in (".csv", ".jsonl"))
        raise FileNotFoundError(
            f"no table of texts at {table}; "
            + (f"the folder holds {there or 'no .csv or .jsonl'}" if folder.is_dir() else
               f"there is no folder {folder}")
        )  # fmt: skip
    images: dict[str, _Image] = {}
    for line, row in _rows(table):
        try:
            path, row_texts, fields = _read_row(row)
            images.setdefault(path, _Image(path)).add(row_texts, fields)
        except ValueError as error:
            raise ValueError(f"{table}, line {line}: {error}") from error
    chosen = list(images.values())
    if "{split}" not in texts and split != ALL:
        chosen = [image for image in chosen if image.fields.get("split") == split]
    if not chosen:
        splits = sorted({i.fields["split"] for i in images.values() if "split" in i.fields})
        raise ValueError(f"{table} has no image in split {split!r}; it has {[*splits, ALL]}")
    _check_ids(table, chosen)
    return Folder(folder, chosen)


@dataclasses.dataclass
class _Image:
    path: str
    texts: list[str] = dataclasses.field(default_factory=list)
    fields: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, texts: list[str], fields: Mapping[str, str]) -> None:
        for key, value in fields.items():
            if self.fields.setdefault(key, value) != value:
                raise ValueError(
                    f"image {self.path!r} has {key} {value!r} here and {self.fields[key]!r} before"
                )
        self.texts.extend(texts)


def _rows(table: pathlib.Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the rows of a table with their line numbers."""
    if table.suffix not in (".csv", ".jsonl"):
        raise ValueError(f"a table of texts must end in .csv or .jsonl, got {table}")
    try:
        # Editors of spreadsheets put a byte-order mark in front, which would join the first column.
        with table.open(encoding="utf-8-sig", newline="") as file:
            yield from _csv_rows(table, file) if table.suffix == ".csv" else _json_rows(table, file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not UTF-8: {error}") from error


def _csv_rows(table: pathlib.Path, file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(file, strict=True)
    columns = reader.fieldnames or []
    if not {"image", "text"} <= set(columns):
        raise ValueError(
            f"{table} must have the columns 'image' and 'text' (and may have "
            f"{list(_COLUMNS[2:])}); its first line has {columns}"
        )
    try:
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(
                    f"{table}, line {reader.line_num}: expected {len(columns)} fields: "
                    "quote a text that holds a comma"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{table}, line {reader.line_num}: {error}") from error


def _json_rows(table: pathlib.Path, file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{table}, line {line}: not JSON: {error}") from error
        if not isinstance(row, dict) or not {"image", "text"} <= set(row):
            what = f"the keys {list(row)}" if isinstance(row, dict) else type(row).__name__
            raise ValueError(
                f"{table}, line {line}: expected an object with the keys 'image' and 'text', "
                f"got {what}"
            )
        yield line, row


def _read_row(row: Mapping[str, Any]) -> tuple[str, list[str], dict[str, str]]:
    """Return path, texts and the other fields that are given and not empty."""
    texts = row["text"] if isinstance(row["text"], list) else [row["text"]]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"the text of {row['image']!r} must be a string, got {text!r}")
        text.encode()  # Tokenizers refuse lone surrogates, which JSON can spell.
    if not texts:
        raise ValueError(f"{row['image']!r} has an empty list of texts")
    fields = {key: row[key] for key in _COLUMNS[2:] if row.get(key) not in (None, "")}
    for key, value in {"image": row["image"], **fields}.items():
        if not isinstance(value, str):
            raise ValueError(f"{key!r} must be a string, got {value!r}")
        value.encode()
    try:
        return path_inside(row["image"]), texts, fields
    except ValueError:
        return row["image"], texts, fields  # One such row is refused when it is read.


def _check_ids(table: pathlib.Path, images: list[_Image]) -> None:
    paths: dict[str, str] = {}
    for image in images:
        identity = image.fields.get("id", image.path)
        if paths.setdefault(identity, image.path) != image.path:
            raise ValueError(
                f"{table}: the images {paths[identity]!r} and {image.path!r} have one id, "
                f"{identity!r}"
            )
