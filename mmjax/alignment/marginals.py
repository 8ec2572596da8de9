"""What optimal transport moves: masses of points, and costs of which some are forbidden."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mmjax.alignment.arithmetic import far
from mmjax.arrays import Array


def masses(
    name: str,
    given: Float[Array, "*b n"] | None,
    where: Bool[Array, "*b n"] | None,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> Float[jax.Array, "*b n"]:
    """Masses of points that sum to 1, 0 where a point is invalid.

    Args:
        name: what the message calls them.
        given: not negative; equal ones if None.
        where: valid points, all if None.
        shape: of the result.
        dtype: of the result.

    Returns:
        The masses; all 0 if none is positive.

    Raises:
        ValueError: if NumPy masses of valid points are negative or not finite, unless only a mask
            of JAX knows which are valid.

    Source: no paper.

    >>> given, where = np.array([1.0, 3.0, 4.0]), np.array([True, True, False])
    >>> print(masses("a", given, where, (3,), np.dtype(np.float32)))
    [0.25 0.75 0.  ]
    """
    if isinstance(given, np.ndarray) and (where is None or isinstance(where, np.ndarray)):
        seen = given if where is None else given[where]
        if not np.all(np.isfinite(seen) & (seen >= 0)):
            raise ValueError(
                f"{name} must hold finite masses that are not negative, got between {seen.min()}"
                f" and {seen.max()}"
            )
    mass = jnp.ones(shape, dtype) if given is None else jnp.asarray(given).astype(dtype)
    if where is not None:
        mass = jnp.where(where, mass, 0)
    mass = jnp.where(mass == 0, 0, mass)  # a point without mass is absent: no gradient asks it in
    # Only ratios count. The sum of large masses would overflow, one over the largest underflow.
    large = jnp.any(mass > far(dtype), axis=-1, keepdims=True)
    mass = mass / jnp.where(large, far(dtype), 1)
    total = jnp.sum(mass, axis=-1, keepdims=True)
    return mass / jnp.where(total > 0, total, 1)


def costs_between(
    cost: Float[Array, "*b n m"], a: Float[jax.Array, "*b n"], b: Float[jax.Array, "*b m"]
) -> Float[jax.Array, "*b n m"]:
    """Costs in the dtype of the masses, 0 where either is 0, with a gradient of 0 there.

    Args:
        cost: may hold anything where a mass is 0.
        a: masses of the rows.
        b: masses of the columns.

    Returns:
        The costs; what is not finite between points with mass stays.

    Source: no paper.

    >>> a, b = jnp.array([1.0, 0.0]), jnp.array([1.0])
    >>> print(costs_between(jnp.array([[2.0], [jnp.nan]]), a, b)[:, 0])
    [2. 0.]
    """
    present = (a > 0)[..., :, None] & (b > 0)[..., None, :]
    return jnp.where(present, jnp.asarray(cost).astype(a.dtype), 0)


def allowed_costs(
    cost: Float[Array, "*b n m"], a: Float[jax.Array, "*b n"], b: Float[jax.Array, "*b m"]
) -> Float[jax.Array, "*b n m"]:
    """Costs as :func:`costs_between`, but large and finite where a pair is forbidden.

    Args:
        cost: ``inf`` forbids a pair.
        a: masses of the rows.
        b: masses of the columns.

    Returns:
        The costs; NaN between points with mass stays NaN.

    Source: no paper.

    >>> a, b = jnp.array([1.0, 1.0, 0.0]), jnp.array([1.0])
    >>> print(allowed_costs(jnp.array([[2.0], [jnp.inf], [jnp.nan]]), a, b)[:, 0] < 1e9)
    [ True False  True]
    """
    cost = costs_between(cost, a, b)
    return jnp.where(cost >= far(a.dtype), far(a.dtype), cost)


def is_blocked(cost: Float[jax.Array, "n m"], plan: Float[jax.Array, "n m"]) -> Bool[jax.Array, ""]:
    """Whether a plan had to use a pair that is forbidden.

    Args:
        cost: from :func:`allowed_costs`.
        plan: mass that goes from each row to each column.

    Returns:
        One mark.

    Source: no paper.

    >>> cost = allowed_costs(jnp.array([[jnp.inf]]), jnp.ones(1), jnp.ones(1))
    >>> print(is_blocked(cost, jnp.ones((1, 1))))
    True
    """
    return jnp.any((cost >= far(cost.dtype)) & (plan > 0))
