"""Determinants and inverses on the support, as NumPy has them of what spans it."""

import jax
import numpy as np
import pytest

from mmjax.information.covariances import log_determinant, pseudo_inverse, rounding, standardised

RNG = np.random.default_rng(0)
D = 4
FACTORS = {rank: RNG.normal(size=(D, rank)) for rank in (1, 3, 4)}


@jax.jit
def everything(covariance):
    matrix, variances = standardised(covariance)
    noise = rounding(matrix)
    return matrix, variances, log_determinant(matrix, noise), pseudo_inverse(matrix, noise)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("rank", FACTORS)
def test_of_any_rank_and_unit(rank, x64):
    covariance = FACTORS[rank] @ FACTORS[rank].T * np.outer(*[[1e-3, 1.0, 1e3, 7.0]] * 2)
    deviations = np.sqrt(np.diag(covariance))
    correlations = covariance / np.outer(deviations, deviations)
    with jax.enable_x64(x64):
        given = covariance if x64 else np.float32(covariance)
        result = jax.tree.map(np.asarray, everything(given))
    matrix, variances, (log_det, found), inverse = result
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if x64 else {"rtol": 1e-2, "atol": 1e-4}
    np.testing.assert_allclose(matrix, correlations, **tolerance)
    np.testing.assert_allclose(variances, deviations**2, rtol=1e-6)
    assert found == rank
    eigenvalues = np.linalg.eigvalsh(correlations)[D - rank :]
    np.testing.assert_allclose(log_det, np.log(eigenvalues).sum(), **tolerance)
    wanted = np.linalg.pinv(correlations, rcond=1e-6, hermitian=True)
    np.testing.assert_allclose(inverse, wanted, **tolerance)


def test_a_constant_feature_has_no_correlation_with_itself():
    matrix, variances, (_, rank), _ = everything(np.diag(np.float32([4, 0, 1, 9])))
    np.testing.assert_array_equal(matrix, np.diag([1, 0, 1, 1]))
    assert rank == 3
    assert variances[1] == 0
