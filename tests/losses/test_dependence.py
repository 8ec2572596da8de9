"""Samples whose dependence is known, and those that depend on nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses.dependence import cka, hsic, orthogonality
from mmjax.losses.kernels import linear_kernel, rbf_kernel

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype(np.float32)
Y = RNG.normal(size=(12, 2)).astype(np.float32)
GAUSSIAN = functools.partial(rbf_kernel, bandwidth=1.0)
LINEAR = {"kernel_x": linear_kernel, "kernel_y": linear_kernel}
GAUSSIANS = {"kernel_x": GAUSSIAN, "kernel_y": GAUSSIAN}
ALL, ONE = np.ones(12, bool), np.arange(12) == 5
SIDES = {
    "hsic": functools.partial(hsic, **GAUSSIANS),
    "hsic-unbiased": functools.partial(hsic, **GAUSSIANS, unbiased=True),
    "cka": cka,
    "cka-unbiased": functools.partial(cka, unbiased=True),
    "cka-kernels": functools.partial(cka, **GAUSSIANS),
    "cka-kernels-unbiased": functools.partial(cka, **GAUSSIANS, unbiased=True),
    "orthogonality": orthogonality,
}
every_measure = pytest.mark.parametrize("name", SIDES)


@functools.cache
def compiled(name):
    """Value and both gradients of a measure."""

    def measure(x, y, where):
        return SIDES[name](x, y, where=where)

    return jax.jit(jax.value_and_grad(measure, (0, 1)))


def test_linear_hsic_is_the_squared_norm_of_the_covariance():
    covariance = np.cov(np.float64(X), np.float64(Y), rowvar=False)[:3, 3:]
    found = jax.jit(functools.partial(hsic, **LINEAR, chunk_size=5))(X, Y)
    np.testing.assert_allclose(found, (covariance**2).sum(), rtol=1e-5)


def test_the_unbiased_estimate_is_0_on_average_where_nothing_depends():
    keys = jax.random.split(jax.random.key(0), 400)
    samples = jax.vmap(lambda key: jax.random.normal(key, (2, 8, 2)))(keys)
    measures = [functools.partial(hsic, **GAUSSIANS, unbiased=u) for u in (False, True)]
    biased, unbiased = jax.jit(jax.vmap(lambda s: [measure(*s) for measure in measures]))(samples)
    error = np.std(unbiased) / np.sqrt(len(keys))
    assert abs(np.mean(unbiased)) < 3 * error
    assert np.mean(biased) > 10 * error


def test_a_wide_kernel_is_not_rounded_away():
    """Its products are all 1 up to 1e-4; what is left of them is that of a linear kernel."""
    wide = functools.partial(rbf_kernel, bandwidth=100.0)
    found = jax.jit(functools.partial(hsic, kernel_x=wide, kernel_y=wide, chunk_size=5))(X, Y)
    covariance = np.cov(np.float64(X), np.float64(Y), rowvar=False)[:3, 3:]
    np.testing.assert_allclose(100.0**4 * np.float64(found), (covariance**2).sum(), rtol=0.01)


@pytest.mark.parametrize("unbiased", [False, True])
def test_linear_cka_needs_no_pairs_but_is_the_same_with_them(unbiased):
    ways = [{}, {**LINEAR, "chunk_size": 5}, {"kernel_y": linear_kernel}]
    measures = [functools.partial(cka, unbiased=unbiased, **way) for way in ways]
    found, *others = jax.jit(lambda x, y: [measure(x, y) for measure in measures])(X, Y)
    np.testing.assert_allclose(others, np.full(2, found), rtol=1e-5)


@pytest.mark.parametrize("unbiased", [False, True])
def test_cka_knows_neither_turns_nor_scale_nor_offset(unbiased):
    turn, _ = np.linalg.qr(RNG.normal(size=(3, 3)))
    measure = jax.jit(functools.partial(cka, unbiased=unbiased))
    assert measure(X, (1e15 * (X @ turn)).astype(np.float32)) == pytest.approx(1, abs=1e-5)
    assert measure(X + 100, Y) == pytest.approx(float(measure(X, Y)), rel=1e-4)


def test_orthogonality_is_1_for_one_shared_direction_and_0_for_features_that_do_not_meet():
    signs = np.array([1, 1, -1, -1], np.float32)[:, None]
    other = np.array([1, -1, 1, -1], np.float32)[:, None]
    assert orthogonality(signs * 3 + 1, -signs) == pytest.approx(1)
    assert orthogonality(signs, other) == pytest.approx(0)
    # Half of the rows share their direction, half are opposed along another: 2 * (1/2)^2.
    turned = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]] * signs
    np.testing.assert_allclose(orthogonality(turned, turned), 0.5, rtol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e4])
@every_measure
def test_a_constant_side_says_nothing_and_is_not_pushed_to(name, constant):
    value, gradients = compiled(name)(np.full_like(X, constant), Y, ALL)
    assert value == pytest.approx(0, abs=1e-6)
    assert all(np.all(np.isfinite(g)) for g in gradients)
    np.testing.assert_allclose(gradients[1], np.zeros_like(Y), atol=1e-6)


@every_measure
def test_a_single_row_says_nothing(name):
    value, gradients = compiled(name)(X, Y, ONE)
    assert value == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(gradients[0], np.zeros_like(X), atol=1e-6)


@pytest.mark.parametrize("name", ["hsic-unbiased", "cka-unbiased", "cka-kernels-unbiased"])
def test_an_unbiased_estimate_needs_four_rows(name):
    assert compiled(name)(X, Y, np.arange(12) < 3)[0] == 0
    assert compiled(name)(X, Y, np.arange(12) < 4)[0] != 0


@pytest.mark.parametrize("measure", [functools.partial(hsic, **LINEAR), cka])
def test_a_chunk_of_nothing_is_refused(measure):
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        measure(X, Y, chunk_size=0)


@pytest.mark.parametrize("side", ["kernel_x", "kernel_y"])
def test_a_kernel_of_another_shape_is_refused(side):
    kernels = {**GAUSSIANS, side: lambda x, y: jnp.sum(x, axis=1)}
    with pytest.raises(ValueError, match="kernel must return one product per pair"):
        hsic(X, Y, **kernels)


def test_neither_pass_holds_all_pairs():
    n, chunk = 8192, 128
    rows = jax.ShapeDtypeStruct((n, 8), jnp.float32)
    run = jax.jit(jax.grad(functools.partial(hsic, **GAUSSIANS, chunk_size=chunk), (0, 1)))
    memory = run.lower(rows, rows).compile().memory_analysis()
    block = 4 * n * chunk
    assert memory.temp_size_in_bytes < 8 * block < 4 * n * n / 4
