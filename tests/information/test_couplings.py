"""Joint distributions with given marginals, beside all vertices and a search of what is free."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from mmjax.information import coupling_entropy_bound, greedy_coupling, largest_entropy


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


def entropy(p):
    p = np.asarray(p, np.float64).ravel()
    return -np.sum(p[p > 0] * np.log(p[p > 0]))


def least_entropy(p, q):
    """The least entropy is at a vertex: fill cells to the brim, in each of all orders."""
    best = np.inf
    cells = list(np.ndindex(len(p), len(q)))
    for order in itertools.permutations(cells):
        rows, columns, joint = p.copy(), q.copy(), np.zeros((len(p), len(q)))
        for i, j in order:
            joint[i, j] = min(rows[i], columns[j])
            rows[i] -= joint[i, j]
            columns[j] -= joint[i, j]
        best = min(best, entropy(joint))
    return best


def distributions(seed):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(3, 0.5)), rng.dirichlet(np.full(2, 0.5))


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=15, deadline=None)
def test_the_bound_is_below_and_the_greedy_one_not_far_above_the_least_entropy(seed):
    p, q = distributions(seed)
    least = least_entropy(p, q)
    bound = float(coupling_entropy_bound(p, q))
    joint = np.asarray(greedy_coupling(p, q))
    np.testing.assert_allclose(joint.sum(axis=1), p, atol=1e-12)
    np.testing.assert_allclose(joint.sum(axis=0), q, atol=1e-12)
    assert max(entropy(p), entropy(q)) - 1e-9 <= bound <= least + 1e-9
    assert least - 1e-9 <= entropy(joint) <= least + 1 / np.e + 1e-9
    assert least <= bound + np.log(2) + 1e-9


def test_equal_marginals_are_coupled_without_more_entropy():
    p = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(greedy_coupling(p, p[::-1]), np.diag(p)[:, ::-1], atol=1e-12)
    assert coupling_entropy_bound(p, p[::-1]) == pytest.approx(entropy(p))


def test_the_largest_entropy_is_that_of_all_that_is_free():
    """Of three bits, the pairs leave one number free: search it."""
    p = np.random.default_rng(0).exponential(size=(2, 2, 2))
    p /= p.sum()
    signs = np.prod(np.stack(np.meshgrid([1, -1], [1, -1], [1, -1], indexing="ij")), axis=0)
    low, high = -p[signs > 0].min(), p[signs < 0].min()
    for _ in range(12):
        grid = np.linspace(low, high, 101)
        best = grid[np.argmax([entropy(np.maximum(p + t * signs, 0)) for t in grid])]
        low, high = (np.clip(best + s * (high - low) / 20, low, high) for s in (-1, 1))
    found = largest_entropy(p.sum(axis=2), p.sum(axis=1), p.sum(axis=0))
    assert found.entropy == pytest.approx(entropy(p + best * signs), abs=1e-9)
    assert found.infeasibility < 1e-9


def test_the_largest_entropy_has_a_gradient_and_takes_zeros():
    p = np.random.default_rng(1).exponential(size=(2, 2, 2))
    p[0, 1] = p[1, 0, 0] = 0
    p /= p.sum()

    @jax.jit
    def value(p):
        return largest_entropy(p.sum(axis=2), p.sum(axis=1), p.sum(axis=0)).entropy

    assert value(p) >= entropy(p) - 1e-9
    p = p + 0.05
    p, step = p / p.sum(), 1e-5
    slope = jax.grad(value)(p)
    for i in itertools.product(range(2), repeat=3):
        change = np.full((2, 2, 2), -step / 8)  # the sum stays one
        change[i] += step
        difference = (value(p + change) - value(p - change)) / (2 * step)
        assert slope[i] - np.mean(slope) == pytest.approx(float(difference), abs=1e-6)


def test_pairs_that_cannot_be_of_one_distribution_are_told():
    equal, different = np.eye(2) / 2, (1 - np.eye(2)) / 2
    assert largest_entropy(equal, equal, different).infeasibility > 0.1


def test_what_is_no_distribution_is_refused():
    p = np.full(2, 0.5)
    for function in (greedy_coupling, coupling_entropy_bound):
        with pytest.raises(ValueError, match="must sum to one"):
            function(p, 2 * p)
    with pytest.raises(ValueError, match="must not be negative"):
        largest_entropy(*[np.array([[1.5, -0.5], [0.0, 0.0]])] * 3)
