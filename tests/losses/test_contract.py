"""What holds for every public loss: add a loss to LOSSES and all of it is tested.

The oracles are the definitions: NumPy, float64, invalid rows deleted; gradients are central
differences of them. Invalid rows hold NaN on their way in.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import TypeCheckError

import mmjax.losses
from mmjax.losses import clip_loss, info_nce, siglip_loss
from mmjax.reduction import masked_mean


def cross_entropy(logits):
    return np.logaddexp.reduce(logits, axis=1) - np.diag(logits)


def info_nce_oracle(x, y, temperature):
    return cross_entropy(x @ y.T / temperature)


def clip_oracle(x, y, logit_scale):
    logits = logit_scale * (x @ y.T)
    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


def siglip_oracle(x, y, logit_scale, logit_bias):
    signs = 2 * np.eye(len(x)) - 1
    return np.logaddexp(0, -signs * (logit_scale * (x @ y.T) + logit_bias)).sum(axis=1)


@dataclasses.dataclass(frozen=True)
class Loss:
    """A public loss, its definition, usual values of its scalars, and extreme ones."""

    function: Callable
    oracle: Callable
    scalars: Mapping[str, float]
    extreme: Mapping[str, float]


LOSSES = {
    "info_nce": Loss(info_nce, info_nce_oracle, {"temperature": 0.5}, {"temperature": 1e-4}),
    "clip_loss": Loss(clip_loss, clip_oracle, {"logit_scale": 3.0}, {"logit_scale": 1e4}),
    "siglip_loss": Loss(
        siglip_loss,
        siglip_oracle,
        {"logit_scale": 3.0, "logit_bias": -1.5},
        {"logit_scale": 1e4, "logit_bias": -1e3},
    ),
}
every_loss = pytest.mark.parametrize("name", LOSSES)

N, D, SHARDS = 16, 4, 8
RNG = np.random.default_rng(0)
X, Y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in RNG.normal(size=(2, N, D)))
WEIGHTS = RNG.uniform(0.5, 1.5, N).astype(np.float32)  # so that no two rows share a cotangent
MASKS = {
    "full": np.ones(N, bool),
    "ragged": np.array([1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1], bool),
    "empty": np.zeros(N, bool),
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def rounded(dtype):
    """The rows as ``dtype`` holds them: the oracle sees exactly what the loss sees."""
    return tuple(np.asarray(z.astype(dtype)) for z in (X, Y))


def oracle_rows(loss, x, y, scalars, where):
    rows = np.zeros(N)
    if where.any():
        rows[where] = loss.oracle(x[where], y[where], **scalars)
    return rows


@functools.cache
def wanted(name, mask, dtype):
    """Rows and gradients, by definition, of the weighted mean over valid rows."""
    loss, where = LOSSES[name], MASKS[mask]
    inputs = {"x": None, "y": None, **loss.scalars}
    inputs["x"], inputs["y"] = (np.float64(z) for z in rounded(dtype))

    def objective(inputs):
        scalars = {key: inputs[key] for key in loss.scalars}
        rows = oracle_rows(loss, inputs["x"], inputs["y"], scalars, where)
        return (rows * np.float64(WEIGHTS)).sum() / max(where.sum(), 1)

    def central_difference(key, index, step=1e-5):
        ends = []
        for sign in (1, -1):
            value = np.array(inputs[key])
            value[index] += sign * step
            ends.append(objective({**inputs, key: value}))
        return (ends[0] - ends[1]) / (2 * step)

    gradients = {key: np.zeros(np.shape(value)) for key, value in inputs.items()}
    for key, gradient in gradients.items():
        for index in np.ndindex(gradient.shape):
            gradient[index] = central_difference(key, index)
    rows = oracle_rows(loss, inputs["x"], inputs["y"], loss.scalars, where)
    return rows, objective(inputs), gradients


def objective(loss, inputs, where, weights, axis_name=None):
    """The weighted mean that is differentiated, and the rows behind it."""
    rows = loss.function(**as_arguments(loss, inputs), where=where, axis_name=axis_name)
    return masked_mean(rows * weights, where, axis_name), rows


def as_arguments(loss, inputs):
    """Rename ``x`` and ``y`` to what this loss calls its two positional arguments."""
    first, second = list(loss.function.__annotations__)[:2]
    return {first: inputs["x"], second: inputs["y"], **{k: inputs[k] for k in loss.scalars}}


def mesh(**axes):
    devices = np.array(jax.devices()[:SHARDS]).reshape(tuple(axes.values()))
    return Mesh(devices, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


@functools.cache
def compiled(name, context):
    """Value, rows and every gradient of a loss in one sharding context."""
    loss, data = LOSSES[name], P("data")
    specs = {"x": data, "y": data, **dict.fromkeys(LOSSES[name].scalars, P())}
    local = functools.partial(objective, loss)
    sharded = functools.partial(local, axis_name="data")
    over_shards = {"mesh": mesh(data=SHARDS), "in_specs": (specs, data, data)}
    if context == "unsharded":
        return jax.jit(jax.value_and_grad(local, has_aux=True))
    if context == "jit":
        place = functools.partial(NamedSharding, mesh(data=SHARDS))
        shardings = jax.tree.map(place, over_shards["in_specs"])
        return jax.jit(jax.value_and_grad(local, has_aux=True), in_shardings=shardings)
    if context == "grad(shard_map)":
        inner = jax.shard_map(sharded, out_specs=(P(), data), **over_shards)
        return jax.jit(jax.value_and_grad(inner, has_aux=True))
    inner = jax.value_and_grad(sharded, has_aux=True)
    return jax.jit(jax.shard_map(inner, out_specs=((P(), data), specs), **over_shards))


def call(name, context, mask, dtype=jnp.float32):
    """Run with NaN in every invalid row."""
    where = MASKS[mask]
    x, y = (np.where(where[:, None], z, np.array(np.nan, z.dtype)) for z in rounded(dtype))
    scalars = {key: jnp.float32(value) for key, value in LOSSES[name].scalars.items()}
    return compiled(name, context)({"x": x, "y": y, **scalars}, where, WEIGHTS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("context", ["unsharded", "jit", "grad(shard_map)", "shard_map(grad)"])
@every_loss
def test_value_and_every_gradient_equal_the_definition(name, context, mask, dtype):
    dtype, where = DTYPES[dtype], MASKS[mask]
    (value, rows), gradients = call(name, context, mask, dtype)
    wanted_rows, wanted_value, wanted_gradients = wanted(name, mask, dtype)
    # bfloat16 rows are products and sums in float32, so the rows are as exact as float32 ones.
    assert rows.dtype == value.dtype == jnp.float32
    np.testing.assert_allclose(rows, wanted_rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-5, atol=1e-6)
    for key, wanted_gradient in wanted_gradients.items():
        gradient = np.float32(gradients[key])
        # Summed in float32, over shards too, and rounded once: half a unit in the last place.
        tolerance = 2**-8 if gradients[key].dtype == jnp.bfloat16 else 2e-5
        np.testing.assert_allclose(gradient, wanted_gradient, rtol=tolerance, atol=1e-6)
    assert not np.any(rows[~where])
    assert not np.any(gradients["x"][~where])
    assert not np.any(gradients["y"][~where])


@every_loss
def test_rows_sharded_over_two_mesh_axes_keep_their_own_positives(name):
    loss, rows = LOSSES[name], P(("slice", "chip"))
    specs = {"x": rows, "y": rows, **dict.fromkeys(loss.scalars, P())}
    local = functools.partial(objective, loss, axis_name=("slice", "chip"))
    sharded = jax.shard_map(
        local, mesh=mesh(slice=2, chip=4), in_specs=(specs, rows, rows), out_specs=(P(), rows)
    )
    (x, y), where = rounded(jnp.float32), MASKS["ragged"]
    value, got = jax.jit(sharded)({"x": x, "y": y, **loss.scalars}, where, WEIGHTS)
    wanted_rows, wanted_value, _ = wanted(name, "ragged", jnp.float32)
    np.testing.assert_allclose(got, wanted_rows, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value, wanted_value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("context", ["shard_map(grad), check_vma=False", "pmap(grad)"])
@every_loss
def test_unchecked_shards_need_the_mean_of_their_gradients(name, context):
    """The docstrings say so; were it no longer true, they would be wrong."""
    loss, where = LOSSES[name], MASKS["ragged"]
    names = list(loss.scalars)

    def local(x, y, where, weights):
        def replicated(scalars):
            return objective(loss, {"x": x, "y": y, **scalars}, where, weights, "data")[0]

        raw = jax.grad(replicated)({key: jnp.float32(loss.scalars[key]) for key in names})
        both = {"raw": raw, "averaged": jax.lax.pmean(raw, "data")}
        return jax.tree.map(lambda gradient: gradient[None], both)

    arguments = (*rounded(jnp.float32), where, WEIGHTS)
    if context == "pmap(grad)":
        arguments = [a.reshape(SHARDS, N // SHARDS, *a.shape[1:]) for a in arguments]
        gradients = jax.pmap(local, axis_name="data", devices=jax.devices()[:SHARDS])(*arguments)
    else:
        rows = P("data")
        sharded = jax.shard_map(
            local, mesh=mesh(data=SHARDS), in_specs=rows, out_specs=rows, check_vma=False
        )
        gradients = jax.jit(sharded)(*arguments)
    for key in names:
        exact = wanted(name, "ragged", jnp.float32)[2][key]
        averaged, raw = (np.ravel(gradients[kind][key]) for kind in ("averaged", "raw"))
        np.testing.assert_allclose(averaged, np.full(SHARDS, exact), rtol=2e-5, atol=1e-6)
        assert np.abs(raw - exact).max() > 0.1 * abs(exact)


@every_loss
def test_no_mask_is_a_full_mask_and_numpy_rows_are_welcome(name):
    loss, (x, y) = LOSSES[name], rounded(jnp.float32)
    rows = loss.function(x, y, **loss.scalars)
    np.testing.assert_allclose(rows, wanted(name, "full", jnp.float32)[0], rtol=1e-5, atol=1e-6)


@every_loss
def test_permuting_the_rows_permutes_the_losses(name):
    (x, y), where, order = rounded(jnp.float32), MASKS["ragged"], RNG.permutation(N)
    scalars = {key: jnp.float32(value) for key, value in LOSSES[name].scalars.items()}
    run = compiled(name, "unsharded")
    (_, rows), _ = run({"x": x, "y": y, **scalars}, where, WEIGHTS)
    (_, permuted), _ = run({"x": x[order], "y": y[order], **scalars}, where[order], WEIGHTS)
    np.testing.assert_allclose(permuted, rows[order], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows", ["at-random", "solved", "opposed"])
@every_loss
def test_extreme_scales_do_not_overflow(name, rows):
    loss, (x, y) = LOSSES[name], rounded(jnp.float32)
    y = {"at-random": y, "solved": x, "opposed": -x}[rows]
    scalars = {key: jnp.float32(value) for key, value in loss.extreme.items()}
    run = compiled(name, "unsharded")
    (_, got), gradients = run({"x": x, "y": y, **scalars}, MASKS["full"], WEIGHTS)
    definition = loss.oracle(np.float64(x), np.float64(y), **loss.extreme)
    np.testing.assert_allclose(got, definition, rtol=1e-5, atol=5e-3)  # float32 is 1e-3 at 1e4
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradients))


@every_loss
def test_no_nan_is_made_on_the_way_even_where_all_rows_are_invalid(name):
    """A user who hunts for a NaN with jax_debug_nans must not be sent here."""
    loss, (x, y) = LOSSES[name], rounded(jnp.float32)
    inputs = {"x": x, "y": y, **{k: jnp.float32(v) for k, v in loss.scalars.items()}}
    with jax.debug_nans(True), jax.debug_infs(True):
        run = jax.value_and_grad(functools.partial(objective, loss), has_aux=True)
        (value, _), gradients = run(inputs, MASKS["empty"], WEIGHTS)
    assert value == 0
    assert not any(np.any(gradient) for gradient in jax.tree.leaves(gradients))


@every_loss
def test_float64_rows_are_computed_in_float64(name):
    loss = LOSSES[name]
    with jax.enable_x64(True):
        rows = loss.function(X, Y, **loss.scalars)
        assert rows.dtype == jnp.float64
        np.testing.assert_allclose(rows, loss.oracle(X, Y, **loss.scalars), rtol=1e-12)


@every_loss
def test_towers_of_different_precision_are_compared_in_float32(name):
    loss, x, y = LOSSES[name], rounded(jnp.bfloat16)[0], rounded(jnp.float32)[1]
    rows = loss.function(x, y, **loss.scalars)
    definition = loss.oracle(np.float64(x), np.float64(y), **loss.scalars)
    np.testing.assert_allclose(rows, definition, rtol=1e-5)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf")])
@every_loss
def test_a_scale_that_cannot_be_is_refused_while_tracing(name, bad):
    loss, (x, y) = LOSSES[name], rounded(jnp.float32)
    scale = next(iter(loss.scalars))
    run = functools.partial(loss.function, **{**loss.scalars, scale: bad})
    with pytest.raises(ValueError, match=f"{scale} must be positive and finite, got {bad}"):
        jax.eval_shape(run, x, y)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda y: y[:-1], None),
        (lambda y: y[:, :-1], None),
        (lambda y: y.astype(np.int32), None),
        (lambda y: y, np.ones(N - 1, bool)),
        (lambda y: y, np.ones(N, np.float32)),
    ],
    ids=["rows", "features", "dtype", "mask-rows", "mask-dtype"],
)
@every_loss
def test_wrong_shapes_and_dtypes_are_refused(name, change, where):
    loss, (x, y) = LOSSES[name], rounded(jnp.float32)
    with pytest.raises(TypeCheckError):
        loss.function(x, change(y), **loss.scalars, where=where)


def test_every_public_loss_is_under_this_contract():
    losses = {name for name in mmjax.losses.__all__ if name != "siglip_bias_init"}
    assert losses == set(LOSSES)
