"""The only place where one value per row becomes a scalar."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, accumulation_dtype, checked


@checked
def masked_mean(
    values: Float[Array, "*b"],
    where: Bool[Array, "*b"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, ""]:
    r"""Mean of the valid values over every shard; 0 if none is valid.

    .. math:: \bar v = \frac{\sum_{i \in V} v_i}{\max(|V|, 1)}

    Args:
        values: one value per row, in any unit, of any shape.
        where: the valid values :math:`V`, all of them if None. An invalid value counts neither in
            the sum nor in the count, and its gradient is 0 even where it is NaN.
        axis_name: mesh axis or axes that shard the values; :math:`V` spans every shard, so that
            shards with few valid values weigh no more than those values do.

    Returns:
        The mean, in the unit of ``values``, summed and returned in float32 whatever narrower
        dtype came in. Under ``axis_name`` every shard gets the same number.

    Raises:
        jaxtyping.TypeCheckError: if ``where`` has another shape than ``values``, or on a dtype.

    >>> print(masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])))
    2.0
    """
    dtype = accumulation_dtype(values)
    if where is None:
        where = jnp.ones(values.shape, bool)
    # Cast first: a bfloat16 sum stops counting at 256.
    total = jnp.sum(jnp.asarray(values).astype(dtype), where=where)
    count = jnp.sum(where, dtype=dtype)
    if axis_name is not None:  # Sum first: a mean of shard means would misweight short shards.
        total, count = jax.lax.psum((total, count), axis_name)
    return total / jnp.maximum(count, 1)
