"""Sample-wise interaction on gates whose decomposition is known, and from classifiers."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.information.sample_wise import (
    SampleInteraction,
    non_negative_means,
    pointwise_information,
    sample_wise_interaction,
)

LOG2 = math.log(2)
# Redundancy, unique, unique and synergy in bits of fair coins (Bertschinger et al. 2014).
GATES = {
    "and": (lambda a, b: a & b, (0.311278, 0.0, 0.0, 0.5)),
    "or": (lambda a, b: a | b, (0.311278, 0.0, 0.0, 0.5)),
    "xor": (lambda a, b: a ^ b, (0.0, 0.0, 0.0, 1.0)),
}
RNG = np.random.default_rng(0)
WHERE = np.array([1, 1, 0, 1, 0, 1], bool)


def coins(gate):
    """Surprisals and pointwise information of every outcome, each of which is as likely."""
    outcomes = [(a, b, gate(a, b)) for a, b in itertools.product(range(2), repeat=2)]

    def p(**known):
        slots = {"a": 0, "b": 1, "y": 2}
        return np.mean([all(o[slots[k]] == v for k, v in known.items()) for o in outcomes])

    for a, b, y in outcomes:
        yield (
            -math.log(p(a=a)),
            -math.log(p(b=b)),
            math.log(p(a=a, y=y) / p(a=a) / p(y=y)),
            math.log(p(b=b, y=y) / p(b=b) / p(y=y)),
            math.log(p(a=a, b=b, y=y) / p(a=a, b=b) / p(y=y)),
        )


@jax.jit
def in_bits(given):
    found = sample_wise_interaction(*given, unit="bits")
    return found, non_negative_means(found)


@pytest.mark.parametrize("name", GATES)
def test_means_over_a_gate_are_its_decomposition(name):
    gate, wanted = GATES[name]
    _, moved = in_bits(np.float32(list(coins(gate))).T)
    np.testing.assert_allclose([part.mean() for part in moved], wanted, atol=1e-5)


def test_means_may_be_negative_before_they_are_moved():
    found, _ = in_bits(np.float32(list(coins(GATES["and"][0]))).T)
    assert found.unique_1.mean() == pytest.approx(-0.25, abs=1e-5)


@pytest.mark.parametrize("means", [(-0.3, 0.5, 0.9, 0.1), (0.2, 0.4, 0.1, 0.3)])
def test_a_constant_is_moved_where_it_is_needed_and_of_valid_rows_only(means):
    rows = [np.float32(np.where(WHERE, mean, 99.0)) for mean in means]
    moved = non_negative_means(SampleInteraction(*map(jnp.asarray, rows)), where=WHERE)
    shift = max(0.0, -min(means[0], means[3]))
    for part, mean, sign in zip(moved, means, (1, -1, -1, 1), strict=True):
        np.testing.assert_allclose(part, np.where(WHERE, mean + sign * shift, 0), atol=1e-6)


def test_rows_gradients_and_masks():
    h_1, h_2, i_1, i_2, i_12 = given = RNG.uniform(0.5, 3.0, (5, 6))

    @jax.jit
    def both(*given):
        def redundancy(h_1, h_2):
            found = sample_wise_interaction(h_1, h_2, *given[2:], where=WHERE)
            return jnp.sum(found.redundancy), found

        return jax.grad(redundancy, (0, 1), has_aux=True)(*given[:2])

    with jax.enable_x64(True):
        slopes, found = both(*np.where(WHERE, given, np.nan))
    conditional = np.stack([h_1 - i_1, h_2 - i_2])
    redundancy = np.minimum(h_1, h_2) - conditional.min(axis=0)
    wanted = [redundancy, i_1 - redundancy, i_2 - redundancy, i_12 - i_1 - i_2 + redundancy]
    np.testing.assert_allclose(found, np.where(WHERE, wanted, 0), rtol=1e-12)
    first = np.float64(h_1 < h_2) - (conditional[0] < conditional[1])
    np.testing.assert_allclose(slopes, np.where(WHERE, [first, -first], 0))


def test_pointwise_information_is_the_posterior_over_the_prior():
    logits, prior = RNG.normal(size=(6, 3)), np.array([0.2, 0.7, 0.1])
    labels = np.array([0, 1, 2, 2, 1, 0], np.uint8)
    run = jax.jit(lambda logits: pointwise_information(logits, labels, prior, where=WHERE))
    with jax.enable_x64(True):
        found = run(np.where(WHERE[:, None], logits, np.nan))
    posterior = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = np.log(posterior[np.arange(6), labels] / prior[labels])
    np.testing.assert_allclose(found, np.where(WHERE, wanted, 0), rtol=1e-12)


def test_a_label_that_cannot_be_is_left_out():
    prior = np.array([1.0, 0.0], np.float32)
    run = jax.jit(lambda z: jnp.sum(pointwise_information(z, np.array([0, 1, 2]), prior)))
    value, slope = jax.value_and_grad(run)(np.zeros((3, 2), np.float32))
    assert value == pytest.approx(-LOG2)
    np.testing.assert_allclose(slope, [[0.5, -0.5], [0, 0], [0, 0]])


def test_another_unit_is_refused():
    given = [np.ones(2, np.float32)] * 5
    with pytest.raises(ValueError, match="unit must be"):
        sample_wise_interaction(*given, unit="nat")


@pytest.mark.parametrize(
    ("prior", "message"),
    [([30, 70], "sum to one, got 100"), ([1.5, -0.5], "negative, got -0.5"), ([np.nan, 1], "nan")],
)
def test_a_prior_that_is_none_is_refused(prior, message):
    with pytest.raises(ValueError, match=message):
        pointwise_information(np.zeros((1, 2), np.float32), np.zeros(1, int), np.float32(prior))
