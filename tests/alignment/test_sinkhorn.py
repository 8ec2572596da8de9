"""Entropic transport against plain scalings, assignments and other libraries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from mmjax.alignment import sinkhorn

RNG = np.random.default_rng(0)
N, M = 5, 4
COST = RNG.uniform(size=(N, M))
A, B = RNG.uniform(0.5, 1.5, size=N), RNG.uniform(0.5, 1.5, size=M)
POINTS = RNG.normal(size=(N, 2)), RNG.normal(size=(M, 2))
WHERE_X, WHERE_Y = np.array([1, 1, 0, 1, 1], bool), np.array([1, 0, 1, 1], bool)
TIGHT = {"tolerance": 1e-12, "iterations": 5000}
VALUE = np.array([1.0, 0, 0, 0])


@functools.partial(jax.jit, static_argnames="iterations")
def solved(cost, a, b, where_x, where_y, epsilon, tolerance, iterations):
    return sinkhorn(
        cost,
        epsilon=epsilon,
        a=a,
        b=b,
        where_x=where_x,
        where_y=where_y,
        tolerance=tolerance,
        iterations=iterations,
    )


def moved(cost, a=None, b=None, where_x=None, where_y=None, *, epsilon=0.1, iterations=5000):
    """All that was not said as an array too, so that one program answers most questions."""
    rows, columns = np.ones(cost.shape[:-1]), np.ones((*cost.shape[:-2], cost.shape[-1]))
    masses = (rows if a is None else a), (columns if b is None else b)
    masks = (
        (rows > 0 if where_x is None else where_x),
        (columns > 0 if where_y is None else where_y),
    )
    return solved(cost, *map(jnp.asarray, masses), *masks, epsilon, 1e-12, iterations)


def picked(cost, a, b, epsilon, picks, where_x, where_y):
    """One of the value, the cost, a sum over the plan and a function of potentials."""
    found = sinkhorn(
        cost, epsilon=epsilon, a=a, b=b, where_x=where_x > 0.5, where_y=where_y > 0.5, **TIGHT
    )
    weights = jnp.sin(1 + jnp.arange(N * M)).reshape(N, M).astype(cost.dtype)
    plan, potentials = jnp.sum(found.plan * weights), jnp.sin(found.x[0] + found.y[2])
    parts = jnp.stack([found.value, found.cost, plan, potentials])
    return jnp.sum(jnp.where(picks > 0.5, picks * parts, 0))


@pytest.mark.parametrize("epsilon", [0.03, 1.0])
@pytest.mark.parametrize("ragged", [False, True])
def test_plan_and_value_are_those_of_the_scalings(ragged, epsilon, scalings, double):
    keep = (WHERE_X, WHERE_Y) if ragged else (np.ones(N, bool), np.ones(M, bool))
    inside = keep[0][:, None] & keep[1]
    bad = np.where(inside, COST, np.nan), np.where(keep[0], A, np.nan), np.where(keep[1], B, np.nan)
    found = moved(*bad, *keep, epsilon=epsilon)
    value, plan = scalings(COST[np.ix_(*keep)], A[keep[0]], B[keep[1]], epsilon)
    np.testing.assert_allclose(found.value, value, rtol=1e-9)
    np.testing.assert_allclose(np.asarray(found.plan)[np.ix_(*keep)], plan, atol=1e-11)
    assert not np.asarray(found.plan)[~inside].any()
    np.testing.assert_allclose(found.cost, np.sum(plan * COST[np.ix_(*keep)]), rtol=1e-9)
    assert found.error < 1e-11
    assert 1 < found.iterations < 5000


@pytest.mark.parametrize("epsilon", [0.1, 1e4, 1e8])
def test_in_float32_they_are_the_same(epsilon, scalings):
    found = solved(np.float32(COST), None, None, None, None, epsilon, 1e-5, 5000)
    value, plan = scalings(COST, np.ones(N), np.ones(M), epsilon)
    assert found.plan.dtype == np.float32
    np.testing.assert_allclose(found.value, value, rtol=1e-4)
    np.testing.assert_allclose(found.plan, plan, atol=1e-5)


@pytest.mark.parametrize("picks", np.eye(4), ids=["value", "cost", "plan", "potentials"])
def test_all_can_be_differentiated_and_an_invalid_point_reaches_nothing(
    picks, assert_slopes, value_and_gradients
):
    options = 0.2, picks, WHERE_X, WHERE_Y
    assert_slopes(picked, COST, A, B, *options, rtol=1e-5)
    inside = WHERE_X[:, None] & WHERE_Y
    valid = inside, WHERE_X, WHERE_Y
    bad = [np.where(w, z, np.nan) for w, z in zip(valid, (COST, A, B), strict=True)]
    value, gradients = value_and_gradients(picked, COST, A, B, *options)
    other, others = value_and_gradients(picked, *bad, *options)
    assert value == other
    for gradient, same, w in zip(gradients, others, valid, strict=False):
        np.testing.assert_array_equal(gradient, same)
        assert not np.asarray(gradient)[~w].any()


NEAR = ((POINTS[0][:, None] - POINTS[0][:M] - 0.01) ** 2).sum(axis=-1)
FIRST = np.arange(N) < M
PARTS = {
    # Three rows and two columns that see only each other, and the rest.
    "two parts": (
        np.where(np.arange(N)[:, None] // 3 == np.arange(M) // 2, COST, np.inf),
        np.array([1, 1, 1, 1.5, 1.5]),
        np.full(M, 1.5),
        0.2,
        np.ones(N),
    ),
    "pairs": (np.where(np.eye(N, M) > 0, COST, np.inf), np.ones(N), np.ones(M), 0.1, FIRST),
    "small epsilon": (NEAR, np.ones(N), np.ones(M), NEAR[:M].mean() / 100, FIRST),
}


@pytest.mark.parametrize("picks", np.eye(4)[:3], ids=["value", "cost", "plan"])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
def test_a_plan_in_parts_can_be_differentiated(wide, parts, picks, value_and_gradients):
    cost, a, b, epsilon, where_x = parts
    options = a, b, epsilon, picks, where_x, np.ones(M)
    with jax.enable_x64(wide):
        gradients = value_and_gradients(picked, cost, *options)[1]
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    direction = np.random.default_rng(0).normal(size=cost.shape)
    with jax.enable_x64(True):
        ends = [
            float(value_and_gradients(picked, cost + step * direction, *options)[0])
            for step in (1e-6, -1e-6)
        ]
    found, wanted = np.sum(np.asarray(gradients[0]) * direction), (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-8 if wide else 1e-5)


def test_a_small_epsilon_gives_the_best_assignment(double):
    """Scalings of the kernel would underflow here."""
    rows, columns = scipy.optimize.linear_sum_assignment(COST[WHERE_X])
    found = moved(COST, where_x=WHERE_X, epsilon=1e-3)
    np.testing.assert_allclose(found.cost, COST[WHERE_X][rows, columns].mean(), rtol=1e-2)
    np.testing.assert_array_equal(np.argmax(found.plan, axis=1)[WHERE_X], columns)


def test_a_point_without_mass_is_as_good_as_absent(double):
    a = np.where(WHERE_X, A, 0)
    found, wanted = moved(COST, a, B), moved(COST, A, B, WHERE_X)
    np.testing.assert_allclose(found.plan, wanted.plan, atol=1e-12)
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-12)


def test_forbidden_pairs_get_nothing(scalings, double):
    forbidden = np.zeros((N, M), bool)
    forbidden[0, :3] = forbidden[3, 1] = True
    cost = np.where(forbidden, np.inf, COST)
    found = moved(cost, A, np.array([1.0, 1.0, 1.0, 4.0]))
    _, plan = scalings(np.where(forbidden, 50, COST), A, np.array([1.0, 1.0, 1.0, 4.0]), 0.1)
    np.testing.assert_allclose(found.plan, plan, atol=1e-10)
    assert not np.asarray(found.plan)[forbidden].any()
    assert np.isfinite(found.value)


def test_a_point_that_may_go_nowhere_makes_the_cost_infinite(value_and_gradients, double):
    cost, all_y = COST.copy(), np.ones(M)
    cost[2] = np.inf
    found, gradients = value_and_gradients(picked, cost, A, B, 0.1, VALUE, np.ones(N), all_y)
    assert np.isinf(found)
    assert not gradients[0].any()
    assert np.isfinite(
        value_and_gradients(picked, cost, A, B, 0.1, VALUE, np.arange(N) != 2, all_y)[0]
    )


def test_where_what_is_allowed_leaves_no_plan_the_error_says_so(double):
    cost = np.full((N, M), np.inf)
    cost[:, 0] = cost[0] = 0  # a quarter of the mass may go to the first column, and more has to
    assert moved(cost, epsilon=1.0).error > 0.1


def test_too_few_iterations_show_in_the_error(double):
    found = moved(COST, A, B, epsilon=0.01, iterations=2)
    assert found.iterations == 2
    plan = np.asarray(found.plan)
    wanted = (
        np.abs(plan.sum(axis=1) - A / A.sum()).sum() + np.abs(plan.sum(axis=0) - B / B.sum()).sum()
    )
    assert wanted > 1e-3
    np.testing.assert_allclose(found.error, wanted, rtol=1e-9)


def test_without_a_valid_point_all_is_0(value_and_gradients, double):
    found = moved(COST, where_x=np.zeros(N, bool))
    assert found.value == found.cost == found.error == 0
    assert not found.plan.any()
    value, gradients = value_and_gradients(picked, COST, A, B, 0.1, VALUE, np.zeros(N), np.ones(M))
    assert value == 0
    assert not gradients[0].any()


def test_nan_shows(double):
    cost = COST.copy()
    cost[1, 1] = np.nan
    assert np.isnan(moved(cost).value)


def test_leading_axes_are_problems_of_their_own(double):
    costs = np.stack([COST, 5 * COST, COST[::-1]]).reshape(3, 1, N, M)
    masses = np.stack([A, A, A[::-1]]).reshape(3, 1, N)
    found = moved(costs, masses, epsilon=0.3)
    for i in range(3):
        alone = moved(costs[i, 0], masses[i, 0], epsilon=0.3)
        np.testing.assert_allclose(found.value[i, 0], alone.value, rtol=1e-10)
        assert found.iterations[i, 0] == alone.iterations
        np.testing.assert_allclose(found.plan[i, 0], alone.plan, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0}, "epsilon must be positive"),
        ({"epsilon": 1.0, "tolerance": -1}, "tolerance must be positive"),
        ({"epsilon": 1.0, "iterations": 0}, "iterations must be at least 1, got 0"),
        ({"epsilon": 1.0, "a": -np.ones(N)}, "a must hold finite masses that are not negative"),
        ({"epsilon": 1.0, "b": np.full(M, np.nan)}, "b must hold finite masses"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn(np.float32(COST), **options)


def test_whole_numbers_of_numpy_are_as_good_as_python_s():
    jax.eval_shape(lambda c: sinkhorn(c, epsilon=1.0, iterations=np.int64(2)), COST)


def test_pot_agrees(double):
    ot = pytest.importorskip("ot")
    a, b = A / A.sum(), B / B.sum()
    found = moved(COST, A, B, epsilon=0.1)
    wanted = ot.sinkhorn(a, b, COST, 0.1, method="sinkhorn_log", stopThr=1e-12, numItermax=5000)
    np.testing.assert_allclose(found.plan, wanted, atol=1e-9)
    exact = ot.emd2(a, b, COST)
    close = moved(COST, A, B, epsilon=1e-3, iterations=200000)
    np.testing.assert_allclose(close.cost, exact, rtol=1e-2)


def test_ott_agrees():
    pytest.importorskip("ott")
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn as ott_sinkhorn

    a, b = np.float32(A / A.sum()), np.float32(B / B.sum())
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        problem = linear_problem.LinearProblem(
            geometry.Geometry(cost_matrix=jnp.float32(COST), epsilon=0.1), a=a, b=b
        )
        wanted = ott_sinkhorn.Sinkhorn(threshold=1e-5)(problem)
        found = sinkhorn(np.float32(COST), epsilon=0.1, a=a, b=b, tolerance=1e-5)
        np.testing.assert_allclose(found.plan, wanted.matrix, atol=1e-4)
        np.testing.assert_allclose(found.value, wanted.reg_ot_cost, atol=1e-4)
