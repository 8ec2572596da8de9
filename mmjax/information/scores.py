"""A matrix of scores read as two samples: the joint distribution, and the product of marginals."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.codes import as_conditions


class Scores(NamedTuple):
    """Scores of pairs that belong together, and of pairs that do not.

    Attributes:
        joint: of each row with its own column; 0 where the pair is invalid.
        all: of every row with every column; 0 where the pair is invalid.
        own: the valid pairs on the diagonal, a sample of the joint distribution.
        apart: the valid pairs off it, a sample of the product of marginals; none in a row whose own
            pair is invalid.
    """

    joint: Float[jax.Array, "n"]
    all: Float[jax.Array, "n m"]
    own: Bool[jax.Array, "n m"]
    apart: Bool[jax.Array, "n m"]

    @property
    def usable(self) -> Bool[jax.Array, "n"]:
        """Rows that are valid and have something to be compared with."""
        return jnp.any(self.own, axis=1) & jnp.any(self.apart, axis=1)

    def mean_apart(self, values: Float[jax.Array, "n m"]) -> Float[jax.Array, "n"]:
        """For each row, the mean of the values over the pairs that are apart; 0 without any."""
        count = jnp.sum(self.apart, axis=1, dtype=values.dtype)
        return jnp.sum(values, axis=1, where=self.apart) / jnp.maximum(count, 1)


def read_scores(scores: Array, where: Array | None) -> Scores:
    r"""Tell the joint sample of a matrix of scores from its sample of the product of marginals.

    .. math:: \{(i, i) : i \in V\} \sim p(x, y), \qquad
              \{(i, j) : i \ne j\} \sim p(x)\, p(y)

    Args:
        scores: ``scores[i, j]`` is what the critic says of :math:`(x_i, y_j)`; the first n columns
            are the partners of the rows, further ones are draws of :math:`y` without a partner.
        where: valid pairs, ``[n]`` or ``[n, m]``, all if None; see :func:`same_condition`.

    Returns:
        The scores in float32, or wider if they are, and which of them is what.

    Raises:
        ValueError: if there are fewer columns than rows.

    Source: Poole et al. 2019, arXiv:1905.06922, sec. 2.

    >>> print(read_scores(jnp.eye(3), jnp.array([True, True, False])).apart.astype(int))
    [[0 1 0]
     [1 0 0]
     [0 0 0]]
    """
    n, m = scores.shape
    if m < n:
        raise ValueError(
            f"scores must have a column for each row, its partner on the diagonal; got {n} rows "
            f"and {m} columns"
        )
    diagonal = jnp.eye(n, m, dtype=bool)
    if where is None:
        valid = jnp.ones((n, m), bool)
    elif where.ndim == 1:
        columns = jnp.concatenate([jnp.asarray(where), jnp.ones(m - n, bool)])
        valid = jnp.asarray(where)[:, None] & columns[None]
    else:
        valid = jnp.asarray(where)
    valid &= jnp.any(valid & diagonal, axis=1, keepdims=True)
    # Zero first: what a mask leaves out of a product or an exponential would still be NaN.
    clean = jnp.where(valid, jnp.asarray(scores).astype(accumulation_dtype(scores)), 0)
    joint = jnp.sum(clean, axis=1, where=diagonal)
    return Scores(joint, clean, valid & diagonal, valid & ~diagonal)


def log_mean_exp(
    values: Float[jax.Array, "*b m"], where: Bool[jax.Array, "*b m"]
) -> Float[jax.Array, "*b"]:
    r"""Logarithm of a mean of exponentials, :math:`\log \frac{1}{|V|} \sum_{j \in V} e^{v_j}`.

    Args:
        values: of any size: the largest is subtracted first.
        where: the values :math:`V` over which the mean runs.

    Returns:
        One value for each set; 0, with a gradient of 0, for an empty one.

    Source: no paper; the usual subtraction of the largest.

    >>> values = jnp.array([1000.0, 1000.0, jnp.nan])
    >>> print(log_mean_exp(values, jnp.array([True, True, False])))
    1000.0
    """
    some = jnp.any(where, axis=-1)
    lowest = jnp.finfo(values.dtype).min
    # What is left out goes to exp as the lowest number: 0, whose slope is 0, and no overflow.
    kept = jnp.where(where, values, lowest)
    peak = jnp.where(some, jax.lax.stop_gradient(jnp.max(kept, axis=-1)), 0)
    total = jnp.sum(jnp.exp(jnp.where(where, values - peak[..., None], lowest)), axis=-1)
    count = jnp.sum(where, axis=-1, dtype=values.dtype)
    return peak + jnp.log(jnp.where(some, total, 1) / jnp.maximum(count, 1))


@checked
def same_condition(
    condition: Integer[Array, "n"], *, where: Bool[Array, "n"] | None = None
) -> Bool[jax.Array, "n n"]:
    r"""Pairs that share a condition, for the ``where`` of a bound on a conditional information.

    .. math:: w_{ij} = [c_i = c_j]\,[i \in V]\,[j \in V]

    Among them the pairs off the diagonal are draws of :math:`p(x \mid c)\, p(y \mid c)`, so that
    every bound of a score matrix becomes one of :math:`I(X; Y \mid C)`. For a condition that is
    no label, draw several pairs for each of its values and call the bound under ``jax.vmap``.

    Args:
        condition: the label :math:`c` of each row.
        where: valid rows :math:`V`, all if None.

    Returns:
        The pairs, as a mask. A row whose condition no other row shares has nothing to be compared
        with: every bound gives it 0, and ``mask.sum(1) > 1`` leaves it out of a mean.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Liang et al. 2023 (FactorCL), arXiv:2306.05268, sec. 3, whose conditional bounds
    draw negatives given the label.

    >>> print(same_condition(jnp.array([0, 1, 0])).astype(int))
    [[1 0 1]
     [0 1 0]
     [1 0 1]]
    """
    labels = as_conditions(condition)
    valid = jnp.ones(len(condition), bool) if where is None else jnp.asarray(where)
    return (labels[:, None] == labels[None]) & valid[:, None] & valid[None]
