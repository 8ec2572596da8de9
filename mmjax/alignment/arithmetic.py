"""Products that keep their digits, quotients that make no NaN, and an infinity that is finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

# A single pass of an accelerator would lose 2**-8 of a product, and then of a difference of them.
exact_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def reciprocal_or_0(values: Float[jax.Array, "*n"]) -> Float[jax.Array, "*n"]:
    """One over what is positive; 0 for what is not, with a gradient of 0. NaN stays NaN.

    Args:
        values: of any shape.

    Returns:
        The reciprocals.

    Source: no paper.

    >>> print(reciprocal_or_0(jnp.array([2.0, 0.0])))
    [0.5 0. ]
    """
    positive = ~(values <= 0)  # NaN is an error of the caller's, and has to show
    return jnp.where(positive, 1 / jnp.where(positive, values, 1), 0)


def root_or_0(values: Float[jax.Array, "*n"]) -> Float[jax.Array, "*n"]:
    """Root of what is positive; 0 for what is not, with a gradient of 0. NaN stays NaN.

    Args:
        values: of any shape.

    Returns:
        The roots.

    Source: no paper.

    >>> print(root_or_0(jnp.array([4.0, 0.0])))
    [2. 0.]
    """
    positive = ~(values <= 0)
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, values, 1)), 0)


def far(dtype: np.dtype) -> float:
    """Cost that stands for infinity: sums of it and quotients by it stay finite.

    Args:
        dtype: of the costs.

    Returns:
        The root of the largest number, some 1e19 in float32.

    Source: no paper; an infinity would make NaN of a difference.

    >>> print(f"{far(np.dtype(np.float32)):.0e}")
    2e+19
    """
    return float(np.sqrt(jnp.finfo(dtype).max))
