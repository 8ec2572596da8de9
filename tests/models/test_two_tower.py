import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from mmjax.encoders import MLP, BagOfWords
from mmjax.models import TwoTower, clamped_scale, unit_rows

TEXTS = np.array([[3, 4], [7, 0], [0, 0]], np.int32)
ROWS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
INPUTS = {"image": ROWS, "sound": ROWS[:, :4], "text": TEXTS}


def towers(dtype=jnp.float32):
    return {
        "image": MLP((8,), 8, dtype=dtype),
        "sound": MLP((), 6, dtype=dtype),
        "text": BagOfWords(vocab_size=9, width=8, dtype=dtype),
    }


MODEL = TwoTower(towers(), embed_dim=4, logit_bias_init=-2.0)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(jax.random.key(0), INPUTS)


def test_parameters_are_filed_under_the_names_of_the_towers(variables):
    shapes = jax.tree.map(jnp.shape, nn.unbox(variables))
    assert shapes == {
        "params": {
            "image": {
                "hidden_0": {"bias": (8,), "kernel": (5, 8)},
                "out": {"bias": (8,), "kernel": (8, 8)},
            },
            "image_projection": {"kernel": (8, 4)},
            "sound": {"out": {"bias": (6,), "kernel": (4, 6)}},
            "sound_projection": {"kernel": (6, 4)},
            "text": {"word_embedding": {"embedding": (9, 8)}},
            "text_projection": {"kernel": (8, 4)},
            "logit_scale": (),
            "logit_bias": (),
        }
    }
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_embeddings_are_projected_features_of_unit_length(variables):
    params = nn.unbox(variables)["params"]
    outputs = MODEL.apply({"params": params}, INPUTS)
    assert set(outputs) == {"embeddings", "logit_scale", "logit_bias"}
    for name, tower in towers().items():
        features = np.float64(tower.apply({"params": params[name]}, INPUTS[name]))
        want = features @ np.float64(params[f"{name}_projection"]["kernel"])
        length = np.linalg.norm(want, axis=1, keepdims=True)
        want = np.divide(want, length, out=np.zeros_like(want), where=length > 0)
        np.testing.assert_allclose(outputs["embeddings"][name], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs["embeddings"]["text"][2], 0)  # a text of nothing
    np.testing.assert_allclose(outputs["logit_scale"], 1 / 0.07, rtol=1e-6)
    assert outputs["logit_bias"] == -2.0


@pytest.mark.parametrize("names", [("text",), ("text", "image")], ids=",".join)
def test_a_subset_of_the_towers_gives_what_all_of_them_give(names, variables):
    some = MODEL.apply(variables, {name: INPUTS[name] for name in names})
    everything = MODEL.apply(variables, INPUTS)
    assert set(some["embeddings"]) == set(names)
    for name in names:
        np.testing.assert_allclose(
            some["embeddings"][name], everything["embeddings"][name], rtol=1e-6
        )


def test_gradients_reach_every_parameter_and_are_finite(variables):
    @jax.jit
    @jax.grad
    def gradient(params):
        outputs = MODEL.apply({"params": params}, INPUTS)
        x, y, z = outputs["embeddings"].values()
        pairs = jnp.sum(x * y) + jnp.sum(y * z)
        return outputs["logit_scale"] * pairs + outputs["logit_bias"]

    for path, grad in jax.tree_util.tree_leaves_with_path(gradient(nn.unbox(variables)["params"])):
        assert np.isfinite(grad).all(), path
        assert np.abs(grad).max() > 1e-6, path


def test_outputs_are_float32_when_the_towers_compute_in_bfloat16(variables):
    half = TwoTower(towers(jnp.bfloat16), embed_dim=4)
    outputs = half.apply(variables, INPUTS)
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype("float32")}
    want = MODEL.apply(variables, INPUTS)["embeddings"]
    for name, rows in outputs["embeddings"].items():
        np.testing.assert_allclose(rows, want[name], atol=0.05)
        length = np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(length, length.round(), atol=1e-6)  # 1, or 0 for no text


def test_train_and_its_key_reach_the_towers():
    model = TwoTower({"sound": MLP((8,), 8, dropout=0.5)}, embed_dim=4)
    rows = {"sound": np.ones((1, 5), np.float32)}
    variables = model.init(jax.random.key(0), rows)
    plain = model.apply(variables, rows)["embeddings"]["sound"]
    keys = ({"dropout": jax.random.key(seed)} for seed in range(3))
    moves = [
        np.abs(model.apply(variables, rows, train=True, rngs=key)["embeddings"]["sound"] - plain)
        for key in keys
    ]
    assert np.max(moves) > 1e-2


def test_one_module_under_two_names_has_two_sets_of_parameters():
    tower = MLP((), 3)
    model = TwoTower({"left": tower, "right": tower}, embed_dim=2)
    params = model.init(jax.random.key(0), {"left": ROWS, "right": ROWS})["params"]
    kernels = [nn.unbox(params[name]["out"]["kernel"]) for name in ("left", "right")]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


