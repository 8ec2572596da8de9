"""Pairs whose distance can be seen, and those that have none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses.agreement import cosine_alignment, kernel_alignment, mean_squared_alignment
from mmjax.losses.kernels import rbf_kernel


def test_the_cosine_is_that_of_the_angle_and_not_of_the_lengths():
    angles = np.array([0.0, np.pi / 3, np.pi / 2, np.pi])
    x = np.stack([np.ones(4), np.zeros(4)], axis=1).astype(np.float32)
    y = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    for length in (1e-20, 1.0, 1e30):
        rows = cosine_alignment(x, y * np.float32(length))
        np.testing.assert_allclose(rows, [0, 0.5, 1, 2], rtol=1e-6, atol=1e-7)


def test_a_small_angle_is_not_rounded_away():
    angle = 1e-4  # its cosine is 1 - 5e-9, which float32 holds to be 1
    y = np.array([[np.cos(angle), np.sin(angle)]], np.float32)
    rows = cosine_alignment(np.array([[1.0, 0.0]], np.float32), y)
    np.testing.assert_allclose(rows, [angle**2 / 2], rtol=1e-5)


def test_a_row_of_zeros_has_no_direction_to_be_moved_in():
    def total(x, y):
        return jnp.sum(cosine_alignment(x, y))

    zeros, ones = jnp.zeros((1, 3)), jnp.ones((1, 3))
    for x, y in ((zeros, ones), (ones, zeros), (zeros, zeros)):
        value, gradients = jax.value_and_grad(total, (0, 1))(x, y)
        assert value == 1
        assert not any(np.any(g) for g in gradients)


def test_the_mean_square_is_over_features():
    x, y = jnp.zeros((2, 4)), jnp.array([[2.0, 0, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(mean_squared_alignment(x, y), [1, 1])


def test_a_gaussian_kernel_bounds_the_distance():
    x, y = jnp.zeros((3, 1)), jnp.array([[0.0], [1.0], [100.0]])
    rows = kernel_alignment(x, y, kernel=functools.partial(rbf_kernel, bandwidth=1.0))
    np.testing.assert_allclose(rows, [0, 2 - 2 * np.exp(-0.5), 2], rtol=1e-6)


def test_a_kernel_of_paired_rows_is_no_kernel():
    def wrong(x, y):
        return jnp.sum(x * y, axis=1)

    message = r"kernel must return one product per pair: \(1, 1\) for rows of .* got \(1,\)"
    with pytest.raises(ValueError, match=message):
        kernel_alignment(jnp.ones((3, 2)), jnp.ones((3, 2)), kernel=wrong)
