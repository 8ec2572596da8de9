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


def bounded(tables):
    """Bounds and decompositions of up to eight tables, padded to one shape with zeros."""
    batch = np.full((8, 3, 2, 3), 1 / 18)
    for row, table in zip(batch, tables, strict=False):
        row[:] = 0
        row[tuple(map(slice, table.shape))] = table
    bounds, exact = compiled()
    both = bounds(*pairs(batch)), exact(batch)
    return [type(parts)(*(np.asarray(part)[: len(tables)] for part in parts)) for parts in both]


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=8, deadline=None)
def test_the_synergy_is_between_its_bounds(seed):
    rng = np.random.default_rng(seed)
    p = rng.exponential(size=(8, 3, 2, 2)) ** rng.uniform(1, 6, size=(8, 1, 1, 1))
    p *= rng.random(p.shape) < rng.uniform(0.4, 1, size=(8, 1, 1, 1))
    p[:, 0, 0, 0] += 0.01
    p /= p.sum(axis=(1, 2, 3), keepdims=True)
    found, truth = bounded(p)
    for name in ("redundancy", "unique_1", "unique_2"):
        np.testing.assert_allclose(getattr(found, name), getattr(truth, name), atol=1e-8)
    slack = 1e-8 + np.asarray(found.infeasibility)
    assert np.all(found.by_redundancy <= truth.synergy + slack)
    assert np.all(found.by_disagreement <= found.by_redundancy + slack)
    assert np.all(found.by_redundancy >= -slack)
    assert np.all(found.upper >= truth.synergy - slack)


def test_disagreement_is_the_distance_of_both_posteriors():
    """Where sources agree, the target is what they say; where they do not, it is a third thing."""
    p = np.zeros((2, 2, 3))
    p[0, 0, 0] = p[1, 1, 1] = 0.35
    p[0, 1, 2] = p[1, 0, 2] = 0.15
    found, truth = bounded([p])
    distance = -0.3 * np.log(0.3)  # where they do not agree, both posteriors share 0.3
    wanted = distance - (truth.unique_1 + truth.unique_2) / 2
    np.testing.assert_allclose(found.by_disagreement, wanted, atol=1e-8)
    assert 0.3 < found.by_disagreement < found.by_redundancy


def test_gates_without_synergy_are_seen_to_have_none():
    gates = [GATES[name] for name in ("redundant", "unique_1", "unique_2")]
    found, _ = bounded([gate.joint for gate in gates])
    np.testing.assert_allclose(found.upper, 0, atol=1e-8)
    for name in ("redundancy", "unique_1", "unique_2"):
        wanted = [getattr(gate.pid, name) for gate in gates]
        np.testing.assert_allclose(getattr(found, name), wanted, atol=1e-8)


def test_of_an_exclusive_or_nothing_is_seen_and_everything_is_possible():
    found, _ = bounded([GATES["xor"].joint])
    np.testing.assert_allclose([found.by_redundancy, found.by_disagreement], 0, atol=1e-8)
    np.testing.assert_allclose([found.upper, found.upper_greedy], np.log(2), atol=1e-8)


def test_bits_are_nats_over_log_2():
    p = pairs(GATES["and"].joint)
    nats, bits = (np.stack(synergy_bounds(*p, unit=unit)[:7]) for unit in ("nats", "bits"))
    np.testing.assert_allclose(bits * np.log(2), nats, atol=1e-9)


def test_gradients_are_finite_differences():
    rng, step = np.random.default_rng(0), 1e-5
    p = rng.uniform(0.5, 1.5, size=(8, 3, 2, 3))
    p /= p.sum(axis=(1, 2, 3), keepdims=True)
    change = rng.normal(size=p.shape) * p
    change -= p * change.sum(axis=(1, 2, 3), keepdims=True)  # the sum stays one

    def total(bounds):
        return bounds.by_redundancy + bounds.by_disagreement + bounds.upper

    ahead, behind = (total(bounded(p + h * change)[0]) for h in (step, -step))
    slopes = jax.jit(jax.grad(lambda p: jnp.sum(total(jax.vmap(synergy_bounds)(*pairs(p))))))(p)
    found = np.sum(slopes * change, axis=(1, 2, 3))
    np.testing.assert_allclose(found, (ahead - behind) / (2 * step), atol=1e-5)


def test_pairs_that_disagree_are_refused_and_told_inside_jit():
    even, uneven = np.full((2, 2), 0.25), np.array([[0.1, 0.4], [0.1, 0.4]])
    with pytest.raises(ValueError, match="both pairs with the target must give it the same"):
        synergy_bounds(even, uneven, even)
    with pytest.raises(ValueError, match="must sum to one"):
        synergy_bounds(2 * even, 2 * even, 2 * even)
    of_first = [np.pad(pair, ((0, 1), (0, 0))) for pair in (even, uneven)]
    of_target = [np.pad(pair, ((0, 0), (0, 1))) for pair in (of_first[1], even)]
    found = compiled()[0](*(np.stack([pair] * 8) for pair in (of_first[0], *of_target)))
    assert np.all(found.infeasibility > 0.5)
