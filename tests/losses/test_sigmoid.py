"""What the sigmoid loss is worth where it can be worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import siglip_bias_init, siglip_loss


def minus_log_sigmoid(x):
    return np.log1p(np.exp(-x))


def test_orthonormal_pairs():
    rows = siglip_loss(jnp.eye(4), jnp.eye(4), logit_scale=3, logit_bias=-1)
    wanted = minus_log_sigmoid(3 - 1) + 3 * minus_log_sigmoid(1)
    np.testing.assert_allclose(rows, np.full(4, wanted), rtol=1e-6)


def test_an_invalid_row_is_neither_row_nor_column():
    where = np.array([True, False, True, True])
    rows = siglip_loss(jnp.eye(4), jnp.eye(4), logit_scale=3.0, logit_bias=-1.0, where=where)
    wanted = minus_log_sigmoid(3 - 1) + 2 * minus_log_sigmoid(1)
    np.testing.assert_allclose(rows, wanted * where, rtol=1e-6)


def test_a_bias_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="logit_bias must be finite, got nan"):
        siglip_loss(jnp.eye(2), jnp.eye(2), logit_scale=1.0, logit_bias=float("nan"))


@pytest.mark.parametrize("batch_size", [2, 16])
def test_the_initial_bias_is_the_best_one_for_a_model_that_knows_nothing(batch_size):
    nothing = jnp.zeros((batch_size, 3))
    loss = functools.partial(siglip_loss, nothing, nothing, logit_scale=1.0)
    bias = siglip_bias_init(batch_size)
    assert 1 / (1 + np.exp(-bias)) == pytest.approx(1 / batch_size)
    slope = jax.grad(lambda b: jnp.sum(loss(logit_bias=b)))
    assert slope(bias) == pytest.approx(0, abs=1e-5)
    assert slope(bias + 0.5) > 0.1


@pytest.mark.parametrize("batch_size", [1, 0, -4])
def test_a_batch_without_negatives_has_no_initial_bias(batch_size):
    with pytest.raises(ValueError, match=f"at least 2, got {batch_size}"):
        siglip_bias_init(batch_size)
