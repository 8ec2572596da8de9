import numpy as np
import pytest

from mmjax.data.augmentation import (
    Augmentation,
    random_affine,
    random_flip,
    random_jitter,
    random_resized_crop,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


class Fixed:
    """A generator whose every draw is the upper end of its range."""

    def uniform(self, low, high):
        return high

    def random(self):
        return 0.0


def rng(seed=0):
    return np.random.default_rng(seed)


EVERYTHING = Augmentation(
    crop_scale=(0.3, 1), rotation=20, zoom=0.2, shift=0.1, flip=0.5, brightness=0.2, contrast=0.2
)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_augmented_image_has_the_size_asked_for_and_follows_from_the_generator(channels):
    image = IMAGE[..., :channels]
    first, again, other = (EVERYTHING(image, 16, rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (16, 16, channels)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_without_options_nothing_is_drawn():
    unused = rng()
    square = IMAGE[:, :24]
    np.testing.assert_array_equal(Augmentation()(square, 24, unused), square)
    assert unused.bit_generator.state == rng().bit_generator.state


def test_a_crop_of_the_whole_area_and_its_own_ratio_is_the_whole_image():
    square = IMAGE[:, :24]
    crop = random_resized_crop(square, 24, rng(), scale=(1, 1), ratio=(1, 1))
    np.testing.assert_array_equal(crop, square)


def test_a_crop_keeps_the_share_of_the_area_it_is_asked_for():
    ramp = np.broadcast_to(np.arange(240, dtype=np.uint8), (240, 240))[..., None]
    for seed in range(20):
        crop = random_resized_crop(ramp, 60, rng(seed), scale=(0.25, 0.25), ratio=(1, 1))
        across = crop[0, :, 0].astype(int)
        assert 117 <= across[-1] - across[0] <= 120  # half of the width
        np.testing.assert_array_equal(crop, crop[:1].repeat(60, 0))


def test_a_crop_at_the_far_corner_stays_inside_however_it_rounds():
    for side in range(5, 120):
        image = np.zeros((side, side + 3, 1), np.uint8)
        crop = random_resized_crop(image, 4, Fixed(), scale=(0.1, 0.7), ratio=(0.9, 1.1))
        assert crop.shape == (4, 4, 1)


def test_a_crop_that_never_fits_falls_back_to_the_central_square():
    wide = np.zeros((4, 64, 1), np.uint8)
    wide[:, 30:34] = 255
    crop = random_resized_crop(wide, 4, rng(), scale=(1, 1), ratio=(1, 1))
    np.testing.assert_array_equal(crop, np.full((4, 4, 1), 255))


def test_turning_by_nothing_changes_nothing():
    np.testing.assert_array_equal(random_affine(IMAGE, rng()), IMAGE)


def test_a_quarter_turn_is_the_transposed_image():
    square = IMAGE[:, :24]
    turned = random_affine(square, Fixed(), rotation=90)
    inside = np.s_[1:-1, 1:-1]  # the outermost pixels are blended with what lies outside
    np.testing.assert_allclose(turned[inside], np.rot90(square, -1)[inside], atol=1)


def test_a_shift_moves_right_and_down_and_fills_with_black():
    shifted = random_affine(IMAGE, Fixed(), shift=0.25)
    np.testing.assert_array_equal(shifted[6:, 8:], IMAGE[:-6, :-8])
    assert not shifted[:6].any()
    assert not shifted[:, :8].any()


def test_a_zoom_magnifies_about_the_centre():
    disc = (np.hypot(*(np.indices((64, 64)) - 31.5)) < 16).astype(np.uint8)[..., None] * 255
    zoomed = random_affine(disc, Fixed(), zoom=0.5)
    np.testing.assert_allclose(zoomed.sum() / disc.sum(), 1.5**2, rtol=0.02)
    np.testing.assert_allclose(zoomed[::-1, ::-1], zoomed, atol=1)


def test_a_flip_happens_as_often_as_asked():
    np.testing.assert_array_equal(random_flip(IMAGE, Fixed(), probability=0.1), IMAGE[:, ::-1])
    flips = [random_flip(IMAGE, rng(s), probability=0.25) is not IMAGE for s in range(400)]
    assert 60 < sum(flips) < 140  # 100 expected, standard deviation 8.7


def test_jitter_is_affine_about_the_mean_and_clipped():
    jittered = random_jitter(IMAGE, Fixed(), brightness=0.2, contrast=0.5)
    expected = (IMAGE.astype(float) - IMAGE.mean()) * 1.5 + IMAGE.mean() + 51
    np.testing.assert_allclose(jittered, np.clip(expected, 0, 255), atol=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_scale": (0, 1)},
        {"crop_scale": (0.8, 0.5)},
        {"crop_ratio": (0, 1)},
        {"rotation": 200},
        {"zoom": 1},
        {"shift": -0.1},
        {"flip": 1.5},
        {"brightness": 2},
        {"contrast": -1},
    ],
    ids=str,
)
def test_numbers_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augmentation(**wrong)


def test_the_shortest_side_leaves_enough_pixels_for_the_smallest_crop():
    assert Augmentation().shortest_needed(32) == 32
    assert Augmentation(crop_scale=(0.25, 1)).shortest_needed(32) == 64
