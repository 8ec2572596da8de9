"""Which pairs of modalities a row takes part in, and what is made of their losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.losses import clip_loss
from mmjax.losses.modalities import has_pair, pairwise
from mmjax.reduction import masked_mean

RNG = np.random.default_rng(0)
IMAGE, TEXT, SOUND = RNG.normal(size=(3, 4, 5)).astype(np.float32)
VIEWS = {"image": IMAGE, "text": TEXT, "sound": SOUND}
CLIP = functools.partial(clip_loss, logit_scale=2.0)
#                         all three, image + text, text + sound, sound alone
HAVE = {
    "image": np.array([True, True, False, False]),
    "text": np.array([True, True, True, False]),
    "sound": np.array([True, False, True, True]),
}


def digits(x, y, *, where=None):
    """Tells by its value which two rows it was called with, in which order."""
    return 10 * x[:, 0] + y[:, 0]


def squares(x, y, *, where=None):
    """Forgets its mask, and has a slope that holds what its rows hold."""
    return jnp.sum((x - y) ** 2, axis=1)


def constant(value, rows=4):
    return jnp.full((rows, 1), value, jnp.float32)


def test_two_modalities_are_the_loss_itself():
    views = {"image": IMAGE, "text": TEXT}
    np.testing.assert_array_equal(pairwise(CLIP, views), CLIP(IMAGE, TEXT))
    where = {"image": HAVE["image"], "text": HAVE["text"]}
    plain = CLIP(IMAGE, TEXT, where=HAVE["image"] & HAVE["text"])
    np.testing.assert_array_equal(pairwise(CLIP, views, where), plain)


def test_more_modalities_are_the_mean_over_their_pairs():
    pairs = CLIP(IMAGE, TEXT) + CLIP(IMAGE, SOUND) + CLIP(TEXT, SOUND)
    np.testing.assert_allclose(pairwise(CLIP, VIEWS), pairs / 3, rtol=1e-6)


def test_pairs_follow_the_order_of_the_mapping_and_each_comes_once():
    views = {"c": constant(3), "a": constant(1), "b": constant(2), "d": constant(4)}
    wanted = np.mean([31, 32, 34, 12, 14, 24])
    np.testing.assert_allclose(pairwise(digits, views), np.full(4, wanted), rtol=1e-6)


def test_a_row_has_the_mean_of_the_pairs_that_it_has():
    views = {"image": constant(1), "text": constant(2), "sound": constant(3)}
    wanted = [(12 + 13 + 23) / 3, 12, 23, 0]
    np.testing.assert_allclose(pairwise(digits, views, HAVE), wanted, rtol=1e-6)


def test_a_row_is_a_negative_only_where_it_has_both_modalities():
    image_text = CLIP(IMAGE[:2], TEXT[:2])
    text_sound = CLIP(TEXT[[0, 2]], SOUND[[0, 2]])
    # Row 0 is alone in having image and sound: without a negative it costs nothing.
    wanted = [(image_text[0] + 0 + text_sound[0]) / 3, image_text[1], text_sound[1], 0]
    np.testing.assert_allclose(pairwise(CLIP, VIEWS, HAVE), wanted, rtol=1e-6, atol=1e-6)


def test_rows_without_a_pair_do_not_count_in_the_mean():
    np.testing.assert_array_equal(has_pair(HAVE), [True, True, True, False])
    views = {"image": constant(1), "text": constant(2), "sound": constant(3)}
    mean = masked_mean(pairwise(digits, views, HAVE), has_pair(HAVE))
    np.testing.assert_allclose(mean, (16 + 12 + 23) / 3, rtol=1e-6)


@pytest.mark.parametrize("loss", [CLIP, squares], ids=["clip", "one-that-forgets-its-mask"])
def test_what_stands_in_for_a_missing_modality_reaches_nothing(loss):
    def cost(views):
        return masked_mean(pairwise(loss, views, HAVE), has_pair(HAVE))

    holes = {
        name: np.where(HAVE[name][:, None], rows, np.float32(np.nan))
        for name, rows in VIEWS.items()
    }
    value, slopes = jax.value_and_grad(cost)(holes)
    wanted, wanted_slopes = jax.value_and_grad(cost)(VIEWS)
    np.testing.assert_array_equal(value, wanted)
    for name, slope in slopes.items():
        np.testing.assert_array_equal(slope, wanted_slopes[name])
        assert np.any(slope)
        assert not np.any(slope[~HAVE[name]])


def test_a_modality_that_nothing_has_changes_nothing():
    where = HAVE | {"sound": np.zeros(4, bool)}
    both = HAVE["image"] & HAVE["text"]
    np.testing.assert_array_equal(pairwise(CLIP, VIEWS, where), CLIP(IMAGE, TEXT, where=both))
    np.testing.assert_array_equal(has_pair(where), both)


@pytest.mark.parametrize(
    ("embeddings", "where", "message"),
    [
        ({"image": IMAGE}, None, "embeddings must hold at least two modalities, got image"),
        ({}, None, "at least two modalities, got none"),
        (VIEWS, {"image": HAVE["image"]}, "where must hold at least two modalities, got image"),
        (
            VIEWS,
            {"image": HAVE["image"], "texts": HAVE["text"]},
            "must name the same modalities, got image, text, sound and image, texts",
        ),
        (
            VIEWS | {"text": TEXT[:3]},
            None,
            "embeddings must have the same number of rows .* got image 4, text 3, sound 4",
        ),
        (
            VIEWS,
            HAVE | {"sound": HAVE["sound"][:2]},
            "where must have the same number of rows .* got image 4, text 4, sound 2",
        ),
    ],
    ids=["one", "none", "one-mask", "names", "rows", "mask-rows"],
)
def test_modalities_that_cannot_be_paired_are_named(embeddings, where, message):
    with pytest.raises(ValueError, match=message):
        pairwise(CLIP, embeddings, where)


@pytest.mark.parametrize(
    ("embeddings", "where"),
    [
        (VIEWS | {"sound": SOUND[0]}, None),
        (VIEWS | {"sound": SOUND.astype(np.int32)}, HAVE),
        (VIEWS, {name: have.astype(np.float32) for name, have in HAVE.items()}),
        (VIEWS, HAVE | {"sound": HAVE["sound"].astype(np.int32)}),
        (VIEWS, {name: have[:3] for name, have in HAVE.items()}),
    ],
    ids=["no-rows", "integers", "float-masks", "one-integer-mask", "fewer-masks-than-rows"],
)
def test_wrong_shapes_and_dtypes_are_refused(embeddings, where):
    with pytest.raises(TypeCheckError):
        jax.eval_shape(functools.partial(pairwise, CLIP), embeddings, where)


@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (lambda x, y, where: jnp.mean(x - y), r"\(\)"),
        (lambda x, y, where: (x - y)[:2, 0], r"\(2,\)"),
        (lambda x, y, where: (x, y), "tuple"),
    ],
    ids=["scalar", "fewer", "tuple"],
)
def test_a_loss_that_gives_no_value_per_row_is_refused(loss, got):
    message = rf"one value per row, shape \(4,\), got {got} for image and text"
    with pytest.raises(ValueError, match=message):
        pairwise(loss, VIEWS, HAVE)
