import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.convnet import ConvNet, mean_and_max
from mmjax.encoders.pixels import scale_pixels

TOWER = ConvNet(features=8, widths=(16, 16), blocks=(1, 0), dropout=0.5)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def variables(fill):
    return fill(TOWER, IMAGES)


def test_pooling_is_mean_and_max_and_ties_share_nothing():
    x = np.random.default_rng(1).normal(size=(2, 3, 2, 4)).astype(np.float32)
    cells = x.reshape(2, 6, 4)
    want = np.concatenate([cells.mean(1), cells.max(1)], axis=1)
    np.testing.assert_allclose(mean_and_max(x), want, rtol=1e-6, atol=1e-7)
    slope = jax.grad(lambda x: jnp.sum(mean_and_max(x)[:, 4:]))(x).reshape(2, 6, 4)
    np.testing.assert_array_equal(slope, cells == cells.max(1, keepdims=True))
    tied = jax.grad(lambda x: jnp.sum(mean_and_max(x)[:, 1:]))(jnp.ones((1, 2, 2, 1)))
    assert tied.ravel().tolist() == [1, 0, 0, 0]


def test_stages_and_blocks_are_what_was_asked_for():
    tower = ConvNet(features=8, widths=(16, 32, 48), blocks=(0, 1, 2))
    images = jnp.zeros((2, 32, 24, 3), jnp.uint8)
    params = nn.unbox(jax.eval_shape(tower.init, jax.random.key(0), images))["params"]
    kernels = {name: p["kernel"].shape for name, p in params.items() if "kernel" in p}
    assert kernels == {
        "stem": (3, 3, 3, 16),
        "stage_1_conv": (3, 3, 16, 32),
        "stage_1_block_0_conv": (3, 3, 32, 32),
        "stage_2_conv": (3, 3, 32, 48),
        "stage_2_block_0_conv": (3, 3, 48, 48),
        "stage_2_block_1_conv": (3, 3, 48, 48),
        "out": (96, 8),
    }


def test_bytes_equal_the_same_pixels_scaled_and_any_size_goes(variables):
    apply = jax.jit(TOWER.apply)
    got = apply(variables, scale_pixels(IMAGES))
    np.testing.assert_allclose(apply(variables, IMAGES), got, rtol=1e-5, atol=1e-6)
    assert apply(variables, IMAGES[:, :5, :7]).shape == (2, 8)


def test_a_blank_image_has_finite_features_and_gradients(variables):
    def loss(params, images):
        return jnp.sum(jnp.sin(TOWER.apply({"params": params}, images)))

    blank = jnp.zeros(IMAGES.shape)
    value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(variables["params"], blank)
    assert np.isfinite(value)
    assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))


def test_dropout_follows_its_key_and_only_while_training(variables):
    @jax.jit
    def run(key):
        train = TOWER.apply(variables, IMAGES, train=True, rngs={"dropout": key})
        return train, TOWER.apply(variables, IMAGES)

    (a, plain), (b, same) = run(jax.random.key(0)), run(jax.random.key(1))
    assert np.abs(a - b).max() > 1e-2
    np.testing.assert_array_equal(plain, same)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"widths": (16, 20)}, "widths must be multiples of 16, one per stage, got (16, 20)"),
        ({"widths": ()}, "widths must be multiples of 16, one per stage, got ()"),
        ({"blocks": (1,)}, "one count per stage of widths=(32, 64, 128), got (1,)"),
        ({"blocks": (1, -1, 0)}, "one count per stage of widths=(32, 64, 128), got (1, -1, 0)"),
        ({"dropout": 1}, "dropout must be at least 0 and below 1, got 1"),
    ],
)
def test_fields_that_cannot_be_are_refused_at_once(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ConvNet(**fields)
