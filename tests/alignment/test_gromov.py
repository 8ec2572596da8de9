"""Gromov-Wasserstein against sums over four indices, and against POT."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.alignment import fused_gromov_wasserstein, gromov_wasserstein, sinkhorn

RNG = np.random.default_rng(0)
N, M = 5, 4
POINTS = RNG.normal(size=(N, 2)), RNG.normal(size=(M, 3))
COST_X, COST_Y = (np.sqrt(((p[:, None] - p) ** 2).sum(axis=-1)) for p in POINTS)
COST = RNG.uniform(size=(N, M))
A, B = RNG.uniform(0.5, 1.5, size=N), RNG.uniform(0.5, 1.5, size=M)
WHERE_X, WHERE_Y = np.array([1, 1, 0, 1, 1], bool), np.array([1, 0, 1, 1], bool)


@functools.partial(jax.jit, static_argnames="iterations")
def matched(
    cost,
    cost_x,
    cost_y,
    weight,
    a=None,
    b=None,
    where_x=None,
    where_y=None,
    start=None,
    *,
    epsilon=0.3,
    tolerance=1e-12,
    iterations=1000,
):
    return fused_gromov_wasserstein(
        cost,
        cost_x,
        cost_y,
        weight=weight,
        epsilon=epsilon,
        a=a,
        b=b,
        where_x=where_x,
        where_y=where_y,
        start=start,
        tolerance=tolerance,
        iterations=iterations,
    )


def energy(plan, cost, cost_x, cost_y, weight):
    """Every pair of pairs, one by one."""
    within = sum(
        (cost_x[i, k] - cost_y[j, m]) ** 2 * plan[i, j] * plan[k, m]
        for i, j, k, m in np.ndindex(*plan.shape, *plan.shape)
    )
    return (1 - weight) * np.sum(cost * plan) + weight * within


def objective(plan, cost, cost_x, cost_y, weight, a, b, epsilon):
    product = a[:, None] * b
    return energy(plan, cost, cost_x, cost_y, weight) + epsilon * np.sum(
        plan * np.log(plan / product)
    )


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_the_plan_is_a_stationary_point_of_the_objective(weight, ragged, double):
    keep = (WHERE_X, WHERE_Y) if ragged else (np.ones(N, bool), np.ones(M, bool))
    rows, columns = keep
    inside = np.ix_(*keep)
    spaces = (
        np.where(rows[:, None] & columns, COST, np.nan),
        np.where(rows[:, None] & rows, COST_X, np.nan),
        np.where(columns[:, None] & columns, COST_Y, np.nan),
    )
    masks = keep if ragged else (None, None)
    found = matched(*spaces, weight, jnp.asarray(A), jnp.asarray(B), *masks)
    plan = np.asarray(found.plan)[inside]
    a, b = A[rows] / A[rows].sum(), B[columns] / B[columns].sum()
    alone = COST[inside], COST_X[np.ix_(rows, rows)], COST_Y[np.ix_(columns, columns)], weight
    np.testing.assert_allclose(plan.sum(axis=1), a, atol=1e-10)
    np.testing.assert_allclose(plan.sum(axis=0), b, atol=1e-10)
    assert found.change < 1e-12
    assert found.error < 1e-10
    np.testing.assert_allclose(found.cost, energy(plan, *alone), rtol=1e-9)
    here = objective(plan, *alone, a, b, 0.3)
    np.testing.assert_allclose(found.value, here, rtol=1e-9)
    # No direction that keeps the marginals has a slope.
    for _ in range(5):
        way = RNG.normal(size=plan.shape) * 1e-6
        way -= way.mean(axis=0)
        way -= way.mean(axis=1, keepdims=True)
        ends = [objective(plan + sign * way, *alone, a, b, 0.3) for sign in (1, -1)]
        assert abs(ends[0] - ends[1]) / 2 < 1e-9 * np.linalg.norm(way) / 1e-6


def test_a_turned_and_shuffled_copy_is_found_again():
    order = RNG.permutation(N)
    found = gromov_wasserstein(
        np.float32(COST_X), np.float32(COST_X[np.ix_(order, order)]), epsilon=0.05
    )
    np.testing.assert_array_equal(order[np.argmax(found.plan, axis=1)], np.arange(N))


def test_the_value_can_be_differentiated(assert_slopes):
    def value(cost, cost_x, cost_y, a, b, epsilon, weight):
        return matched(cost, cost_x, cost_y, weight, a, b, WHERE_X, epsilon=epsilon).value

    assert_slopes(value, COST, COST_X, COST_Y, A, B, 0.5, 0.4, rtol=1e-5)


def test_an_invalid_point_has_no_gradient_even_if_nan():
    bad = np.float32(np.where(WHERE_X[:, None] & WHERE_X, COST_X, np.nan))

    def value(cost_x):
        return matched(
            np.float32(COST), cost_x, np.float32(COST_Y), 1.0, where_x=WHERE_X, tolerance=1e-4
        ).value

    gradient = np.asarray(jax.jit(jax.grad(value))(bad))
    assert np.isfinite(gradient).all()
    assert not gradient[~WHERE_X].any()
    assert not gradient[:, ~WHERE_X].any()
    assert gradient[np.ix_(WHERE_X, WHERE_X)][0, 1:].all()


def test_without_a_weight_it_is_transport(double):
    found = matched(COST, COST_X, COST_Y, 0.0, A, B)
    wanted = sinkhorn(COST, epsilon=0.3, a=A, b=B, tolerance=1e-12)
    np.testing.assert_allclose(found.plan, wanted.plan, atol=1e-10)
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-10)


def test_another_start_leaves_a_symmetric_plan(double):
    """In a square all points are alike, and the product of the masses stays what it is."""
    square = np.array([[0.0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]])
    stuck = matched(np.zeros((4, 4)), square, square, 1.0, epsilon=0.1)
    np.testing.assert_allclose(stuck.plan, 1 / 16, rtol=1e-9)
    start = np.full((4, 4), 1.0) + 0.1 * RNG.uniform(size=(4, 4))
    found = matched(np.zeros((4, 4)), square, square, 1.0, start=start, epsilon=0.1)
    assert found.value < stuck.value - 0.1
    np.testing.assert_allclose(np.max(found.plan, axis=1), 0.25, atol=1e-2)


def test_leading_axes_are_problems_of_their_own():
    spaces = [np.float32(np.stack([z, 0.5 * z])) for z in (COST, COST_X, COST_Y)]
    found = matched(*spaces, 0.4, tolerance=1e-4)
    for i in range(2):
        alone = matched(*(z[i] for z in spaces), 0.4, tolerance=1e-4)
        np.testing.assert_allclose(found.value[i], alone.value, rtol=1e-4)


def test_without_a_valid_point_all_is_0():
    spaces = [np.float32(z) for z in (COST, COST_X, COST_Y)]
    found = matched(*spaces, 0.4, where_x=np.zeros(N, bool), tolerance=1e-4)
    assert found.value == 0
    assert found.error == 0
    assert not found.plan.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 1.5}, r"weight must be in \[0, 1\], got 1.5"),
        ({"epsilon": 0}, "epsilon must be positive"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"a": -np.ones(N)}, "a must hold finite masses that are not negative"),
    ],
)
def test_bad_input_is_refused(options, message):
    options = {"weight": 0.5, "epsilon": 1.0, **options}
    with pytest.raises(ValueError, match=message):
        fused_gromov_wasserstein(
            np.float32(COST), np.float32(COST_X), np.float32(COST_Y), **options
        )


def test_pot_agrees(double):
    ot = pytest.importorskip("ot")
    a, b = A / A.sum(), B / B.sum()
    options = {"epsilon": 0.3, "tol": 1e-12, "max_iter": 1000}
    wanted = ot.gromov.entropic_gromov_wasserstein(COST_X, COST_Y, a, b, "square_loss", **options)
    np.testing.assert_allclose(matched(COST, COST_X, COST_Y, 1.0, A, B).plan, wanted, atol=1e-7)
    wanted = ot.gromov.entropic_fused_gromov_wasserstein(
        COST, COST_X, COST_Y, a, b, "square_loss", alpha=0.4, **options
    )
    np.testing.assert_allclose(matched(COST, COST_X, COST_Y, 0.4, A, B).plan, wanted, atol=1e-7)
