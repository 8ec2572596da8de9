import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.pixels import scale_pixels
from mmjax.encoders.vision_transformer import VisionTransformer, cut_patches, drop_patches

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), np.uint8)
FIELDS = {
    "patch_size": 4,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "mlp_ratio": 1.0,
    "scan_layers": False,  # compiles sooner when there is one layer
}


def test_patches_are_cut_row_by_row():
    images = np.random.default_rng(1).normal(size=(2, 6, 9, 2)).astype(np.float32)
    got = cut_patches(images, 3)
    want = [
        [image[y : y + 3, x : x + 3].ravel() for y in (0, 3) for x in (0, 3, 6)] for image in images
    ]
    np.testing.assert_array_equal(got, want)


def test_an_image_that_patches_do_not_fill_is_refused_with_a_remedy():
    tower = VisionTransformer(**FIELDS)
    message = "multiples of patch_size=4, got 9 x 13; resize to 8 x 12, for example"
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.eval_shape(tower.init, jax.random.key(0), jnp.zeros((1, 9, 13, 3)))


def test_dropped_patches_leave_a_random_subset_without_repeats():
    patches = np.arange(2 * 12, dtype=np.float32).reshape(2, 12, 1)
    drop = jax.jit(lambda key: drop_patches(patches, 0.5, key=key))
    a, b = (np.asarray(drop(jax.random.key(i)))[:, :, 0] for i in (0, 1))
    for kept in (a, b):
        assert kept.shape == (2, 6)
        for image, patch_set in enumerate(kept):
            assert len(set(patch_set)) == 6
            assert set(patch_set) <= set(patches[image, :, 0])
    assert set(a[0]) != set(b[0])  # another key, another subset
    assert set(a[0]) != set(a[1] - 12)  # another image, another subset


def test_every_patch_is_kept_equally_often():
    patches = jnp.broadcast_to(jnp.arange(8.0)[None, :, None], (2000, 8, 1))
    kept = drop_patches(patches, 0.75, key=jax.random.key(0))
    share = np.bincount(np.asarray(kept, int).ravel(), minlength=8) / 2000
    # 2 of 8: a share has a standard error of sqrt(0.25 * 0.75 / 2000) = 0.0097.
    np.testing.assert_allclose(share, 0.25, atol=5 * 0.0097)


def test_one_patch_always_stays():
    assert drop_patches(np.ones((1, 4, 2), "f"), 0.99, key=jax.random.key(0)).shape == (1, 1, 2)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_patch_dropout_shortens_the_sequence_in_training_only(pooling):
    tower = VisionTransformer(**FIELDS, pooling=pooling, patch_dropout=0.5)
    tokens = {True: 3, False: 6}
    extra = pooling == "class"
    key = jax.random.key(0)
    for train, count in tokens.items():
        (_, state) = jax.eval_shape(
            lambda train=train: tower.init_with_output(
                {"params": key, "dropout": key},
                IMAGES,
                train=train,
                capture_intermediates=lambda module, _: module.name == "transformer",
                mutable=["params", "intermediates"],
            )
        )
        (seen,) = state["intermediates"]["transformer"]["__call__"]
        assert seen.shape == (3, count + extra, 16)


def test_patch_dropout_follows_its_key_while_training(fill):
    tower = VisionTransformer(**FIELDS, pooling="class", patch_dropout=0.5)
    variables = fill(tower, IMAGES)

    @jax.jit
    def train(variables, key):
        return tower.apply(variables, IMAGES, train=True, rngs={"dropout": key})

    a, again, b = (train(variables, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - b).max() > 1e-3


def test_patch_dropout_is_no_part_of_the_program_otherwise(fill):
    towers = [VisionTransformer(**FIELDS, patch_dropout=rate) for rate in (0.0, 0.5)]
    variables = fill(towers[0], IMAGES)
    plain, dropping = (str(jax.make_jaxpr(tower.apply)(variables, IMAGES)) for tower in towers)
    assert plain == dropping


def test_bytes_equal_the_same_pixels_scaled_and_any_size_goes_with_sincos(fill):
    tower = VisionTransformer(**FIELDS)
    variables = fill(tower, IMAGES)
    both = jax.jit(lambda variables, x: [tower.apply(variables, y) for y in (x, scale_pixels(x))])
    np.testing.assert_allclose(*both(variables, IMAGES), rtol=1e-5, atol=1e-6)
    assert jax.eval_shape(tower.apply, variables, IMAGES[:, :4, :8]).shape == (3, 16)


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_positions_matter(positions, fill):
    """Without them, a transformer with mean pooling could not tell swapped patches apart."""
    tower = VisionTransformer(**FIELDS, positions=positions)
    swapped = np.concatenate([IMAGES[:, :, 8:], IMAGES[:, :, :8]], axis=2)
    features = jax.jit(tower.apply)(fill(tower, IMAGES), np.stack([IMAGES[0], swapped[0]]))
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_learned_positions_refuse_another_image_size():
    tower = VisionTransformer(**FIELDS, positions="learned")
    variables = nn.unbox(jax.eval_shape(tower.init, jax.random.key(0), IMAGES))
    with pytest.raises(ValueError, match="learned for 6 places, got 2"):
        jax.eval_shape(tower.apply, variables, IMAGES[:, :4, :8])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling": "max"}, "pooling must be one of class, mean, attention, got 'max'"),
        ({"positions": "2d"}, "positions must be one of sincos, learned, got '2d'"),
        ({"heads": 3}, "heads must divide width, got width=16 and heads=3"),
        ({"patch_dropout": 1.0}, "patch_dropout must be at least 0 and below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1, got -0.1"),
    ],
)
def test_fields_that_cannot_be_are_refused_at_once(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        VisionTransformer(**(FIELDS | fields))
