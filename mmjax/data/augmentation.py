"""Random changes of training images: uint8 in, uint8 out, every number drawn from ``rng``."""

import dataclasses
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmjax.data.images import fit, from_pillow, mirror, resize, to_pillow


def random_resized_crop(
    image: UInt8[np.ndarray, "h w c"],
    size: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> UInt8[np.ndarray, "size size c"]:
    """Resize a random part of the image to a square.

    Args:
        image: uint8 pixels.
        size: side of the result, in pixels.
        rng: source of the draws.
        scale: smallest and largest share of the image's area that is kept.
        ratio: smallest and largest width over height of the part; drawn log-uniformly.

    Returns:
        uint8 pixels; the plain :func:`mmjax.data.images.fit` if ten parts in a row stick out.

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6.
    """
    height, width = image.shape[:2]
    for _ in range(10):
        area = rng.uniform(*scale) * height * width
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return resize(image, size, (left, top, left + w, top + h))
    return fit(image, size)


def random_affine(
    image: UInt8[np.ndarray, "h w c"],
    rng: np.random.Generator,
    *,
    rotation: float = 0.0,
    zoom: float = 0.0,
    shift: float = 0.0,
) -> UInt8[np.ndarray, "h w c"]:
    """Rotate, zoom and shift about the centre in one bilinear pass; what comes in is black.

    Args:
        image: uint8 pixels.
        rng: source of the draws, each uniform.
        rotation: largest turn either way, in degrees.
        zoom: largest change of scale either way, as a share: 0.1 draws from [0.9, 1.1].
        shift: largest shift either way in each direction, as a share of the side.

    Returns:
        uint8 pixels of the same shape.
    """
    height, width = image.shape[:2]
    angle = math.radians(rng.uniform(-rotation, rotation))
    factor = rng.uniform(1 - zoom, 1 + zoom)
    right, down = rng.uniform(-shift, shift) * width, rng.uniform(-shift, shift) * height
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    # Pillow asks where each pixel of the result comes from: the inverse map, about the centre.
    x, y = width / 2 + right, height / 2 + down
    across = (cos, sin, width / 2 - cos * x - sin * y)
    along = (-sin, cos, height / 2 + sin * x - cos * y)
    turned = to_pillow(image).transform(
        (width, height), Image.Transform.AFFINE, (*across, *along), Image.Resampling.BILINEAR
    )
    return from_pillow(turned)


def random_flip(
    image: UInt8[np.ndarray, "h w c"], rng: np.random.Generator, *, probability: float
) -> UInt8[np.ndarray, "h w c"]:
    """Mirror left and right with this probability."""
    return mirror(image) if rng.random() < probability else image


def random_jitter(
    image: UInt8[np.ndarray, "h w c"],
    rng: np.random.Generator,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
) -> UInt8[np.ndarray, "h w c"]:
    """Change brightness and contrast.

    Args:
        image: uint8 pixels.
        rng: source of the draws, each uniform.
        brightness: largest offset either way, as a share of the full range.
        contrast: largest change either way of the distance to the image's mean, as a share.

    Returns:
        uint8 pixels of the same shape.
    """
    offset = 255 * rng.uniform(-brightness, brightness)
    factor = rng.uniform(1 - contrast, 1 + contrast)
    mean = image.mean()
    levels = (np.arange(256) - mean) * factor + mean + offset
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)[image]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Which random changes a training image goes through; by default none.

    Order: crop (or :func:`mmjax.data.images.fit`), affine, flip, jitter. What is off draws nothing.

    Args:
        crop_scale: ``scale`` of :func:`random_resized_crop`; None fits the whole image.
        crop_ratio: ``ratio`` of :func:`random_resized_crop`.
        rotation: degrees, see :func:`random_affine`.
        zoom: share, see :func:`random_affine`.
        shift: share of the side, see :func:`random_affine`.
        flip: probability of a mirror image.
        brightness: share, see :func:`random_jitter`.
        contrast: share, see :func:`random_jitter`.

    Raises:
        ValueError: if a number is outside its range.
    """

    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self):
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale must be 0 < smallest <= largest <= 1: {self.crop_scale}")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio must be 0 < smallest <= largest: {self.crop_ratio}")
        upper = {"rotation": 180, "zoom": 0.9, "shift": 1, "flip": 1, "brightness": 1}
        for name, most in (upper | {"contrast": 1}).items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie in [0, {most}], got {getattr(self, name)}")

    def __call__(
        self, image: UInt8[np.ndarray, "h w c"], size: int, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "size size c"]:
        """Return a random square of ``size`` pixels made from the image."""
        if self.crop_scale is None:
            image = fit(image, size)
        else:
            image = random_resized_crop(
                image, size, rng, scale=self.crop_scale, ratio=self.crop_ratio
            )
        if self.rotation or self.zoom or self.shift:
            image = random_affine(
                image, rng, rotation=self.rotation, zoom=self.zoom, shift=self.shift
            )
        if self.flip:
            image = random_flip(image, rng, probability=self.flip)
        if self.brightness or self.contrast:
            image = random_jitter(image, rng, brightness=self.brightness, contrast=self.contrast)
        return image

    def shortest_needed(self, size: int) -> int:
        """Return the short side, in pixels, below which a crop of ``size`` would be magnified."""
        smallest = 1.0 if self.crop_scale is None else self.crop_scale[0]
        return math.ceil(size / math.sqrt(smallest))
