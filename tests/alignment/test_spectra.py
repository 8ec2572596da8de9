"""Functions of spectra, and their derivatives where values tie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.alignment.spectra import (
    eigenvalue_sum,
    inverse_root,
    largest_singular,
    singular_value_sum,
)

RNG = np.random.default_rng(0)
TURN = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
OTHER = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
WEIGHTS = RNG.normal(size=(4, 4))
SPECTRA = {"apart": [4.0, 3.0, 2.0, 1.0], "tied": [2.0, 2.0, 1.0, 1.0], "all tied": [3.0] * 4}
every_spectrum = pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)


def symmetric(spectrum):
    return TURN @ np.diag(spectrum) @ TURN.T


@every_spectrum
def test_the_inverse_root_inverts_and_can_be_differentiated(spectrum, assert_slopes):
    matrix = symmetric(spectrum)
    root = np.asarray(jax.jit(inverse_root)(matrix))
    np.testing.assert_allclose(root @ root @ matrix, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(root, root.T, atol=1e-12)

    def weighted(x):  # of symmetric matrices only: it is a function of those
        return jnp.sum(inverse_root((x + x.T) / 2) * WEIGHTS)

    assert_slopes(weighted, matrix)


def test_what_is_singular_stays_0(double):
    matrix = symmetric([2.0, 1.0, 0.0, 0.0])
    root = np.asarray(inverse_root(matrix))
    wanted = TURN @ np.diag([2**-0.5, 1.0, 0.0, 0.0]) @ TURN.T
    np.testing.assert_allclose(root, wanted, atol=1e-12)
    np.testing.assert_array_equal(inverse_root(np.zeros((4, 4))), 0)


def test_a_singular_root_follows_the_directions_that_are_left(assert_slopes):
    """Turning the matrix turns its root; the rank stays what it is."""
    kept = symmetric([2.0, 1.0, 0.0, 0.0])
    skew = WEIGHTS - WEIGHTS.T

    def weighted(angle):
        turn = jax.scipy.linalg.expm(angle * skew)
        return jnp.sum(inverse_root(turn @ kept @ turn.T) * WEIGHTS)

    assert_slopes(weighted, 0.3)


@every_spectrum
@pytest.mark.parametrize("power", [1, 2])
def test_sums_of_all_singular_values_can_be_differentiated(spectrum, power, assert_slopes):
    matrix = TURN @ np.diag(spectrum) @ OTHER.T
    total = functools.partial(singular_value_sum, count=4, power=power)
    np.testing.assert_allclose(total(matrix), np.sum(np.array(spectrum) ** power), rtol=1e-12)
    assert_slopes(lambda x: singular_value_sum(x, 4, power), matrix)


@pytest.mark.parametrize("spectrum", [SPECTRA["apart"], SPECTRA["tied"]], ids=["apart", "tied"])
def test_sums_of_the_largest_can_where_the_next_one_is_smaller(spectrum, assert_slopes):
    matrix = TURN @ np.diag(spectrum) @ OTHER.T
    np.testing.assert_allclose(singular_value_sum(matrix, 2, 1), sum(spectrum[:2]), rtol=1e-12)
    assert_slopes(lambda x: singular_value_sum(x, 2, 1), matrix)
    np.testing.assert_allclose(
        eigenvalue_sum(symmetric(spectrum), 2), sum(spectrum[:2]), rtol=1e-12
    )
    assert_slopes(lambda x: eigenvalue_sum((x + x.T) / 2, 2), symmetric(spectrum))


def of_two_pairs(matrix):
    """A function of values, and of vectors up to their signs."""
    left, values, right = largest_singular(matrix, 2)
    weights = WEIGHTS[: len(left), : len(right)]
    pairs = jnp.einsum("dk,de,ek->k", left, weights, right)
    squares = jnp.einsum("d,dc,c->", left[:, 1], WEIGHTS[: len(left), : len(left)], left[:, 1])
    return jnp.sum(pairs * values**2) + squares


@pytest.mark.parametrize("spectrum", [[4.0, 3.0, 2.0], [4.0, 3.0, 3.0], [4.0, 3.0, 0.0]])
@pytest.mark.parametrize("turned", [False, True])
def test_largest_pairs_can_be_differentiated_where_none_equals_another(
    turned, spectrum, assert_slopes, value_and_gradients
):
    matrix = TURN[:, :3] @ np.diag(spectrum) @ np.linalg.qr(OTHER[:3, :3])[0]
    matrix = matrix.T if turned else matrix
    if spectrum[1] == spectrum[2]:  # the second pair may be any of a plane, but is finite
        assert np.isfinite(value_and_gradients(of_two_pairs, matrix)[1][0]).all()
        return
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    found = [np.asarray(z) for z in largest_singular(matrix, 2)]
    np.testing.assert_allclose(found[1], spectrum[:2], rtol=1e-12)
    np.testing.assert_allclose(
        np.einsum("dk,ek->kde", found[0], found[2]),
        np.einsum("dk,ke->kde", left[:, :2], right[:2]),
        atol=1e-12,
    )
    assert_slopes(of_two_pairs, matrix)


def test_values_beyond_the_largest_may_tie(assert_slopes):
    matrix = TURN @ np.diag([4.0, 3.0, 1.0, 1.0]) @ OTHER.T
    assert_slopes(of_two_pairs, matrix)


def test_nothing_has_a_gradient_of_0(value_and_gradients, double):
    nothing = jnp.zeros((4, 3))
    np.testing.assert_array_equal(jax.grad(lambda x: singular_value_sum(x, 3, 1))(nothing), 0)
    np.testing.assert_array_equal(value_and_gradients(of_two_pairs, nothing)[1][0], 0)
