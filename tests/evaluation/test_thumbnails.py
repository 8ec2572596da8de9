import base64
import io

import numpy as np
import pytest
from PIL import Image

from mmjax.data.images import UnreadableImage
from mmjax.evaluation.thumbnails import is_drawing, thumbnail


def opened(shown):
    kind, data = shown.address.split(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def icon():
    pixels = np.zeros((32, 32, 1), np.uint8)
    pixels[8:24, 8:24] = 255
    return pixels


def photo():
    return np.random.default_rng(0).integers(0, 255, (150, 300, 3), np.uint8)


def test_a_drawing_becomes_ink_as_opaque_as_it_was_bright():
    kind, image = opened(thumbnail(icon(), drawing=True))
    assert (kind, image.mode) == ("data:image/png", "LA")
    np.testing.assert_array_equal(np.asarray(image)[..., 1], icon()[..., 0])
    assert np.asarray(image)[..., 0].max() == 0


def test_a_photo_keeps_its_shape_within_the_size():
    shown = thumbnail(photo(), size=60, drawing=True)
    kind, image = opened(shown)
    assert (kind, image.size, shown.drawing) == ("data:image/jpeg", (60, 30), False)


def test_grey_without_ink_stays_as_it_is():
    kind, image = opened(thumbnail(255 - icon()))
    assert (kind, image.mode) == ("data:image/png", "L")
    np.testing.assert_array_equal(np.asarray(image), 255 - icon()[..., 0])


def test_encoded_bytes_are_as_good_as_pixels():
    buffer = io.BytesIO()
    Image.fromarray(icon()[..., 0]).save(buffer, "png")
    assert thumbnail(buffer.getvalue(), drawing=True) == thumbnail(icon(), drawing=True)


@pytest.mark.parametrize(
    ("pixels", "drawing"),
    [
        (icon(), True),
        (255 - icon(), False),
        (photo(), False),
        (np.concatenate([icon(), icon(), np.zeros_like(icon())], -1), False),
        (np.full((8, 8, 1), 90, np.uint8), False),
    ],
    ids=["icon", "black on white", "photo", "coloured icon", "grey"],
)
def test_only_white_on_black_is_a_drawing(pixels, drawing):
    assert is_drawing(pixels) is drawing


def test_what_is_no_image_is_unreadable():
    with pytest.raises(UnreadableImage):
        thumbnail(b"no image")
