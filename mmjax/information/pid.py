"""What two sources say of a target, taken apart into what is shared, unique and synergistic."""

from typing import NamedTuple

import jax
from jaxtyping import Float

from mmjax.information.units import in_unit


class PID(NamedTuple):
    """A partial information decomposition: four parts, and how far they are to be trusted.

    Attributes:
        redundancy: what either source says of the target by itself.
        unique_1: what only the first source says of it.
        unique_2: what only the second source says of it.
        synergy: what only both together say of it.
        gap: upper bound, in the same unit, of the error of the program that was solved: the exact
            redundancy and synergy lie above by at most as much, the unique parts below.
        infeasibility: 0 up to rounding. What is missing from the constraints, plus what had to be
            changed of an input that was none, where it could not be refused (inside jit): it is
            infinite where that held NaN. The parts are those of the changed input then.
    """

    redundancy: Float[jax.Array, "*b"]
    unique_1: Float[jax.Array, "*b"]
    unique_2: Float[jax.Array, "*b"]
    synergy: Float[jax.Array, "*b"]
    gap: Float[jax.Array, "*b"]
    infeasibility: Float[jax.Array, "*b"]


class Informations(NamedTuple):
    """What the sources say of the target, by themselves, together, and at least together; nats."""

    first: Float[jax.Array, "*b"]
    second: Float[jax.Array, "*b"]
    both: Float[jax.Array, "*b"]
    union: Float[jax.Array, "*b"]  # the least of all joint distributions with the same pairs


def decomposition(
    found: Informations,
    *,
    gap: Float[jax.Array, "*b"],
    infeasibility: Float[jax.Array, "*b"],
    unit: str,
) -> PID:
    r"""The four parts that follow from the union information.

    .. math:: R = I_1 + I_2 - I_\cup, \quad U_1 = I_\cup - I_2, \quad U_2 = I_\cup - I_1, \quad
              S = I_{12} - I_\cup

    Args:
        found: the four informations, nats.
        gap: by how much the union information may be too large, nats.
        infeasibility: see :class:`PID`.
        unit: "nats" or "bits", of the result.

    Returns:
        The decomposition, in ``unit``.

    Raises:
        ValueError: for another unit.

    Source: Bertschinger et al. 2014, arXiv:1311.2852, sec. 3; Griffith and Koch 2014,
    arXiv:1205.4265, the union information.

    >>> import jax.numpy as jnp
    >>> found = Informations(*(jnp.array(x) for x in (0.5, 0.4, 0.9, 0.6)))
    >>> parts = decomposition(found, gap=jnp.zeros(()), infeasibility=jnp.zeros(()), unit="nats")
    >>> print(f"{parts.redundancy:.1f} {parts.unique_1:.1f} {parts.unique_2:.1f}")
    0.3 0.2 0.1
    """
    first, second, both, union, error = (
        in_unit(nats, unit) for nats in (*found, jax.lax.stop_gradient(gap))
    )
    return PID(
        redundancy=first + second - union,
        unique_1=union - second,
        unique_2=union - first,
        synergy=both - union,
        gap=error,
        infeasibility=jax.lax.stop_gradient(infeasibility),
    )


@jax.custom_jvp
def only_first_derivatives(x: jax.Array) -> jax.Array:
    r"""The identity, :math:`x`, that refuses to be differentiated.

    Derivatives of an optimum that are read off its multipliers go through it, so that a second
    derivative is refused instead of being wrong.

    Args:
        x: any array.

    Returns:
        ``x``.

    Raises:
        NotImplementedError: if it is differentiated.

    Source: no paper; what this room promises of its derivatives.

    >>> import jax.numpy as jnp
    >>> print(only_first_derivatives(jnp.ones(2)))
    [1. 1.]
    """
    return x


@only_first_derivatives.defjvp
def _refuse(primals: tuple, tangents: tuple) -> tuple:
    raise NotImplementedError(
        "a partial information decomposition has first derivatives only: differentiate it once"
    )
