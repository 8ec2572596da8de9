"""Samples whose discrepancy is known, paired or not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definitions.discrepancy import cmd_definition, gaussian_mmd_definition
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from mmjax.losses.discrepancy import cmd, mmd
from mmjax.losses.kernels import linear_kernel, rbf_kernel

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(16, 3)).astype(np.float32)
Y = RNG.uniform(size=(8, 3)).astype(np.float32) ** 2
GAUSSIAN = functools.partial(rbf_kernel, bandwidth=0.5)
MEASURES = {
    "mmd": functools.partial(mmd, kernel=GAUSSIAN, chunk_size=3),
    "mmd-unbiased": functools.partial(mmd, kernel=GAUSSIAN, unbiased=True, chunk_size=3),
    "cmd": functools.partial(cmd, interval=(0.0, 1.0)),
}
every_measure = pytest.mark.parametrize("name", MEASURES)
ALL_X, ALL_Y = np.ones(16, bool), np.ones(8, bool)


@functools.cache
def compiled(name):
    """Value and both gradients of a measure, on one device."""

    def measure(x, y, where_x, where_y):
        return MEASURES[name](x, y, where_x=where_x, where_y=where_y)

    return jax.jit(jax.value_and_grad(measure, (0, 1)))


def by_definition(name, x, y):
    x, y = np.float64(x), np.float64(y)
    if name == "cmd":
        return cmd_definition(x, y, interval=(0.0, 1.0))
    return gaussian_mmd_definition(x, y, bandwidth=0.5, unbiased=name == "mmd-unbiased")


def test_linear_mmd_is_the_squared_distance_of_the_means():
    distance = np.float64(X).mean(axis=0) - np.float64(Y).mean(axis=0)
    found = jax.jit(functools.partial(mmd, kernel=linear_kernel))(X, Y)
    np.testing.assert_allclose(found, (distance**2).sum(), rtol=1e-5)


def test_the_unbiased_estimate_is_0_on_average_between_equal_distributions():
    keys = jax.random.split(jax.random.key(0), 400)
    samples = jax.vmap(lambda key: jax.random.normal(key, (2, 6, 2)))(keys)
    measures = [functools.partial(mmd, kernel=GAUSSIAN, unbiased=u) for u in (False, True)]
    biased, unbiased = jax.jit(jax.vmap(lambda s: [measure(*s) for measure in measures]))(samples)
    error = np.std(unbiased) / np.sqrt(len(keys))
    assert abs(np.mean(unbiased)) < 3 * error
    assert np.mean(biased) > 10 * error


def test_a_wide_kernel_is_not_rounded_away():
    """Its products are all 1 up to 1e-5; what is left of them is that of a linear kernel."""
    wide = functools.partial(rbf_kernel, bandwidth=300.0)
    x, y = RNG.uniform(size=(2, 512, 3)).astype(np.float32) ** np.array([[[1]], [[2]]], np.float32)
    found = jax.jit(functools.partial(mmd, kernel=wide))(x, y[:100])
    distance = np.float64(x).mean(axis=0) - np.float64(y[:100]).mean(axis=0)
    np.testing.assert_allclose(300.0**2 * np.float64(found), (distance**2).sum(), rtol=0.01)


def test_two_points_apart_differ_in_their_means_only():
    x, y = jnp.full((3, 2), 0.5), jnp.full((4, 2), 0.2)
    found = cmd(x, y, interval=(-1.0, 1.0))
    np.testing.assert_allclose(found, np.sqrt(2) * 0.3 / 2, rtol=1e-6)


def test_moments_are_counted_up_to_their_number():
    x = jnp.array([[0.0], [0.0], [0.75]])  # mean 1/4; deviations -1/4, -1/4, 1/2
    y = jnp.array([[0.25]])
    second, third = (2 / 16 + 1 / 4) / 3, (-2 / 64 + 1 / 8) / 3
    found = [cmd(x, y, interval=(0.0, 1.0), moments=k) for k in (1, 2, 3)]
    np.testing.assert_allclose(found, [0, second, second + third], rtol=1e-6, atol=1e-7)


@every_measure
def test_samples_need_be_neither_paired_nor_equally_many_nor_on_one_shard(name):
    masks = RNG.uniform(size=16) < 0.5, RNG.uniform(size=8) < 0.7
    _, wanted = compiled(name)(X, Y, *masks)

    def local(x, y, where_x, where_y):
        return MEASURES[name](x, y, where_x=where_x, where_y=where_y, axis_name="data")

    mesh = Mesh(np.array(jax.devices()[:4]), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.shard_map(local, mesh=mesh, in_specs=P("data"), out_specs=P())
    dirty = [
        np.where(where[:, None], z, np.float32(np.nan))
        for z, where in zip((X, Y), masks, strict=True)
    ]
    value, gradients = jax.jit(jax.value_and_grad(sharded, (0, 1)))(*dirty, *masks)
    valid = [z[where] for z, where in zip((X, Y), masks, strict=True)]
    np.testing.assert_allclose(value, by_definition(name, *valid), rtol=1e-5)
    for gradient, slope, where in zip(gradients, wanted, masks, strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)
        assert not np.any(gradient[~where])


@every_measure
def test_a_sample_without_rows_is_not_apart_from_any(name):
    value, gradients = compiled(name)(X, Y, ALL_X, ~ALL_Y)
    assert value == 0
    assert not any(np.any(g) for g in gradients)


def test_an_unbiased_estimate_needs_two_rows_of_either():
    one, two = np.arange(8) < 1, np.arange(8) < 2
    assert compiled("mmd-unbiased")(X, Y, ALL_X, one)[0] == 0
    assert compiled("mmd-unbiased")(X, Y, ALL_X, two)[0] != 0
    assert compiled("mmd")(X, Y, ALL_X, one)[0] > 0


@pytest.mark.parametrize("name", ["mmd", "cmd"])
def test_a_sample_is_not_apart_from_itself_and_is_left_where_it_is(name):
    first = np.arange(16) < 8
    value, gradients = compiled(name)(X, X[:8], first, ALL_Y)
    assert value == pytest.approx(0, abs=1e-6)
    assert all(np.max(np.abs(g)) < 1e-6 for g in gradients)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"moments": 0}, "moments must be at least 1, got 0"),
        ({"interval": (1.0, 0.0)}, r"from its lower to its upper bound, got \(1.0, 0.0\)"),
        ({"interval": (0.0, float("inf"))}, "interval must be finite, got inf"),
    ],
)
def test_moments_that_cannot_be_compared_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cmd(X, Y, **{"interval": (0.0, 1.0), **options})


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        mmd(X, Y, kernel=GAUSSIAN, chunk_size=0)


def test_neither_pass_holds_all_pairs():
    n, chunk = 8192, 128
    rows = jax.ShapeDtypeStruct((n, 8), jnp.float32)
    run = jax.jit(jax.grad(functools.partial(mmd, kernel=GAUSSIAN, chunk_size=chunk), (0, 1)))
    memory = run.lower(rows, rows).compile().memory_analysis()
    block = 4 * n * chunk
    assert memory.temp_size_in_bytes < 8 * block < 4 * n * n / 4
