"""Pooling a padded batch equals pooling each example with its padding deleted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.pooling import AttentionPool, class_pool, last_pool, mean_pool

X = np.random.default_rng(0).normal(size=(4, 5, 8)).astype(np.float32)
WHERE = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)
ORACLES = {
    class_pool: lambda tokens, where: tokens[0] if where[0] else np.zeros(8),
    last_pool: lambda tokens, where: tokens[where][-1] if where.any() else np.zeros(8),
    mean_pool: lambda tokens, where: tokens[where].mean(0) if where.any() else np.zeros(8),
}


@pytest.mark.parametrize("pool", ORACLES, ids=lambda pool: pool.__name__)
def test_masked_pooling_is_pooling_after_deletion(pool):
    junk = np.where(WHERE[:, :, None], X, np.nan)
    want = [ORACLES[pool](tokens, where) for tokens, where in zip(X, WHERE, strict=True)]
    np.testing.assert_allclose(pool(junk, WHERE), want, rtol=1e-6, atol=1e-6)
    everything = np.ones(5, bool)
    want = [ORACLES[pool](tokens, everything) for tokens in X]
    np.testing.assert_allclose(pool(X), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pool", ORACLES, ids=lambda pool: pool.__name__)
def test_masked_tokens_have_no_gradient(pool):
    junk = np.where(WHERE[:, :, None], X, np.nan)
    grad = jax.grad(lambda x: jnp.sum(pool(x, WHERE)))(junk)
    np.testing.assert_array_equal(grad[~WHERE], 0)
    assert np.isfinite(grad).all()
    reached = np.abs(grad).max(axis=(1, 2)) > 0
    want = WHERE[:, 0] if pool is class_pool else WHERE.any(1)
    np.testing.assert_array_equal(reached, want)


def test_the_mean_of_bfloat16_is_summed_in_float32():
    x = jnp.full((1, 1024, 1), 1.0078125, jnp.bfloat16)  # a running bfloat16 sum stalls at 256
    assert mean_pool(x).item() == 1.0078125


def test_attention_pooling_ignores_masked_tokens(fill):
    pool = AttentionPool(heads=2, mlp_ratio=2.0)
    variables = fill(pool, X)
    apply = jax.jit(lambda x, where: pool.apply(variables, x, where))
    got = apply(np.where(WHERE[:, :, None], X, np.nan), WHERE)
    alone = apply(X[1:2, :2], WHERE[1:2, :2])[0]
    np.testing.assert_allclose(got[1], alone, rtol=1e-5, atol=1e-6)
    alone = apply(X[2:3, [1, 3]], WHERE[2:3, [1, 3]])[0]
    np.testing.assert_allclose(got[2], alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got[3], 0)
