"""Scores of every local row against every global row: the ground that pairwise losses stand on."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, accumulation_dtype, checked


@dataclasses.dataclass(frozen=True)
class PairedRows:
    """Rows that are ready to be scored: zero where invalid, float32 or wider."""

    x: Float[jax.Array, "n d"]
    y: Float[jax.Array, "n d"]
    valid: Bool[jax.Array, "n"]
    precision: jax.lax.Precision  # that products of these rows need

    def swapped(self) -> "PairedRows":
        """Return the same pairs seen from the other side."""
        return dataclasses.replace(self, x=self.y, y=self.x)


class PairScores(NamedTuple):
    """The ``n`` local rows against the ``m`` rows of all shards (``m = n`` without shards)."""

    scores: Float[jax.Array, "n m"]  # inner products, 0 wherever a row is invalid
    positive: Bool[jax.Array, "n m"]  # True where the column is the row's own partner
    row_valid: Bool[jax.Array, "n"]
    column_valid: Bool[jax.Array, "m"]


@checked
def paired_rows(
    x: Float[Array, "n d"], y: Float[Array, "n d"], where: Bool[Array, "n"] | None = None
) -> PairedRows:
    r"""Mask rows and widen them, so that all that follows is exact and free of NaN.

    .. math:: x_i \leftarrow x_i \,[i \in V], \qquad y_i \leftarrow y_i \,[i \in V]

    Args:
        x: rows, float; ``x[i]`` is paired with ``y[i]``.
        y: rows, float.
        where: valid rows :math:`V`, all if None. What an invalid row holds, NaN included, reaches
            neither a score nor a gradient.

    Returns:
        The rows in float32 or wider, dimensionless, with their mask.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: no paper; the mask and the precision that every loss here promises.

    >>> x, where = jnp.array([[1.0], [jnp.nan]]), jnp.array([True, False])
    >>> print(paired_rows(x, x, where).y.T)
    [[1. 0.]]
    """
    # Products of bfloat16 are exact at any precision, those of wider rows are not: a single pass
    # may lose 2**-10 (TF32) or 2**-8 (bfloat16) of a product that is then multiplied by up to 100.
    exact_already = x.dtype == y.dtype == jnp.bfloat16
    precision = jax.lax.Precision.DEFAULT if exact_already else jax.lax.Precision.HIGHEST
    valid = jnp.ones(len(x), bool) if where is None else jnp.asarray(where)
    # Widen here, once: gradients of all uses, and of all shards, are then summed in float32.
    # Zero before the product: a mask applied after it would let NaN gradients through.
    dtype = accumulation_dtype(x, y)
    x, y = (jnp.where(valid[:, None], jnp.asarray(z).astype(dtype), 0) for z in (x, y))
    return PairedRows(x, y, valid, precision)


@checked
def pair_scores(rows: PairedRows, axis_name: AxisName | None = None) -> PairScores:
    r"""Score each row of ``x`` against all rows of ``y``, on every shard.

    .. math:: S_{ij} = x_i \cdot y_j

    Args:
        rows: from :func:`paired_rows`, the local ones.
        axis_name: mesh axis or axes that shard the rows. The columns are the ``y`` of all shards,
            in the order of the shards, and the positive of local row ``i`` is the global row
            ``axis_index * n + i``.

    Returns:
        The scores, dimensionless, with the masks of positives, valid rows and valid columns.

    Source: Radford et al. 2021, arXiv:2103.00020, sec. 2.5: each device scores only its own rows.

    >>> print(pair_scores(paired_rows(jnp.eye(2), 3 * jnp.eye(2))).scores)
    [[3. 0.]
     [0. 3.]]
    """
    columns, column_valid, first = rows.y, rows.valid, jnp.int32(0)
    if axis_name is not None:
        columns, column_valid = jax.lax.all_gather((rows.y, rows.valid), axis_name, tiled=True)
        first = jax.lax.axis_index(axis_name) * len(rows.x)
    scores = jnp.einsum("nd,md->nm", rows.x, columns, precision=rows.precision)
    row, column = (jnp.arange(len(z), dtype=jnp.int32) for z in (rows.x, columns))
    positive = (first + row)[:, None] == column[None]
    return PairScores(scores, positive, rows.valid, column_valid)
