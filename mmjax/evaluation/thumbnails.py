"""Images small enough to travel inside a page."""

import base64
import dataclasses
import io
import os
from typing import TypeAlias

import numpy as np
from PIL import Image

from mmjax.data.images import decode

Encoded: TypeAlias = bytes | os.PathLike[str] | np.ndarray
DARK = 24  # Grey levels out of 255 that still count as an empty background.


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """An image as a ``data:`` address.

    Attributes:
        address: what goes into ``src``.
        drawing: it is white on nothing; a page may colour it as its own ink.
    """

    address: str
    drawing: bool


def is_drawing(value: Encoded) -> bool:
    """Whether an image is a drawing in white on a black ground, such as an icon or a digit.

    Args:
        value: an image of a record, as :func:`mmjax.data.images.decode` takes it.

    Returns:
        True if it is grey, its border is nearly all black, and so is much of the rest.

    Raises:
        UnreadableImage: if it is no image that can be decoded.
    """
    pixels = decode(value, 3)
    grey = pixels[..., 0]
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    mostly_black = (border < DARK).mean() > 0.9 and (grey < DARK).mean() > 0.3
    return bool(mostly_black and _is_grey(pixels))


def thumbnail(value: Encoded, *, size: int = 112, drawing: bool = False) -> Thumbnail:
    """Shrink an image, and turn a drawing on a black ground into ink on no ground.

    Args:
        value: an image of a record, as :func:`mmjax.data.images.decode` takes it.
        size: longest side in pixels; a smaller image keeps its own size.
        drawing: take a grey image for a drawing. Ask :func:`is_drawing` of a whole data set
            and not of each image: a drawing that fills its frame would be told otherwise.

    Returns:
        A PNG for what is grey, a JPEG for what has colour.

    Raises:
        UnreadableImage: if it is no image that can be decoded.
    """
    pixels = decode(value, 3, shortest=size)
    if not _is_grey(pixels):
        return Thumbnail(_address(_shrink(Image.fromarray(pixels), size), "jpeg"), drawing=False)
    image = _shrink(Image.fromarray(pixels[..., 0]), size)
    if drawing:
        ink = Image.new("LA", image.size, 0)
        ink.putalpha(image)
        image = ink
    return Thumbnail(_address(image, "png"), drawing)


def _is_grey(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[..., :1]).all())


def _shrink(image: Image.Image, size: int) -> Image.Image:
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return image


def _address(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 80} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
