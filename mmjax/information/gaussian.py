"""Information of Gaussians, in closed form; singular covariances have their limits."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.covariances import (
    block_information,
    check_covariance,
    log_determinant,
    product,
    pseudo_inverse,
    rounding,
    standardised,
    transposed,
)
from mmjax.information.units import in_unit


@checked
def gaussian_entropy(
    covariance: Float[Array, "*b d d"], *, unit: str = "nats"
) -> Float[jax.Array, "*b"]:
    r"""Differential entropy of a Gaussian.

    .. math:: h = \tfrac12 \log \det (2 \pi e \Sigma)

    Args:
        covariance: :math:`\Sigma`, symmetric; leading axes are a batch.
        unit: "nats" or "bits".

    Returns:
        The entropy, which may be negative and depends on the unit of the features;
        :math:`-\infty`, without a gradient, for a singular covariance.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit, or a covariance that is not symmetric or has a negative
            eigenvalue; inside jit it is not looked at, and a negative eigenvalue gives NaN, as
            NaN does.

    Source: Cover and Thomas 2006, Elements of Information Theory, theorem 8.4.1.

    >>> print(f"{gaussian_entropy(jnp.eye(2)):.4f}")
    2.8379
    """
    covariance, variances = standardised(covariance)
    log_det, rank = log_determinant(covariance, rounding(covariance))
    d = covariance.shape[-1]
    scale = jnp.sum(jnp.log(jnp.where(variances > 0, variances, 1)), axis=-1)
    nats = (d * (1 + np.log(2 * np.pi)) + log_det + scale) / 2
    return in_unit(jnp.where((rank == d) | jnp.isnan(nats), nats, -jnp.inf), unit)


@checked
def gaussian_mutual_information(
    covariance: Float[Array, "*b d d"],
    *,
    sizes: tuple[int, int] | tuple[int, int, int],
    unit: str = "nats",
) -> Float[jax.Array, "*b"]:
    r"""Mutual information of two blocks of a Gaussian, given a third if there is one.

    .. math:: I(X; Y) &= \tfrac12 \log
              \frac{\det \Sigma_{x} \det \Sigma_{y}}{\det \Sigma_{xy}} \\
              I(X; Y \mid Z) &= \tfrac12 \log
              \frac{\det \Sigma_{x \mid z} \det \Sigma_{y \mid z}}{\det \Sigma_{xy \mid z}},
              \qquad \Sigma_{\cdot \mid z} = \Sigma_\cdot
              - \Sigma_{\cdot z} \Sigma_z^{-1} \Sigma_{z \cdot}

    It does not depend on the unit of any feature, so that a correlation matrix serves as well.

    Args:
        covariance: of the features of X, of Y and of Z, in this order; leading axes are a batch.
        sizes: how many features X has, Y has and, if anything is given, Z has.
        unit: "nats" or "bits".

    Returns:
        The information. Constant and repeated features within X, Y or Z change nothing (the
        determinants are those on the support); it is :math:`\infty`, without a gradient, if a
        combination of features of X is one of Y too, and is none of Z. What is constant, repeated
        or explained is so up to rounding: in float32 to some 1e-6 of a variance. Covariances
        nearer to such a limit want float64.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit, sizes that are not positive or do not add up, or a covariance
            that is not symmetric or has a negative eigenvalue; inside jit the covariance is not
            looked at, and a negative eigenvalue gives NaN, as NaN does.

    Source: Cover and Thomas 2006, Elements of Information Theory, eq. 8.54, and the chain rule.

    >>> covariance = jnp.array([[1.0, 0.6], [0.6, 1.0]])
    >>> print(f"{gaussian_mutual_information(covariance, sizes=(1, 1)):.4f}")  # -log(0.8)
    0.2231
    """
    d = covariance.shape[-1]
    if min(sizes) < 1 or sum(sizes) != d:
        raise ValueError(f"sizes must be positive and add up to the {d} features, got {sizes}")
    matrix, _ = standardised(covariance)
    split, end = sizes[0], sizes[0] + sizes[1]
    both = matrix[..., :end, :end]
    noise = rounding(matrix)
    if end < d:  # what Z explains is taken away
        across, given = matrix[..., :end, end:], matrix[..., end:, end:]
        slopes = product(across, pseudo_inverse(given, noise))
        # The covariance of what the regression leaves: an error of its slopes counts squared.
        both += product(product(slopes, given), transposed(slopes))
        twice = product(slopes, transposed(across))
        both -= twice + transposed(twice)
        noise *= 1 + jnp.sum(slopes**2, axis=(-2, -1))
    return in_unit(block_information(both, split, noise), unit)


@checked
def information_of_correlation(
    correlation: Float[Array, "*b d"], *, unit: str = "nats"
) -> Float[jax.Array, "*b"]:
    r"""Mutual information of two Gaussians from their (canonical) correlations.

    .. math:: I = -\tfrac12 \sum_{i=1}^d \log(1 - \rho_i^2)

    Args:
        correlation: :math:`\rho` of each of d independent pairs; leading axes are a batch.
        unit: "nats" or "bits".

    Returns:
        The information; :math:`\infty` where a correlation is 1 or -1, NaN beyond.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit.

    Source: Gelfand and Yaglom 1959; d equal ones are the benchmark of Belghazi et al. 2018,
    arXiv:1801.04062, sec. 4.1.

    >>> print(f"{information_of_correlation(jnp.full(20, 0.5)):.4f}")
    2.8768
    """
    rho = jnp.asarray(correlation).astype(accumulation_dtype(correlation))
    # As a product: 1 - rho^2 would lose the digits of a rho near 1.
    return in_unit(-jnp.sum(jnp.log1p(-rho) + jnp.log1p(rho), axis=-1) / 2, unit)


@checked
def correlation_of_information(
    information: Float[Array, "*b"], *, pairs: int, unit: str = "nats"
) -> Float[jax.Array, "*b"]:
    r"""Correlation that each of some pairs of Gaussians needs to carry an information together.

    .. math:: \rho = \sqrt{1 - e^{-2 I / d}}

    Args:
        information: :math:`I \ge 0` of all pairs together.
        pairs: their number :math:`d`.
        unit: of ``information``, "nats" or "bits".

    Returns:
        The correlation, not negative; its inverse is :func:`information_of_correlation`. It is NaN
        for a negative information, and has no finite slope at 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit, or without pairs.

    Source: Cheng et al. 2020, arXiv:2006.12013, sec. 4.1.

    >>> print(f"{correlation_of_information(jnp.array(2.8768), pairs=20):.4f}")
    0.5000
    """
    if pairs < 1:
        raise ValueError(f"pairs must be at least 1, got {pairs}")
    value = jnp.asarray(information).astype(accumulation_dtype(information))
    nats = value / in_unit(jnp.ones((), value.dtype), unit)
    return jnp.sqrt(-jnp.expm1(-2 * nats / pairs))


@checked
def gaussian_kl(
    mean_p: Float[Array, "*b d"],
    covariance_p: Float[Array, "*b d d"],
    mean_q: Float[Array, "*b d"],
    covariance_q: Float[Array, "*b d d"],
    *,
    unit: str = "nats",
) -> Float[jax.Array, "*b"]:
    r"""Kullback-Leibler divergence of one Gaussian from another.

    .. math:: \mathrm{KL}(p \,\|\, q) = \tfrac12 \Big( \operatorname{tr} \Sigma_q^{-1} \Sigma_p
              + (\mu_p - \mu_q)^\top \Sigma_q^{-1} (\mu_p - \mu_q) - d
              + \log \frac{\det \Sigma_q}{\det \Sigma_p} \Big)

    Args:
        mean_p: :math:`\mu_p`; leading axes are a batch.
        covariance_p: :math:`\Sigma_p`, symmetric.
        mean_q: :math:`\mu_q`.
        covariance_q: :math:`\Sigma_q`, symmetric.
        unit: "nats" or "bits".

    Returns:
        The divergence; :math:`\infty`, without a gradient, if p lives on a subspace.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit, a covariance that is not symmetric or has a negative
            eigenvalue, or a ``covariance_q`` that is singular; inside jit none of this is looked
            at, and gives NaN.

    Source: Kullback 1959, Information Theory and Statistics, ch. 9, eq. 1.4.

    >>> zero, one = jnp.zeros(1), jnp.eye(1)
    >>> print(f"{gaussian_kl(zero, one, zero + 2.0, one):.4f}")
    2.0000
    """
    dtype = accumulation_dtype(mean_p, covariance_p, mean_q, covariance_q)
    check_covariance(covariance_q, singular=False)
    (p, variances_p), (q, variances_q) = (
        standardised(z, dtype) for z in (covariance_p, covariance_q)
    )
    log_det_p, rank_p = log_determinant(p, rounding(p))
    factor = jnp.linalg.cholesky(q)
    log_det_q = 2 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
    # In units of q's deviations.
    widths = jnp.sqrt(jnp.where(variances_p > 0, variances_p / variances_q, 0))
    shift = (jnp.asarray(mean_p).astype(dtype) - jnp.asarray(mean_q).astype(dtype)) * jax.lax.rsqrt(
        variances_q
    )
    moment = p * widths[..., None] * widths[..., None, :]
    moment += shift[..., None] * shift[..., None, :]
    precision = jax.scipy.linalg.cho_solve(
        (factor, True), jnp.broadcast_to(jnp.eye(p.shape[-1], dtype=dtype), q.shape)
    )
    d = p.shape[-1]
    scales = jnp.sum(2 * jnp.log(jnp.where(widths > 0, widths, 1)), axis=-1)
    trace = jnp.sum(precision * moment, axis=(-2, -1))
    nats = (trace - d + log_det_q - log_det_p - scales) / 2
    return in_unit(jnp.where((rank_p == d) | jnp.isnan(nats), nats, jnp.inf), unit)
