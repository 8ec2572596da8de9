"""What the contract does not see of late fusion: the prior, and posteriors that are sure."""

import jax
import numpy as np
import pytest

from mmjax.fusion import LateFusion, mean_of_posteriors, product_of_posteriors
from mmjax.fusion.late import RULES

RNG = np.random.default_rng(0)
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same arithmetic


def test_product_is_the_posterior_of_modalities_that_are_independent_given_the_class():
    """Bayes' rule by enumeration: every cell of a joint distribution of two modalities."""
    prior = np.array([0.2, 0.3, 0.5])
    likelihoods = {m: RNG.dirichlet(np.ones(4), size=3) for m in ("a", "b")}  # class by outcome
    joint = np.einsum("c,ci,cj->ijc", prior, likelihoods["a"], likelihoods["b"])
    posterior = joint / joint.sum(axis=2, keepdims=True)
    single = {m: np.log(prior[:, None] * likelihood).T for m, likelihood in likelihoods.items()}
    logits = {
        "a": np.float32(np.repeat(single["a"], 4, axis=0)),
        "b": np.float32(np.tile(single["b"], (4, 1))),
    }
    log_prior = np.float32(np.log(prior) + 7)  # a constant does not matter
    fused = product_of_posteriors(logits, log_prior=log_prior)
    np.testing.assert_allclose(np.exp(fused), posterior.reshape(16, 3), rtol=1e-5)

    nothing = {m: np.zeros(16, bool) for m in logits}
    fused = product_of_posteriors(logits, log_prior=log_prior, where=nothing)
    np.testing.assert_allclose(np.exp(fused), np.tile(prior, (16, 1)), rtol=1e-5)
    alone = nothing | {"a": np.ones(16, bool)}
    fused = product_of_posteriors(logits, log_prior=log_prior, where=alone)
    np.testing.assert_allclose(np.exp(fused), np.exp(jax.nn.log_softmax(logits["a"])), rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_posteriors_that_are_sure_stay_finite(rule):
    sure = {"a": np.float32([[1e4, 0], [1e4, 0]]), "b": np.float32([[0, 1e4], [1e4, 0]])}
    with jax.debug_nans(True), jax.debug_infs(True):
        slope = jax.grad(lambda x: RULES[rule](x)[0, 0])(sure)
        fused = RULES[rule](sure)
    assert np.all(np.isfinite(jax.tree.leaves(slope)))
    np.testing.assert_allclose(np.exp(fused), [[0.5, 0.5], [1, 0]], atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_class_that_is_excluded_stays_so(rule):
    """Against finite differences over the classes that are possible."""
    sure = {"a": np.float32([[0.7, 0.3, 0]]), "b": np.float32([[0.6, 0.4, 0]])}
    combine = {"mean": np.mean, "max": np.max, "product": np.prod}[rule]

    def definition(logits):
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        combined = combine(p, axis=0)
        return np.log(combined / combined.sum())

    with np.errstate(divide="ignore"):
        logits = {m: np.log(p) for m, p in sure.items()}

    def first(logits):
        fused = RULES[rule](logits)
        return fused[0, 0], fused

    slope, fused = jax.jit(jax.grad(first, has_aux=True), compiler_options=QUICK)(logits)
    point = np.float64([logits["a"][0, :2], logits["b"][0, :2]])
    np.testing.assert_allclose(fused[0, :2], definition(point), rtol=1e-5)
    assert np.exp(fused[0, 2]) == 0
    assert np.isfinite(fused).all()
    for i, m in enumerate(logits):
        assert slope[m][0, 2] == 0
        for c in range(2):
            step = np.zeros((2, 2))
            step[i, c] = 1e-6
            difference = (definition(point + step) - definition(point - step))[0] / 2e-6
            np.testing.assert_allclose(slope[m][0, c], difference, rtol=1e-4, atol=1e-6)


def test_a_product_bears_priors_and_posteriors_of_0():
    log = {"a": np.float32([[0, -np.inf, -np.inf], [0, 1, 2]])}
    prior = np.float32([0, -np.inf, 0])
    fused = product_of_posteriors(log, log_prior=prior)  # of one modality no prior is taken off
    np.testing.assert_allclose(np.exp(fused), [[1, 0, 0], jax.nn.softmax(log["a"][1])], rtol=1e-5)
    log["b"] = np.float32([[-np.inf, 0, -np.inf], [-np.inf, -np.inf, 0]])
    with jax.debug_nans(True):
        by = jax.grad(lambda x: product_of_posteriors(x)[0, 0])
        fused, slope = jax.jit(lambda x: (product_of_posteriors(x), by(x)), compiler_options=QUICK)(
            log
        )
    # Every class of the first example is excluded, two of them by one modality only.
    np.testing.assert_allclose(np.exp(fused), [[0.5, 0.5, 0], [0, 0, 1]], atol=1e-6)
    assert np.all(np.isfinite(jax.tree.leaves(slope)))


def test_different_classes_are_refused():
    with pytest.raises(ValueError, match="same classes for every modality, got a 2, b 3"):
        mean_of_posteriors({"a": np.ones((1, 2)), "b": np.ones((1, 3))})


def test_a_rule_that_is_none_is_refused_at_once():
    with pytest.raises(ValueError, match="rule must be one of mean, max, product, got 'min'"):
        LateFusion(features=2, rule="min")
