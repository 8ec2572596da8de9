"""Decoding an image and fitting it into a square, on the host.

The arrays are annotated but not checked at run time: these functions run once per example and the
check would cost as much as the work. :func:`decode` is the gate; what leaves it is sound.

JPEGs go through ``simplejpeg`` where it is installed (``pip install 'mmjax[fast]'``): the same
pixels in less time.
"""

import io
import os
import pathlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

MAX_PIXELS = 89_478_485
"""Largest image that is decoded: 256 MiB of RGB. More is a decompression bomb or a mistake."""

MAX_BYTES = 64 * 2**20
"""Largest encoded image that is looked at."""

_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B", "I;16N"}
_ORIENTATION = 0x0112  # the EXIF tag


class UnreadableImage(ValueError):
    """The value is no image that can be decoded: broken, truncated, missing or absurdly large.

    Args:
        reason: what is wrong with this one.
        cause: a few words that all images with this trouble share.
    """

    def __init__(self, reason: str, cause: str = "broken image"):
        super().__init__(reason, cause)
        self.reason, self.cause = reason, cause

    def __str__(self) -> str:
        return self.reason


def decode(
    value: bytes | os.PathLike[str] | np.ndarray,
    channels: int,
    *,
    shortest: int | None = None,
) -> UInt8[np.ndarray, "h w c"]:
    """Turn an image of a record into pixels.

    Transparent parts become white, EXIF rotation is applied, 16-bit grey keeps its upper 8 bits.

    Args:
        value: an encoded image (any format that Pillow reads), the path of a file that holds one,
            or pixels: uint8 ``[h, w]`` or ``[h, w, 1 | 3 | 4]``.
        channels: 1 for luminance (ITU-R 601), 3 for RGB.
        shortest: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as neither side
            falls below this many pixels: several times faster for photos from a camera.

    Returns:
        uint8 pixels in [0, 255].

    Raises:
        UnreadableImage: saying why.
        ValueError: if ``channels`` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {channels}")
    try:
        if isinstance(value, np.ndarray):
            if value.dtype == np.uint8 and value.ndim == 3 and value.shape[-1] == channels:
                return _not_empty(value)
            return _pixels(_from_array(value), channels)
        encoded = value if isinstance(value, bytes) else image_file(value)
        return _decode_bytes(encoded, channels, shortest)
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:  # Its own message is a memory address.
        raise UnreadableImage(
            "the content is no image in a format that Pillow knows", "not an image"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"DecompressionBombError: {error}", "decompression bomb") from error
    except Exception as error:  # Broken files make Pillow's decoders raise nearly everything.
        cause = "truncated image" if "truncated" in str(error).lower() else "broken image"
        raise UnreadableImage(f"{type(error).__name__}: {error}", cause) from error


def image_file(path: str | os.PathLike[str]) -> bytes:
    """Read the file of an image.

    Raises:
        UnreadableImage: if it is missing, empty or larger than ``MAX_BYTES``.
    """
    path = pathlib.Path(path)
    try:
        _check_bytes(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{type(error).__name__}: {error}", "missing file") from error


def _check_bytes(count: int) -> None:
    if not count:
        raise UnreadableImage("no bytes at all", "empty image")
    if count > MAX_BYTES:
        raise UnreadableImage(
            f"{count} bytes are more than the {MAX_BYTES} allowed", "image too large"
        )


def _decode_bytes(
    encoded: bytes, channels: int, shortest: int | None
) -> UInt8[np.ndarray, "h w c"]:
    _check_bytes(len(encoded))
    with Image.open(io.BytesIO(encoded)) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise UnreadableImage(
                f"{width} x {height} pixels are more than the {MAX_PIXELS} allowed",
                "decompression bomb",
            )
        if shortest is not None:
            image.draft(None, (shortest, shortest))
        if simplejpeg is not None and image.format == "JPEG" and image.mode == "RGB":
            pixels = _decode_jpeg(encoded, image)
            if pixels is not None:
                return pixels if channels == 3 else _pixels(to_pillow(pixels), channels)
        return _pixels(ImageOps.exif_transpose(image), channels)


def _decode_jpeg(encoded: bytes, image: Image.Image) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decode at the size that ``image`` announces; None for what is left to Pillow.

    That is a photo to be rotated, and whatever libjpeg has a warning about: Pillow then decides
    whether it can be read, so that the same images are skipped with and without this decoder.
    """
    if image.getexif().get(_ORIENTATION, 1) != 1:
        return None
    width, height = image.size
    try:
        pixels = simplejpeg.decode_jpeg(encoded, min_height=height, min_width=width)
    except ValueError:
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def fit(image: UInt8[np.ndarray, "h w c"], size: int) -> UInt8[np.ndarray, "size size c"]:
    """Resize the short side to ``size`` and keep the central square.

    Args:
        image: uint8 pixels.
        size: side of the result, in pixels.

    Returns:
        uint8 pixels; ``image`` itself if it already has that size.

    >>> fit(np.zeros((40, 60, 3), np.uint8), 32).shape
    (32, 32, 3)
    """
    height, width = image.shape[:2]
    if height == width == size:
        return image
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return resize(image, size, (left, top, left + side, top + side))


def resize(
    image: UInt8[np.ndarray, "h w c"], size: int, box: tuple[float, float, float, float]
) -> UInt8[np.ndarray, "size size c"]:
    """Resample a part of an image to a square, bilinear with antialiasing.

    Args:
        image: uint8 pixels.
        size: side of the result, in pixels.
        box: left, top, right, bottom of the part in pixels; fractions count.

    Returns:
        uint8 pixels.
    """
    resized = to_pillow(image).resize((size, size), Image.Resampling.BILINEAR, box)
    return from_pillow(resized)


def mirror(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
    """Swap left and right."""
    mirrored = np.empty_like(image)
    for channel in range(image.shape[-1]):  # At once, NumPy would copy three bytes at a time.
        mirrored[..., channel] = image[:, ::-1, channel]
    return mirrored


def to_pillow(image: UInt8[np.ndarray, "h w c"]) -> Image.Image:
    """Wrap 1- or 3-channel pixels as a Pillow image."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def from_pillow(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    """Return the pixels of an ``L`` or ``RGB`` Pillow image."""
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _from_array(value: np.ndarray) -> Image.Image:
    grey = value[..., 0] if value.ndim == 3 and value.shape[-1] == 1 else value
    if value.dtype != np.uint8 or not (grey.ndim == 2 or grey.shape[2:] in ((3,), (4,))):
        raise UnreadableImage(
            f"pixels must be uint8 [h, w] or [h, w, 1 | 3 | 4], got {value.dtype} {value.shape}"
        )
    return Image.fromarray(grey)


def _pixels(image: Image.Image, channels: int) -> UInt8[np.ndarray, "h w c"]:
    mode = "L" if channels == 1 else "RGB"
    if image.mode in _SIXTEEN_BITS:  # Pillow's own conversion would clip at 255.
        image = Image.fromarray((np.asarray(image, np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UnreadableImage(f"mode {image.mode} has no known range: store 8 or 16 bits a channel")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return _not_empty(from_pillow(image if image.mode == mode else image.convert(mode)))


def _not_empty(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
    if image.size == 0:
        raise UnreadableImage(f"an image of shape {image.shape} has no pixels", "empty image")
    return image
