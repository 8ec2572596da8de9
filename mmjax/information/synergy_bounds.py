"""Bounds of the synergy where sources and target have never been seen together.

Each source has labels, and both sources have been seen together, but not the labels of such pairs:
the joint distribution is known up to what no two variables tell.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.broja import broja
from mmjax.information.couplings import coupling_entropy_bound, greedy_coupling, largest_entropy
from mmjax.information.discrete import SLACK, entropy, log_probabilities, mutual_information
from mmjax.information.units import in_unit


class SynergyBounds(NamedTuple):
    """What pairs of variables say of the decomposition of all three.

    Attributes:
        redundancy: the redundancy, which follows from the pairs.
        unique_1: what is unique to the first source, likewise.
        unique_2: what is unique to the second source, likewise.
        by_redundancy: the synergy is at least this, and no bound from these pairs can say more:
            some joint distribution with them has no more synergy.
        by_disagreement: the synergy is at least this too, the source's other bound. It is never the
            larger one, and below 0 it says nothing.
        upper: the synergy is at most this.
        upper_greedy: the upper bound as the source has it, by a coupling found greedily, which is
            not sure to be one.
        infeasibility: 0 up to rounding, or how far from each other the marginals are. Where it is
            not small, no joint distribution has these pairs, and the bounds mean nothing.
    """

    redundancy: Float[jax.Array, ""]
    unique_1: Float[jax.Array, ""]
    unique_2: Float[jax.Array, ""]
    by_redundancy: Float[jax.Array, ""]
    by_disagreement: Float[jax.Array, ""]
    upper: Float[jax.Array, ""]
    upper_greedy: Float[jax.Array, ""]
    infeasibility: Float[jax.Array, ""]


@checked
def synergy_bounds(
    sources: Float[Array, "x1 x2"],
    first: Float[Array, "x1 y"],
    second: Float[Array, "x2 y"],
    *,
    unit: str = "nats",
) -> SynergyBounds:
    r"""Bounds of the synergy from unlabelled pairs and from labels of either source.

    .. math:: S &\ge R - I(X_1; X_2) + \min_r I_r(X_1; X_2 \mid Y) \\
              S &\ge - \operatorname{E} \log \sum_y \sqrt{p(y \mid x_1)\, p(y \mid x_2)}
                 - \tfrac12 (U_1 + U_2) \\
              S &\le H(X_1, X_2) + H(Y) - H(p_{12} \wedge p_y) - I_\cup, \quad
              S \le H(X_1 \mid X_2) - U_1, \quad S \le H(X_2 \mid X_1) - U_2

    where :math:`r` has all three given pairs, and the second expectation is over
    :math:`p(x_1, x_2)`.

    Args:
        sources: joint probabilities of both sources, such as of unlabelled pairs.
        first: joint probabilities of the first source and the target.
        second: joint probabilities of the second source and the target.
        unit: "nats" or "bits".

    Returns:
        The decomposition as far as it is known, and the bounds. All have gradients, except that
        ``upper`` and ``upper_greedy`` have kinks where probabilities change their order.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit; outside of jit, for what is no probabilities, and for pairs
            that disagree on a variable that they share.

    Source: Liang et al. 2023, arXiv:2306.04539, sec. 3. Three departures: disagreement is
    the Bhattacharyya distance of both posteriors, for which the bound holds with a constant of 1
    (of :math:`U_2 + S + U_1 + S`, the expected divergences of the whole posterior from either, no
    posterior has less), and half the sum of the unique parts stands for the larger one; the
    coupling of the upper bound is not approximated from above but bounded from below, so that the
    bound holds; and two bounds by what either source says beyond the other are added.

    >>> pair = jnp.full((2, 2), 0.25)  # such as of y = x1 xor x2
    >>> bounds = synergy_bounds(pair, pair, pair, unit="bits")
    >>> print(f"{abs(bounds.by_redundancy):.4f} {bounds.upper:.4f}")
    0.0000 1.0000
    """
    dtype = accumulation_dtype(sources, first, second)
    sources, first, second = (jnp.asarray(x).astype(dtype) for x in (sources, first, second))
    shared = {
        "the first source": (jnp.sum(sources, axis=1), jnp.sum(first, axis=1)),
        "the second source": (jnp.sum(sources, axis=0), jnp.sum(second, axis=1)),
        "the target": (jnp.sum(first, axis=0), jnp.sum(second, axis=0)),
    }
    _check_agreement(shared)
    target = jnp.sum(first, axis=0)
    together = entropy(sources.ravel())
    # Any joint distribution with these pairs: redundant and unique information are those of all.
    ratio = second / jnp.where(target > 0, target, 1)[None]
    parts = broja(first[:, None] * ratio[None])
    union = parts.redundancy + parts.unique_1 + parts.unique_2
    largest = largest_entropy(sources, first, second)
    conditional = (
        entropy(first.ravel()) + entropy(second.ravel()) - entropy(target) - largest.entropy
    )
    least_joint = together + entropy(target) - union
    upper = [
        least_joint - coupling_entropy_bound(sources.ravel(), target),
        together - entropy(jnp.sum(sources, axis=0)) - parts.unique_1,
        together - entropy(jnp.sum(sources, axis=1)) - parts.unique_2,
    ]
    nats = {
        "redundancy": parts.redundancy,
        "unique_1": parts.unique_1,
        "unique_2": parts.unique_2,
        "by_redundancy": parts.redundancy - mutual_information(sources) + conditional,
        "by_disagreement": _disagreement(sources, first, second)
        - (parts.unique_1 + parts.unique_2) / 2,
        "upper": jnp.min(jnp.stack(upper)),
        "upper_greedy": least_joint - entropy(greedy_coupling(sources.ravel(), target).ravel()),
    }
    apart = jnp.sum(jnp.stack([jnp.sum(jnp.abs(a - b)) for a, b in shared.values()]))
    wrong = jax.lax.stop_gradient(apart + largest.infeasibility + parts.infeasibility)
    found = {name: in_unit(value, unit) for name, value in nats.items()}
    return SynergyBounds(**found, infeasibility=wrong)


def _check_agreement(shared: dict[str, tuple[jax.Array, jax.Array]]) -> None:
    """Refuse pairs that disagree on a variable, where that can be seen."""
    for name, (one, other) in shared.items():
        if isinstance(one, jax.core.Tracer) or isinstance(other, jax.core.Tracer):
            return
        if np.any(np.abs(np.asarray(one) - np.asarray(other)) > SLACK):
            raise ValueError(
                f"both pairs with {name} must give it the same probabilities, got {one} and "
                f"{other}: estimate them from the same rows, or reweight one"
            )


def _disagreement(sources: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Expected Bhattacharyya distance of the two posteriors, nats."""
    roots = []
    for pair in (first, second):
        total = jnp.sum(pair, axis=1, keepdims=True)
        posterior = pair / jnp.where(total > 0, total, 1)
        roots.append(jnp.where(pair > 0, jnp.sqrt(jnp.where(pair > 0, posterior, 1)), 0))
    affinity = jnp.einsum("ay,by->ab", *roots, precision=jax.lax.Precision.HIGHEST)
    return -jnp.sum(sources * log_probabilities(affinity))
