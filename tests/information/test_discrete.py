"""Discrete information against sums over outcomes, and against packages that know it."""

import functools
import itertools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from mmjax.information.discrete import (
    co_information,
    conditional_mutual_information,
    entropy,
    mutual_information,
    total_correlation,
)

RNG = np.random.default_rng(0)
SHAPE = (3, 2, 4)
P = RNG.dirichlet(np.full(24, 2.0)).reshape(SHAPE)
P[0, 1, 2] = P[2, 0, 0] = P[1, :, 3] = 0  # impossible outcomes, one of them for all y
P /= P.sum()


def marginal(p, kept):
    return {
        point: sum(p[full] for full in np.ndindex(p.shape) if tuple(full[k] for k in kept) == point)
        for point in itertools.product(*(range(p.shape[k]) for k in kept))
    }


def shannon(p, *kept):
    """Entropy of some of the variables, in nats."""
    return -sum(q * math.log(q) for q in marginal(p, kept).values() if q > 0)


DEFINITIONS = {
    entropy: lambda p: shannon(p.reshape(-1), 0),
    mutual_information: lambda p: (
        shannon(p.sum(2), 0) + shannon(p.sum(2), 1) - shannon(p.sum(2), 0, 1)
    ),
    conditional_mutual_information: lambda p: (
        shannon(p, 0, 2) + shannon(p, 1, 2) - shannon(p, 0, 1, 2) - shannon(p, 2)
    ),
    total_correlation: lambda p: sum(shannon(p, i) for i in range(3)) - shannon(p, 0, 1, 2),
    co_information: lambda p: (
        shannon(p, 0) + shannon(p, 1) - shannon(p, 0, 1)
        - (shannon(p, 0, 2) + shannon(p, 1, 2) - shannon(p, 0, 1, 2) - shannon(p, 2))
    ),
}  # fmt: skip
NAMES = [function.__name__ for function in DEFINITIONS]


def given_as(function, p):
    """The axes that the function wants."""
    if function is entropy:
        return p.reshape(*p.shape[:-3], -1)
    return p.sum(-1) if function is mutual_information else p


def everything(function, p):
    """Value and gradient in nats, and the value in bits."""
    nats = jax.value_and_grad(lambda p: function(given_as(function, p)))(p)
    return *nats, function(given_as(function, p), unit="bits")


RUN = {f: jax.jit(functools.partial(everything, f)) for f in DEFINITIONS}
every_function = pytest.mark.parametrize("function", DEFINITIONS, ids=NAMES)


@every_function
def test_values_and_gradients_are_those_of_the_definition(function):
    with jax.enable_x64(True), jax.debug_nans(True), jax.debug_infs(True):
        value, gradient, bits = RUN[function](P)
    assert value == pytest.approx(DEFINITIONS[function](P), rel=1e-10)
    assert float(bits) * math.log(2) == pytest.approx(float(value), rel=1e-6)
    for i, j in itertools.pairwise(zip(*np.nonzero(P), strict=True)):
        change = np.zeros(SHAPE)  # along which the sum stays one
        change[i], change[j] = 1e-7, -1e-7
        ends = [DEFINITIONS[function](P + sign * change) for sign in (1, -1)]
        found = np.asarray(gradient)[i] - np.asarray(gradient)[j]
        assert found == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("function", [f for f in DEFINITIONS if f is not co_information])
def test_what_is_impossible_has_no_gradient(function):
    p = np.array(P)
    p[1, 0] = 0
    p /= p.sum()
    with jax.enable_x64(True):
        gradient = np.asarray(RUN[function](p)[1])
    impossible = p == 0
    if function is mutual_information:  # of pairs
        impossible = np.broadcast_to(impossible.all(axis=2, keepdims=True), SHAPE)
    assert not np.any(gradient[impossible])
    assert np.all(gradient[~impossible])


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_probabilities_of_few_digits_are_what_they_are_over_their_sum(dtype):
    p = np.asarray(P.reshape(-1), dtype)
    wide = np.asarray(p, np.float64)
    assert wide.sum() != 1
    wanted = shannon(wide / wide.sum(), 0)
    assert entropy(p) == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(ValueError, match="must sum to one"):
        entropy(2 * p)


@pytest.mark.parametrize("function", [entropy, mutual_information, conditional_mutual_information])
def test_leading_axes_are_a_batch(function):
    batch = np.stack([P, P[::-1, ::-1], np.full(SHAPE, 1 / 24)])[None]
    found = jax.jit(lambda p: function(given_as(function, p)))(np.float32(batch))
    wanted = [DEFINITIONS[function](p) for p in batch[0]]
    np.testing.assert_allclose(found, [wanted], rtol=1e-4, atol=1e-6)


def test_a_certain_outcome_says_nothing():
    certain = np.zeros(SHAPE, np.float32)
    certain[1, 0, 2] = 1
    for function in DEFINITIONS:
        value, gradient, _ = RUN[function](certain)
        assert value == 0
        assert np.all(np.isfinite(gradient))


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
@hypothesis.given(weights=st.lists(st.sampled_from([0, 1, 2, 7]), min_size=24, max_size=24))
def test_informations_are_not_negative_and_add_up(weights):
    p = np.reshape(np.float64(weights), SHAPE)
    hypothesis.assume(p.sum() > 0)
    p = np.float32(p / p.sum())
    found = {f.__name__: float(RUN[f](p)[0]) for f in DEFINITIONS}
    assert min(found["mutual_information"], found["conditional_mutual_information"]) > -1e-6
    assert found["total_correlation"] > -1e-6
    difference = found["mutual_information"] - found["conditional_mutual_information"]
    assert found["co_information"] == pytest.approx(difference, abs=1e-5)


def test_four_variables_of_which_three_decide_the_fourth():
    p = np.zeros((2, 2, 2, 2))
    for a, b, c in itertools.product(range(2), repeat=3):
        p[a, b, c, a ^ b ^ c] = 1 / 8
    run = jax.jit(lambda p: (total_correlation(p, unit="bits"), co_information(p, unit="bits")))
    np.testing.assert_allclose(run(np.float32(p)), [1, 1], atol=1e-5)  # of an even number: not -1


def test_mutual_information_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    counts = RNG.integers(0, 9, (4, 5))
    wanted = metrics.mutual_info_score(None, None, contingency=counts)
    found = mutual_information(np.float32(counts / counts.sum()))
    assert found == pytest.approx(wanted, rel=1e-4)


def test_many_variables_agree_with_dit():
    dit = pytest.importorskip("dit")
    outcomes = [point for point in np.ndindex(SHAPE) if P[point] > 0]
    known = dit.Distribution(["".join(map(str, o)) for o in outcomes], [P[o] for o in outcomes])
    for function, theirs in (
        (total_correlation, dit.multivariate.total_correlation),
        (co_information, dit.multivariate.coinformation),
    ):
        assert function(np.float32(P), unit="bits") == pytest.approx(theirs(known), rel=1e-4)


@every_function
def test_what_are_no_probabilities_is_refused(function):
    whole = given_as(function, P)
    with pytest.raises(ValueError, match="must sum to one, got 2"):
        function(2 * whole)
    with pytest.raises(ValueError, match="must not be negative, got -"):
        function(whole - 0.1)
    with pytest.raises(ValueError, match="negative, got nan"):
        function(np.full_like(whole, np.nan))
    with pytest.raises(ValueError, match="unit must be"):
        function(whole, unit="bit")
