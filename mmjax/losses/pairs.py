"""Rows made ready to be scored, and which of their pairs count for what."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mmjax.arrays import Array, AxisName, accumulation_dtype, checked


class Teacher(NamedTuple):
    """The same rows as another model sees them; its softmax over the columns is the target."""

    rows: Float[jax.Array, "n e"]  # finite; one of the two sides times the teacher's scale
    log_partition: Float[jax.Array, "n"]  # of its logits; that of the columns is not read


class Side(NamedTuple):
    """What is known of the rows, or of the columns, besides what they hold.

    Rows and columns of one group are positives of each other, unless a teacher says what is. Where
    rows and columns are the same ones they have an identity: nothing is compared with itself.
    """

    valid: Bool[jax.Array, "n"]
    group: Int[jax.Array, "n"] | None = None
    identity: Int[jax.Array, "n"] | None = None
    teacher: Teacher | None = None


class Pairs(NamedTuple):
    """What each pair of a block of scores counts for."""

    counted: Bool[jax.Array, "n m"]  # competes for the row, and for the column
    target: Bool[jax.Array, "n m"] | Float[jax.Array, "n m"]  # how much it is a positive
    weight: Float[jax.Array, "n m"] | None  # how often it competes, once if None


class Matrices(NamedTuple):
    """What a user says of single pairs: local rows by the columns of all shards."""

    targets: Bool[jax.Array, "n m"] | Float[jax.Array, "n m"] | None = None
    weights: Float[jax.Array, "n m"] | None = None


def relate(
    rows: Side,
    columns: Side,
    matrices: Matrices,
    fresh: Bool[jax.Array, "m"] | None,
    *,
    negatives_only: bool,
) -> Pairs:
    r"""Say what each pair of a block counts for.

    .. math:: c_{ij} = [i \in V][j \in V][i \text{ is not } j], \qquad t_{ij} = c_{ij}\, [g_i = g_j]

    Args:
        rows: of this shard.
        columns: of the block.
        matrices: the columns of the block only.
        fresh: columns that have not been seen before, all if None.
        negatives_only: whether positives do not compete.

    Returns:
        Masks and weights, False or 0 wherever a row or column is invalid.

    Source: no paper; what the losses of this folder have in common.

    >>> side = Side(jnp.array([True, True, False]), group=jnp.arange(3))
    >>> print(relate(side, side, Matrices(), None, negatives_only=True).counted.astype(int))
    [[0 1 0]
     [1 0 0]
     [0 0 0]]
    """
    usable = columns.valid if fresh is None else columns.valid & fresh
    counted = rows.valid[:, None] & usable[None]
    if rows.identity is not None and columns.identity is not None:
        counted &= rows.identity[:, None] != columns.identity[None]
    if matrices.targets is not None:
        target = jnp.where(counted, matrices.targets, jnp.zeros_like(matrices.targets))
    elif rows.teacher is not None and columns.teacher is not None:
        logits = jnp.einsum(
            "ne,me->nm",
            rows.teacher.rows,
            columns.teacher.rows,
            precision=jax.lax.Precision.HIGHEST,
        )
        lowest = jnp.finfo(logits.dtype).min
        target = jnp.exp(jnp.where(counted, logits - rows.teacher.log_partition[:, None], lowest))
    elif rows.group is not None and columns.group is not None:
        target = counted & (rows.group[:, None] == columns.group[None])
    else:
        target = jnp.zeros_like(counted)
    if negatives_only:
        counted &= ~(target if target.dtype == bool else target > 0)
    if matrices.weights is not None:
        counted &= matrices.weights > 0
    return Pairs(counted, target, matrices.weights)


@checked
def valid_mask(where: Bool[Array, "n"] | None, *rows: Float[Array, "n _"]) -> Bool[jax.Array, "n"]:
    r"""Mask of the valid rows, :math:`V`.

    Args:
        where: valid rows, all if None.
        rows: the arrays whose rows they are. Inside ``shard_map`` the mask varies over the mesh
            axes over which any of them does, and so does all that is masked by it.

    Returns:
        The mask as a JAX array.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: no paper; the masks that every loss here promises.

    >>> print(valid_mask(None, jnp.eye(2)))
    [ True  True]
    """
    valid = jnp.ones(len(rows[0]), bool) if where is None else jnp.asarray(where)
    for x in rows:
        valid &= jnp.all(jnp.ones_like(x, bool), axis=1)
    return valid


@checked
def masked_rows(x: Float[Array, "n d"], valid: Bool[Array, "n"]) -> Float[jax.Array, "n d"]:
    r"""Rows that are 0 where they are invalid, :math:`x_i \, [i \in V]`, ready to be summed.

    Args:
        x: rows, dimensionless.
        valid: the valid rows :math:`V`. What an invalid row holds, NaN included, reaches neither
            a score nor a gradient.

    Returns:
        The rows in float32, or wider if they are. Widened once, here: gradients of all uses, and
        of all shards, are summed before they are rounded to what the rows came as.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: no paper; the masks that every loss here promises.

    >>> print(masked_rows(jnp.array([[1.0], [jnp.nan]]), jnp.array([True, False])).T)
    [[1. 0.]]
    """
    # Zero before the product: a mask applied after it would let NaN gradients through.
    return jnp.where(valid[:, None], jnp.asarray(x).astype(accumulation_dtype(x)), 0)


def all_bfloat16(*rows: Array) -> bool:
    r"""Whether products of these rows are exact in float32 at any precision.

    Args:
        rows: arrays of any shape.

    Returns:
        True if all of them are bfloat16: a product of two has 16 significant bits of 24.

    Source: no paper; the formats of IEEE 754 and of bfloat16.

    >>> all_bfloat16(jnp.ones(2, jnp.bfloat16)), all_bfloat16(jnp.ones(2))
    (True, False)
    """
    return all(x.dtype == jnp.bfloat16 for x in rows)


def global_numbers(valid: Bool[jax.Array, "n"], axis_name: AxisName | None) -> jax.Array:
    r"""Numbers of this shard's rows among those of all shards.

    .. math:: \text{shard} \cdot n + i

    Args:
        valid: a mask of the rows, for their number.
        axis_name: mesh axis or axes that shard them.

    Returns:
        One number per row, int32, varying over the mesh axes that the mask varies over.

    Source: no paper; rows of all shards are in the order of the shards.

    >>> print(global_numbers(jnp.ones(3, bool), None))
    [0 1 2]
    """
    number = jnp.arange(len(valid), dtype=jnp.int32) + jnp.zeros_like(valid, jnp.int32)
    return number if axis_name is None else number + jax.lax.axis_index(axis_name) * len(valid)
