"""Canonical time warping against its algorithm in NumPy, and against warpings that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from mmjax.alignment import ctw

RNG = np.random.default_rng(0)
T, S = 14, 11
TIME = np.linspace(0, 1, T)
CURVE = np.stack([np.cos(4 * TIME), np.sin(4 * TIME), TIME], axis=1)
ORDER = np.sort(RNG.choice(T, size=S))
X = CURVE @ RNG.normal(size=(3, 4)) + 0.05 * RNG.normal(size=(T, 4))
Y = CURVE[ORDER] @ RNG.normal(size=(3, 3)) + 0.05 * RNG.normal(size=(S, 3)) + 2
fitted = functools.partial(jax.jit, static_argnames=("components", "band", "iterations"))(ctw)


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
        before = reached[i, j], reached[i, j + 1], reached[i + 1, j]
        reached[i + 1, j + 1] = cost[i, j] + min(before)
    path, (i, j) = [], (t, s)
    while (i, j) != (0, 0):
        path.append((i - 1, j - 1))
        steps = (i - 1, j - 1), (i - 1, j), (i, j - 1)
        i, j = min(steps, key=lambda cell: reached[cell])
    return path[::-1]


def by_definition(x, y, components, ridge):
    longest = max(len(x), len(y))
    path = [(k * len(x) // longest, k * len(y) // longest) for k in range(longest)]
    for _ in range(50):
        i, j = np.array(path).T
        mean_x, mean_y, a, b, values = canonical(x[i], y[j], components, ridge)
        left, right = (x - mean_x) @ a, (y - mean_y) @ b
        cost = ((left[:, None] - right[None]) ** 2).sum(axis=-1)
        better = cheapest(cost)
        if better == path:
            break
        path = better
    return path, values, np.mean([cost[cell] for cell in path])


@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("ragged", [False, True])
def test_it_is_what_the_algorithm_finds(ragged, ridge, double):
    t, s = (10, 9) if ragged else (T, S)
    bad = (
        np.where(np.arange(T)[:, None] < t, X, np.nan),
        np.where(np.arange(S)[:, None] < s, Y, np.nan),
    )
    lengths = (jnp.asarray(t), jnp.asarray(s)) if ragged else None
    found = fitted(*bad, components=2, ridge=ridge, lengths=lengths)
    path, correlations, distance = by_definition(X[:t], Y[:s], 2, ridge)
    assert [tuple(c) for c in found.path[: found.steps].tolist()] == path
    assert np.all(found.path[found.steps :] == -1)
    np.testing.assert_allclose(found.correlations, correlations, rtol=1e-8)
    np.testing.assert_allclose(found.distance, distance, rtol=1e-7)
    assert 1 < found.iterations < 50


def test_a_repeated_curve_in_other_coordinates_is_followed(double):
    slower = CURVE[ORDER] @ RNG.normal(size=(3, 3))
    found = fitted(CURVE, slower, components=3)
    i, j = np.asarray(found.path[: found.steps]).T
    assert np.mean(np.abs(i - ORDER[j])) < 0.5
    assert found.correlations[0] > 0.99


def test_the_last_analysis_can_be_differentiated(assert_slopes):
    def total(x, y):
        found = ctw(x, y, components=2, ridge=0.1)
        return jnp.sum(found.correlations) + found.distance

    assert_slopes(total, X, Y, step=1e-7, rtol=1e-4, atol=1e-6)


def test_steps_beyond_the_lengths_have_no_gradient_even_if_nan():
    bad = np.float32(np.where(np.arange(T)[:, None] < 10, X, np.nan))

    def total(x):
        return ctw(x, np.float32(Y), components=2, lengths=(10, S)).distance

    gradient = np.asarray(jax.jit(jax.grad(total))(bad))
    assert np.isfinite(gradient).all()
    assert not gradient[10:].any()
    assert gradient[:10].any()


@pytest.mark.parametrize(("lengths", "distance"), [((0, 0), 0), ((0, 5), np.inf), ((9, 2), np.inf)])
def test_sequences_that_cannot_be_aligned_have_no_path(lengths, distance):
    sizes = tuple(map(jnp.asarray, lengths))
    found = fitted(np.float32(X), np.float32(Y), components=2, lengths=sizes, band=4)
    assert found.distance == distance
    assert found.steps == 0
    assert np.all(found.path == -1)
    assert not found.correlations.any()


def test_vmap_is_a_loop():
    found = jax.vmap(lambda x: fitted(x, np.float32(Y), components=2).path)(np.float32([X, X + 1]))
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 4}, "components must be between 1 and the smallest number of features, 3"),
        ({"components": 1, "iterations": 0}, "iterations must be at least 1, got 0"),
        ({"components": 1, "band": 2}, "band must be at least 3"),
        ({"components": 1, "lengths": (T + 1, S)}, "lengths must lie between 0 and the axis of 14"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ctw(np.float32(X), np.float32(Y), **options)
