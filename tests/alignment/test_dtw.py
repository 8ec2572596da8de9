"""Dynamic time warping against all paths, one by one, and against other libraries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from mmjax.alignment import dtw, squared_costs

N, T, S = 6, 5, 4
COST = np.random.default_rng(1).uniform(-1, 2, size=(N, T, S)).astype(np.float32)
LENGTHS = np.array([5, 3, 1, 0, 0, 5]), np.array([4, 4, 1, 0, 2, 2])
FULL = np.full(N, T), np.full(N, S)


@functools.partial(jax.jit, static_argnames="band")
def warped(cost, lengths, band=None):
    def total(cost):
        found = dtw(cost, lengths=lengths, band=band)
        return jnp.sum(jnp.where(jnp.isfinite(found.cost), found.cost, 0)), found

    (_, found), gradient = jax.value_and_grad(total, has_aux=True)(cost)
    return found, gradient


def check(paths, cost, lengths, band=None):
    """Value, path and gradient of every row against the cheapest of all paths."""
    padded = np.full_like(cost, np.nan)
    for row, (t, s) in enumerate(zip(*lengths, strict=True)):
        padded[row, :t, :s] = cost[row, :t, :s]
    found, gradient = warped(padded, lengths, band)
    for row, (t, s) in enumerate(zip(*lengths, strict=True)):
        every = paths.every(t, s, band)
        costs = paths.costs(np.float64(cost[row]), every)
        cells = [tuple(cell) for cell in found.path[row, : found.steps[row]].tolist()]
        assert np.all(found.path[row, found.steps[row] :] == -1)
        visited = np.zeros((T, S))
        if np.isfinite(costs).any():
            np.testing.assert_allclose(found.cost[row], costs.min(), rtol=1e-5, atol=1e-6)
            assert cells in every
            np.testing.assert_allclose(paths.costs(cost[row], [cells])[0], costs.min(), atol=1e-5)
            for cell in cells:
                visited[cell] = 1
        else:
            assert np.isinf(found.cost[row])
            assert not cells
        np.testing.assert_array_equal(gradient[row], visited)


@pytest.mark.parametrize("band", [None, 2, 1])
@pytest.mark.parametrize("lengths", [FULL, LENGTHS], ids=["full", "ragged"])
def test_cost_path_and_gradient_are_those_of_the_cheapest_path(lengths, band, paths):
    check(paths, COST, lengths, band)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_so_they_are_where_paths_tie_and_cells_are_forbidden(paths, seed):
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 3, size=COST.shape).astype(np.float32)
    cost[rng.uniform(size=cost.shape) < 0.2] = np.inf
    check(paths, cost, FULL)


def test_without_lengths_the_axes_are_whole():
    found = jax.jit(dtw)(COST)
    np.testing.assert_array_equal(found.path, warped(COST, FULL)[0].path)


def test_nan_within_the_lengths_shows_in_its_row_only():
    cost = COST.copy()
    cost[0, 2, 2] = np.nan
    found, _ = warped(cost, FULL)
    assert np.isnan(found.cost[0])
    np.testing.assert_array_equal(found.cost[1:], warped(COST, FULL)[0].cost[1:])


def test_vmap_is_a_loop():
    found = jax.jit(jax.vmap(lambda c: dtw(c).path))(np.stack([COST, COST[::-1]]))
    np.testing.assert_array_equal(found[0], found[1][::-1])


def test_whole_numbers_of_numpy_are_as_good_as_python_s():
    jax.eval_shape(lambda c: dtw(c, band=np.int64(2)), COST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"band": 0}, "band must be at least 1, or no path reaches the last of 5 by 4"),
        ({"lengths": (FULL[0] + 1, FULL[1])}, "lengths must lie between 0 and the axis of 5"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dtw(COST, **options)


def test_lengths_of_other_rows_are_refused():
    with pytest.raises(TypeCheckError):
        dtw(COST, lengths=(FULL[0][:2], FULL[1][:2]))


X, Y = np.random.default_rng(2).normal(size=(2, N, T, 2)).astype(np.float32)


@pytest.mark.parametrize("band", [None, 1])
def test_tslearn_agrees(band):
    metrics = pytest.importorskip("tslearn.metrics")
    options = {} if band is None else {"sakoe_chiba_radius": band}
    found = dtw(squared_costs(X, Y), band=band)
    for row in range(N):
        path, distance = metrics.dtw_path(X[row], Y[row], **options)
        np.testing.assert_allclose(np.sqrt(found.cost[row]), distance, rtol=1e-5)
        assert [tuple(c) for c in found.path[row, : found.steps[row]].tolist()] == path


def test_dtaidistance_agrees():
    theirs = pytest.importorskip("dtaidistance.dtw")
    found = dtw(squared_costs(X[:, :, :1], Y[:, :, :1])).cost
    wanted = [
        theirs.distance(np.float64(x[:, 0]), np.float64(y[:, 0])) for x, y in zip(X, Y, strict=True)
    ]
    np.testing.assert_allclose(np.sqrt(found), wanted, rtol=1e-4)