def test_equal_models_are_one_static_argument_to_jit():
    assert hash(TwoTower(towers(), 4)) == hash(TwoTower(towers(), 4))
    assert TwoTower(towers(), 4) == TwoTower(towers(), 4)
    assert TwoTower(towers(), 4) != TwoTower(towers(), 5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"audio": ROWS}, "inputs must be some of the towers image, sound, text; got audio"),
        ({}, "inputs must be some of the towers image, sound, text; got nothing"),
    ],
)
def test_inputs_without_a_tower_are_refused(inputs, message, variables):
    with pytest.raises(ValueError, match=re.escape(message)):
        MODEL.apply(variables, inputs)


def test_initialising_needs_every_tower():
    with pytest.raises(ValueError, match="an input for each of image, sound, text at first; got"):
        MODEL.init(jax.random.key(0), {"text": TEXTS})


@pytest.mark.parametrize("name", ["image_projection", "logit_scale", "towers", "two words"])
def test_names_that_clash_are_refused(name):
    with pytest.raises(ValueError, match=f"a tower's name must be .* got '{name}'"):
        TwoTower({name: MLP((), 3)}, embed_dim=2)


@pytest.mark.parametrize("scales", [(0.0, 100.0), (200.0, 100.0), (1.0, math.inf)])
def test_scales_that_cannot_be_are_refused(scales):
    start, limit = scales
    with pytest.raises(ValueError, match="expected 0 < logit_scale_init <= logit_scale_max"):
        TwoTower(towers(), 4, logit_scale_init=start, logit_scale_max=limit)
    with pytest.raises(ValueError, match="at least one tower, got none"):
        TwoTower({}, 4)


def test_unit_rows_have_unit_length_and_the_formula_s_gradient():
    x, weights = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
    x *= np.array([[1e-3], [1.0], [1e6]], np.float32)
    length = np.linalg.norm(np.float64(x), axis=1, keepdims=True)
    unit = x / length
    np.testing.assert_allclose(unit_rows(x), unit, rtol=1e-6)
    grad = jax.grad(lambda x: jnp.sum(unit_rows(x) * weights))(x)
    want = (weights - unit * (unit * weights).sum(1, keepdims=True)) / length
    np.testing.assert_allclose(grad * length, want * length, rtol=1e-4, atol=1e-6)


def test_a_row_of_zeros_has_a_value_and_a_gradient_of_zero():
    x = jnp.zeros((2, 3))
    np.testing.assert_array_equal(unit_rows(x), 0)
    np.testing.assert_array_equal(
        jax.grad(lambda x: jnp.sum(unit_rows(x) ** 3 + unit_rows(x)))(x), 0
    )


@pytest.mark.parametrize("log_scale", [1.0, 3.0, 4.0], ids=["below", "at", "above"])
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["down", "up"])
def test_the_scale_is_clamped_and_its_slope_only_leads_back(log_scale, sign):
    value, slope = jax.value_and_grad(lambda s: sign * clamped_scale(s, log_max=3.0))(log_scale)
    np.testing.assert_allclose(value, sign * math.exp(min(log_scale, 3.0)), rtol=1e-6)
    free = log_scale < 3.0 or sign > 0
    np.testing.assert_allclose(slope, value if free else 0.0, rtol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["down", "up"])
def test_the_slope_is_that_of_the_whole_batch_on_every_shard(sign):
    """Shards disagree about the direction here; their sum decides."""
    weights = jnp.array([5.0, -1, -1, -1, 1, -1, 1, -1]) * sign  # they add up to 2, or to -2
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")

    def loss(log_scale, weights):
        return jnp.sum(clamped_scale(log_scale, log_max=3.0) * weights)

    def total(log_scale, weights):
        return jax.lax.psum(loss(log_scale, weights), "data")

    want = 2 * math.exp(3.0) if sign > 0 else 0.0
    shard = functools.partial(jax.shard_map, mesh=mesh, in_specs=(PartitionSpec(), spec))
    outside = jax.grad(shard(total, out_specs=PartitionSpec()))
    inside = shard(jax.grad(total), out_specs=PartitionSpec())
    for gradient in (jax.grad(loss), outside, inside):
        got = jax.jit(gradient)(jnp.float32(4.0), weights)
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_descent_leaves_the_clamp_and_does_not_pass_it():
    def descend(sign):
        log_scale = jnp.float32(3.2)
        for _ in range(20):
            slope = jax.grad(lambda s: sign * clamped_scale(s, log_max=3.0))(log_scale)
            log_scale = log_scale - 0.01 * slope
        return log_scale

    assert descend(1.0) < 2.0
    assert descend(-1.0) == jnp.float32(3.2)
