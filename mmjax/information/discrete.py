"""Information of discrete variables, from their joint probabilities."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.units import in_unit

SLACK = 1e-5  # by which probabilities may miss a sum of 1; more if they are of few digits


@checked
def entropy(p: Float[Array, "*b k"], *, unit: str = "nats") -> Float[jax.Array, "*b"]:
    r"""Entropy of a discrete variable, :math:`H = -\sum_k p_k \log p_k`.

    Args:
        p: probabilities of the outcomes k, which sum to one; leading axes are a batch.
        unit: "nats" or "bits".

    Returns:
        The entropy. An impossible outcome adds nothing and has a gradient of 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit, or probabilities that are negative or do not sum to one;
            inside jit they are not looked at.

    Source: Shannon 1948, A Mathematical Theory of Communication, sec. 6.

    >>> print(f"{entropy(jnp.array([0.5, 0.25, 0.25, 0.0]), unit='bits'):.4f}")
    1.5000
    """
    p = as_probabilities(p, 1)
    return in_unit(-jnp.sum(p * log_probabilities(p), axis=-1), unit)


@checked
def mutual_information(p: Float[Array, "*b x y"], *, unit: str = "nats") -> Float[jax.Array, "*b"]:
    r"""Mutual information of two discrete variables.

    .. math:: I(X; Y) = \sum_{x, y} p_{xy} \log \frac{p_{xy}}{p_x\, p_y}

    Args:
        p: probabilities of the pairs, which sum to one; leading axes are a batch.
        unit: "nats" or "bits".

    Returns:
        The information; an impossible pair adds nothing and has a gradient of 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: as for :func:`entropy`.

    Source: Cover and Thomas 2006, Elements of Information Theory, eq. 2.28.

    >>> print(f"{mutual_information(jnp.eye(2) / 2, unit='bits'):.4f}")
    1.0000
    """
    p = as_probabilities(p, 2)
    marginals = sum(log_probabilities(p.sum(axis=axis, keepdims=True)) for axis in (-1, -2))
    return in_unit(jnp.sum(p * (log_probabilities(p) - marginals), axis=(-2, -1)), unit)


@checked
def conditional_mutual_information(
    p: Float[Array, "*b x y z"], *, unit: str = "nats"
) -> Float[jax.Array, "*b"]:
    r"""Mutual information of two discrete variables given a third.

    .. math:: I(X; Y \mid Z) = \sum_{x, y, z} p_{xyz} \log \frac{p_{xyz}\, p_z}{p_{xz}\, p_{yz}}

    Args:
        p: probabilities of the triples, which sum to one; leading axes are a batch.
        unit: "nats" or "bits".

    Returns:
        The information; an impossible triple adds nothing and has a gradient of 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: as for :func:`entropy`.

    Source: Cover and Thomas 2006, Elements of Information Theory, eq. 2.60.

    >>> xor = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]) / 4
    >>> print(f"{conditional_mutual_information(xor, unit='bits'):.4f}")
    1.0000
    """
    p = as_probabilities(p, 3)
    given = log_probabilities(p.sum(axis=(-3, -2), keepdims=True))
    halves = sum(log_probabilities(p.sum(axis=axis, keepdims=True)) for axis in (-3, -2))
    return in_unit(jnp.sum(p * (log_probabilities(p) + given - halves), axis=(-3, -2, -1)), unit)


@checked
def total_correlation(p: Float[Array, "*v"], *, unit: str = "nats") -> Float[jax.Array, ""]:
    r"""Total correlation: what any number of discrete variables say of each other.

    .. math:: T = \sum_i H(X_i) - H(X_1, \dots, X_k)
                = \sum p \log \frac{p}{\prod_i p_{x_i}}

    Args:
        p: joint probabilities, an axis for each variable, which sum to one. Use ``jax.vmap`` for a
            batch.
        unit: "nats" or "bits".

    Returns:
        The total correlation; an impossible outcome adds nothing and has a gradient of 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong dtype.
        ValueError: as for :func:`entropy`.

    Source: Watanabe 1960, Information Theoretical Analysis of Multivariate Correlation, eq. 5.

    >>> xor = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]) / 4
    >>> print(f"{total_correlation(xor, unit='bits'):.4f}")
    1.0000
    """
    p = as_probabilities(p, p.ndim)
    ratio = log_probabilities(p)
    for axis in range(p.ndim):
        others = tuple(i for i in range(p.ndim) if i != axis)
        ratio -= log_probabilities(p.sum(axis=others, keepdims=True))
    return in_unit(jnp.sum(p * ratio), unit)


@checked
def co_information(p: Float[Array, "*v"], *, unit: str = "nats") -> Float[jax.Array, ""]:
    r"""Co-information: what any number of discrete variables share, less what only they make.

    .. math:: C = -\sum_{S \subseteq \{1, \dots, k\}} (-1)^{|S|} H(X_S)

    For two variables it is their mutual information, for three
    :math:`I(X; Y) - I(X; Y \mid Z)`: redundancy less synergy.

    Args:
        p: joint probabilities, an axis for each variable, which sum to one. Use ``jax.vmap`` for a
            batch.
        unit: "nats" or "bits".

    Returns:
        The co-information, of either sign.

    Raises:
        jaxtyping.TypeCheckError: on a wrong dtype.
        ValueError: as for :func:`entropy`.

    Source: Bell 2003, The Co-Information Lattice, eq. 9 (McGill 1954 for three, with the sign of
    the mutual information).

    >>> xor = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]) / 4
    >>> print(f"{co_information(xor, unit='bits'):.4f}")
    -1.0000
    """
    p = as_probabilities(p, p.ndim)
    nats = jnp.zeros((), p.dtype)
    for size in range(1, p.ndim + 1):
        for kept in itertools.combinations(range(p.ndim), size):
            marginal = p.sum(axis=tuple(i for i in range(p.ndim) if i not in kept))
            nats += (-1) ** size * jnp.sum(marginal * log_probabilities(marginal))
    return in_unit(nats, unit)


def log_probabilities(p: Float[jax.Array, "*b"]) -> Float[jax.Array, "*b"]:
    r"""Logarithm of probabilities, to be multiplied by them: :math:`0 \log 0 = 0`.

    Args:
        p: probabilities.

    Returns:
        The logarithms in nats; 0, with a slope of 0, where the probability is 0.

    Source: Cover and Thomas 2006, Elements of Information Theory, sec. 2.1, the convention.

    >>> print(log_probabilities(jnp.array([1.0, 0.0])))
    [0. 0.]
    """
    return jnp.log(jnp.where(p > 0, p, 1))


def as_probabilities(p: Array, axes: int) -> jax.Array:
    r"""Probabilities over the last axes, :math:`p \ge 0, \sum p = 1`, refused where they are none.

    Args:
        p: what should be probabilities; the axes before are a batch.
        axes: how many there are of outcomes.

    Returns:
        The same in float32, or wider if they are; what has fewer digits is divided by its sum. What
        is 0 has a gradient of 0.

    Raises:
        ValueError: if one is negative or they do not sum to one; inside jit nothing is looked at.

    Source: no paper; the first two axioms of Kolmogorov.

    >>> as_probabilities(jnp.array([3.0, 1.0]), 1)
    Traceback (most recent call last):
        ...
    ValueError: probabilities must sum to one, got 4.0: divide counts by their sum
    """
    if not isinstance(p, jax.core.Tracer):
        total = np.sum(np.asarray(p, np.float64), axis=tuple(range(p.ndim - axes, p.ndim)))
        if not np.min(p, initial=0) >= 0:
            raise ValueError(f"probabilities must not be negative, got {np.min(p)}")
        if not np.all(np.abs(total - 1) <= slack(p, math.prod(p.shape[p.ndim - axes :]))):
            worst = total.flat[np.argmax(np.abs(total - 1))]
            raise ValueError(
                f"probabilities must sum to one, got {worst}: divide counts by their sum"
            )
    q = jnp.asarray(p).astype(accumulation_dtype(p))
    q = jnp.where(q == 0, 0, q)  # cuts the gradient
    if jnp.finfo(p.dtype).bits < 32:
        mass = jnp.sum(q, axis=range(q.ndim - axes, q.ndim), keepdims=True)
        q = q / jnp.where(mass > 0, mass, 1)
    return q


def slack(p: Array, outcomes: int) -> float:
    r"""By how much rounding may keep probabilities from a sum of 1, :math:`\epsilon \sqrt k`.

    Args:
        p: the probabilities, of which the dtype counts.
        outcomes: their number :math:`k`.

    Returns:
        The error of a sum that is no error of who made them, at least 1e-5.

    Source: no paper; errors of rounding that are independent of each other.

    >>> print(slack(jnp.ones(4, jnp.bfloat16), 4))
    0.015625
    """
    return max(SLACK, float(jnp.finfo(p.dtype).eps) * outcomes**0.5)
