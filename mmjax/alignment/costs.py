"""What it costs to align two elements: the tables that warping and transport start from."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked


@checked
def squared_costs(
    x: Float[Array, "*n t d"],
    y: Float[Array, "*n s d"],
    *,
    where_x: Bool[Array, "*n t"] | None = None,
    where_y: Bool[Array, "*n s"] | None = None,
) -> Float[jax.Array, "*n t s"]:
    r"""Squared Euclidean distances of all elements of one set or sequence to all of another.

    .. math:: c_{ij} = \lVert x_i - y_j \rVert^2
              = \lVert x_i - \mu \rVert^2 + \lVert y_j - \mu \rVert^2
                - 2 (x_i - \mu) \cdot (y_j - \mu)

    where :math:`\mu` is the mean of the valid :math:`y_j`.

    Args:
        x: elements, such as steps of a sequence, ``t`` of them per row.
        y: elements, ``s`` of them per row.
        where_x: valid elements, all if None. An invalid one has the gradient 0, even where it holds
            NaN; what stands in its place in the table is for its reader to leave out.
        where_y: valid elements likewise.

    Returns:
        One cost per pair, finite and never negative, in the squared unit of the elements, float32
        or wider; exact to about 1e-7 times the largest squared distance from the mean.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: no paper; the parallelogram identity.

    >>> print(squared_costs(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0], [0.0, 1.0]])))
    [[25.  1.]]
    """
    dtype = accumulation_dtype(x, y)
    x, y = (jnp.asarray(z).astype(dtype) for z in (x, y))
    x, y = (
        z if w is None else jnp.where(w[..., None], z, 0) for z, w in ((x, where_x), (y, where_y))
    )
    # No distance depends on the origin, which is a constant then; what they are rounded by does.
    weight = None if where_y is None else jnp.asarray(where_y)[..., None]
    count = y.shape[-2] if weight is None else jnp.sum(weight, axis=-2, keepdims=True, dtype=dtype)
    total = jnp.sum(y, axis=-2, keepdims=True)
    origin = jax.lax.stop_gradient(total / jnp.maximum(count, 1))
    x, y = x - origin, y - origin
    squares = jnp.sum(x**2, axis=-1)[..., :, None] + jnp.sum(y**2, axis=-1)[..., None, :]
    # A single pass of an accelerator would lose 2**-8 of a product, and then of a difference.
    products = jnp.einsum("...td,...sd->...ts", x, y, precision=jax.lax.Precision.HIGHEST)
    costs = squares - 2 * products
    # Rounding alone makes them negative: the value is raised to 0, its derivatives stay.
    return costs + jax.lax.stop_gradient(jnp.maximum(-costs, 0))
