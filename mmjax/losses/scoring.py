"""Scores of all rows against all columns, folded into statistics without ever being kept.

The columns pass by in blocks, and each block of scores is folded as it is made. The backward pass
lets them pass by once more and makes the scores anew, so that neither pass ever holds more of them
than a block: the memory of both is rows times block, not rows times columns.

Source: the backward pass from the final statistics is that of Rabe and Staats 2021,
arXiv:2112.05682, and of Dao et al. 2022, arXiv:2205.14135, for attention.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import accumulation_dtype
from mmjax.losses.blocks import Layout
from mmjax.losses.pairs import Matrices, Pairs, Side, relate
from mmjax.losses.statistics import Kind


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is folded, and how: all that is known before there are arrays.

    Attributes:
        kind: what the scores are folded into.
        layout: how the columns pass by.
        bfloat16: whether all rows came as bfloat16. Their products are then exact in float32, and
            blocks are made from rows that are as narrow as they came.
        columns_too: whether the columns fold the scores of their rows as well. That costs one
            product where two calls cost two, and one gathered side where two calls gather both.
        negatives_only: whether positives do not compete.
    """

    kind: Kind
    layout: Layout
    bfloat16: bool
    columns_too: bool = False
    negatives_only: bool = False


class Scored(NamedTuple):
    """Rows ``x [n, d]`` and columns ``y [m, d]``, whose logits are ``scale x y + bias``.

    All of it float32 or wider, so that gradients of all uses and of all shards are summed before
    they are rounded to what the rows came as.
    """

    x: jax.Array
    y: jax.Array
    scale: jax.Array
    bias: jax.Array


class Known(NamedTuple):
    """What is known of rows, columns and pairs: constants, all of it."""

    rows: Side
    columns: Side
    matrices: Matrices


def fold_scores(
    plan: Plan,
    x: Float[jax.Array, "n d"],
    y: Float[jax.Array, "m d"],
    known: Known,
    *,
    scale: jax.Array,
    bias: jax.Array | None = None,
) -> tuple[Any, Any]:
    """Fold the scores of all columns into statistics of the rows, and of the columns if wanted.

    Args:
        plan: what to fold.
        x: rows of this shard, finite, 0 where invalid, float32 or wider.
        y: columns of this shard, likewise.
        known: of ``x``, ``y`` and their pairs.
        scale: factor of the scores, ``()``.
        bias: summand of the scores, ``()``, 0 if None.

    Returns:
        Statistics of the ``n`` rows, and of the ``m`` columns of this shard (None if not wanted).
    """
    dtype = accumulation_dtype(x, y)
    # An empty sum of the rows: the scalars then vary over the mesh axes that the rows vary over,
    # and the sum over those axes in the backward pass is JAX's own.
    varying = jnp.sum(x[:0].astype(dtype)) + jnp.sum(y[:0].astype(dtype))
    bias = varying if bias is None else bias.astype(dtype) + varying
    scored = Scored(x.astype(dtype), y.astype(dtype), scale.astype(dtype) + varying, bias)
    # A single block may as well be kept: JAX differentiates it then, in forward mode too.
    run = _bounded if plan.layout.divides(len(y)) else _fold
    return run(plan, scored, known)


def _product(plan: Plan, subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    # Products of bfloat16 are exact at any precision, those of wider rows are not: a single pass
    # may lose 2**-10 (TF32) or 2**-8 (bfloat16) of a product that is then multiplied by up to 100.
    precision = jax.lax.Precision.DEFAULT if plan.bfloat16 else jax.lax.Precision.HIGHEST
    wide = accumulation_dtype(a, b)
    if a.dtype != b.dtype:
        a, b = a.astype(wide), b.astype(wide)
    return jnp.einsum(subscripts, a, b, precision=precision, preferred_element_type=wide)


def _block(plan: Plan, known: Known, columns: Side, first: Any, fresh: Any) -> Pairs:
    """What the pairs of a block count for."""
    width = len(columns.valid)
    matrices = jax.tree.map(
        lambda z: jax.lax.dynamic_slice_in_dim(z, first, width, axis=1), known.matrices
    )
    return relate(known.rows, columns, matrices, fresh, negatives_only=plan.negatives_only)


def _fold(plan: Plan, scored: Scored, known: Known) -> tuple[Any, Any]:
    kind, layout = plan.kind, plan.layout

    def visit(state, columns, passengers, first, fresh):
        y, side = columns
        logits = _product(plan, "nd,md->nm", scored.x, y) * scored.scale + scored.bias
        pairs = _block(plan, known, side, first, fresh)
        state = kind.fold(state, logits, pairs, axis=1)
        if plan.columns_too:
            passengers = kind.fold(passengers, logits, pairs, axis=0)
        return state, passengers

    def start(x):
        return kind.start(jnp.zeros_like(x[:, 0], scored.scale.dtype))

    waiting = start(scored.y) if plan.columns_too else None
    home = functools.partial(kind.home, layout=layout) if plan.columns_too else lambda none: none
    rows, columns = layout.sweep(visit, start(scored.x), (scored.y, known.columns), waiting, home)
    return kind.finish(rows), kind.finish(columns) if plan.columns_too else None


def _narrowed(plan: Plan, scored: Scored) -> Scored:
    """Rows as narrow as they came: what is gathered, and what the blocks are made from."""
    if not plan.bfloat16:
        return scored
    return scored._replace(x=scored.x.astype(jnp.bfloat16), y=scored.y.astype(jnp.bfloat16))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bounded(plan: Plan, scored: Scored, known: Known) -> tuple[Any, Any]:
    return _fold(plan, _narrowed(plan, scored), known)


def _bounded_forward(plan: Plan, scored: Scored, known: Known) -> tuple[Any, Any]:
    found = _bounded(plan, scored, known)
    return found, (_narrowed(plan, scored), known, found)


def _bounded_backward(plan: Plan, kept: Any, change: tuple[Any, Any]) -> tuple[Scored, None]:
    (x, y, scale, bias), known, (row_found, column_found) = kept
    row_change, column_change = change
    kind, wide = plan.kind, scale.dtype

    def visit(state, columns, dy, first, fresh):
        dx, dbias = state
        y, side, found, change = columns
        logits = _product(plan, "nd,md->nm", x, y) * scale + bias
        pairs = _block(plan, known, side, first, fresh)
        slope = kind.slope(row_found, row_change, logits, pairs, axis=1)
        if plan.columns_too:
            slope += kind.slope(found, change, logits, pairs, axis=0)
        dx += _product(plan, "nm,md->nd", slope, y)
        dy += _product(plan, "nm,nd->md", slope, x)
        return (dx, dbias + jnp.sum(slope, axis=1)), dy

    (dx, dbias), dy = plan.layout.sweep(
        visit,
        (jnp.zeros_like(x, wide), jnp.zeros_like(x[:, 0], wide)),
        (y, known.columns, column_found, column_change),
        jnp.zeros_like(y, wide),
        plan.layout.own_sums,
    )
    # The scores are linear in x: by Euler, the derivative by their scale needs no scores either.
    dscale = jnp.sum(x.astype(wide) * dx)
    return Scored(scale * dx, scale * dy, dscale, jnp.sum(dbias)), None


_bounded.defvjp(_bounded_forward, _bounded_backward)
