"""Squared distances, and elements of padding that reach nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.alignment import squared_costs

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 4, 3)), RNG.normal(size=(2, 5, 3))
WHERE_X, WHERE_Y = RNG.uniform(size=(2, 4)) < 0.7, RNG.uniform(size=(2, 5)) < 0.7


def definition(x, y):
    return ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(axis=-1)


def test_they_are_the_squared_distances():
    found = squared_costs(X.astype(np.float32), Y.astype(np.float32))
    np.testing.assert_allclose(found, definition(X, Y), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        squared_costs(np.float32(X[0]), np.float32(Y[0])), definition(X, Y)[0], rtol=1e-4, atol=1e-5
    )


def test_far_from_the_origin_they_are_as_exact():
    x, y = (np.float32(z + 1000) for z in (X, Y))
    np.testing.assert_allclose(
        squared_costs(x, y), definition(np.float64(x), np.float64(y)), rtol=1e-4, atol=1e-5
    )


def test_an_invalid_element_reaches_nothing_even_if_nan(double):
    bad_x = jnp.where(WHERE_X[..., None], X, jnp.nan)
    bad_y = jnp.where(WHERE_Y[..., None], Y, jnp.nan)
    both = WHERE_X[:, :, None] & WHERE_Y[:, None]

    @jax.jit
    def total(x, y):
        costs = squared_costs(x, y, where_x=WHERE_X, where_y=WHERE_Y)
        return jnp.sum(jnp.where(both, costs, 0)), costs

    (_, costs), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(bad_x, bad_y)
    assert np.isfinite(costs).all()
    np.testing.assert_allclose(
        np.asarray(costs)[both], definition(X, Y)[both], rtol=1e-9, atol=1e-12
    )
    differences = 2 * (X[:, :, None] - Y[:, None]) * both[..., None]
    np.testing.assert_allclose(gradients[0], differences.sum(axis=2), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradients[1], -differences.sum(axis=1), rtol=1e-9, atol=1e-12)


def test_second_derivatives_are_those_of_squares_even_where_points_coincide():
    def costs(x):
        return squared_costs(x[None], np.stack([Y[0, 0], Y[0, 1]]).astype(np.float32))[0]

    found = jax.jit(jax.hessian(costs))(np.float32(Y[0, 0]))
    np.testing.assert_allclose(found, np.stack([2 * np.eye(3)] * 2), atol=1e-6)


def test_rounding_makes_none_negative():
    x = np.float32(1e3 * X + 1e3)
    assert np.min(squared_costs(x, x)) >= 0


def test_features_that_differ_are_refused():
    with pytest.raises(TypeCheckError):
        squared_costs(jnp.ones((4, 3)), jnp.ones((5, 2)))
