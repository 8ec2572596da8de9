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


def problem(cost, cost_x, cost_y, a, b, weight, epsilon, where_x, where_y, start):
    """Masks as numbers, so that it can be differentiated like the rest."""
    return fused_gromov_wasserstein(
        cost,
        cost_x,
        cost_y,
        weight=weight,
        epsilon=epsilon,
        a=a,
        b=b,
        where_x=where_x > 0.5,
        where_y=where_y > 0.5,
        start=start,
        tolerance=1e-12,
        iterations=1000,
    )


compiled = jax.jit(problem)


def value_of(*arrays):
    return problem(*arrays).value


def options(a=A, b=B, *, weight=0.4, epsilon=0.3, where_x=None, where_y=None, start=None):
    """All there is to say besides costs, so that one program answers most questions."""
    masks = (
        (np.ones(N) if where_x is None else where_x),
        (np.ones(M) if where_y is None else where_y),
    )
    return a, b, weight, epsilon, *masks, a[:, None] * b if start is None else start


def matched(cost, cost_x, cost_y, *given, **said):
    return compiled(cost, cost_x, cost_y, *map(jnp.float64, options(*given, **said)))


def energy(plan, cost, cost_x, cost_y, weight):
    """Every pair of pairs, one by one."""
    within = sum(
        (cost_x[i, k] - cost_y[j, m]) ** 2 * plan[i, j] * plan[k, m]
        for i, j, k, m in np.ndindex(*plan.shape, *plan.shape)
    )
    return (1 - weight) * np.sum(cost * plan) + weight * within


def slopes_of(plan, costs):
    """Of the energy; differences of a quadratic function are exact."""
    slopes = np.zeros_like(plan)
    for cell in np.ndindex(plan.shape):
        step = np.zeros_like(plan)
        step[cell] = 0.5
        slopes[cell] = energy(plan + step, *costs) - energy(plan - step, *costs)
    return slopes


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
    found = matched(*spaces, weight=weight, where_x=rows, where_y=columns)
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
    # No direction that keeps the marginals has a slope: rows and columns have the rest.
    slopes = slopes_of(plan, alone) + 0.3 * np.log(plan / (a[:, None] * b))
    slopes -= slopes.mean(axis=0)
    slopes -= slopes.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(slopes, 0, atol=1e-9)


def test_a_turned_and_shuffled_copy_is_found_again():
    order = RNG.permutation(N)
    solve = jax.jit(functools.partial(gromov_wasserstein, epsilon=0.05))
    found = solve(np.float32(COST_X), np.float32(COST_X[np.ix_(order, order)]))
    np.testing.assert_array_equal(order[np.argmax(found.plan, axis=1)], np.arange(N))


def test_the_value_can_be_differentiated_and_an_invalid_point_reaches_nothing(
    assert_slopes, value_and_gradients
):
    spaces, said = (COST, COST_X, COST_Y), options(epsilon=0.5, where_x=WHERE_X)
    assert_slopes(value_of, *spaces, *said, rtol=1e-5)
    inside = WHERE_X[:, None] & np.ones(M, bool), WHERE_X[:, None] & WHERE_X
    bad = [np.where(w, z, np.nan) for w, z in zip(inside, spaces, strict=False)]
    value, gradients = value_and_gradients(value_of, *spaces, *said)
    other, others = value_and_gradients(value_of, *bad, COST_Y, *said)
    assert value == other
    for gradient, same, w in zip(gradients, others, inside, strict=False):
        np.testing.assert_array_equal(gradient, same)
        assert not np.asarray(gradient)[~w].any()
        assert np.asarray(gradient)[w].any()


def test_without_a_weight_it_is_transport(double):
    found = matched(COST, COST_X, COST_Y, weight=0.0)
    solve = jax.jit(functools.partial(sinkhorn, epsilon=0.3, tolerance=1e-12))
    wanted = solve(COST, a=A, b=B)
    np.testing.assert_allclose(found.plan, wanted.plan, atol=1e-10)
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-10)


def test_another_start_leaves_a_symmetric_plan(double):
    """In a square all points are alike, and the product of the masses stays what it is."""
    square = np.array([[0.0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]])
    spaces = COST, np.pad(square, (0, 1)), square
    said = {"weight": 1.0, "epsilon": 0.1, "where_x": np.arange(N) < 4}
    stuck = matched(*spaces, np.ones(N), np.ones(M), **said)
    np.testing.assert_allclose(stuck.plan[:4], 1 / 16, rtol=1e-9)
    start = 1 + 0.1 * np.random.default_rng(1).uniform(size=(N, M))
    found = matched(*spaces, np.ones(N), np.ones(M), **said, start=start)
    assert found.value < stuck.value - 0.1
    np.testing.assert_allclose(np.max(found.plan[:4], axis=1), 0.25, atol=1e-2)


