"""The exact partial information decomposition of discrete variables."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.information.discrete import as_probabilities, entropy, mutual_information
from mmjax.information.interior_point import Solution, largest_conditional_entropy
from mmjax.information.pid import PID, Informations, decomposition, only_first_derivatives


@checked
def broja(p: Float[Array, "*batch x1 x2 y"], *, unit: str = "nats") -> PID:
    r"""What two discrete sources say of a target: redundant, unique and synergistic information.

    .. math:: I_\cup = \min_{q \in \Delta_p} I_q(X_1, X_2; Y), \qquad \Delta_p = \{ q :
              q(x_1, y) = p(x_1, y), \; q(x_2, y) = p(x_2, y) \}

    .. math:: R = I_1 + I_2 - I_\cup, \quad U_1 = I_\cup - I_2, \quad U_2 = I_\cup - I_1, \quad
              S = I_{12} - I_\cup

    where :math:`I_1 = I_p(X_1; Y)`, :math:`I_2 = I_p(X_2; Y)` and
    :math:`I_{12} = I_p(X_1, X_2; Y)`, which the parts add up to. The convex program is solved in
    float64 by an interior-point method until a certificate says that no distribution is better by
    more than 1e-10 nats, also where JAX has only float32, to which the result is rounded then (to
    1e-6 nats, say). It is made for up to some thousand cells: a step factorises a matrix of
    ``(x1 + x2) y`` rows, of which a batch holds one for each problem.

    The gradient comes from the optimal multipliers, not from the steps; there are no second
    derivatives. It is that of ``p / p.sum()``. Cells with a probability of 0 are held there, with
    a gradient of 0; where the union information has a kink, the gradient is one of its
    subgradients.

    Args:
        p: joint probabilities of the sources and the target, which sum to one; leading axes are a
            batch. Zeros are ordinary, of single cells or of outcomes that never occur.
        unit: "nats" or "bits".

    Returns:
        The decomposition, each part with the leading axes of ``p``, float32 or wider. A part that
        is 0 may come out below 0 by ``gap`` and rounding. Inside jit, what is negative or NaN is
        taken for 0, what does not sum to one is divided by its sum, and a table without any
        probability is taken for a uniform one; ``infeasibility`` tells by how much ``p`` was
        changed, or infinity for NaN.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit, or if an axis is empty; outside of jit, if probabilities are
            negative or NaN or do not sum to one.

    Source: Bertschinger et al. 2014, arXiv:1311.2852, defs. 2 and 3, for two sources; the method is
    that of :mod:`mmjax.information.interior_point`.

    >>> both = jnp.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]]) / 4  # y = x1 and x2
    >>> parts = broja(both, unit="bits")
    >>> print(f"{parts.redundancy:.4f} {abs(parts.unique_1):.4f} {parts.synergy:.4f}")
    0.3113 0.0000 0.5000
    """
    *batch, n, m, classes = p.shape
    if not n * m * classes:
        raise ValueError(f"p must have an outcome on each of its last three axes, got {p.shape}")
    given = as_probabilities(p, 3).reshape(math.prod(batch), n, m, classes)
    return PID(*(part.reshape(batch) for part in _decomposed(given, unit)))


@functools.partial(jax.jit, static_argnames="unit")  # else each of its sums is compiled by itself
def _decomposed(given: Float[jax.Array, "b x1 x2 y"], unit: str) -> PID:
    used, changed = _distribution(given)
    *batch, n, m, classes = used.shape
    least, gap, missing = jax.vmap(_union_information)(used)
    found = Informations(
        first=mutual_information(jnp.sum(used, axis=2)),
        second=mutual_information(jnp.sum(used, axis=1)),
        both=mutual_information(used.reshape(*batch, n * m, classes)),
        union=entropy(jnp.sum(used, axis=(1, 2))) - least,
    )
    return decomposition(found, gap=gap, infeasibility=missing + changed, unit=unit)


def _distribution(given: Float[jax.Array, "b x1 x2 y"]) -> tuple[jax.Array, jax.Array]:
    """Probabilities that are some, and the sum of the absolute changes that it took."""
    axes = (1, 2, 3)
    unknown = jnp.isnan(given)
    used = jnp.where(given > 0, given, 0)  # also cuts the gradient of what is 0
    total = jnp.sum(used, axis=axes, keepdims=True)
    uniform = jnp.ones_like(used) / math.prod(used.shape[1:])
    used = jnp.where(total > 0, used / jnp.where(total > 0, total, 1), uniform)
    changed = jnp.sum(jnp.abs(jnp.where(unknown, 0, given) - used), axis=axes)
    return used, jnp.where(jnp.any(unknown, axis=axes), jnp.inf, changed)


@jax.custom_jvp
def _union_information(p: Float[jax.Array, "x1 x2 y"]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The largest H(Y | X1, X2), its gap, and the error of the marginals."""
    solved = _solved(p)
    return solved.entropy, solved.gap, solved.infeasibility


@_union_information.defjvp
def _envelope(primals: tuple, tangents: tuple) -> tuple:
    """The value changes with the marginals as the multipliers say, whatever the optimum does."""
    (p,), (change,) = primals, tangents
    solved = _solved(only_first_derivatives(p))
    slope = jnp.sum((solved.slope_1[:, None] + solved.slope_2[None]) * change)
    zero = jnp.zeros_like(slope)
    return (solved.entropy, solved.gap, solved.infeasibility), (slope, zero, zero)


def _solved(p: Float[jax.Array, "x1 x2 y"]) -> Solution:
    """Solve in float64; give the solution in the dtype of ``p``."""
    with jax.enable_x64(True):
        wide = p.astype(jnp.float64)
        solution = largest_conditional_entropy(jnp.sum(wide, axis=1), jnp.sum(wide, axis=0))
        return Solution(*(x.astype(p.dtype) for x in solution))
