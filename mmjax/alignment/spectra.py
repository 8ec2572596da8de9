"""Functions of the spectrum of a matrix whose derivatives stay finite where its values tie.

What JAX differentiates through ``eigh`` and ``svd`` divides by differences of eigenvalues, because
single eigenvectors do turn infinitely fast where two values tie. Sums over all the vectors of a
tied value do not, and all but the last of these functions are such sums.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.alignment.arithmetic import exact_einsum, reciprocal_or_0


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
    roots, _, vectors = _inverse_roots(matrix)
    return exact_einsum("ij,j,kj->ik", vectors, roots, vectors)


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
    turned = exact_einsum("ji,jk,kl->il", vectors, (tangent + tangent.T) / 2, vectors)
    return (
        exact_einsum("ij,j,kj->ik", vectors, roots, vectors),
        exact_einsum("ij,jk,lk->il", vectors, differences * turned, vectors),
    )


def _inverse_roots(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One over the roots of the eigenvalues, the eigenvalues and the vectors."""
    values, vectors = jnp.linalg.eigh(matrix)
    kept = ~(values <= len(matrix) * jnp.finfo(matrix.dtype).eps * jnp.max(values, initial=0))
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
    return jnp.sum(values**power), exact_einsum("dk,k,ke,de->", left, slopes, right, tangent)


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
    return jnp.sum(values), exact_einsum("dk,de,ek->", vectors, tangent, vectors)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def largest_singular(
    matrix: Float[jax.Array, "d e"], count: int
) -> tuple[Float[jax.Array, "d k"], Float[jax.Array, "k"], Float[jax.Array, "e k"]]:
    r"""The largest singular values, and their vectors on either side.

    .. math:: \mathrm{d} u_j = \sum_{i \ne j} u_i\,
              \frac{\sigma_j\, u_i^\top \mathrm{d}A\, v_j + \sigma_i\, u_j^\top \mathrm{d}A\, v_i}
              {\sigma_j^2 - \sigma_i^2}

    Args:
        matrix: any.
        count: :math:`k`, at most the smaller side of the matrix.

    Returns:
        Left vectors, values and right vectors, best first. The derivatives are those there are for
        every value that no other equals. Where some are equal within rounding no turn of their
        vectors towards each other is counted, so that the rest stays finite; values beyond
        ``count`` may tie as they like.

    Source: Papadopoulo and Lourakis 2000, ECCV, Estimating the Jacobian of the singular value
    decomposition; what is left out where values are equal is ours.

    >>> left, values, _ = largest_singular(jnp.diag(jnp.array([1.0, 3.0])), 1)
    >>> print(values, jnp.abs(left[:, 0]))
    [3.] [0. 1.]
    """
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    return left[:, :count], values[:count], right[:count].T


@largest_singular.defjvp
def _largest_singular_jvp(count, primals, tangents):
    (matrix,), (tangent,) = primals, tangents
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    first, kept, second = left[:, :count], values[:count], right[:count].T
    floor = max(matrix.shape) * jnp.finfo(values.dtype).eps * values[0]
    gaps = kept[None] - values[:, None]
    apart = jnp.abs(gaps) > floor
    shares = jnp.where(apart, 1 / jnp.where(apart, gaps * (kept[None] + values[:, None]), 1), 0)
    inverse = reciprocal_or_0(jnp.where(kept <= floor, 0, kept))[None]

    def turns(basis, moved, mixed):
        """Towards the other vectors of one side, and out of what all of them span."""
        inside = exact_einsum("di,dj->ij", basis, moved)
        change = shares * (inside * kept[None] + values[:, None] * mixed)
        outside = moved - exact_einsum("di,ij->dj", basis, inside)
        return exact_einsum("di,ij->dj", basis, change) + outside * inverse

    ahead = exact_einsum("de,ej->dj", tangent, second)
    back = exact_einsum("de,dj->ej", tangent, first)
    return (first, kept, second), (
        turns(left, ahead, exact_einsum("ie,ej->ij", right, back)),
        exact_einsum("dj,dj->j", first, ahead),
        turns(right.T, back, exact_einsum("di,dj->ij", left, ahead)),
    )
