"""Masses, and which of them may be refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.alignment.marginals import masses

GIVEN = np.array([1.0, np.nan, 3.0], np.float32)
WHERE = np.array([True, False, True])
FLOAT = np.dtype(np.float32)


def shares(given, where=None):
    return masses("a", given, where, np.shape(given), FLOAT)


def test_what_an_invalid_point_holds_is_accepted_whoever_knows_that_it_is_invalid():
    for found in (
        shares(GIVEN, WHERE),
        shares(GIVEN, jnp.array(WHERE)),
        jax.jit(lambda where: shares(GIVEN, where))(WHERE),
    ):
        np.testing.assert_array_equal(found, [0.25, 0, 0.75])


def test_a_valid_point_may_not_hold_it():
    with pytest.raises(ValueError, match="a must hold finite masses that are not negative"):
        shares(GIVEN, ~WHERE)
    with pytest.raises(ValueError, match="a must hold finite masses that are not negative"):
        shares(GIVEN)


@pytest.mark.parametrize("size", [3e38, 1e-37])
def test_only_ratios_count_even_where_the_sum_overflows(size):
    given = np.float32(size) * np.array([1.0, 0.0, 0.5], np.float32)
    np.testing.assert_allclose(shares(given), [2 / 3, 0, 1 / 3], rtol=1e-6)
    assert not shares(np.zeros(3, np.float32)).any()


def test_a_point_without_mass_has_no_gradient():
    gradient = jax.grad(lambda given: shares(given)[0])(jnp.array([1.0, 0.0, 3.0]))
    np.testing.assert_allclose(gradient, [3 / 16, 0, -1 / 16], rtol=1e-6)
