"""Images of a shape with a texture and a colour, and pairs of such images with known truth."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int, UInt8

from mmjax.data.synthetic.sample import PartialInformation, Synthetic, at_least

Mask = np.ndarray
Plane = np.ndarray

BACKGROUND = (128, 128, 128)
SHADE = 0.35  # brightness of a shape where its texture is dark
TILT = 15.0  # degrees, the largest turn either way: further on, a square would become a diamond


def _polygon(x: Plane, y: Plane, sides: int, inner: float, outer: float) -> Mask:
    """Tell what lies in a star whose edge runs between two radii; a polygon if they agree."""
    angle = (np.arctan2(x, y) * sides / (2 * np.pi)) % 1
    share = 2 * np.abs(angle - 0.5)  # 1 at a tip, 0 between two
    return np.hypot(x, y) < inner + (outer - inner) * share


SHAPES: Mapping[str, Callable[[Plane, Plane], Mask]] = {
    "disc": lambda x, y: np.hypot(x, y) < 0.8,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.68) < 0.22,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.7,
    "diamond": lambda x, y: np.abs(x) + np.abs(y) < 0.95,
    "triangle": lambda x, y: (y < 0.65) & (y > 1.8 * np.abs(x) - 0.95),
    "star": lambda x, y: _polygon(x, y, 5, 0.35, 1.0),
    "plus": lambda x, y: (
        (np.minimum(np.abs(x), np.abs(y)) < 0.25) & (np.maximum(np.abs(x), np.abs(y)) < 0.9)
    ),
    "bar": lambda x, y: (np.abs(x) < 0.95) & (np.abs(y) < 0.35),
    "crescent": lambda x, y: (np.hypot(x, y) < 0.9) & (np.hypot(x - 0.5, y) > 0.75),
    "half_disc": lambda x, y: (np.hypot(x, y + 0.3) < 0.9) & (y > -0.3),
}
TEXTURES: Mapping[str, Callable[[Plane, Plane, np.random.Generator], Mask]] = {
    "solid": lambda x, y, rng: np.ones_like(x, bool),
    "stripes": lambda x, y, rng: y % 1 < 0.5,
    "columns": lambda x, y, rng: x % 1 < 0.5,
    "diagonals": lambda x, y, rng: (x + y) / np.sqrt(2) % 1 < 0.5,
    "checks": lambda x, y, rng: (x % 1 < 0.5) ^ (y % 1 < 0.5),
    "grid": lambda x, y, rng: (x % 1 < 0.25) | (y % 1 < 0.25),
    "dots": lambda x, y, rng: np.hypot(x % 1 - 0.5, y % 1 - 0.5) < 0.3,
    "zigzags": lambda x, y, rng: (y + np.abs(x % 1 - 0.5)) % 1 < 0.5,
    "rings": lambda x, y, rng: np.hypot(x, y) % 1 < 0.5,
    "speckles": lambda x, y, rng: rng.random(x.shape) < 0.5,
}
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 240),
    "yellow": (245, 225, 40),
    "cyan": (50, 215, 230),
    "magenta": (235, 60, 220),
    "orange": (250, 140, 30),
    "purple": (120, 50, 180),
    "white": (250, 250, 250),
    "brown": (125, 75, 35),
}


def draw_trifeatures(
    shape: Int[np.ndarray, "n"],
    texture: Int[np.ndarray, "n"],
    colour: Int[np.ndarray, "n"],
    *,
    size: int = 32,
    seed: int,
) -> UInt8[np.ndarray, "n {size} {size} 3"]:
    """Draw one image per row, at a random place, scale and angle.

    Args:
        shape: numbers of the shapes, in the order of ``SHAPES``.
        texture: numbers of the textures, in the order of ``TEXTURES``.
        colour: numbers of the colours, in the order of ``COLOURS``.
        size: height and width in pixels, at least 16: the textures could not be told apart below.
        seed: of place, scale, angle and speckles.

    Returns:
        RGB images on grey.

    Raises:
        ValueError: for a number that names nothing, numbers of different rows, or a small size.

    Source: Hermann and Lampinen 2020, arXiv:2006.12433, sec. 3.1 and app. A: ten shapes, textures
    and colours. Departures: shapes and textures are our own, turned by up to 15 degrees instead of
    45, and the dark parts of a texture are shaded instead of showing the background.

    >>> one = np.zeros(1, int)
    >>> draw_trifeatures(one, one, one, seed=0).shape
    (1, 32, 32, 3)
    """
    at_least("size", size, 16)
    chosen = {"shape": (shape, SHAPES), "texture": (texture, TEXTURES), "colour": (colour, COLOURS)}
    for name, (numbers, choices) in chosen.items():
        if len(numbers) != len(shape):
            raise ValueError(
                f"{name} must have as many rows as shape, {len(shape)}; got {len(numbers)}"
            )
        if np.any((numbers < 0) | (numbers >= len(choices))):
            raise ValueError(f"{name} must hold numbers from 0 to {len(choices) - 1}")
    shapes, textures = list(SHAPES.values()), list(TEXTURES.values())
    palette = np.array(list(COLOURS.values()), float)
    rng = np.random.default_rng(seed)
    images = np.empty((len(shape), size, size, 3), np.uint8)
    for image, s, t, c in zip(images, shape, texture, colour, strict=True):
        x, y = _coordinates(size, rng)
        inside = shapes[s](x, y)
        bright = textures[t](2 * x, 2 * y, rng)
        pixels = palette[c] * np.where(bright, 1, SHADE)[..., None]
        image[:] = np.where(inside[..., None], pixels, BACKGROUND)
    return images


def trifeatures(rows: int, *, size: int = 32, correlation: float = 0.0, seed: int) -> Synthetic:
    r"""Pairs of images of one shape; textures and colours are their own, but for a correlation.

    Shapes, textures and colours are uniform over ten. The second colour is the one of the first
    texture's number with probability :math:`q = c + (1 - c) / 10`, the correlation being c.

    ============  ===================================  =========================================
    label         what it is                           what the images say of it
    ============  ===================================  =========================================
    shape         the common shape                     redundant: :math:`\log 10`
    texture_1     the texture of the first             the first all, :math:`\log 10`; of this the
                                                       second, by its colour, what q tells of it
    texture_2     the texture of the second            unique to the second: :math:`\log 10`
    match         whether the second colour has the    synergy: the entropy of q
                  number of the first texture
    ============  ===================================  =========================================

    Args:
        rows: how many pairs to draw.
        size: height and width of an image in pixels.
        correlation: c, from 0 to 1, the share of pairs that are made to match. With 1 all of them
            do, and the label says nothing: for training without labels.
        seed: of the random numbers.

    Returns:
        Modalities ``image_1`` and ``image_2``; labels as above; the factors ``shape``,
        ``texture_1``, ``texture_2``, ``colour_1`` and ``colour_2``. The truth is that of the
        factors: it supposes that they can be read from the images.

    Raises:
        ValueError: if ``rows`` is below 1, ``size`` below 16, or ``correlation`` outside [0, 1].

    Source: Dufumier et al. 2025 (CoMM), arXiv:2409.07402, sec. 4.1, bimodal Trifeature.

    >>> data = trifeatures(4, seed=0)
    >>> print(data.modalities["image_2"].shape, f"{data.pid['match'].synergy:.3f} nats")
    (4, 32, 32, 3) 0.325 nats
    """
    at_least("rows", rows, 1)
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation must lie in [0, 1], got {correlation}")
    rng = np.random.default_rng(seed)
    count = len(TEXTURES)
    names = ("shape", "texture_1", "texture_2", "colour_1", "colour_2")
    factors = dict(zip(names, rng.integers(0, count, (len(names), rows)), strict=True))
    made_to_match = rng.random(rows) < correlation
    factors["colour_2"] = np.where(made_to_match, factors["texture_1"], factors["colour_2"])
    modalities = {
        f"image_{i}": draw_trifeatures(
            factors["shape"],
            factors[f"texture_{i}"],
            factors[f"colour_{i}"],
            size=size,
            seed=int(rng.integers(2**31)),
        )
        for i in (1, 2)
    }
    labels = {name: factors[name] for name in ("shape", "texture_1", "texture_2")}
    labels["match"] = (factors["texture_1"] == factors["colour_2"]).astype(np.int64)
    pid = _truth(correlation, count)
    information = {
        k: v
        for name, parts in pid.items()
        for k, v in parts.mutual_information("image_1", "image_2", name).items()
    }
    return Synthetic(modalities, labels, factors, information, pid)


def _coordinates(size: int, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Coordinates of the pixels as the shape sees them, -1 to 1 across it."""
    angle = np.radians(rng.uniform(-TILT, TILT))
    radius = rng.uniform(0.65, 0.85)  # of half the image
    centre = rng.uniform(radius - 1, 1 - radius, 2)
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    x, y = (axis[None, :] - centre[0]) / radius, (axis[:, None] - centre[1]) / radius
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _truth(correlation: float, count: int) -> dict[str, PartialInformation]:
    whole = float(np.log(count))
    match = correlation + (1 - correlation) / count
    entropy = _entropy(match, 1 - match)
    # What a colour tells of a texture: all outcomes but the matching one are equally likely.
    told = whole - _entropy(match, *[(1 - match) / (count - 1)] * (count - 1))
    return {
        "shape": PartialInformation(whole, 0.0, 0.0, 0.0),
        "texture_1": PartialInformation(told, whole - told, 0.0, 0.0),
        "texture_2": PartialInformation(0.0, 0.0, whole, 0.0),
        "match": PartialInformation(0.0, 0.0, 0.0, entropy),
    }


def _entropy(*p: float) -> float:
    return float(-sum(q * np.log(q) for q in p if q > 0))
