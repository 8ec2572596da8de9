"""Joint distributions of which only marginals are known: the least and the most uncertain one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.discrete import as_probabilities, entropy, log_probabilities
from mmjax.information.units import in_unit

SWEEPS = 2000  # of iterative scaling, at most
SUMMED = tuple(enumerate((2, 1, 0)))  # the pairs xy, xz, yz, and the axis over which each is a sum


@checked
def greedy_coupling(p: Float[Array, "k"], q: Float[Array, "l"]) -> Float[jax.Array, "k l"]:
    r"""A joint distribution of little entropy with two given marginals.

    Again and again, the largest probabilities that are left on either side are paired, as much of
    them as both have. Finding the least entropy is NP-hard; this is at most
    :math:`\log_2 e / e \approx 0.53` bits above it.

    Args:
        p: probabilities of the rows, which sum to one.
        q: probabilities of the columns.

    Returns:
        The joint probabilities, at most ``k + l - 1`` of them positive.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: outside of jit, for probabilities that are negative or do not sum to one.

    Source: Kocaoglu et al. 2017, arXiv:1611.04035; how close: Compton et al. 2023,
    arXiv:2302.11838.

    >>> print(greedy_coupling(jnp.array([0.75, 0.25]), jnp.array([0.25, 0.75])))
    [[0.   0.75]
     [0.25 0.  ]]
    """
    dtype = accumulation_dtype(p, q)
    left, right = (as_probabilities(x, 1).astype(dtype) for x in (p, q))

    def pair(_: int, state: tuple) -> tuple:
        left, right, joint = state
        i, j = jnp.argmax(left), jnp.argmax(right)
        mass = jnp.minimum(left[i], right[j])
        return left.at[i].add(-mass), right.at[j].add(-mass), joint.at[i, j].add(mass)

    joint = jnp.zeros((len(left), len(right)), dtype)
    return jax.lax.fori_loop(0, len(left) + len(right) - 1, pair, (left, right, joint))[2]


@checked
def coupling_entropy_bound(
    p: Float[Array, "k"], q: Float[Array, "l"], *, unit: str = "nats"
) -> Float[jax.Array, ""]:
    r"""A lower bound of the entropy of every joint distribution with two given marginals.

    .. math:: H(X, Y) \ge H(p \wedge q), \qquad
              \sum_{i \le n} (p \wedge q)_i = \min \Big(\sum_{i \le n} p_{[i]},
              \sum_{i \le n} q_{[i]}\Big)

    where :math:`p_{[i]}` is the i-th largest probability: a joint distribution is less concentrated
    than either marginal, and so than the most concentrated distribution that is less than both.

    Args:
        p: probabilities of one variable, which sum to one.
        q: probabilities of the other.
        unit: "nats" or "bits".

    Returns:
        The bound: at least the entropy of ``p`` and that of ``q``, and at most 1 bit below the
        least entropy of a joint distribution.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit; outside of jit, for what is no probabilities.

    Source: Cicalese, Gargano and Vaccaro 2019, arXiv:1901.07530, the bound by the meet in the
    lattice of majorisation.

    >>> p, q = jnp.array([0.5, 0.5]), jnp.array([0.75, 0.25])
    >>> print(f"{coupling_entropy_bound(p, q, unit='bits'):.4f}")
    1.0000
    """
    dtype = accumulation_dtype(p, q)
    size = max(len(p), len(q))
    sums = [
        jnp.cumsum(
            jnp.sort(jnp.pad(as_probabilities(x, 1).astype(dtype), (0, size - len(x))))[::-1]
        )
        for x in (p, q)
    ]
    meet = jnp.diff(jnp.minimum(*sums), prepend=jnp.zeros(1, dtype))
    meet = jnp.maximum(meet, 0)
    return entropy(meet / jnp.sum(meet), unit=unit)


class EntropyBound(NamedTuple):
    """An upper bound of an entropy, and the error of the marginals where it was found.

    Attributes:
        entropy: no distribution with these marginals has more.
        infeasibility: sum of the absolute errors of the three marginals; the bound is the largest
            entropy itself where this is 0, and too high or without meaning where no distribution
            has these marginals.
    """

    entropy: Float[jax.Array, ""]
    infeasibility: Float[jax.Array, ""]


@checked
def largest_entropy(
    xy: Float[Array, "x y"],
    xz: Float[Array, "x z"],
    yz: Float[Array, "y z"],
    *,
    unit: str = "nats",
) -> EntropyBound:
    r"""The largest entropy of three discrete variables of which all pairs are known.

    .. math:: \max_r H(r) = \min_\lambda \Big[ \log \sum e^{\lambda_{xy} + \lambda_{xz} +
              \lambda_{yz}} - \langle p, \lambda \rangle \Big]

    By iterative proportional scaling. The dual is evaluated, which bounds the entropy wherever the
    scaling stops, and whose gradient is right at the optimum.

    Args:
        xy: joint probabilities of the first two, which sum to one; zeros are ordinary.
        xz: of the first and the third, with the same marginal of the first.
        yz: of the second and the third.
        unit: "nats" or "bits".

    Returns:
        The bound, and how far the scaling was from its end after at most 2,000 sweeps.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit; outside of jit, for what is no probabilities.

    Source: Deming and Stephan 1940, On a Least Squares Adjustment (the scaling); Csiszar 1975,
    I-Divergence Geometry, sec. 3 (that it maximises the entropy).

    >>> uniform = jnp.full((2, 2), 0.25)
    >>> print(f"{largest_entropy(uniform, uniform, uniform, unit='bits').entropy:.4f}")
    3.0000
    """
    dtype = accumulation_dtype(xy, xz, yz)
    wanted = tuple(
        jnp.expand_dims(as_probabilities(p, 2).astype(dtype), axis)
        for p, axis in ((xy, 2), (xz, 1), (yz, 0))
    )
    possible = jnp.all(jnp.stack(jnp.broadcast_arrays(*(p > 0 for p in wanted))), axis=0)
    multipliers, infeasibility = _scaled(jax.lax.stop_gradient(wanted), possible)
    multipliers = jax.lax.stop_gradient(multipliers)
    log_sum = jax.nn.logsumexp(sum(multipliers), where=possible)
    linear = jnp.sum(jnp.stack([jnp.sum(p * m) for p, m in zip(wanted, multipliers, strict=True)]))
    return EntropyBound(in_unit(log_sum - linear, unit), infeasibility)


def _scaled(wanted: tuple, possible: Float[jax.Array, "x y z"]) -> tuple[tuple, jax.Array]:
    """Logarithmic factors of the three marginals, and what is still wrong with these."""
    tolerance = 8 * jnp.finfo(wanted[0].dtype).eps

    def marginal(multipliers: tuple, axis: int) -> jax.Array:
        joint = jnp.where(possible, jnp.exp(sum(multipliers)), 0)
        return jnp.sum(joint, axis=axis, keepdims=True)

    def sweep(state: tuple) -> tuple:
        step, multipliers, _ = state
        for i, axis in SUMMED:
            found = marginal(multipliers, axis)
            reached = (wanted[i] > 0) & (found > 0)
            factor = jnp.where(reached, log_probabilities(wanted[i]) - log_probabilities(found), 0)
            multipliers = (*multipliers[:i], multipliers[i] + factor, *multipliers[i + 1 :])
        wrong = [jnp.sum(jnp.abs(marginal(multipliers, axis) - wanted[i])) for i, axis in SUMMED]
        return step + 1, multipliers, jnp.sum(jnp.stack(wrong))

    start = tuple(jnp.zeros_like(p) for p in wanted)
    first = (0, start, jnp.array(jnp.finfo(wanted[0].dtype).max, wanted[0].dtype))
    _, multipliers, wrong = jax.lax.while_loop(
        lambda state: (state[0] < SWEEPS) & (state[2] > tolerance), sweep, first
    )
    return multipliers, wrong
