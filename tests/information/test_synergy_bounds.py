"""Bounds of the synergy: they hold, they are tight where they can be, and bad pairs are refused."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data.synthetic import GATES
from mmjax.information import broja, synergy_bounds


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


def pairs(p):
    return p.sum(axis=-1), p.sum(axis=-2), p.sum(axis=-3)


@functools.cache
def compiled():
    return jax.jit(jax.vmap(synergy_bounds)), jax.jit(broja)


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=8, deadline=None)
def test_the_synergy_is_between_its_bounds(seed):
    rng = np.random.default_rng(seed)
    p = rng.exponential(size=(8, 3, 2, 2)) ** rng.uniform(1, 6, size=(8, 1, 1, 1))
    p *= rng.random(p.shape) < rng.uniform(0.4, 1, size=(8, 1, 1, 1))
    p[:, 0, 0, 0] += 0.01
    p /= p.sum(axis=(1, 2, 3), keepdims=True)
    bounds, exact = compiled()
    found, truth = bounds(*pairs(p)), exact(p)
    for name in ("redundancy", "unique_1", "unique_2"):
        np.testing.assert_allclose(getattr(found, name), getattr(truth, name), atol=1e-8)
    slack = 1e-8 + np.asarray(found.infeasibility)
    assert np.all(found.by_redundancy <= truth.synergy + slack)
    assert np.all(found.by_disagreement <= truth.synergy + slack)
    assert np.all(found.upper >= truth.synergy - slack)


def test_disagreement_is_found_where_redundancy_is_not():
    """Half the time one source decides, half the time the other: each is wrong when it does not."""
    p = np.zeros((2, 2, 2))
    p[0, 0, 0] = p[1, 1, 1] = 0.05
    p[0, 1, 0] = p[1, 0, 1] = 0.45
    found = synergy_bounds(*pairs(p))
    posterior = {0: np.array([1.0, 0.0]), 1: np.array([0.0, 1.0])}
    second = {b: p[:, b].sum(axis=0) / p[:, b].sum() for b in range(2)}
    distance = -sum(
        p[a, b].sum() * np.log(np.sqrt(posterior[a] * second[b]).sum())
        for a in range(2)
        for b in range(2)
    )
    wanted = distance - (found.unique_1 + found.unique_2) / 2
    assert found.by_disagreement == pytest.approx(float(wanted), abs=1e-8)


@pytest.mark.parametrize("name", ["redundant", "unique_1"])
def test_gates_without_synergy_are_seen_to_have_none(name):
    found = synergy_bounds(*pairs(GATES[name].joint), unit="bits")
    np.testing.assert_allclose(
        [found.upper, found.redundancy, found.unique_1],
        [0, *(np.array([GATES[name].pid.redundancy, GATES[name].pid.unique_1]) / np.log(2))],
        atol=1e-8,
    )


def test_of_an_exclusive_or_nothing_is_seen_and_everything_is_possible():
    found = synergy_bounds(*pairs(GATES["xor"].joint), unit="bits")
    np.testing.assert_allclose([found.by_redundancy, found.by_disagreement], 0, atol=1e-8)
    np.testing.assert_allclose([found.upper, found.upper_greedy], 1, atol=1e-8)


def test_gradients_are_finite_differences():
    p = np.random.default_rng(0).uniform(0.5, 1.5, size=(2, 2, 2))
    p, step = jnp.asarray(p / p.sum()), 1e-5

    @jax.jit
    def value(p):
        found = synergy_bounds(*pairs(p / p.sum()))
        return found.by_redundancy + found.by_disagreement + found.upper

    slope = jax.grad(value)(p)
    for i in np.ndindex(p.shape):
        ahead, behind = (value(p.at[i].add(h)) for h in (step, -step))
        assert slope[i] == pytest.approx(float(ahead - behind) / (2 * step), abs=1e-5)


def test_pairs_that_disagree_are_refused_and_told_inside_jit():
    even, uneven = np.full((2, 2), 0.25), np.array([[0.1, 0.4], [0.1, 0.4]])
    with pytest.raises(ValueError, match="both pairs with the target must give it the same"):
        synergy_bounds(even, uneven, even)
    with pytest.raises(ValueError, match="must sum to one"):
        synergy_bounds(2 * even, even, even)
    assert jax.jit(synergy_bounds)(even, uneven, even).infeasibility > 0.5
