"""Covariances as correlations, by which a rank is judged: determinants, inverses on the support."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype

SLACK = 1e-4  # by which a covariance may miss being symmetric and positive, as a correlation


def check_covariance(covariance: Array, *, singular: bool = True) -> None:
    """Refuse what is no covariance, where that can be seen.

    Args:
        covariance: ``[..., d, d]``; inside jit it is not looked at.
        singular: whether it may be singular.

    Raises:
        ValueError: if it is not symmetric and finite, has a negative eigenvalue, or is singular
            where it may not be.

    Source: no paper; what makes a covariance.
    """
    if isinstance(covariance, jax.core.Tracer):
        return
    dtype = accumulation_dtype(covariance)
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = np.asarray(covariance).astype(dtype).astype(np.float64)  # as it will be read
        # A negative variance is one of -1, in whatever unit.
        size = np.sqrt(np.abs(np.diagonal(matrix, axis1=-2, axis2=-1)))
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
    if not singular and lowest <= matrix.shape[-1] * jnp.finfo(dtype).eps:
        raise ValueError("covariance_q must not be singular: add to its diagonal")


def standardised(
    covariance: Array, dtype: jnp.dtype | None = None
) -> tuple[Float[jax.Array, "*b d d"], Float[jax.Array, "*b d"]]:
    """The correlations, by which a rank can be judged, and the variances.

    Args:
        covariance: symmetric; leading axes are a batch.
        dtype: of the result, float32 or the wider one of ``covariance`` if None.

    Returns:
        Correlations, 0 for a constant feature also with itself, and variances.

    Raises:
        ValueError: as for :func:`check_covariance`.

    Source: no paper; the definition of a correlation.

    >>> correlations, _ = standardised(jnp.array([[4.0, 1.0], [1.0, 1.0]]))
    >>> print(correlations[0])
    [1.  0.5]
    """
    check_covariance(covariance)
    matrix = jnp.asarray(covariance).astype(dtype or accumulation_dtype(covariance))
    matrix = (matrix + transposed(matrix)) / 2
    variances = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    # A negative variance becomes one of -1, which no rounding explains.
    inverse = jax.lax.rsqrt(jnp.where(variances != 0, jnp.abs(variances), 1))
    return matrix * inverse[..., None] * inverse[..., None, :], variances


@jax.custom_jvp
def log_determinant(
    matrix: Float[jax.Array, "*b d d"], noise: Float[jax.Array, "*b"]
) -> tuple[Float[jax.Array, "*b"], Float[jax.Array, "*b"]]:
    r"""Determinant on the support, :math:`\sum_{\lambda_i > \epsilon} \log \lambda_i`, and rank.

    Args:
        matrix: made of correlations; leading axes are a batch.
        noise: :math:`\epsilon`, below which an eigenvalue may be 0: :func:`rounding`.

    Returns:
        The logarithm of the determinant, NaN for NaN and for an eigenvalue that is negative beyond
        rounding, and how many eigenvalues it is of. Any number of derivatives exists, also where
        eigenvalues are equal.

    Source: no paper; Jacobi's formula for the derivative.

    >>> log_det, rank = log_determinant(jnp.ones((2, 2)), jnp.array(1e-6))
    >>> print(f"{log_det:.4f} {rank}")  # of the eigenvalue 2; the other one is 0
    0.6931 1.0
    """
    eigenvalues = jnp.linalg.eigvalsh(matrix)
    kept = eigenvalues > noise[..., None]
    logs = jnp.log(jnp.where(kept, eigenvalues, 1))
    log_det = jnp.where(_sound(eigenvalues), jnp.sum(logs, axis=-1), jnp.nan)
    return log_det, jnp.sum(kept, axis=-1, dtype=matrix.dtype)


@log_determinant.defjvp
def _log_determinant_jvp(primals, tangents):
    # By hand: the rule of eigvalsh divides by differences of eigenvalues, which may be 0.
    (matrix, noise), (change, _) = primals, tangents
    log_det, rank = log_determinant(matrix, noise)
    slope = jnp.sum(pseudo_inverse(matrix, noise) * transposed(change), axis=(-2, -1))
    return (log_det, rank), (slope, jnp.zeros_like(rank))


@jax.custom_jvp
def pseudo_inverse(
    matrix: Float[jax.Array, "*b d d"], noise: Float[jax.Array, "*b"]
) -> Float[jax.Array, "*b d d"]:
    r"""Inverse on the support, :math:`\sum_{\lambda_i > \epsilon} v_i v_i^\top / \lambda_i`.

    Args:
        matrix: made of correlations; leading axes are a batch.
        noise: as for :func:`log_determinant`.

    Returns:
        The inverse, of as many features; NaN where the determinant is.

    Source: no paper; Penrose 1955 defines it.

    >>> print(pseudo_inverse(jnp.diag(jnp.array([2.0, 0.0])), jnp.array(1e-6)))
    [[0.5 0. ]
     [0.  0. ]]
    """
    eigenvalues, vectors = jnp.linalg.eigh(matrix)
    kept = eigenvalues > noise[..., None]
    inverse = jnp.where(kept, 1 / jnp.where(kept, eigenvalues, 1), 0)
    inverse = jnp.where(_sound(eigenvalues)[..., None], inverse, jnp.nan)
    return product(vectors * inverse[..., None, :], transposed(vectors))


@pseudo_inverse.defjvp
def _pseudo_inverse_jvp(primals, tangents):
    (matrix, noise), (change, _) = primals, tangents
    inverse = pseudo_inverse(matrix, noise)
    return inverse, -product(product(inverse, change), inverse)


def _sound(eigenvalues: Float[jax.Array, "*b d"]) -> Bool[jax.Array, "*b"]:
    """Whether none is negative beyond rounding, nor NaN."""
    return jnp.all(eigenvalues >= -SLACK * eigenvalues.shape[-1], axis=-1)


def block_information(
    matrix: Float[jax.Array, "*b d d"], size: int, noise: Float[jax.Array, "*b"]
) -> Float[jax.Array, "*b"]:
    r"""Information of two blocks, :math:`\tfrac12 \log (|\Sigma_x| |\Sigma_y| / |\Sigma_{xy}|)`.

    Args:
        matrix: made of correlations, first those of X; leading axes are a batch.
        size: how many features X has.
        noise: as for :func:`log_determinant`.

    Returns:
        The information in nats, infinite where the ranks of both blocks do not add up, NaN for an
        eigenvalue that is negative beyond rounding.

    Source: Cover and Thomas 2006, Elements of Information Theory, eq. 8.54.

    >>> pair = jnp.array([[1.0, 0.6], [0.6, 1.0]])
    >>> print(f"{block_information(pair, 1, jnp.array(1e-6)):.4f}")  # -log(0.8)
    0.2231
    """
    (log_x, rank_x), (log_y, rank_y), (log_both, rank_both) = (
        log_determinant(block, noise)
        for block in (matrix[..., :size, :size], matrix[..., size:, size:], matrix)
    )
    nats = (log_x + log_y - log_both) / 2
    return jnp.where((rank_x + rank_y == rank_both) | jnp.isnan(nats), nats, jnp.inf)


def rounding(correlations: Float[jax.Array, "*b d d"]) -> Float[jax.Array, "*b"]:
    """Below this an eigenvalue may be 0: rounding d correlations moves it so far.

    Args:
        correlations: ``[..., d, d]``.

    Returns:
        One number for each matrix, d times the resolution of the dtype.

    Source: no paper; Weyl's inequality for the eigenvalues of a sum.
    """
    d = correlations.shape[-1]
    dtype = correlations.dtype
    return jnp.full(correlations.shape[:-2], d * jnp.finfo(dtype).eps, dtype)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product in full precision on every device."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def transposed(matrix: jax.Array) -> jax.Array:
    """Last two axes exchanged."""
    return jnp.swapaxes(matrix, -1, -2)
