"""Kernels: inner products in a feature space that is never entered.

A kernel is any function of rows ``[n, d]`` and ``[m, d]`` to products ``[n, m]`` that is symmetric,
positive semi-definite, and finite with its gradient everywhere, rows of zeros included (invalid
rows are blanked before a kernel sees them). Options are bound with :func:`functools.partial`;
those that are arrays, such as a bandwidth that is learned, get their gradients.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, Scalar, accumulation_dtype, as_scalar, checked

Kernel: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]  # [n d], [m d] -> [n m]


@checked
def linear_kernel(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[jax.Array, "n m"]:
    r"""Inner products of the rows themselves.

    .. math:: k(x_i, y_j) = x_i \cdot y_j

    Args:
        x: rows.
        y: rows.

    Returns:
        One product per pair, float32 or wider, in the squared unit of the rows.

    Source: Schoelkopf and Smola 2002, Learning with Kernels, sec. 2.1.

    >>> print(linear_kernel(jnp.eye(2), 3 * jnp.eye(2)))
    [[3. 0.]
     [0. 3.]]
    """
    dtype = accumulation_dtype(x, y)
    x, y = (jnp.asarray(z).astype(dtype) for z in (x, y))
    return jnp.einsum("nd,md->nm", x, y, precision=jax.lax.Precision.HIGHEST)


@checked
def polynomial_kernel(
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    *,
    degree: int = 3,
    scale: Scalar = 1.0,
    offset: Scalar = 1.0,
) -> Float[jax.Array, "n m"]:
    r"""Inner products of all monomials of the features up to a degree.

    .. math:: k(x_i, y_j) = (s\, x_i \cdot y_j + c)^p

    Args:
        x: rows.
        y: rows.
        degree: :math:`p \ge 1`.
        scale: :math:`s > 0`, in the inverse squared unit of the rows.
        offset: :math:`c \ge 0`, dimensionless: the weight of the lower degrees.

    Returns:
        One product per pair, float32 or wider, dimensionless.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``degree`` is below 1, a Python or NumPy ``scale`` is not positive and
            finite, or such an ``offset`` is negative or not finite.

    Source: Schoelkopf and Smola 2002, Learning with Kernels, sec. 2.3.

    >>> print(polynomial_kernel(jnp.ones((1, 2)), jnp.ones((1, 2)), degree=2))
    [[9.]]
    """
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    if not isinstance(offset, jax.Array) and float(offset) < 0:
        raise ValueError(
            f"offset must not be negative, got {offset}: the kernel would not be positive"
        )
    products = linear_kernel(x, y)
    scale = as_scalar("scale", scale, dtype=products.dtype, positive=True)
    offset = as_scalar("offset", offset, dtype=products.dtype)
    return jax.lax.integer_pow(scale * products + offset, degree)


@checked
def rbf_kernel(
    x: Float[Array, "n d"], y: Float[Array, "m d"], *, bandwidth: Scalar
) -> Float[jax.Array, "n m"]:
    r"""Gaussian radial basis function of the distance of two rows.

    .. math:: k(x_i, y_j) = \exp\!\left(-\frac{\lVert x_i - y_j \rVert^2}{2 h^2}\right)

    Distances are made of inner products, around the mean of ``y``. Their squares are exact to about
    1e-7 times the squared spread of the rows, so that two different rows have to be further apart
    than a thousandth of the spread to be told from equal ones; a single row against itself is
    exact.

    Args:
        x: rows.
        y: rows.
        bandwidth: :math:`h > 0`, in the unit of the rows;
            :func:`mmjax.losses.median_bandwidth` proposes one.

    Returns:
        One product per pair, float32 or wider, dimensionless, in [0, 1].

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``bandwidth`` is not positive and finite.

    Source: Gretton et al. 2012, JMLR 13, sec. 8 (there as :math:`\sigma`).

    >>> x, y = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 0.0], [1.0, 1.0]])
    >>> print(jnp.log(rbf_kernel(x, y, bandwidth=1.0)))
    [[ 0. -1.]]
    """
    dtype = accumulation_dtype(x, y)
    bandwidth = as_scalar("bandwidth", bandwidth, dtype=dtype, positive=True)
    x, y = (jnp.asarray(z).astype(dtype) / bandwidth for z in (x, y))
    return jnp.exp(-squared_distances(x, y) / 2)


@checked
def squared_distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[jax.Array, "n m"]:
    r"""Squared Euclidean distances, made of inner products around the mean of ``y``.

    .. math:: \lVert x_i - y_j \rVert^2
              = \lVert x_i - \bar y \rVert^2 + \lVert y_j - \bar y \rVert^2
                - 2 (x_i - \bar y) \cdot (y_j - \bar y)

    Args:
        x: rows.
        y: rows.

    Returns:
        One per pair, never negative, float32 or wider, in the squared unit of the rows; exact to
        about 1e-7 times the largest squared distance from the mean, and fully so for one ``y``.

    Source: no paper; the parallelogram identity.

    >>> print(squared_distances(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])))
    [[25.]]
    """
    dtype = accumulation_dtype(x, y)
    x, y = (jnp.asarray(z).astype(dtype) for z in (x, y))
    # No distance depends on the origin, which is a constant then; what they are rounded by does.
    origin = jax.lax.stop_gradient(jnp.mean(y, axis=0, keepdims=True))
    x, y = x - origin, y - origin
    lengths = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None]
    return jnp.maximum(lengths - 2 * linear_kernel(x, y), 0)
