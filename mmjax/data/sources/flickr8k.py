"""Flickr8k: photos of people and animals, five English captions each.

Source: Hodosh, Young and Hockenmaier 2013, "Framing Image Description as a Ranking Task", JAIR 47.
For non-commercial research; nothing of it comes with this package.
"""

import collections
import csv
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence

from mmjax.data.records import Record
from mmjax.data.sources.per_process import PerProcess
from mmjax.data.sources.tar import Descriptor, members

SPLITS = ("train", "dev")
FOLDER = "flickr8k_128"  # inside the folder that the environment variable MMJAX_DATA names


class TarImages:
    """Reads single images out of an uncompressed tar. Safe to use from many threads.

    Args:
        path: the tar; it is read through once, for its table of contents.
    """

    def __init__(self, path: pathlib.Path):
        file = Descriptor(path)
        found = members(file.read, file.stat().st_size)
        self._path = path
        self._places = {member.name: (member.offset, member.size) for member in found}
        self._files = PerProcess(Descriptor, limit=1)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> bytes:
        offset, size = self._places[name]
        return self._files[self._path].read(offset, size)


class Flickr8k:
    """Photos with their captions as a source; ``id`` is the name of the photo's file.

    Args:
        names: one per photo.
        images: the photos, encoded, by name.
        captions: the captions by name.
    """

    def __init__(
        self, names: Sequence[str], images: TarImages, captions: Mapping[str, tuple[str, ...]]
    ):
        self._names, self._images, self._captions = names, images, captions

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int, /) -> Record:
        name = self._names[index]
        return {"id": name, "image": self._images[name], "text": self._captions[name]}


def load_flickr8k(split: str, *, root: str | os.PathLike[str] | None = None) -> Flickr8k:
    """Open one split.

    The folder holds ``images.tar`` (uncompressed), ``captions.csv`` (``image,caption``, a row for
    each caption) and per split a list of photos, ``train.txt`` and ``dev.txt``.

    Args:
        split: ``train`` or ``dev``.
        root: the folder; by default ``flickr8k_128`` inside the folder that the environment
            variable ``MMJAX_DATA`` names.

    Returns:
        The photos in the order of the list. Captions of photos in no list are left aside.

    Raises:
        ValueError: if there is no such split, or a listed photo has no image or no caption.
        FileNotFoundError: if ``MMJAX_DATA`` is not set or a file is not there.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {list(SPLITS)}, got {split!r}")
    folder = _folder(root)
    names = folder.joinpath(f"{split}.txt").read_text(encoding="utf-8").split()
    images, captions = _images(folder / "images.tar"), _captions(folder / "captions.csv")
    for what, having in (("image", images), ("caption", captions)):
        missing = [name for name in names if name not in having]
        if missing:
            raise ValueError(
                f"{len(missing)} of the {len(names)} photos in {folder / split}.txt have no "
                f"{what}: {missing[:3]}"
            )
    return Flickr8k(names, images, captions)


def _folder(root: str | os.PathLike[str] | None) -> pathlib.Path:
    if root is None:
        data = os.environ.get("MMJAX_DATA")
        if not data:
            raise FileNotFoundError(
                f"set the environment variable MMJAX_DATA to the folder that holds {FOLDER}, "
                "or give root"
            )
        root = pathlib.Path(data) / FOLDER
    folder = pathlib.Path(root)
    needed = ["images.tar", "captions.csv", *(f"{split}.txt" for split in SPLITS)]
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"no Flickr8k at {folder}: {', '.join(missing)} not there")
    return folder.resolve()


@functools.cache
def _images(path: pathlib.Path) -> TarImages:
    return TarImages(path)


def _captions(path: pathlib.Path) -> dict[str, tuple[str, ...]]:
    captions = collections.defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != ["image", "caption"]:
            raise ValueError(
                f"{path} must start with the line image,caption, got {reader.fieldnames}"
            )
        for row in reader:
            captions[row["image"]].append(row["caption"].strip())
    return {name: tuple(texts) for name, texts in captions.items()}
