"""What kernels are worth, and the bandwidth that is the median distance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from mmjax.losses.bandwidth import MOST_ROWS, median_bandwidth
from mmjax.losses.kernels import linear_kernel, polynomial_kernel, rbf_kernel, squared_distances

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(7, 3)).astype(np.float32), RNG.normal(size=(5, 3)).astype(np.float32)


def differences(x, y):
    return ((np.float64(x)[:, None] - np.float64(y)[None]) ** 2).sum(axis=-1)


def test_kernels_are_their_formulas():
    inner = np.float64(X) @ np.float64(Y).T
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(linear_kernel(X, Y), inner)
    close(polynomial_kernel(X, Y, degree=3, scale=0.5, offset=2.0), (0.5 * inner + 2) ** 3)
    close(rbf_kernel(X, Y, bandwidth=0.8), np.exp(-differences(X, Y) / (2 * 0.8**2)))


def test_narrow_rows_are_multiplied_in_float32():
    x, y = (jnp.asarray(z).astype(jnp.bfloat16) for z in (X, Y))
    for kernel in (linear_kernel, polynomial_kernel, functools.partial(rbf_kernel, bandwidth=1.0)):
        found = kernel(x, y)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, kernel(*(z.astype(jnp.float32) for z in (x, y))))


def test_distances_do_not_drown_in_an_offset():
    offset = np.float32(1000)  # the squares of such rows are rounded by 0.06
    x, y = X + offset, Y + offset
    np.testing.assert_allclose(squared_distances(x, y), differences(x, y), rtol=1e-5)


def test_a_row_is_at_no_distance_from_itself():
    x = np.float32(1e3) + X[:1]
    assert squared_distances(x, x) == 0
    assert rbf_kernel(x, x, bandwidth=1e-4) == 1


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        (rbf_kernel, {"bandwidth": 0.0}, "bandwidth must be positive and finite, got 0.0"),
        (polynomial_kernel, {"degree": 0}, "degree must be at least 1, got 0"),
        (polynomial_kernel, {"scale": -1.0}, "scale must be positive and finite, got -1.0"),
        (polynomial_kernel, {"offset": -1.0}, "offset must not be negative, got -1.0"),
        (polynomial_kernel, {"offset": float("nan")}, "offset must be finite, got nan"),
    ],
)
def test_options_that_make_no_kernel_are_refused(kernel, options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(functools.partial(kernel, **options), X, Y)


def median_distance(x):
    return np.median(np.sqrt(differences(x, x))[np.triu_indices(len(x), k=1)])


@pytest.mark.parametrize("rows", [6, 7], ids=["odd-pairs", "even-pairs"])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_the_bandwidth_is_the_median_of_all_distances(rows, scale):
    x = X[:rows] * np.float32(scale)
    found = median_bandwidth(x, chunk_size=4)
    np.testing.assert_allclose(found, median_distance(x), rtol=1e-5)


def test_the_bandwidth_is_that_of_the_valid_rows_of_all_shards():
    x, where = RNG.normal(size=(16, 3)).astype(np.float32), RNG.uniform(size=16) < 0.6
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.shard_map(
        lambda x, where: median_bandwidth(x, where=where, axis_name="data", chunk_size=3),
        mesh=mesh,
        in_specs=P("data"),
        out_specs=P(),
    )
    dirty = np.where(where[:, None], x, np.float32(np.nan))
    wanted = median_distance(x[where])
    np.testing.assert_allclose(jax.jit(sharded)(dirty, where), wanted, rtol=1e-5)


def test_the_bandwidth_is_a_constant_and_always_positive():
    assert not np.any(jax.grad(median_bandwidth)(X))
    assert median_bandwidth(np.ones((4, 2), np.float32)) == 1
    assert median_bandwidth(X, where=np.arange(7) == 3) == 1
    assert median_bandwidth(X, where=np.zeros(7, bool)) == 1


def test_more_rows_than_can_be_counted_are_refused():
    x = jax.ShapeDtypeStruct((MOST_ROWS + 1, 1), jnp.float32)
    with pytest.raises(ValueError, match=r"at most 92682 rows on all shards, got 92683"):
        jax.eval_shape(median_bandwidth, x)
    assert MOST_ROWS * (MOST_ROWS - 1) // 2 < 2**32 <= MOST_ROWS * (MOST_ROWS + 1) // 2
