import io
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmjax.data import images
from mmjax.data.images import UnreadableImage, decode, fit, mirror, resize


def encoded(array, kind="PNG", mode=None, **options):
    file = io.BytesIO()
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def png_header(width, height):
    """A PNG that promises pixels it does not hold."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 100) + b"IDAT"


RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), np.uint8)


@pytest.mark.parametrize("value", [GREY, GREY[..., None], encoded(GREY)], ids=["2d", "3d", "png"])
def test_grey_stays_or_is_repeated(value):
    np.testing.assert_array_equal(decode(value, 1), GREY[..., None])
    np.testing.assert_array_equal(decode(value, 3), np.repeat(GREY[..., None], 3, -1))


@pytest.mark.parametrize("value", [COLOUR, encoded(COLOUR)], ids=["array", "png"])
def test_colour_stays_or_becomes_luminance(value):
    np.testing.assert_array_equal(decode(value, 3), COLOUR)
    luminance = COLOUR @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    np.testing.assert_allclose(decode(value, 1)[..., 0], luminance, atol=1)


def test_a_file_is_read_when_it_is_decoded(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(encoded(COLOUR))
    np.testing.assert_array_equal(decode(path, 3), COLOUR)
    with pytest.raises(UnreadableImage, match=r"FileNotFoundError.*other\.png"):
        decode(tmp_path / "other.png", 3)


def test_transparent_parts_become_white():
    rgba = np.zeros((1, 2, 4), np.uint8)
    rgba[0, 1] = (10, 20, 30, 255)
    expected = [[[255, 255, 255], [10, 20, 30]]]
    np.testing.assert_array_equal(decode(encoded(rgba), 3), expected)
    np.testing.assert_array_equal(decode(rgba, 3), expected)


def test_sixteen_bits_are_not_clipped():
    deep = np.array([[0, 256, 0x7FFF, 0xFFFF]], np.uint16)
    np.testing.assert_array_equal(decode(encoded(deep), 1)[..., 0], [[0, 1, 127, 255]])


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn a quarter clockwise to look at it
    value = encoded(COLOUR, exif=exif.tobytes())
    np.testing.assert_array_equal(decode(value, 3), np.rot90(COLOUR, -1))


def test_a_large_jpeg_is_decoded_smaller_but_not_too_small():
    value = encoded(np.zeros((400, 640, 3), np.uint8), "JPEG")
    assert decode(value, 3).shape == (400, 640, 3)
    assert decode(value, 3, shortest=90).shape == (100, 160, 3)
    assert decode(value, 3, shortest=101).shape == (200, 320, 3)


JPEG = encoded(RNG.integers(0, 256, (64, 64, 3), np.uint8), "JPEG")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (JPEG[: len(JPEG) // 2], "truncated"),
        (b"", "no bytes"),
        (b"id,text\n1,a cat", "no image in a format"),
        (encoded(COLOUR)[:60], "truncated"),
        (png_header(60_000, 60_000), "DecompressionBomb"),
        (png_header(9_000, 9_950), "9000 x 9950 pixels"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((4,), np.uint8), r"\(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (encoded(np.ones((4, 4), np.float32), "TIFF"), "mode F"),
        (None, "NoneType|AttributeError"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore::PIL.Image.DecompressionBombWarning"
)  # we refuse what it allows
def test_what_cannot_be_decoded_says_why(value, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(value, 3)


def test_only_grey_and_rgb_can_be_asked_for():
    with pytest.raises(ValueError, match=r"channels must be 1 .* 3 .*got 4"):
        decode(COLOUR, 4)


def test_fit_keeps_the_central_square():
    stripes = np.zeros((4, 12, 1), np.uint8)
    stripes[:, 4:8] = 200  # the middle third is all that should remain
    np.testing.assert_array_equal(fit(stripes, 4), np.full((4, 4, 1), 200))
    np.testing.assert_array_equal(fit(np.swapaxes(stripes, 0, 1), 4), np.full((4, 4, 1), 200))


@pytest.mark.parametrize("size", [3, 5, 16])
def test_fitting_is_resizing_the_whole_and_then_cropping(size):
    image = RNG.integers(0, 256, (10, 30, 3), np.uint8)
    whole = Image.fromarray(image).resize((3 * size, size), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(fit(image, size), np.asarray(whole)[:, size : 2 * size], atol=1)


def test_fit_returns_an_image_of_the_right_size_as_it_is():
    square = COLOUR[:5, :5]
    assert fit(square, 5) is square


def test_resizing_a_checkerboard_does_not_alias():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    np.testing.assert_allclose(resize(board, 8, (0, 0, 64, 64)), 127.5, atol=2)


@pytest.mark.parametrize("shortest", [None, 30, 101, 200])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["420", "444", "progressive", "turned", "grey", "junk"])
def test_with_simplejpeg_the_pixels_are_those_of_pillow(monkeypatch, kind, channels, shortest):
    pytest.importorskip("simplejpeg", reason="simplejpeg is not installed: pip install '.[fast]'")
    options = {"subsampling": 0 if kind == "444" else 2, "progressive": kind == "progressive"}
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif.tobytes()
    smooth = np.asarray(Image.fromarray(COLOUR).resize((411, 307)))
    value = encoded(smooth, "JPEG", "L" if kind == "grey" else None, **options)
    if kind == "junk":  # before the end mark: a warning to libjpeg, and nothing to Pillow
        value = value[:-2] + b"junk" + value[-2:]
    found = decode(value, channels, shortest=shortest)
    monkeypatch.setattr(images, "simplejpeg", None)
    np.testing.assert_array_equal(found, decode(value, channels, shortest=shortest))


def test_simplejpeg_is_used_where_it_is_installed(monkeypatch):
    simplejpeg = pytest.importorskip("simplejpeg", reason="simplejpeg is not installed")
    calls = []

    class Spy:
        @staticmethod
        def decode_jpeg(*arguments, **options):
            calls.append(options)
            return simplejpeg.decode_jpeg(*arguments, **options)

    monkeypatch.setattr(images, "simplejpeg", Spy)
    decode(JPEG, 3)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (b"", "empty image"),
        (b"nothing", "not an image"),
        (JPEG[: len(JPEG) // 2], "truncated image"),
        (png_header(60_000, 60_000), "decompression bomb"),
        (png_header(9_000, 9_950), "decompression bomb"),
        (pathlib.Path("/nowhere/at/all.png"), "missing file"),
        (np.zeros((4, 4, 3), np.float32), "broken image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_every_trouble_has_a_cause_that_can_be_counted(value, cause):
    with pytest.raises(UnreadableImage) as told:
        decode(value, 3)
    assert told.value.cause == cause


def test_a_file_that_is_far_too_large_is_not_even_read(tmp_path, monkeypatch):
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # a hole: it takes no room on the disk
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda self: pytest.fail("it was read"))
    with pytest.raises(UnreadableImage, match=f"more than the {images.MAX_BYTES} allowed") as told:
        decode(path, 3)
    assert told.value.cause == "image too large"


def test_a_mirror_image_is_the_reversed_view():
    np.testing.assert_array_equal(mirror(COLOUR), COLOUR[:, ::-1])
    assert mirror(COLOUR).flags.c_contiguous
