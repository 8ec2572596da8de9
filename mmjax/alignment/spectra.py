"""Functions of the spectrum of a matrix whose derivatives stay finite where its values tie.

What JAX differentiates through ``eigh`` and ``svd`` divides by differences of eigenvalues, because
single eigenvectors do turn infinitely fast where two values tie. Sums over all the vectors of a
tied value do not, and these functions are such sums.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float


@jax.custom_jvp
def inverse_root(matrix: Float[jax.Array, "d d"]) -> Float[jax.Array, "d d"]:
    r"""Inverse square root of a positive semidefinite matrix, 0 where the matrix is singular.

    .. math:: f(A) = \sum_{\lambda_i > d\,\epsilon\,\lambda_{\max}} \lambda_i^{-1/2} v_i v_i^\top,
              \qquad \mathrm{d} f = V \big( F \circ (V^\top \mathrm{d}A\, V) \big) V^\top

    where :math:`F_{ij} = -1 / (\sqrt{\lambda_i \lambda_j} (\sqrt{\lambda_i} + \sqrt{\lambda_j}))`
    between two values that are kept, :math:`f(\lambda_i) / (\lambda_i - \lambda_j)` where only
    :math:`\lambda_i` is, and 0 between two that are not.

    Args:
        matrix: symmetric.

    Returns:
        The root, symmetric. Eigenvalues within rounding of 0 count as 0, :math:`\epsilon` being the
        precision of the dtype.

    Source: the divided differences of Daleckii and Krein, as in Higham 2008, Functions of Matrices,
    theorem 3.25.

    >>> print(inverse_root(jnp.diag(jnp.array([4.0, 0.0]))))
    [[0.5 0. ]
     [0.  0. ]]
    """
    roots, vectors = _inverse_roots(matrix)[::2]
    return (vectors * roots[None]) @ vectors.T


@inverse_root.defjvp
def _inverse_root_jvp(primals, tangents):
    (matrix,), (tangent,) = primals, tangents
    roots, values, vectors = _inverse_roots(matrix)
    a, b = roots[:, None], roots[None]
    kept = (a > 0) & (b > 0)
    one = (a > 0) ^ (b > 0)
    gap = values[:, None] - values[None]
    differences = jnp.where(
        kept,
        -((a * b) ** 2) / jnp.where(kept, a + b, 1),
        jnp.where(one, (a - b) / jnp.where(one, gap, 1), 0),
    )
    turned = vectors.T @ ((tangent + tangent.T) / 2) @ vectors
    return (vectors * roots[None]) @ vectors.T, vectors @ (differences * turned) @ vectors.T


def _inverse_roots(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One over the roots of the eigenvalues, the eigenvalues and the vectors."""
    values, vectors = jnp.linalg.eigh(matrix)
    kept = values > len(matrix) * jnp.finfo(matrix.dtype).eps * jnp.max(values, initial=0)
    roots = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, values, 1)), 0)
    return roots, values, vectors


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def singular_value_sum(
    matrix: Float[jax.Array, "d e"], count: int, power: int
) -> Float[jax.Array, ""]:
    r"""Sum of powers of the largest singular values.

    .. math:: f(A) = \sum_{i \le k} \sigma_i^p, \qquad
              \mathrm{d} f = \sum_{i \le k} p\, \sigma_i^{p - 1}\, u_i^\top \mathrm{d}A\, v_i

    Args:
        matrix: any.
        count: :math:`k`, at most the smaller side of the matrix.
        power: :math:`p`, at least 1.

    Returns:
        The sum. Its derivative is the one there is, unless the ``count``-th value and the next are
        equal, or a value is 0 and ``power`` 1: a finite subgradient then, for a value of 0 that
        of length 0.

    Source: Watson 1992, Linear Algebra and its Applications 170, for the subgradients.

    >>> print(singular_value_sum(jnp.diag(jnp.array([1.0, 2.0, 3.0])), 2, 2))
    13.0
    """
    return jnp.sum(jnp.linalg.svd(matrix, compute_uv=False)[:count] ** power)


@singular_value_sum.defjvp
def _singular_value_sum_jvp(count, power, primals, tangents):
    (matrix,), (tangent,) = primals, tangents
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    left, values, right = left[:, :count], values[:count], right[:count]
    slopes = jnp.where(values > 0, power * values ** (power - 1), 0)
    return jnp.sum(values**power), jnp.einsum("dk,k,kd->", left, slopes, right @ tangent.T)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def eigenvalue_sum(matrix: Float[jax.Array, "d d"], count: int) -> Float[jax.Array, ""]:
    r"""Sum of the largest eigenvalues.

    .. math:: f(A) = \sum_{i \le k} \lambda_i, \qquad
              \mathrm{d} f = \sum_{i \le k} v_i^\top \mathrm{d}A\, v_i

    Args:
        matrix: symmetric.
        count: :math:`k`, at most the side of the matrix.

    Returns:
        The sum. Its derivative is the one there is, unless the ``count``-th value and the next are
        equal: a subgradient then.

    Source: Overton and Womersley 1993, Mathematical Programming 62, theorem 3.5.

    >>> print(eigenvalue_sum(jnp.diag(jnp.array([1.0, 2.0, 3.0])), 2))
    5.0
    """
    return jnp.sum(jnp.linalg.eigvalsh(matrix)[len(matrix) - count :])


@eigenvalue_sum.defjvp
def _eigenvalue_sum_jvp(count, primals, tangents):
    (matrix,), (tangent,) = primals, tangents
    values, vectors = jnp.linalg.eigh(matrix)
    values, vectors = values[len(matrix) - count :], vectors[:, len(matrix) - count :]
    return jnp.sum(values), jnp.sum(vectors * (tangent @ vectors))
