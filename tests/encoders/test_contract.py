"""What holds for every encoder, run over all of them from one list."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ENCODERS

N, WIDTH = 3, 16
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), np.uint8)
TEXTS = np.array([[3, 4, 5, 6], [7, 3, 0, 0], [8, 0, 0, 0]], np.int32)
ROWS = np.random.default_rng(1).normal(size=(N, 7)).astype(np.float32)
VIT = {"patch_size": 4, "width": WIDTH, "depth": 2, "heads": 2}
TEXT = {"vocab_size": 9, "max_length": 6, "width": WIDTH, "depth": 2, "heads": 2}

CASES = {
    "vision, sincos, mean": ("vision_transformer", VIT, IMAGES),
    "vision, learned, class, unrolled": (
        "vision_transformer",
        VIT | {"positions": "learned", "pooling": "class", "scan_layers": False, "depth": 1},
        IMAGES,
    ),
    "vision, attention, remat": (
        "vision_transformer",
        VIT | {"pooling": "attention", "remat": True},
        IMAGES,
    ),
    "convnet": ("convnet", {"features": WIDTH, "widths": (16, 32), "blocks": (0, 1)}, IMAGES),
    "text, causal, last": ("text_transformer", TEXT | {"causal": True, "pooling": "last"}, TEXTS),
    "text, attention, unrolled": (
        "text_transformer",
        TEXT | {"pooling": "attention", "scan_layers": False, "depth": 1},
        TEXTS,
    ),
    "bag of words": ("bag_of_words", {"vocab_size": 9, "width": WIDTH}, TEXTS),
    "bag of words, hidden": (
        "bag_of_words",
        {"vocab_size": 9, "width": WIDTH, "pooling": "sqrt", "hidden": (8,)},
        TEXTS,
    ),
    "mlp": ("mlp", {"hidden": (8, 8), "features": WIDTH}, ROWS),
}


@pytest.fixture(scope="module")
def made(fill):
    """A case's module, input and variables; made once for all tests."""

    @functools.cache
    def made(case):
        encoder, fields, x = CASES[case]
        module = ENCODERS[encoder](**fields)
        return module, x, fill(module, x)

    return made


@pytest.fixture(scope="module")
def run(made):
    """``run(case)(x)``: features, and the gradient of a weighted sum of them; compiled once."""

    @functools.cache
    def run(case):
        module, _, variables = made(case)
        weights = np.random.default_rng(2).normal(size=(N, WIDTH)).astype(np.float32)

        def loss(variables, x):
            features = module.apply(variables, x)
            return jnp.sum(features * weights), features

        gradient = jax.jit(jax.grad(loss, has_aux=True))
        return lambda x: gradient(variables, x)[::-1]

    return run


def test_every_encoder_is_a_case():
    assert {encoder for encoder, _, _ in CASES.values()} == set(ENCODERS)


@pytest.mark.parametrize("case", CASES)
def test_gives_one_float32_row_per_example(case, run):
    features, _ = run(case)(CASES[case][-1])
    assert features.shape == (N, WIDTH)
    assert features.dtype == jnp.float32
    assert np.isfinite(features).all()
    assert np.std(features, axis=0).min() > 1e-4  # the rows tell the examples apart


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_every_parameter(case, run):
    _, grads = run(case)(CASES[case][-1])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(grad).all(), name
        # A scanned parameter has to be reached in every layer.
        for part in grad if "'layers'" in name else [grad]:
            assert np.abs(part).max() > 1e-6, name


@pytest.mark.parametrize("case", CASES)
def test_an_example_does_not_see_its_neighbours(case, run):
    x = CASES[case][-1]
    features, _ = run(case)(x)
    moved, _ = run(case)(x[[2, 1, 2]])
    np.testing.assert_allclose(moved[1], features[1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moved[0], features[2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_float32_with_one_name_per_axis(case):
    encoder, fields, x = CASES[case]
    variables = jax.eval_shape(ENCODERS[encoder](**fields).init, jax.random.key(0), x)
    assert set(variables) == {"params"}  # no batch statistics, no other state
    boxes = jax.tree.leaves(
        variables, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
    )
    known = {None, "embed", "mlp", "heads", "kv", "vocab", "layers", "conv_in", "conv_out"}
    for box in boxes:
        assert isinstance(box, nn.LogicallyPartitioned)
        assert box.value.dtype == jnp.float32
        assert len(box.names) == box.value.ndim
        assert set(box.names) <= known
        named = [name for name in box.names if name]
        assert len(set(named)) == len(named)  # a mesh axis cannot shard an array twice


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_computes_in_bfloat16_with_the_same_float32_parameters(case, made, run):
    encoder, fields, x = CASES[case]
    module = ENCODERS[encoder](**fields, dtype=jnp.bfloat16)
    _, _, variables = made(case)
    half = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), x))
    assert jax.tree.map(jnp.shape, half) == jax.tree.map(jnp.shape, variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("float32")}
    features = jax.jit(module.apply)(variables, x)
    assert features.dtype == jnp.bfloat16
    want, _ = run(case)(x)
    error = np.abs(features.astype(jnp.float32) - want).max()
    assert 0 < error < 0.05 * np.abs(want).max()  # close, and no float32 in disguise
