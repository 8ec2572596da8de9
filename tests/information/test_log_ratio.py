"""CLUB against the quadratic form that it never makes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.information.log_ratio import (
    categorical_log_density,
    club,
    club_categorical,
    gaussian_log_density,
    gaussian_scores,
)
from mmjax.information.scores import same_condition
from mmjax.information.upper_bounds import nce_club

N, D, C = 6, 3, 4
RNG = np.random.default_rng(0)
MEAN, LOG_VARIANCE, Y = RNG.normal(size=(3, N, D))
LOGITS = RNG.normal(size=(N, C))
LABELS = np.array([0, 3, 1, 1, 0, 3])
CONDITION = np.array([7, -2, 7, 7, -2, 5])
WEIGHTS = RNG.uniform(0.5, 1.5, N)
MASKS = {
    "full": np.ones(N, bool),
    "ragged": np.array([1, 1, 0, 1, 1, 1], bool),
    "single": np.arange(N) == 3,
    "empty": np.zeros(N, bool),
}
every_mask = pytest.mark.parametrize("mask", MASKS)
conditions = pytest.mark.parametrize("condition", [None, CONDITION], ids=["plain", "conditional"])


def log_density(i, j, mean, log_variance, y):
    """log q(y_j | x_i)."""
    squares = (y[j] - mean[i]) ** 2 / np.exp(log_variance[i])
    return -(squares + log_variance[i] + math.log(2 * math.pi)).sum() / 2


def log_probability(i, j, logits):
    return logits[i, LABELS[j]] - np.log(np.exp(logits[i]).sum())


def contrast(density, where, condition):
    """By definition: every pair of valid rows that share a condition."""
    rows = np.zeros(N)
    for i in np.flatnonzero(where):
        others = [
            density(i, j)
            for j in np.flatnonzero(where)
            if j != i and (condition is None or condition[i] == condition[j])
        ]
        rows[i] = density(i, i) - np.mean(others) if others else 0
    return rows


def slopes(function, arrays):
    """Central differences of a weighted sum of rows."""
    step = 1e-6
    for which, array in enumerate(arrays):
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = [np.array(a) for a in arrays]
                moved[which][index] += sign * step
                ends.append(function(*moved) @ WEIGHTS)
            gradient[index] = (ends[0] - ends[1]) / (2 * step)
        yield gradient


@functools.cache
def compiled(function):
    """Rows and gradients with respect to all that is a float."""

    def total(floats, *labels, condition, where):
        rows = function(*floats, *labels, condition=condition, where=where)
        return jnp.sum(rows * WEIGHTS), rows

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@every_mask
@conditions
@pytest.mark.parametrize("model", ["gaussian", "categorical"])
def test_rows_and_gradients_are_those_of_the_quadratic_form(model, condition, mask):
    where = MASKS[mask]
    gaussian = model == "gaussian"
    floats = (MEAN, LOG_VARIANCE, Y) if gaussian else (LOGITS,)
    labels = () if gaussian else (LABELS,)
    density = log_density if gaussian else log_probability

    def definition(*arrays):
        return contrast(lambda i, j: density(i, j, *arrays), where, condition)

    hidden = tuple(np.where(where[:, None], z, np.nan) for z in floats)
    run = compiled(club if gaussian else club_categorical)
    with jax.enable_x64(True):
        (_, rows), gradients = run(hidden, *labels, condition=condition, where=where)
    np.testing.assert_allclose(rows, definition(*floats), rtol=1e-10, atol=1e-12)
    for gradient, slope in zip(gradients, slopes(definition, floats), strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-8)


@every_mask
def test_log_densities_are_those_of_the_definition(mask):
    where = MASKS[mask]
    hidden = [np.where(where[:, None], z, np.nan) for z in (MEAN, LOG_VARIANCE, Y, LOGITS)]

    @jax.jit
    def both(mean, log_variance, y, logits):
        gaussian = gaussian_log_density(mean, log_variance, y, where=where)
        return gaussian, categorical_log_density(logits, LABELS, where=where)

    with jax.enable_x64(True), jax.debug_nans(True):
        found = both(*(np.nan_to_num(z, nan=1e30) for z in hidden))
    gaussian = [log_density(i, i, MEAN, LOG_VARIANCE, Y) for i in range(N)]
    categorical = [log_probability(i, i, LOGITS) for i in range(N)]
    np.testing.assert_allclose(found, np.where(where, [gaussian, categorical], 0), rtol=1e-10)


def test_scores_of_a_small_variance_are_exact_in_float32():
    mean, y = np.float32(MEAN + 1), np.float32(MEAN + 1 + 1e-3 * Y)
    scores = jax.jit(gaussian_scores)(mean, np.full_like(mean, -14), y)
    wanted = [
        [log_density(i, j, np.float64(mean), np.full((N, D), -14.0), y) for j in range(N)]
        for i in range(N)
    ]
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)


def test_scores_of_all_pairs_and_their_gradients():
    where_y = MASKS["ragged"]

    def total(mean, log_variance, y):
        scores = gaussian_scores(mean, log_variance, y, where_y=where_y)
        return jnp.sum(jnp.where(where_y[None], scores, 0) * WEIGHTS[:, None]), scores

    run = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))
    with jax.enable_x64(True):
        hidden = np.where(where_y[:, None], Y, np.nan)
        (_, scores), gradients = run(MEAN, LOG_VARIANCE, hidden)

    def definition(*arrays):
        pairs = [[log_density(i, j, *arrays) for j in range(N)] for i in range(N)]
        return np.array(pairs)

    wanted = definition(MEAN, LOG_VARIANCE, Y)
    np.testing.assert_allclose(scores[:, where_y], wanted[:, where_y], rtol=1e-10)

    def summed(*arrays):
        return definition(*arrays)[:, where_y].sum(axis=1)

    for gradient, slope in zip(gradients, slopes(summed, (MEAN, LOG_VARIANCE, Y)), strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-7)


def test_club_is_the_contrast_of_its_scores_and_an_offset_costs_no_digits():
    arrays = np.float32(MEAN), np.float32(LOG_VARIANCE), np.float32(Y)
    wanted = jax.jit(lambda *z: nce_club(gaussian_scores(*z)))(*arrays)
    far = (arrays[0] + np.float32(1e3), arrays[1], arrays[2] + np.float32(1e3))
    np.testing.assert_allclose(run_club(*arrays), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run_club(*far), wanted, rtol=2e-3, atol=2e-3)


run_club = jax.jit(club)
run_categorical = jax.jit(lambda *z: club_categorical(*z[:2], where=z[2]))


def largest_array(function, *arguments):
    """Entries of the largest array that is made on the way."""
    jaxpr = jax.make_jaxpr(function)(*arguments)

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (math.prod(v.aval.shape) for v in equation.outvars)
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from sizes(inner)

    return max(sizes(jaxpr.jaxpr))


@conditions
def test_no_pass_makes_a_matrix_of_pairs(condition):
    n = 100
    rows = np.ones((n, 2), np.float32)
    groups = None if condition is None else np.resize(condition, n)

    def both_passes(mean, log_variance, y):
        return jax.grad(lambda *z: club(*z, condition=groups).sum(), (0, 1, 2))(
            mean, log_variance, y
        )

    assert largest_array(both_passes, rows, rows, rows) < 10 * n


def test_the_gradient_of_all_scores_holds_no_differences_of_all_features():
    rows = np.ones((30, 50), np.float32)
    slopes = jax.grad(lambda *z: gaussian_scores(*z).sum(), (0, 1, 2))
    assert largest_array(slopes, rows, rows, rows) < 3 * 30 * 50


def test_the_true_conditional_gives_an_upper_bound():
    """Of two correlated Gaussians: the divergences of both directions together."""
    correlation, rows = 0.6, 20_000
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(2, rows, 1)).astype(np.float32)
    y = np.float32(correlation) * x + np.float32(math.sqrt(1 - correlation**2)) * noise
    log_variance = np.full_like(x, math.log(1 - correlation**2))
    found = np.float64(run_club(np.float32(correlation) * x, log_variance, y))
    wanted = correlation**2 / (1 - correlation**2)
    assert found.mean() == pytest.approx(wanted, abs=4 * found.std() / math.sqrt(rows))
    assert found.mean() > -math.log(1 - correlation**2) / 2 + 0.1


def test_a_model_that_ignores_x_says_that_nothing_is_shared():
    same = np.broadcast_to(np.float32(Y[:1]), (N, D))
    assert run_club(same, 0 * same, np.float32(Y)).sum() == pytest.approx(0, abs=1e-5)
    logits = np.broadcast_to(np.float32(LOGITS[:1]), (N, C))
    found = run_categorical(logits, LABELS, MASKS["full"])
    assert found.sum() == pytest.approx(0, abs=1e-5)


def test_what_is_constant_shares_nothing():
    constant = np.broadcast_to(np.float32(Y[:1]), (N, D))
    found = run_club(np.float32(MEAN), np.float32(LOG_VARIANCE), constant)
    np.testing.assert_allclose(found, np.zeros(N), atol=1e-5)
    found = run_categorical(np.float32(LOGITS), np.full(N, 2), MASKS["full"])
    np.testing.assert_allclose(found, np.zeros(N), atol=1e-5)


def test_integers_of_any_width_are_the_numbers_that_they_are():
    """JAX would wrap 2**32 + 1 to class 1, and 300 classes to 44 that int8 can tell apart."""
    logits = np.float32(LOGITS)
    wide = LABELS + 2**32 * ~MASKS["ragged"]
    found = club_categorical(logits, wide)
    np.testing.assert_allclose(found, run_categorical(logits, LABELS, MASKS["ragged"]), rtol=1e-6)
    for labels in (np.array([5], np.int8), np.array([5], np.uint8), jnp.array([5], jnp.uint8)):
        found = categorical_log_density(np.zeros((1, 300), np.float32), labels)
        np.testing.assert_allclose(found, [-math.log(300)], rtol=1e-6)
    apart = np.array([0, 2**32, 0, 0, 2**32, 1])  # as CONDITION is
    arrays = np.float32(MEAN), np.float32(LOG_VARIANCE), np.float32(Y)
    found, wanted = (club(*arrays, condition=c) for c in (apart, CONDITION))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    np.testing.assert_array_equal(same_condition(apart), apart[:, None] == apart)


def test_a_label_that_is_no_class_is_as_a_row_that_is_invalid():
    wrong = np.where(MASKS["ragged"], LABELS, C)
    logits = np.float32(LOGITS)
    found = run_categorical(logits, wrong, MASKS["full"])
    np.testing.assert_array_equal(found, run_categorical(logits, LABELS, MASKS["ragged"]))