def test_leading_axes_are_problems_of_their_own():
    spaces = [np.float32(np.stack([z, 0.5 * z])) for z in (COST, COST_X, COST_Y)]
    solve = jax.jit(functools.partial(fused_gromov_wasserstein, weight=0.4))
    found = solve(*spaces, epsilon=0.3)
    for i in range(2):
        with jax.enable_x64(True):
            alone = matched(*(np.float64(z[i]) for z in spaces), np.ones(N), np.ones(M))
        np.testing.assert_allclose(found.value[i], alone.value, rtol=1e-3)
    # In the limit of a large epsilon the plan is the product, and its entropy 0.
    found = solve(*spaces, epsilon=1e6)
    for i in range(2):
        wanted = energy(np.full((N, M), 1 / (N * M)), *(z[i] for z in spaces), 0.4)
        np.testing.assert_allclose(found.value[i], wanted, rtol=1e-3)


def test_without_a_valid_point_all_is_0(double):
    found = matched(COST, COST_X, COST_Y, where_x=np.zeros(N))
    assert found.value == 0
    assert found.error == 0
    assert not found.plan.any()


def test_forbidden_pairs_get_nothing_or_make_the_cost_infinite(double):
    forbidden = np.zeros((N, M), bool)
    forbidden[0, :3] = True  # its mass fits into the last column
    a, b = np.ones(N), np.array([1.0, 1, 1, 2])
    found = matched(np.where(forbidden, np.inf, COST), COST_X, COST_Y, a, b)
    assert np.isfinite(found.value)
    assert found.error < 1e-9
    assert not np.asarray(found.plan)[forbidden].any()
    np.testing.assert_allclose(found.plan[0, 3], 0.2, rtol=1e-6)
    forbidden[0] = True
    assert np.isinf(matched(np.where(forbidden, np.inf, COST), COST_X, COST_Y, a, b).value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_between_valid_points_shows(value, double):
    bad = COST_X.copy()
    bad[1, 3] = value
    assert np.isnan(matched(COST, bad, COST_Y).value)
    assert np.isfinite(matched(COST, bad, COST_Y, where_x=np.arange(N) != 1).value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_distances_that_are_not_finite_are_refused_where_that_can_be_seen(value):
    bad = COST_X.copy()
    bad[1, 3] = value
    with pytest.raises(ValueError, match="cost_x must be finite between valid points, got"):
        gromov_wasserstein(bad, COST_Y, epsilon=1.0)
    with pytest.raises(ValueError, match="cost_y must be finite between valid points, got"):
        gromov_wasserstein(COST_Y, bad, epsilon=1.0, b=A)
    absent = np.arange(N) != 1
    for options in ({"where_x": absent}, {"a": np.where(absent, A, 0)}):
        jax.eval_shape(lambda y, o=options: gromov_wasserstein(bad, y, epsilon=1.0, **o), COST_Y)


def test_whole_numbers_of_numpy_are_as_good_as_python_s():
    jax.eval_shape(lambda z: gromov_wasserstein(z, z, epsilon=1.0, iterations=np.int64(2)), COST_X)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"weight": 1.5}, r"weight must be in \[0, 1\], got 1.5"),
        ({"epsilon": 0}, "epsilon must be positive"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"a": -np.ones(N)}, "a must hold finite masses that are not negative"),
    ],
)
def test_bad_input_is_refused(said, message):
    said = {"weight": 0.5, "epsilon": 1.0, **said}
    with pytest.raises(ValueError, match=message):
        fused_gromov_wasserstein(np.float32(COST), np.float32(COST_X), np.float32(COST_Y), **said)


def test_pot_agrees(double):
    ot = pytest.importorskip("ot")
    a, b = A / A.sum(), B / B.sum()
    said = {"epsilon": 0.3, "tol": 1e-12, "max_iter": 1000}
    wanted = ot.gromov.entropic_gromov_wasserstein(COST_X, COST_Y, a, b, "square_loss", **said)
    np.testing.assert_allclose(matched(COST, COST_X, COST_Y, weight=1.0).plan, wanted, atol=1e-7)
    wanted = ot.gromov.entropic_fused_gromov_wasserstein(
        COST, COST_X, COST_Y, a, b, "square_loss", alpha=0.4, **said
    )
    np.testing.assert_allclose(matched(COST, COST_X, COST_Y).plan, wanted, atol=1e-7)
