"""Gaussian information by determinants in float64, and in the limit of singular covariances."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.information.gaussian import (
    correlation_of_information,
    gaussian_entropy,
    gaussian_kl,
    gaussian_mutual_information,
    information_of_correlation,
)

RNG = np.random.default_rng(0)
D = 5


def covariances(*shape, d=D):
    factor = RNG.normal(size=(*shape, d, d + 2))
    return factor @ np.swapaxes(factor, -1, -2)


SIGMA = covariances(2)
MEANS = RNG.normal(size=(2, D))
SCALES = np.array([1e-3, 1.0, 1e3, 5.0, 0.1])


def log_det(matrix):
    return np.linalg.slogdet(matrix)[1]


def entropy(covariance):
    return (D * math.log(2 * math.pi * math.e) + log_det(covariance)) / 2


def information(covariance, sizes):
    x, y, z = np.split(np.arange(D), np.cumsum(sizes)[:2])

    def of(*blocks):
        kept = np.concatenate(blocks)
        return log_det(covariance[np.ix_(kept, kept)]) if len(kept) else 0.0

    return (of(x, z) + of(y, z) - of(x, y, z) - of(z)) / 2


def divergence(mean_p, p, mean_q, q):
    inverse, shift = np.linalg.inv(q), mean_p - mean_q
    return (np.trace(inverse @ p) + shift @ inverse @ shift - D + log_det(q) - log_det(p)) / 2


def slopes(function, array):
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        ends = []
        for sign in (1, -1):
            moved = np.array(array)
            moved[index] += sign * 1e-6
            # An entry and its mirror image are one number: each has half of the slope.
            ends.append(function((moved + moved.T) / 2 if moved.ndim == 2 else moved))
        gradient[index] = (ends[0] - ends[1]) / 2e-6
    return gradient


@functools.cache
def compiled(sizes):
    """Everything that is known of a covariance, and its gradients."""
    if sizes is None:
        return jax.jit(jax.value_and_grad(gaussian_entropy))
    return jax.jit(jax.value_and_grad(functools.partial(gaussian_mutual_information, sizes=sizes)))


@pytest.mark.parametrize("sizes", [None, (2, 3), (2, 1, 2)])
def test_values_and_gradients_are_those_of_the_determinants(sizes):
    definition = entropy if sizes is None else functools.partial(information, sizes=sizes)
    matrix = SIGMA[0] * np.outer(SCALES, SCALES)
    with jax.enable_x64(True):
        value, gradient = compiled(sizes)(matrix)
    assert value == pytest.approx(definition(matrix), rel=1e-10)
    scaled = np.asarray(gradient) * np.outer(SCALES, SCALES)
    wanted = slopes(lambda m: definition(m * np.outer(SCALES, SCALES)), SIGMA[0])
    np.testing.assert_allclose(scaled, wanted, rtol=1e-5, atol=1e-7)


def test_the_divergence_and_its_gradients():
    arguments = MEANS[0], SIGMA[0], MEANS[1], SIGMA[1]
    with jax.enable_x64(True):
        run = jax.jit(jax.value_and_grad(gaussian_kl, (0, 1, 2, 3)))
        value, gradients = run(*arguments)
    assert value == pytest.approx(divergence(*arguments), rel=1e-10)
    for which, gradient in enumerate(gradients):

        def of_one(array, which=which):
            moved = list(arguments)
            moved[which] = array
            return divergence(*moved)

        wanted = slopes(of_one, arguments[which])
        np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-8)


def test_equal_eigenvalues_do_no_harm_to_first_or_second_derivatives():
    one = np.eye(D)
    with jax.enable_x64(True), jax.debug_nans(True):
        gradient = jax.jit(jax.grad(gaussian_entropy))(one)
        run = functools.partial(gaussian_mutual_information, sizes=(2, 3))
        curvature = jax.jit(jax.hessian(lambda c: run(one + c * (one[::-1] / 3))))(0.0)
    np.testing.assert_allclose(gradient, one / 2, rtol=1e-12)

    def curve(c):
        return information(one + c * (one[::-1] / 3), (2, 3))

    wanted = (curve(1e-3) - 2 * curve(0.0) + curve(-1e-3)) / 1e-6
    assert curvature == pytest.approx(wanted, rel=1e-4)


def test_a_batch_and_bits():
    with jax.enable_x64(True):
        found = jax.jit(functools.partial(gaussian_entropy, unit="bits"))(SIGMA)
    np.testing.assert_allclose(
        np.asarray(found) * math.log(2), [entropy(s) for s in SIGMA], rtol=1e-12
    )


def test_a_correlation_matrix_has_the_information_of_its_covariance():
    deviations = np.sqrt(np.diag(SIGMA[0]))
    found, _ = compiled((2, 3))(np.float32(SIGMA[0] / np.outer(deviations, deviations)))
    assert found == pytest.approx(information(SIGMA[0], (2, 3)), rel=1e-4)


# Each is a map from a two-feature Gaussian (a, b) and what it leads to: X is the first two rows, Y
# the next one, Z the last two.
PAIR = np.array([[2.0, 0.9], [0.9, 1.0]])
KNOWN = -math.log(1 - 0.81 / 2) / 2
MAPS = {
    "a feature of X twice": ([[1, 0], [1, 0], [0, 1], [0, 0], [0, 0]], KNOWN),
    "a constant feature": ([[1, 0], [0, 0], [0, 1], [0, 0], [0, 0]], KNOWN),
    "X is constant": ([[0, 0], [0, 0], [0, 1], [0, 0], [0, 0]], 0.0),
    "Y is one of X": ([[1, 0], [0, 1], [0, 1], [0, 0], [0, 0]], math.inf),
    "Z says it all": ([[1, 0], [1, 0], [1, 0], [1, 0], [0, 0]], 0.0),
    "Z is a part": ([[1, 0], [2, 0], [0, 1], [0, 1], [0, 0]], 0.0),
}


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_singular_covariances_have_their_limits(name, x64):
    rows, wanted = MAPS[name]
    matrix = np.array(rows, float) @ PAIR @ np.array(rows, float).T
    with jax.enable_x64(x64):
        found, gradient = compiled((2, 1, 2))(matrix if x64 else np.float32(matrix))
    assert found == pytest.approx(wanted, abs=1e-5)
    assert np.all(np.isfinite(gradient))


def test_what_is_given_may_be_singular_and_explain_everything():
    """All are mixtures of two causes, Z of four; then X and Y have something of their own."""
    mixtures = RNG.normal(size=(50, 8, 2))
    explained = mixtures @ np.swapaxes(mixtures, -1, -2)
    own = np.zeros((8, 8))
    own[:4, :4] = np.kron([[1.0, 0.6], [0.6, 1.0]], np.eye(2))
    run = jax.jit(functools.partial(gaussian_mutual_information, sizes=(2, 2, 4)))
    np.testing.assert_allclose(run(np.float32(explained)), np.zeros(50), atol=1e-3)
    found = run(np.float32(explained + own))
    np.testing.assert_allclose(found, np.full(50, -math.log(1 - 0.36)), atol=1e-3)


def test_entropy_and_divergence_of_a_singular_covariance():
    singular = np.float32(np.diag([1.0, 0.0, 1.0, 1.0, 1.0]))
    value, gradient = compiled(None)(singular)
    assert value == -math.inf
    assert not np.any(gradient)
    zero, one = np.zeros(D, np.float32), np.eye(D, dtype=np.float32)
    run = jax.jit(gaussian_kl)
    assert run(zero, singular, zero, one) == math.inf
    assert np.isnan(run(zero, one, zero, singular))
    assert run(zero, one, zero, one) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="covariance_q must not be singular"):
        gaussian_kl(zero, one, zero, singular)


def test_correlations_and_informations_are_inverse_to_each_other():
    rho = np.array([0.0, 0.3, -0.9, 0.999])
    matrix = np.block([[np.eye(4), np.diag(rho)], [np.diag(rho), np.eye(4)]])
    wanted = -log_det(matrix) / 2
    run = jax.jit(information_of_correlation)
    assert run(np.float32(rho)) == pytest.approx(wanted, rel=1e-4)
    assert run(np.ones(4, np.float32)) == math.inf

    @jax.jit
    def there_and_back(bits):
        each = correlation_of_information(bits, pairs=20, unit="bits")
        return information_of_correlation(jnp.repeat(each[:, None], 20, axis=1), unit="bits")

    bits = np.array([0.0, 1e-9, 2.0, 30.0])
    with jax.enable_x64(True):
        np.testing.assert_allclose(there_and_back(bits), bits, rtol=1e-9)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: gaussian_entropy(np.eye(2), unit="bans"), "unit must be 'nats' or 'bits'"),
        (lambda: gaussian_entropy(np.array([[1.0, 0.5], [0.4, 1.0]])), "must be symmetric"),
        (lambda: gaussian_entropy(np.full((2, 2), np.nan)), "must be symmetric and finite"),
        (lambda: gaussian_entropy(np.array([[1.0, 2.0], [2.0, 1.0]])), "no negative eigenvalue"),
        (lambda: gaussian_entropy(np.diag([1e-8, -1e-9])), "no negative eigenvalue, .* have -1:"),
        # In float64 it is not; where JAX has only float32, it is.
        (
            lambda: gaussian_kl(
                np.zeros(2), np.eye(2), np.zeros(2), np.array([[1, 1 - 1e-9], [1 - 1e-9, 1]])
            ),
            "must not be singular",
        ),
        (lambda: gaussian_mutual_information(np.eye(3), sizes=(1, 1)), "add up to the 3 features"),
        (lambda: gaussian_mutual_information(np.eye(3), sizes=(0, 3)), "must be positive"),
        (lambda: correlation_of_information(np.ones(1), pairs=0), "pairs must be at least 1"),
    ],
)
def test_what_is_no_covariance_is_refused(function, message):
    with pytest.raises(ValueError, match=message):
        function()


@pytest.mark.parametrize("sizes", [None, (2, 3), (2, 1, 2)])
def test_what_is_no_covariance_is_nan_where_it_cannot_be_seen(sizes):
    wrong = np.eye(D, dtype=np.float32) + 2 * np.eye(D, dtype=np.float32)[::-1]
    assert np.isnan(compiled(sizes)(wrong)[0])
    assert np.isnan(compiled(sizes)(np.full((D, D), np.nan, np.float32))[0])
    assert np.isnan(compiled(sizes)(np.diag(np.float32([1e-8, 1, 1, 1, -1e-9])))[0])
