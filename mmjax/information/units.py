"""The unit in which information is counted."""

import math

import jax
from jaxtyping import Float

NATS_PER_UNIT = {"nats": 1.0, "bits": math.log(2.0)}


def in_unit(nats: Float[jax.Array, "*b"], unit: str) -> Float[jax.Array, "*b"]:
    r"""Nats as ``unit``: :math:`1 \text{ bit} = \ln 2 \text{ nats}`.

    Args:
        nats: quantities of information.
        unit: "nats" or "bits".

    Returns:
        The same quantities, counted in ``unit``.

    Raises:
        ValueError: for another unit.

    Source: Shannon 1948, A Mathematical Theory of Communication, introduction.

    >>> import jax.numpy as jnp
    >>> print(f"{in_unit(jnp.log(2.0), 'bits'):.4f}")
    1.0000
    """
    if unit not in NATS_PER_UNIT:
        raise ValueError(f"unit must be 'nats' or 'bits', got {unit!r}")
    return nats / NATS_PER_UNIT[unit]
