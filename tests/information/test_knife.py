"""KNIFE: a mixture of Gaussians as SciPy has it, and an entropy that training brings down."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from mmjax.information.knife import Knife, knife_init, knife_log_density

N, D, K = 6, 3, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
KNIFE = Knife(
    RNG.normal(size=K),
    RNG.normal(size=(K, D)),
    0.3 * RNG.normal(size=(K, D)),
    RNG.normal(size=(K, D, D)),
)
WHERE = np.array([1, 0, 1, 1, 0, 1], bool)


def definition(x, knife):
    weights = np.exp(knife.logits) / np.exp(knife.logits).sum()
    density = 0.0
    for m, weight in enumerate(weights):
        factor = (np.eye(D) + np.tril(knife.skew[m], -1)) @ np.diag(np.exp(knife.log_scales[m]))
        covariance = np.linalg.inv(factor.T @ factor)
        density = density + weight * multivariate_normal(knife.means[m], covariance).pdf(x)
    return np.log(density)


def test_log_densities_and_gradients_are_those_of_a_mixture():
    @jax.jit
    def both(x, knife):
        def total(x, knife):
            rows = knife_log_density(x, knife, where=WHERE)
            return jnp.sum(rows), rows

        return jax.value_and_grad(total, (0, 1), has_aux=True)(x, knife)

    with jax.enable_x64(True):
        (_, rows), gradients = both(np.where(WHERE[:, None], X, np.nan), KNIFE)
    np.testing.assert_allclose(rows, np.where(WHERE, definition(X, KNIFE), 0), rtol=1e-9)
    leaves, tree = jax.tree.flatten((X, KNIFE))
    for which, gradient in enumerate(jax.tree.leaves(gradients)):
        wanted = np.zeros_like(leaves[which])
        for index in np.ndindex(wanted.shape):
            ends = []
            for sign in (1, -1):
                moved = [np.array(leaf) for leaf in leaves]
                moved[which][index] += sign * 1e-6
                ends.append(definition(*jax.tree.unflatten(tree, moved))[WHERE].sum())
            wanted[index] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-8)


def test_training_brings_the_entropy_down_to_that_of_the_data():
    """Two narrow peaks far apart: half a nat each above the entropy of which peak it is."""
    rng = np.random.default_rng(1)
    x, fresh = np.float32(rng.choice([-4.0, 4.0], (2, 400, 1)) + 0.3 * rng.normal(size=(2, 400, 1)))
    start = knife_init(x, components=4, key=jax.random.key(0))

    def cost(knife):
        return -knife_log_density(x, knife).mean()

    @jax.jit
    def fit(knife):
        def step(knife, _):
            slopes = jax.grad(cost)(knife)
            return jax.tree.map(lambda p, g: p - 0.1 * g, knife, slopes), None

        return jax.lax.scan(step, knife, None, length=800)[0]

    evaluate = jax.jit(lambda knife: -knife_log_density(fresh, knife).mean())
    truth = math.log(2) + math.log(2 * math.pi * math.e * 0.09) / 2
    assert evaluate(start) > truth + 0.5
    assert evaluate(fit(start)) == pytest.approx(truth, abs=0.12)


def test_it_begins_at_valid_rows_as_wide_as_the_data():
    x = np.float32(X * np.array([1.0, 5.0, 0.0]) + 2)
    hidden = np.where(WHERE[:, None], x, np.nan)
    knife = knife_init(hidden, components=9, key=jax.random.key(1), where=WHERE)
    distances = np.abs(np.asarray(knife.means)[:, None] - x[WHERE][None]).max(axis=2)
    assert np.all(distances.min(axis=1) == 0)
    assert len(np.unique(distances.argmin(axis=1))) > 1
    widths = np.where(x[WHERE].std(axis=0) > 1e-6, x[WHERE].std(axis=0), 1)
    np.testing.assert_allclose(np.exp(-knife.log_scales), np.tile(widths, (9, 1)), rtol=1e-5)


def test_a_constant_has_a_width_of_1_also_where_its_mean_is_rounded():
    constant = np.full((7, 3), [0.1, 0.3, 1e4 + 0.1], np.float32)
    knife = knife_init(constant, components=1, key=jax.random.key(0))
    np.testing.assert_array_equal(knife.log_scales, np.zeros((1, 3)))


def test_bad_mixtures_are_refused():
    with pytest.raises(ValueError, match="components must be at least 1"):
        knife_init(X, components=0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="the mixture has 3 features, the rows have 2"):
        knife_log_density(X[:, :2], KNIFE)
