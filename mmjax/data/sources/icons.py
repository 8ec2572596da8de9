"""Real image-text pairs that come with pip: icons and the names their designers gave them.

The wheel ``qtawesome`` 1.4 carries the 7,367 Material Design icons as a font and a table of names.
They are drawn here with Pillow; the package is only looked for, never imported, since importing it
may need Qt.

Many icons are variants of one drawing ("bell", "bell-outline"), and a variant in the training set
makes its sibling in a test set easy. Icons therefore belong to families, and there are two test
sets: ``family`` has no sibling in the training set, ``random`` is a plain random draw.
"""

import collections
import dataclasses
import functools
import importlib.util
import json
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from mmjax.data.records import Record

HELD_OUT = 1000  # icons in each of the two test sets

STYLE_WORDS = frozenset(
    ["outline", "variant", "off", "box", "circle", "thick", "thin", "bold", "light", "multiple"]
)
"""Words of a name that say how the icon is drawn rather than what it shows."""

SAME_DRAWING = 0.98  # correlation of 16 x 16 block means above which two drawings are siblings

_SUPERSAMPLING = 4
_FAMILY_SIZE, _BLOCKS = 64, 16


class Icons:
    """Some icons as a source: ``image`` is white on black, uint8 [s, s, 1].

    A record's ``id`` is the designers' name ("alarm-bell-outline"), its only text the same in words
    ("alarm bell outline"), its ``label`` the first word and its ``group`` the family.

    Args:
        names: one per icon.
        images: the drawings.
        families: one number per icon.
    """

    def __init__(
        self,
        names: Sequence[str],
        images: UInt8[np.ndarray, "n s s 1"],
        families: Int[np.ndarray, "n"],
    ):
        self._names, self._images, self._families = names, images, families

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int, /) -> Record:
        name = self._names[index]
        return {
            "id": name,
            "label": name.split("-")[0],
            "group": f"family {self._families[index]}",
            "image": self._images[index],
            "text": (name.replace("-", " "),),
        }


def load_icons(split: str, *, size: int = 64, seed: int = 0) -> Icons:
    """Draw the icons of one split. The first call in a process takes some seconds.

    Args:
        split: ``family``: 1,000 icons that make up whole families; ``random``: 1,000 of the
            others, drawn uniformly; ``train``: the rest.
        size: side of the drawings, in pixels.
        seed: at least 0; decides which icons are held out.

    Returns:
        The icons in the order of the table of names.

    Raises:
        ImportError: if ``qtawesome`` is not there, naming the command that installs it.
        ValueError: if there is no such split, or ``size`` or ``seed`` is out of range.
    """
    if size < 1 or seed < 0:
        raise ValueError(f"size must be at least 1 and seed at least 0, got {size}, {seed}")
    names, families = _table().names, icon_families()
    splits = split_by_family(families, HELD_OUT, seed=seed)
    if split not in splits:
        raise ValueError(f"split must be one of {sorted(splits)}, got {split!r}")
    rows = splits[split]
    return Icons([names[row] for row in rows], _drawings(size)[rows], families[rows])


@functools.cache
def icon_families() -> Int[np.ndarray, "n"]:
    """Number the families of near-duplicates: one number per icon, in the order of the table.

    Two icons are siblings if their names are equal but for :data:`STYLE_WORDS`, or if their
    drawings correlate above :data:`SAME_DRAWING`; siblings of siblings are one family.

    Raises:
        ImportError: if ``qtawesome`` is not there.
    """
    names, blocks = _table().names, _FAMILY_SIZE // _BLOCKS
    drawings = _drawings(_FAMILY_SIZE).astype(np.float32)
    coarse = drawings.reshape(-1, _BLOCKS, blocks, _BLOCKS, blocks).mean((2, 4))
    by_stem = collections.defaultdict(list)
    for row, name in enumerate(names):
        by_stem[stem(name)].append(row)
    pairs = [(rows[0], row) for rows in by_stem.values() for row in rows[1:]]
    return components(len(names), [*pairs, *correlated_pairs(coarse, SAME_DRAWING)])


def stem(name: str) -> str:
    """Return a name without its style words; its first word always stays.

    >>> stem("alarm-bell-outline"), stem("circle-off-outline")
    ('alarm-bell', 'circle')
    """
    first, *others = name.split("-")
    return "-".join([first, *(word for word in others if word not in STYLE_WORDS)])


