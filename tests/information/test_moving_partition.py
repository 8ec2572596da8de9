"""MINE: the value of Donsker-Varadhan, the gradient of a partition that is remembered."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.information.lower_bounds import donsker_varadhan_bound
from mmjax.information.moving_partition import MovingPartition, mine, no_partition

RNG = np.random.default_rng(0)
BATCHES = RNG.normal(size=(4, 5, 5)).astype(np.float32)
WHERE = np.array([1, 1, 0, 1, 1], bool)
APART = ~np.eye(5, dtype=bool) & WHERE[:, None] & WHERE
DECAY = 0.7


@jax.jit
def step(scores, partition, where):
    def mean(scores):
        rows, following = mine(scores, partition, decay=DECAY, where=where)
        return jnp.mean(rows, where=WHERE), (rows, following)

    (_, (rows, following)), gradient = jax.value_and_grad(mean, has_aux=True)(scores)
    return rows, gradient, following


def test_value_gradient_and_state_over_batches():
    partition, average = no_partition(), None
    for scores in BATCHES:
        hidden = np.where(WHERE[:, None] & WHERE, scores, np.nan)
        rows, gradient, partition = step(hidden, partition, WHERE)
        exact = np.float64(scores)
        mean = np.exp(exact)[APART].mean()
        average = mean if average is None else DECAY * average + (1 - DECAY) * mean
        wanted = np.where(WHERE, np.diag(exact) - np.log(mean), 0)
        np.testing.assert_allclose(rows, wanted, rtol=1e-5, atol=1e-6)
        joint = np.diag(WHERE / WHERE.sum())
        slopes = joint - np.where(APART, np.exp(exact) / APART.sum() / average, 0)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(partition.log_mean, np.log(average), rtol=1e-5, atol=1e-6)
    assert partition.batches == len(BATCHES)


def test_without_a_past_the_gradient_is_that_of_donsker_varadhan():
    def plain(scores):
        return jnp.mean(donsker_varadhan_bound(scores, where=WHERE), where=WHERE)

    _, gradient, _ = step(BATCHES[0], no_partition(), WHERE)
    np.testing.assert_allclose(gradient, jax.jit(jax.grad(plain))(BATCHES[0]), rtol=1e-5, atol=1e-7)


def test_a_batch_that_has_nothing_to_compare_leaves_the_state():
    before = MovingPartition(jnp.float32(1.5), jnp.int32(3))
    rows, _, after = step(BATCHES[0], before, np.arange(5) == 1)
    np.testing.assert_array_equal(rows, np.zeros(5))
    assert (after.log_mean, after.batches) == (1.5, 3)


@pytest.mark.parametrize("x64", [False, True])
def test_the_state_keeps_its_dtype_so_that_it_can_be_scanned(x64):
    with jax.enable_x64(x64):
        dtype = jnp.float64 if x64 else jnp.float32

        def body(partition, scores):
            rows, partition = mine(scores, partition)
            return partition, rows.mean()

        final, _ = jax.lax.scan(body, no_partition(dtype), jnp.asarray(BATCHES, dtype))
        assert final.log_mean.dtype == dtype


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        mine(BATCHES[0], no_partition(), decay=decay)
