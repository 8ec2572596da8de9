"""Transport without its bias against its three terms, and where a side is empty."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.alignment import sinkhorn_divergence, squared_costs

RNG = np.random.default_rng(0)
N, M = 5, 4
POINTS = RNG.normal(size=(N, 2)), RNG.normal(size=(M, 2))
A, B = RNG.uniform(0.5, 1.5, size=N), RNG.uniform(0.5, 1.5, size=M)
WHERE_X, WHERE_Y = np.array([1, 1, 0, 1, 1], bool), np.array([1, 0, 1, 1], bool)
TIGHT = {"tolerance": 1e-12, "iterations": 5000}


@jax.jit
def divergence(x, y, epsilon):
    costs = squared_costs(x, y), squared_costs(x, x), squared_costs(y, y)
    return sinkhorn_divergence(*costs, epsilon=epsilon, tolerance=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), log_epsilon=st.floats(-0.5, 1))
def test_the_divergence_is_0_between_equals_and_not_negative(seed, log_epsilon):
    x, y = np.random.default_rng(seed).normal(size=(2, N, 2)).astype(np.float32)
    epsilon = np.float32(10**log_epsilon)
    assert divergence(x, y, epsilon) > 0
    np.testing.assert_allclose(divergence(x, x[::-1], epsilon), 0, atol=1e-4 * (1 + epsilon))


def apart(x, y, a, b, where_x, where_y):
    """The divergence of points; masks as numbers, so that all can be differentiated."""
    masks = {"where_x": where_x > 0.5, "where_y": where_y > 0.5}
    costs = squared_costs(x, y), squared_costs(x, x), squared_costs(y, y)
    return sinkhorn_divergence(*costs, epsilon=1.0, a=a, b=b, **masks, **TIGHT)


@pytest.mark.parametrize("ragged", [False, True])
def test_the_divergence_is_what_its_three_terms_are(
    ragged, scalings, assert_slopes, value_and_gradients
):
    keep = (WHERE_X, WHERE_Y) if ragged else (np.ones(N, bool), np.ones(M, bool))
    (x, y), (a, b) = ([z[w] for z, w in zip(pair, keep, strict=True)] for pair in (POINTS, (A, B)))
    costs = [((p[:, None] - q) ** 2).sum(axis=-1) for p, q in ((x, y), (x, x), (y, y))]
    found = value_and_gradients(apart, *POINTS, A, B, *keep)[0]
    masses = (a, b), (a, a), (b, b)
    terms = [scalings(c, *w, 1.0)[0] for c, w in zip(costs, masses, strict=True)]
    np.testing.assert_allclose(found, terms[0] - (terms[1] + terms[2]) / 2, rtol=1e-8)
    assert_slopes(apart, *POINTS, A, B, *keep)


@pytest.mark.parametrize("empty", [(0,), (1,), (0, 1)], ids=["x", "y", "both"])
def test_from_nothing_there_is_no_divergence(empty, value_and_gradients, double):
    masks = [np.ones(n) * (side not in empty) for side, n in enumerate((N, M))]
    value, gradients = value_and_gradients(apart, *POINTS, A, B, *masks)
    assert value == 0
    assert not any(gradient.any() for gradient in gradients)


def test_pot_agrees(value_and_gradients, double):
    ot = pytest.importorskip("ot")
    a, b = A / A.sum(), B / B.sum()
    x, y = POINTS
    terms = [
        ot.solve_sample(p, q, v, w, reg=1.0, reg_type="KL", tol=1e-12, max_iter=5000).value
        for p, q, v, w in ((x, y, a, b), (x, x, a, a), (y, y, b, b))
    ]
    masks = np.ones(N), np.ones(M)
    found = value_and_gradients(apart, x, y, A, B, *masks)[0]
    np.testing.assert_allclose(found, terms[0] - (terms[1] + terms[2]) / 2, rtol=1e-6)