def correlated_pairs(
    images: np.ndarray, threshold: float, *, chunk_size: int = 1024
) -> list[tuple[int, int]]:
    """Return the pairs of images whose pixels correlate above a threshold.

    Args:
        images: numbers [n, ...]; an image of one constant value correlates with none.
        threshold: of Pearson's correlation, in (0, 1).
        chunk_size: images that are compared with all others at a time; bounds the memory.

    Returns:
        Pairs ``(i, j)`` with ``i < j``.
    """
    pixels = np.reshape(images, (len(images), -1)).astype(np.float32)
    varied = pixels.max(1) > pixels.min(1)  # A constant's norm may be rounding, not exactly 0.
    pixels -= pixels.mean(1, keepdims=True)
    norm = np.linalg.norm(pixels, axis=1)
    pixels = np.where(varied, 1 / np.where(varied, norm, 1), 0)[:, None] * pixels
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(pixels), chunk_size):
        correlation = pixels[start : start + chunk_size] @ pixels[start:].T
        found = np.argwhere(correlation > threshold) + start
        pairs.extend((int(i), int(j)) for i, j in found if i < j)
    return pairs


def components(count: int, pairs: Iterable[tuple[int, int]]) -> Int[np.ndarray, "n"]:
    """Number the connected components of a graph, by union-find.

    Args:
        count: number of nodes.
        pairs: edges.

    Returns:
        One number per node; components are numbered by their first node, from 0.

    >>> components(5, [(0, 3), (3, 4)])
    array([0, 1, 2, 0, 0])
    """
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for a, b in pairs:
        parent[root(a)] = root(b)
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(root(node), len(numbers)) for node in range(count)])


def split_by_family(
    families: Int[np.ndarray, "n"], held_out: int, *, seed: int
) -> dict[str, Int[np.ndarray, "_"]]:
    """Hold out whole families, then single rows of what is left.

    Args:
        families: one number per row.
        held_out: rows of each of the two test sets.
        seed: at least 0.

    Returns:
        Sorted rows of ``family`` (whole families, in random order as long as they fit), ``random``
        (uniform among the others) and ``train`` (the rest).

    Raises:
        ValueError: if the families do not add up to ``held_out``, or nothing would be left.
    """
    rng = np.random.default_rng(seed)
    whole = np.zeros(len(families), bool)
    for family in rng.permutation(np.unique(families)):
        members = families == family
        if whole.sum() + members.sum() <= held_out:
            whole |= members
    others = rng.permutation(np.flatnonzero(~whole))
    if whole.sum() != held_out or len(others) <= held_out:
        raise ValueError(
            f"{len(families)} rows in families do not split into twice {held_out} and a rest: "
            f"whole families came to {whole.sum()}"
        )
    return {
        "family": np.flatnonzero(whole),
        "random": np.sort(others[:held_out]),
        "train": np.sort(others[held_out:]),
    }


@dataclasses.dataclass(frozen=True)
class _Table:
    font: pathlib.Path
    names: list[str]
    characters: list[str]


def _table() -> _Table:
    """Find the font and its names in the installed wheel."""
    found = importlib.util.find_spec("qtawesome")
    if found is None or found.origin is None:
        raise ImportError(
            "the icons come with the package 'qtawesome': pip install 'mmjax[quickstart]', "
            "or from a checkout: pip install -e '.[quickstart]'"
        )
    fonts = pathlib.Path(found.origin).parent / "fonts"
    font = sorted(fonts.glob("materialdesignicons6-webfont-*.ttf"))
    charmap = sorted(fonts.glob("materialdesignicons6-webfont-charmap-*.json"))
    if not font or not charmap:
        raise ImportError(
            f"{fonts} holds no materialdesignicons6 font with its charmap: this version of "
            "qtawesome is not supported. pip install 'qtawesome>=1.4,<1.5'"
        )
    characters = json.loads(charmap[0].read_text(encoding="utf-8"))
    names = sorted(characters)  # The splits must not depend on the order of a file.
    return _Table(font[0], names, [chr(int(characters[name], 16)) for name in names])


@functools.cache
def _drawings(size: int) -> UInt8[np.ndarray, "n s s 1"]:
    """Draw every icon. The font's box, not each icon's own, is centred: sizes stay comparable."""
    table, large = _table(), size * _SUPERSAMPLING
    font = ImageFont.truetype(str(table.font), large)
    ascent, _ = font.getmetrics()  # With the descent it adds up to the box, which is square.
    images = np.empty((len(table.names), size, size, 1), np.uint8)
    for image, character in zip(images, table.characters, strict=True):
        canvas = Image.new("L", (large, large))
        ImageDraw.Draw(canvas).text((0, ascent), character, fill=255, font=font, anchor="ls")
        image[..., 0] = np.asarray(canvas.reduce(_SUPERSAMPLING))
    images.setflags(write=False)  # Shared by every caller in this process.
    return images
