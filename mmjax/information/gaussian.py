"""Information of Gaussians, in closed form; singular covariances have their limits."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.units import in_unit

SLACK = 1e-4  # by which a covariance may miss being symmetric and positive, as a correlation


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
            eigenvalue; inside jit it is not looked at, and a negative eigenvalue gives NaN.

    Source: Cover and Thomas 2006, Elements of Information Theory, theorem 8.4.1.

    >>> print(f"{gaussian_entropy(jnp.eye(2)):.4f}")
    2.8379
    """
    covariance, variances = _standardised(covariance)
    log_det, rank = _log_determinant(covariance)
    d = covariance.shape[-1]
    scale = jnp.sum(jnp.log(jnp.where(variances > 0, variances, 1)), axis=-1)
    nats = (d * (1 + np.log(2 * np.pi)) + log_det + scale) / 2
    return in_unit(jnp.where(rank == d, nats, -jnp.inf), unit)


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
        combination of features of X is one of Y too, and is none of Z.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit, sizes that are not positive or do not add up, or a covariance
            that is not symmetric or has a negative eigenvalue; inside jit the covariance is not
            looked at, and a negative eigenvalue gives NaN.

    Source: Cover and Thomas 2006, Elements of Information Theory, eq. 8.54, and the chain rule.

    >>> covariance = jnp.array([[1.0, 0.6], [0.6, 1.0]])
    >>> print(f"{gaussian_mutual_information(covariance, sizes=(1, 1)):.4f}")  # -log(0.8)
    0.2231
    """
    d = covariance.shape[-1]
    if min(sizes) < 1 or sum(sizes) != d:
        raise ValueError(f"sizes must be positive and add up to the {d} features, got {sizes}")
    matrix, _ = _standardised(covariance)
    split, end = sizes[0], sizes[0] + sizes[1]
    both = matrix[..., :end, :end]
    if end < d:  # what Z explains is taken away
        across = matrix[..., :end, end:]
        explained = across @ _pseudo_inverse(matrix[..., end:, end:])
        both -= explained @ jnp.swapaxes(across, -1, -2)
    (log_x, rank_x), (log_y, rank_y), (log_both, rank_both) = (
        _log_determinant(block)
        for block in (both[..., :split, :split], both[..., split:, split:], both)
    )
    nats = (log_x + log_y - log_both) / 2
    apart = (rank_x + rank_y == rank_both) | jnp.isnan(nats)
    return in_unit(jnp.where(apart, nats, jnp.inf), unit)


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
    _check_covariance(covariance_q, singular=False)
    (p, variances_p), (q, variances_q) = (
        _standardised(z, dtype) for z in (covariance_p, covariance_q)
    )
    log_det_p, rank_p = _log_determinant(p)
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


def _standardised(
    covariance: Array, dtype: jnp.dtype | None = None
) -> tuple[Float[jax.Array, "*b d d"], Float[jax.Array, "*b d"]]:
    """The correlations, by which a rank can be judged, and the variances."""
    _check_covariance(covariance)
    matrix = jnp.asarray(covariance).astype(dtype or accumulation_dtype(covariance))
    matrix = (matrix + jnp.swapaxes(matrix, -1, -2)) / 2
    variances = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    inverse = jax.lax.rsqrt(jnp.where(variances > 0, variances, 1))
    return matrix * inverse[..., None] * inverse[..., None, :], variances


@jax.custom_jvp
def _log_determinant(
    matrix: Float[jax.Array, "*b d d"],
) -> tuple[Float[jax.Array, "*b"], Float[jax.Array, "*b"]]:
    """Logarithm of the determinant on the support, and the rank; NaN for a negative eigenvalue."""
    eigenvalues = jnp.linalg.eigvalsh(matrix)
    tolerance = _tolerance(eigenvalues)
    kept = eigenvalues > tolerance
    logs = jnp.log(jnp.where(kept, eigenvalues, 1))
    negative = jnp.any(eigenvalues < -tolerance, axis=-1)
    log_det = jnp.where(negative, jnp.nan, jnp.sum(logs, axis=-1))
    return log_det, jnp.sum(kept, axis=-1, dtype=matrix.dtype)


@_log_determinant.defjvp
def _log_determinant_jvp(primals, tangents):
    # By hand: the rule of eigvalsh divides by differences of eigenvalues, which may be 0.
    (matrix,), (change,) = primals, tangents
    log_det, rank = _log_determinant(matrix)
    slope = jnp.sum(_pseudo_inverse(matrix) * jnp.swapaxes(change, -1, -2), axis=(-2, -1))
    return (log_det, rank), (slope, jnp.zeros_like(rank))


@jax.custom_jvp
def _pseudo_inverse(matrix: Float[jax.Array, "*b d d"]) -> Float[jax.Array, "*b d d"]:
    eigenvalues, vectors = jnp.linalg.eigh(matrix)
    kept = eigenvalues > _tolerance(eigenvalues)
    inverse = jnp.where(kept, 1 / jnp.where(kept, eigenvalues, 1), 0)
    return (vectors * inverse[..., None, :]) @ jnp.swapaxes(vectors, -1, -2)


@_pseudo_inverse.defjvp
def _pseudo_inverse_jvp(primals, tangents):
    (matrix,), (change,) = primals, tangents
    inverse = _pseudo_inverse(matrix)
    return inverse, -inverse @ change @ inverse


def _tolerance(eigenvalues: Float[jax.Array, "*b d"]) -> Float[jax.Array, "*b 1"]:
    """Below this an eigenvalue is 0 up to rounding, in a matrix made of correlations."""
    largest = jnp.maximum(jnp.max(eigenvalues, axis=-1, keepdims=True), 1)
    return largest * eigenvalues.shape[-1] * jnp.finfo(eigenvalues.dtype).eps


def _check_covariance(covariance: Array, *, singular: bool = True) -> None:
    """Refuse what is no covariance, where that can be seen."""
    if isinstance(covariance, jax.core.Tracer):
        return
    matrix = np.asarray(covariance, np.float64)
    size = np.sqrt(np.maximum(np.diagonal(matrix, axis1=-2, axis2=-1), 0))
    size = np.where(size > 0, size, 1)
    scaled = matrix / size[..., None] / size[..., None, :]
    if not np.all(np.abs(scaled - np.swapaxes(scaled, -1, -2)) <= SLACK):
        raise ValueError("covariance must be symmetric and finite")
    lowest = np.min(np.linalg.eigvalsh(scaled), initial=np.inf)
    if lowest < -SLACK * matrix.shape[-1]:
        raise ValueError(
            "covariance must have no negative eigenvalue, and its correlations have "
            f"{lowest:.3g}: estimate it from complete rows"
        )
    if not singular and lowest <= matrix.shape[-1] * jnp.finfo(covariance.dtype).eps:
        raise ValueError("covariance_q must not be singular: add to its diagonal")
