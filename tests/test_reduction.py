"""The masked mean: one number from the valid values of all shards, exact in value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import TypeCheckError

from mmjax.reduction import masked_mean

VALUES = np.random.default_rng(0).normal(size=16).astype(np.float32)
MASKS = {
    "full": np.ones(16, bool),
    "ragged": np.array([1, 1, 0, 1] + [0] * 10 + [1, 0], bool),  # most shards hold no valid value
    "empty": np.zeros(16, bool),
}


def oracle(values, where):
    kept = np.float64(values)[where]
    gradient = where / max(where.sum(), 1)
    return (kept.mean() if kept.size else 0.0), gradient


@functools.cache
def value_and_grad(context):
    """One value and the gradient with respect to all values, in this sharding context."""
    if context == "unsharded":
        return jax.jit(jax.value_and_grad(masked_mean))
    mesh = Mesh(np.array(jax.devices()[:8]), "data", axis_types=(AxisType.Auto,))
    sharded = functools.partial(masked_mean, axis_name="data")
    rows = {"mesh": mesh, "in_specs": P("data")}
    if context == "grad(shard_map)":
        return jax.jit(jax.value_and_grad(jax.shard_map(sharded, out_specs=P(), **rows)))
    return jax.jit(jax.shard_map(jax.value_and_grad(sharded), out_specs=(P(), P("data")), **rows))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("context", ["unsharded", "grad(shard_map)", "shard_map(grad)"])
def test_the_mean_of_the_valid_values_and_its_gradient(context, mask):
    where = MASKS[mask]
    values = np.where(where, VALUES, np.nan)  # an invalid value must not leak
    value, gradient = value_and_grad(context)(values, where)
    wanted_value, wanted_gradient = oracle(VALUES, where)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-6)


def test_where_is_optional_and_positional_and_any_shape_goes():
    values = VALUES.reshape(4, 4)
    np.testing.assert_allclose(masked_mean(values), values.mean(dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(
        masked_mean(values, values > 0), np.float64(values)[values > 0].mean(), rtol=1e-6
    )


def test_bfloat16_values_are_summed_and_counted_in_float32():
    values = jnp.concatenate([jnp.ones(1000), jnp.zeros(24)]).astype(jnp.bfloat16)
    mean = masked_mean(values)
    assert mean.dtype == jnp.float32
    assert mean == 1000 / 1024  # neither 1000 nor its neighbours exist in bfloat16


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(TypeCheckError, match="where"):
        masked_mean(jnp.ones(3), jnp.ones(2, bool))
