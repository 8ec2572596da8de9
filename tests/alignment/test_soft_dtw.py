"""Soft dynamic time warping against all paths, one by one, and against other libraries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.alignment import dtw, soft_dtw, soft_dtw_divergence, squared_costs

RNG = np.random.default_rng(0)
N, T, S = 6, 5, 4
COST = RNG.uniform(-1, 2, size=(N, T, S))
# int32: what is compiled for NumPy integers of 64 bits is not found again without enable_x64.
LENGTHS = np.int32([5, 3, 1, 0, 0, 5]), np.int32([4, 4, 1, 0, 2, 2])
FULL = np.full(N, T, np.int32), np.full(N, S, np.int32)
INSIDE = (np.arange(T)[None, :, None] < LENGTHS[0][:, None, None]) & (
    np.arange(S)[None, None] < LENGTHS[1][:, None, None]
)
BANDS = [None, 2, 1]


@functools.partial(jax.jit, static_argnames="band")
def rows_and_visits(cost, gamma, lengths, band=None):
    def total(cost):
        rows = soft_dtw(cost, gamma=gamma, lengths=lengths, band=band)
        return jnp.sum(jnp.where(jnp.isfinite(rows), rows, 0)), rows

    (_, rows), visits = jax.value_and_grad(total, has_aux=True)(cost)
    return rows, visits


def by_definition(paths, cost, gamma, lengths, band):
    found = [
        paths.soft_minimum(cost[row], gamma, (lengths[0][row], lengths[1][row]), band)
        for row in range(len(cost))
    ]
    return np.array([value for value, _ in found]), np.array([visits for _, visits in found])


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("lengths", [FULL, LENGTHS], ids=["full", "ragged"])
@pytest.mark.parametrize("gamma", [0.01, 1.0, 100.0])
def test_value_and_gradient_are_those_of_all_paths(gamma, lengths, band, paths, double):
    padded = np.where(INSIDE, COST, np.nan) if lengths is LENGTHS else COST
    rows, visits = rows_and_visits(padded, gamma, lengths, band)
    wanted, wanted_visits = by_definition(paths, COST, gamma, lengths, band)
    np.testing.assert_allclose(rows, wanted, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(visits, wanted_visits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_narrow_dtypes_are_computed_in_float32(dtype, paths):
    cost = jnp.asarray(COST).astype(dtype)
    rows, visits = rows_and_visits(cost, 0.5, LENGTHS)
    assert rows.dtype == np.float32
    assert visits.dtype == dtype
    wanted, wanted_visits = by_definition(paths, np.float64(cost), 0.5, LENGTHS, None)
    np.testing.assert_allclose(rows, wanted, rtol=1e-5, atol=1e-5)
    rounding = 1e-2 if dtype is jnp.bfloat16 else 1e-5
    np.testing.assert_allclose(np.float64(visits), wanted_visits, rtol=rounding, atol=1e-5)


def test_a_long_table_is_a_wide_one_turned(double):
    turned, visits = rows_and_visits(COST, 0.5, LENGTHS, 2)
    rows, wide = rows_and_visits(COST.transpose(0, 2, 1), 0.5, LENGTHS[::-1], 2)
    np.testing.assert_allclose(rows, turned, rtol=1e-12)
    np.testing.assert_allclose(wide.transpose(0, 2, 1), visits, rtol=1e-9, atol=1e-12)


def test_gamma_and_second_derivatives(assert_slopes):
    weights = RNG.normal(size=N)

    def total(cost, gamma):
        rows = soft_dtw(cost, gamma=gamma, lengths=LENGTHS)
        return jnp.sum(jnp.where(jnp.isfinite(rows), rows, 0) * weights)

    def slope(cost, gamma):
        by_cost, by_gamma = jax.grad(total, (0, 1))(cost, gamma)
        return jnp.sum(jnp.sin(jnp.arange(by_cost.size)) * by_cost.ravel()) + by_gamma

    assert_slopes(total, COST, 0.7)
    assert_slopes(slope, COST, 0.7)


def test_the_hessian_is_minus_the_covariance_of_the_cells_of_a_path(double):
    cost, gamma = np.array([[0.2, 0.7], [0.4, 0.1]]), 0.5
    weights = np.exp(-np.array([0.0, 0.7, 0.4]) / gamma)  # of the corners between first and last
    _, *shares = weights / weights.sum()
    wanted = np.zeros((4, 4))
    wanted[1:3, 1:3] = (np.outer(shares, shares) - np.diag(shares)) / gamma

    def total(flat):
        return soft_dtw(flat.reshape(1, 2, 2), gamma=gamma)[0]

    found = jax.jit(jax.jacrev(jax.grad(total)))(cost.ravel())
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_whole_numbers_of_numpy_are_as_good_as_python_s():
    jax.eval_shape(lambda c: soft_dtw(c, gamma=1.0, band=np.int64(2)), COST)


def test_a_small_gamma_gives_the_cheapest_path():
    rows, visits = rows_and_visits(np.float32(COST), 1e-4, LENGTHS)
    np.testing.assert_allclose(rows, dtw(np.float32(COST), lengths=LENGTHS).cost, atol=1e-3)
    assert np.allclose(visits, np.round(visits), atol=1e-3)


@pytest.mark.parametrize(
    ("scale", "gamma"),
    [(1e8, 1e-4), (1e-8, 1e4), (1e8, 1e4), (1.0, 1e-19), (1e17, 1e-3), (1.0, 1e20)],
)
def test_extreme_costs_stay_finite(scale, gamma, paths):
    rows, visits = rows_and_visits(np.float32(COST * scale), gamma, FULL)
    wanted, wanted_visits = by_definition(paths, COST * scale, gamma, FULL, None)
    np.testing.assert_allclose(rows, wanted, rtol=1e-5, atol=1e-6 * scale)
    np.testing.assert_allclose(visits, wanted_visits, atol=1e-3)


def test_vmap_is_a_loop(double):
    lengths = jax.tree.map(lambda z: np.stack([z, z[::-1]]), LENGTHS)
    costs = np.stack([COST, COST[::-1]])
    found = jax.jit(jax.vmap(lambda c, n: soft_dtw(c, gamma=0.5, lengths=n)))(costs, lengths)
    np.testing.assert_allclose(found[0], found[1][::-1], rtol=1e-12)
    np.testing.assert_allclose(found[0], rows_and_visits(COST, 0.5, LENGTHS)[0], rtol=1e-12)


def test_forbidden_cells_are_gone_round_or_make_the_cost_infinite(paths, double):
    cost = np.where(RNG.uniform(size=COST.shape) < 0.3, np.inf, COST)
    cost[:3, 0, 0] = cost[:3, -1, -1] = cost[:3, 1, 1] = 0  # some rows with a way, some without
    cost[0, 2, :] = np.inf  # a wall
    rows, visits = rows_and_visits(cost, 0.5, FULL)
    wanted, wanted_visits = by_definition(paths, cost, 0.5, FULL, None)
    assert np.isinf(wanted[0])
    assert np.isfinite(wanted).any()
    np.testing.assert_allclose(rows, wanted, rtol=1e-10)
    np.testing.assert_allclose(visits, wanted_visits, rtol=1e-9, atol=1e-12)


def test_nan_within_the_lengths_shows_in_its_row_only():
    cost = np.float32(COST)
    cost[0, 2, 2] = np.nan
    rows, visits = rows_and_visits(cost, 0.5, FULL)
    clean, clean_visits = rows_and_visits(np.float32(COST), 0.5, FULL)
    assert np.isnan(rows[0])
    np.testing.assert_array_equal(rows[1:], clean[1:])
    np.testing.assert_array_equal(visits[1:], clean_visits[1:])


def test_sequences_longer_than_the_band_have_no_path(double):
    lengths = np.array([5, 3, 5, 5, 5, 5]), np.array([1, 3, 4, 4, 4, 4])
    rows, visits = rows_and_visits(COST, 0.5, lengths, 2)
    assert np.isinf(rows[0])
    assert np.isfinite(rows[1:]).all()
    assert not visits[0].any()


def test_lengths_on_the_device_that_do_not_fit_have_no_path(double):
    lengths = jnp.array([6, 5, 5, 5, 5, 5]), jnp.array([4, -1, 4, 4, 4, 4])
    rows, visits = rows_and_visits(COST, 0.5, lengths)
    assert np.isinf(rows[:2]).all()
    assert np.isfinite(rows[2:]).all()
    assert not visits[:2].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, "gamma must be positive"),
        ({"gamma": np.nan}, "gamma must be positive and finite"),
        ({"gamma": 1.0, "band": 0}, "band must be at least 1, or no path reaches the last of 4 by"),
        ({"gamma": 1.0, "band": -1, "lengths": FULL}, "band must be at least 0"),
        ({"gamma": 1.0, "lengths": (FULL[0] + 1, FULL[1])}, "lengths must lie between 0 and the"),
        ({"gamma": 1.0, "lengths": (FULL[0], -FULL[1])}, "lengths must lie between 0 and the axis"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        soft_dtw(np.float32(COST), **options)


def test_a_table_without_cells_is_refused():
    with pytest.raises(ValueError, match="cost must have cells, got shape"):
        soft_dtw(np.zeros((2, 0, 3), np.float32), gamma=1.0)


SEQUENCES = RNG.normal(size=(2, N, T, 3))


@functools.partial(jax.jit, static_argnames="band")
def divergence(x, y, gamma, lengths, band=None):
    costs = squared_costs(x, y), squared_costs(x, x), squared_costs(y, y)
    return soft_dtw_divergence(*costs, gamma=gamma, lengths=lengths, band=band)


def test_the_divergence_is_what_its_three_terms_are(paths, double):
    x, y = SEQUENCES
    lengths = LENGTHS[0], np.array([5, 4, 1, 0, 2, 4])
    found = divergence(x, y, 0.5, lengths, 3)
    for row in range(N):
        t, s = lengths[0][row], lengths[1][row]
        terms = [
            paths.soft_minimum(((a[:, None] - b[None]) ** 2).sum(axis=-1), 0.5, sizes, 3)[0]
            for a, b, sizes in (
                (x[row], y[row], (t, s)),
                (x[row], x[row], (t, t)),
                (y[row], y[row], (s, s)),
            )
        ]
        np.testing.assert_allclose(found[row], terms[0] - (terms[1] + terms[2]) / 2, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), log_gamma=st.floats(-2, 2))
def test_the_divergence_is_0_between_equals_and_not_negative(seed, log_gamma):
    x, y = np.random.default_rng(seed).normal(size=(2, N, T, 3)).astype(np.float32)
    gamma = np.float32(10**log_gamma)
    rounding = 1e-4 * max(1, gamma)
    assert np.all(divergence(x, y, gamma, FULL[:1] * 2) >= -rounding)
    np.testing.assert_allclose(divergence(x, x, gamma, FULL[:1] * 2), 0, atol=rounding)


def test_the_divergence_can_be_differentiated(assert_slopes):
    def total(x, y, gamma):
        costs = squared_costs(x, y), squared_costs(x, x), squared_costs(y, y)
        rows = soft_dtw_divergence(*costs, gamma=gamma, lengths=LENGTHS)
        return jnp.sum(jnp.where(jnp.isfinite(rows), rows, 0))

    assert_slopes(total, SEQUENCES[0], SEQUENCES[1, :, :S], 0.5)


def test_pysdtw_agrees():
    torch, pysdtw = pytest.importorskip("torch"), pytest.importorskip("pysdtw")
    x, y = (torch.tensor(np.float32(z), requires_grad=True) for z in SEQUENCES)

    def ours(x, y):
        return jnp.sum(soft_dtw(squared_costs(x, y), gamma=0.5))

    theirs = pysdtw.SoftDTW(
        gamma=0.5, dist_func=pysdtw.distance.pairwise_l2_squared, use_cuda=False
    )
    rows = theirs(x, y)
    rows.sum().backward()
    value, gradients = jax.jit(jax.value_and_grad(ours, (0, 1)))(*np.float32(SEQUENCES))
    np.testing.assert_allclose(value, rows.sum().item(), rtol=1e-5)
    for found, wanted in zip(gradients, (x.grad, y.grad), strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-4)


def test_tslearn_agrees_on_the_divergence():
    metrics = pytest.importorskip("tslearn.metrics")
    x, y = np.float32(SEQUENCES)
    wanted = np.diag(metrics.cdist_soft_dtw_normalized(x, y, gamma=0.5))
    np.testing.assert_allclose(divergence(x, y, 0.5, FULL[:1] * 2), wanted, rtol=1e-4)


def test_tslearn_agrees():
    metrics = pytest.importorskip("tslearn.metrics")
    found = rows_and_visits(np.float32(COST), 0.5, FULL)[0]
    costs = [np.float64(np.float32(c)) for c in COST]
    wanted = [metrics.SoftDTW(cost, gamma=0.5).compute() for cost in costs]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_ott_agrees():
    costs = pytest.importorskip("ott.geometry.costs")
    theirs = jax.vmap(costs.SoftDTW(gamma=0.5))
    x, y = np.float32(SEQUENCES)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        wanted = jax.jit(theirs)(x, y)
    found = soft_dtw(squared_costs(x, y), gamma=0.5)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_value_and_gradient_hold_three_tables():
    """Of antidiagonals: costs, whose place the visits take, soft minima, and one that is turned."""
    x = jax.ShapeDtypeStruct((16, 64, 4), np.float32)
    step = jax.value_and_grad(
        lambda x, y: jnp.sum(soft_dtw(squared_costs(x, y), gamma=1.0)), (0, 1)
    )
    held = jax.jit(step).lower(x, x).compile().memory_analysis().temp_size_in_bytes
    assert held < 3.3 * 4 * 16 * 64 * (64 + 64 - 1)
