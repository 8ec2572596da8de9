"""Density ratios by least squares, from double sums over all pairs."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.information.least_squares import (
    DensityRatio,
    density_ratio,
    density_ratio_cost,
    fit_density_ratio,
)

N, B = 9, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2))
Y = X[:, :1] + 0.5 * RNG.normal(size=(N, 1))
CENTRES = np.array([1, 3, 6, 8])
WHERE = np.array([1, 1, 0, 0, 1, 1, 1, 1, 1], bool)  # one of the centres is invalid
OPTIONS = {"bandwidth_x": 0.8, "bandwidth_y": 1.3, "regularization": 0.05}


def kernel(x, y, u, v):
    distances = ((x - u) ** 2).sum() / 0.8**2 + ((y - v) ** 2).sum() / 1.3**2
    return math.exp(-distances / 2)


def definition(x, y, where):
    rows, centres = np.flatnonzero(where), CENTRES[where[CENTRES]]

    def features(i, j):
        return np.array([kernel(x[i], y[j], x[c], y[c]) for c in centres])

    target = np.mean([features(i, i) for i in rows], axis=0)
    pairs = [features(i, j) for i in rows for j in rows]
    system = np.mean([np.outer(f, f) for f in pairs], axis=0)
    weights = np.linalg.solve(system + 0.05 * np.eye(len(centres)), target)
    rows = np.array([weights @ features(i, i) if where[i] else 0.0 for i in range(len(x))])
    cost = np.mean([(weights @ f) ** 2 for f in pairs]) / 2 - rows[where].mean()
    return np.maximum(rows, 0), cost


@jax.jit
def everything(x, y, where):
    fit = fit_density_ratio(x, y, centres=CENTRES, where=where, **OPTIONS)
    return density_ratio(fit, x, y, where=where), density_ratio_cost(fit, x, y, where=where)


@pytest.mark.parametrize("where", [np.ones(N, bool), WHERE], ids=["full", "ragged"])
def test_ratio_and_cost_are_those_of_the_double_sums(where):
    with jax.enable_x64(True):
        found = everything(*(np.where(where[:, None], z, np.nan) for z in (X, Y)), where)
    for mine, wanted in zip(found, definition(X, Y, where), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-9)


def test_without_valid_rows_everything_is_0():
    ratio, cost = everything(np.float32(X), np.float32(Y), np.zeros(N, bool))
    assert not np.any(ratio)
    assert cost == 0


@pytest.mark.parametrize(
    "where", [np.ones(N, bool), np.arange(N) == CENTRES[0]], ids=["constant", "single"]
)
def test_what_does_not_vary_has_a_ratio_of_nearly_1(where):
    """All kernels are 1, each has the same weight: their sum is b / (b + regularization)."""
    same = np.ones((N, 2), np.float32)
    ratio, _ = everything(same, same[:, :1], where)
    kernels = np.sum(where[CENTRES])
    wanted = np.where(where, kernels / (kernels + OPTIONS["regularization"]), 0)
    np.testing.assert_allclose(ratio, wanted, rtol=1e-5)


def test_gradients_of_the_ratio_do_not_see_invalid_rows():
    def total(x, y):
        return jnp.sum(everything(x, y, WHERE)[0])

    hidden = [np.float32(np.where(WHERE[:, None], z, np.nan)) for z in (X, Y)]
    gradients = jax.jit(jax.grad(total, (0, 1)))(*hidden)
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
        assert not np.any(np.asarray(gradient)[~WHERE])
        assert np.any(gradient)


def test_pointwise_information_of_gaussians_by_the_options_that_cost_least():
    correlation, rows = 0.8, 500
    rng = np.random.default_rng(1)

    def draw():
        x, noise = rng.normal(size=(2, rows, 1))
        return np.float32(x), np.float32(correlation * x + math.sqrt(1 - correlation**2) * noise)

    fitted, held_out, fresh = draw(), draw(), draw()

    @jax.jit
    def attempt(bandwidth, regularization):
        fit = fit_density_ratio(
            *fitted,
            centres=np.arange(100),
            bandwidth_x=bandwidth,
            bandwidth_y=bandwidth,
            regularization=regularization,
        )
        cost = density_ratio_cost(fit, *held_out)
        return cost, jnp.log(jnp.maximum(density_ratio(fit, *fresh), 1e-6))

    grid = [(b, r) for b in (0.05, 0.7, 9.0) for r in (1e-3, 1e-1)]
    found = [attempt(jnp.float32(b), jnp.float32(r)) for b, r in grid]
    best = np.argmin([cost for cost, _ in found])
    assert grid[best] == (0.7, 1e-3)
    x, y = (np.float64(z[:, 0]) for z in fresh)
    variance = 1 - correlation**2
    truth = (y**2 - (y - correlation * x) ** 2 / variance - math.log(variance)) / 2
    pointwise = np.asarray(found[best][1])
    assert pointwise.mean() == pytest.approx(truth.mean(), abs=0.12)
    assert np.corrcoef(pointwise, truth)[0, 1] > 0.6


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_are_not_positive_are_refused(name):
    fit = functools.partial(fit_density_ratio, X, Y, centres=CENTRES)
    with pytest.raises(ValueError, match=f"{name} must be positive and finite, got 0"):
        fit(**{**OPTIONS, name: 0})


@pytest.mark.parametrize("centre", [-1, N, 2**32])
def test_a_centre_that_is_no_row_is_refused(centre):
    with pytest.raises(ValueError, match=f"of the {N} rows, from 0 to {N - 1}, got {centre}"):
        fit_density_ratio(X, Y, centres=np.array([0, centre]), **OPTIONS)


@pytest.mark.parametrize("function", [density_ratio, density_ratio_cost])
def test_rows_of_another_width_than_the_fitted_ones_are_refused(function):
    fit = DensityRatio(np.ones(1), np.zeros((1, 2)), np.zeros((1, 1)), np.ones(()), np.ones(()))
    for x, y in ((X[:, :1], Y), (X, X)):  # JAX would broadcast both
        message = f"fitted to 2 features of x and 1 of y, the rows have {x.shape[1]} and"
        with pytest.raises(ValueError, match=message):
            function(fit, x, y)


def test_hardly_any_regularization_is_no_nan():
    """Of kernels that float32 cannot tell apart. The less of it, the less the rows cost."""
    x = np.float32(np.linspace(0, 1, 60)[:, None])
    fit = functools.partial(fit_density_ratio, x, x, bandwidth_x=1.0, bandwidth_y=1.0)
    run = jax.jit(lambda r: density_ratio_cost(fit(centres=np.arange(60), regularization=r), x, x))
    costs = [run(jnp.float32(r)) for r in (1e-2, 1e-4, 1e-6, 1e-9)]
    assert np.all(np.diff(costs) <= 1e-5)
    assert costs[-1] < costs[0] - 1e-2
