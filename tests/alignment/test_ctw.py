"""Canonical time warping against its algorithm in NumPy, and against warpings that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from mmjax.alignment import ctw

RNG = np.random.default_rng(2)
T, S = 14, 11
TIME = np.linspace(0, 1, T)
CURVE = np.stack([np.cos(4 * TIME), np.sin(4 * TIME), TIME], axis=1)
ORDER = np.sort(RNG.choice(T, size=S, replace=False))
X = CURVE @ RNG.normal(size=(3, 4)) + 0.05 * RNG.normal(size=(T, 4))
Y = CURVE[ORDER] @ RNG.normal(size=(3, 3)) + 0.05 * RNG.normal(size=(S, 3)) + 2
BAND = 4


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, 0, 0, (0, 0)))
def fitted(x, y, ridge, lengths):
    """All at once, so that one program answers most questions."""
    return ctw(x, y, components=2, ridge=ridge, lengths=lengths, band=BAND)


def fit(x, y, ridges=0.0, lengths=(T, S)):
    """Three problems, some of the arguments being common to them."""
    ridges, t, s = (jnp.asarray(np.broadcast_to(z, 3)) for z in (ridges, *lengths))
    x, y = (np.broadcast_to(z, (3, *z.shape)) for z in (x, y))
    found = fitted(x, y, ridges, (t, s))
    return [jax.tree.map(lambda z, i=i: np.asarray(z[i]), found) for i in range(3)]


def canonical(x, y, components, ridge):
    """Projections by generalised eigenvectors, variance 1."""
    d, joint = x.shape[1], np.cov(x, y, rowvar=False)
    within = scipy.linalg.block_diag(joint[:d, :d], joint[d:, d:]) + ridge * np.eye(len(joint))
    cross = joint.copy()
    cross[:d, :d] = cross[d:, d:] = 0
    values, vectors = scipy.linalg.eigh(cross, within)
    best = np.argsort(-values)[:components]
    vectors = vectors[:, best] * np.sqrt(2)
    return x.mean(axis=0), y.mean(axis=0), vectors[:d], vectors[d:], values[best]


def cheapest(cost):
    """Dynamic programming, cell by cell; of ties across comes first, then down."""
    t, s = cost.shape
    reached = np.full((t + 1, s + 1), np.inf)
    reached[0, 0] = 0
    for i, j in np.ndindex(t, s):
        if abs(i - j) > BAND:
            continue
        before = reached[i, j], reached[i, j + 1], reached[i + 1, j]
        reached[i + 1, j + 1] = cost[i, j] + min(before)
    path, (i, j) = [], (t, s)
    while (i, j) != (0, 0):
        path.append((i - 1, j - 1))
        steps = (i - 1, j - 1), (i - 1, j), (i, j - 1)
        i, j = min(steps, key=lambda cell: reached[cell])
    return path[::-1]


def uniform(t, s):
    longest = max(t, s)
    return [(k * t // longest, k * s // longest) for k in range(longest)]


def by_definition(x, y, components, ridge):
    """Both halves in turn until the path stays: path, correlations, distance and how often."""
    better, made = uniform(len(x), len(y)), 0
    path = None
    while better != path:
        path = better
        i, j = np.array(path).T
        mean_x, mean_y, a, b, values = canonical(x[i], y[j], components, ridge)
        left, right = (x - mean_x) @ a, (y - mean_y) @ b
        cost = ((left[:, None] - right[None]) ** 2).sum(axis=-1)
        better, made = cheapest(cost), made + 1
    return path, values, np.mean([cost[cell] for cell in path]), made


@pytest.mark.parametrize(("t", "s"), [(T, S), (10, 9)], ids=["full", "ragged"])
def test_it_is_what_the_algorithm_finds(t, s, double):
    bad = (
        np.where(np.arange(T)[:, None] < t, X, np.nan),
        np.where(np.arange(S)[:, None] < s, Y, np.nan),
    )
    ridges = 0.0, 0.1, 1.0
    for ridge, found in zip(ridges, fit(*bad, ridges, (t, s)), strict=True):
        path, correlations, distance, made = by_definition(X[:t], Y[:s], 2, ridge)
        assert [tuple(c) for c in found.path[: found.steps].tolist()] == path
        assert np.all(found.path[found.steps :] == -1)
        np.testing.assert_allclose(found.correlations, correlations, rtol=1e-8)
        np.testing.assert_allclose(found.distance, distance, rtol=1e-7)
        assert found.iterations == made > 1


def test_a_walk_at_another_pace_in_other_coordinates_is_followed(double):
    walk = np.random.default_rng(0).normal(size=(T, 3)).cumsum(axis=0)
    order = np.array([0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 13])  # slow at first, then at twice the speed
    x, y = walk @ RNG.normal(size=(3, 4)), walk[order] @ RNG.normal(size=(3, 3))
    found = fit(x, y)[0]
    start, end = (
        np.mean(np.abs(i - order[j]))
        for i, j in (np.array(uniform(T, S)).T, found.path[: found.steps].T)
    )
    assert end < start / 2


def test_the_last_analysis_can_be_differentiated_and_steps_beyond_the_lengths_reach_nothing(
    assert_slopes, value_and_gradients
):
    def total(x, y):
        found = ctw(x, y, components=2, ridge=0.1, lengths=(10, 9))
        return jnp.sum(found.correlations) + found.distance

    assert_slopes(total, X, Y, step=1e-7, rtol=1e-4, atol=1e-6)
    bad = np.where(np.arange(T)[:, None] < 10, X, np.nan)
    value, gradients = value_and_gradients(total, X, Y)
    other, others = value_and_gradients(total, bad, Y)
    assert value == other
    np.testing.assert_array_equal(gradients[0], others[0])
    assert not gradients[0][10:].any()
    assert gradients[0][:10].any()


def test_sequences_that_cannot_be_aligned_have_no_path(double):
    lengths, distances = ([0, 0, 9], [0, 5, 2]), (0, np.inf, np.inf)
    for distance, found in zip(distances, fit(X, Y, lengths=lengths), strict=True):
        assert found.distance == distance
        assert found.steps == 0
        assert np.all(found.path == -1)
        assert not found.correlations.any()


def test_nan_within_the_lengths_shows(double):
    bad = np.where(np.arange(T)[:, None] == 8, np.nan, X)
    whole, ragged, short = fit(bad, Y, lengths=([T, 9, 8], [S, 9, 8]))
    for found in (whole, ragged):
        assert found.steps == 0
        assert np.isnan(found.distance)
        assert np.isnan(found.correlations).all()
        assert np.isnan(found.x.weights).all()
    assert np.isfinite(short.distance)


def test_whole_numbers_of_numpy_are_as_good_as_python_s():
    lengths = np.int64(T), np.array([S])[0]
    options = {"components": np.int64(2), "band": np.int64(4), "iterations": np.int64(3)}
    jax.eval_shape(lambda x, y: ctw(x, y, lengths=lengths, **options), X, Y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 4}, "components must be between 1 and the smallest number of features, 3"),
        ({"components": 1, "iterations": 0}, "iterations must be at least 1, got 0"),
        ({"components": 1, "band": 2}, "band must be at least 3"),
        ({"components": 1, "lengths": (T + 1, S)}, "lengths must lie between 0 and the axis of 14"),
        ({"components": 1, "lengths": (np.int64(T + 1), S)}, "lengths must lie between 0 and the"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ctw(np.float32(X), np.float32(Y), **options)
