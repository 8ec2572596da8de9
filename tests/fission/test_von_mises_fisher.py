"""Directions around a mean, against the density by numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from jax.test_util import check_grads

from mmjax.fission import mean_resultant_length, sample_vmf, vmf_kl

ROWS = 4000


@pytest.mark.parametrize("features", [2, 3, 10, 128])
@pytest.mark.parametrize("concentration", [1e-3, 0.5, 30, 1e3, np.float32(1e5), 1e6, 1e9])
def test_the_mean_is_as_long_as_the_ratio_of_bessel_functions(features, concentration):
    order, kappa = features / 2, float(concentration)
    ratio = scipy.special.ive(order, kappa) / scipy.special.ive(order - 1, kappa)
    np.testing.assert_allclose(mean_resultant_length(features, concentration), ratio, rtol=1e-9)


@pytest.mark.parametrize("concentration", [0.7, 20])
def test_the_divergence_is_the_integral_of_its_definition(concentration):
    """On the circle: an angle t with density exp(k cos t) / (2 pi I_0(k))."""
    x, y = np.array([[1.0, 0.0]], np.float32), np.array([[0.6, 0.8]], np.float32)
    turn = np.arctan2(0.8, 0.6)

    def integrand(t):
        density = np.exp(concentration * (np.cos(t) - 1))
        density /= 2 * np.pi * scipy.special.ive(0, concentration)
        return density * concentration * (np.cos(t) - np.cos(t - turn))

    wanted, _ = scipy.integrate.quad(integrand, -np.pi, np.pi)
    for first, second in ((x, y), (y, x), (3 * x, y / 7)):
        for number in (concentration, np.float32(concentration)):
            found = vmf_kl(first, second, concentration=number)
            np.testing.assert_allclose(found, [wanted], rtol=1e-5)


def test_an_invalid_row_has_no_divergence():
    x = jnp.array([[1.0, 0.0], [jnp.nan, 0.0]])
    where = jnp.array([True, False])
    y = jnp.eye(2)[::-1]
    total = jax.jit(
        jax.value_and_grad(lambda x: vmf_kl(x, y, concentration=2.0, where=where).sum())
    )
    found, gradient = total(x)
    assert found == pytest.approx(2 * mean_resultant_length(2, 2.0))
    assert np.isfinite(gradient).all()
    assert not gradient[1].any()


@pytest.mark.parametrize(("features", "concentration"), [(2, 5.0), (3, 1.0), (8, 1000.0)])
def test_samples_follow_the_density(features, concentration):
    rng = np.random.default_rng(0)
    mean = np.tile(rng.normal(size=features), (ROWS, 1)).astype(np.float32)
    draw = jax.jit(sample_vmf, static_argnames="concentration")
    rows = np.float64(draw(mean, concentration=concentration, key=jax.random.key(0)))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    direction = np.float64(mean[0]) / np.linalg.norm(mean[0])
    below = 1 - rows @ direction
    grid = np.linspace(0, min(2.0, 60 * features / concentration), 20_001)[1:-1]
    log_density = -concentration * grid + (features - 3) / 2 * np.log(grid * (2 - grid))
    density = np.exp(log_density - log_density.max())
    if features == 2:  # the density has poles at both ends: compare angles instead
        angle = np.linspace(0, np.pi, 20_001)
        grid, density = 1 - np.cos(angle), np.exp(concentration * (np.cos(angle) - 1))
        cumulative = scipy.integrate.cumulative_trapezoid(density, angle, initial=0)
    else:
        cumulative = scipy.integrate.cumulative_trapezoid(density, grid, initial=0)
    cumulative /= cumulative[-1]
    test = scipy.stats.kstest(below, lambda value: np.interp(value, grid, cumulative))
    assert test.pvalue > 1e-3
    # Around the mean all directions are alike.
    across = rows - (rows @ direction)[:, None] * direction[None]
    sizes = np.linalg.norm(across, axis=1, keepdims=True)
    assert np.abs((across / sizes).mean(axis=0)).max() < 4 / np.sqrt(ROWS)


def test_gradients_reach_the_mean_through_a_sample():
    weights = np.random.default_rng(1).normal(size=(3, 4))

    def total(mean):
        rows = sample_vmf(mean, concentration=10.0, key=jax.random.key(2))
        return jnp.sum(rows * weights)

    with jax.enable_x64(True):
        mean = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))
        check_grads(jax.jit(total), (mean,), order=1, modes=["rev"], rtol=1e-5)


@pytest.mark.parametrize("concentration", [0.0, -1.0, float("inf"), float("nan")])
def test_a_concentration_has_to_be_positive(concentration):
    with pytest.raises(ValueError, match="concentration must be positive and finite"):
        mean_resultant_length(3, concentration)
    with pytest.raises(ValueError, match="concentration must be positive and finite"):
        sample_vmf(jnp.eye(2), concentration=concentration, key=jax.random.key(0))
    with pytest.raises(ValueError, match="at least 2 features, got 1"):
        vmf_kl(jnp.ones((2, 1)), jnp.ones((2, 1)), concentration=1.0)
