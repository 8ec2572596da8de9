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

    Without ``y`` the columns are the rows, and a pair counts for the same from both its sides. All
    of it float32 or wider, so that gradients of all uses and of all shards are summed before
    they are rounded to what the rows came as.
    """

    x: jax.Array
    y: jax.Array | None
    scale: jax.Array
    bias: jax.Array

    @property
    def columns(self) -> jax.Array:
        """What the rows are scored against."""
        return self.x if self.y is None else self.y


class Known(NamedTuple):
    """What is known of rows, columns and pairs: constants, all of it."""

    rows: Side
    columns: Side
    matrices: Matrices


def fold_scores(
    plan: Plan,
    x: Float[jax.Array, "n d"],
    y: Float[jax.Array, "m d"] | None,
    known: Known,
    *,
    scale: jax.Array,
    bias: jax.Array | None = None,
) -> tuple[Any, Any]:
    """Fold the scores of all columns into statistics of the rows, and of the columns if wanted.

    Args:
        plan: what to fold.
        x: rows of this shard, finite, 0 where invalid, float32 or wider.
        y: columns of this shard, likewise. None: the rows themselves, where a pair counts for the
            same from both its sides; that saves a product, and sends no gradients around.
        known: of ``x``, ``y`` and their pairs; without ``y``, no matrices.
        scale: factor of the scores, ``()``.
        bias: summand of the scores, ``()``, 0 if None.

    Returns:
        Statistics of the ``n`` rows, and of the ``m`` columns of this shard (None if not wanted).

    Source: see the head of this file.

    >>> from mmjax.losses.statistics import Competition
    >>> side = Side(jnp.ones(2, bool), group=jnp.arange(2))
    >>> plan = Plan(Competition(), Layout(None, 1, ring=False), bfloat16=False)
    >>> known = Known(side, side, Matrices())
    >>> found, _ = fold_scores(plan, jnp.eye(2), jnp.eye(2), known, scale=jnp.float32(1))
    >>> print(found.target, found.counted)
    [1. 1.] [2. 2.]
    """
    dtype = accumulation_dtype(x) if y is None else accumulation_dtype(x, y)
    x, y = x.astype(dtype), None if y is None else y.astype(dtype)
    # An empty sum of the rows: the scalars then vary over the mesh axes that the rows vary over,
    # and the sum over those axes in the backward pass is JAX's own.
    varying = jnp.sum(x[:0]) if y is None else jnp.sum(x[:0]) + jnp.sum(y[:0])
    bias = varying if bias is None else bias.astype(dtype) + varying
    scored = Scored(x, y, scale.astype(dtype) + varying, bias)
    # A single block may as well be kept: JAX differentiates it then, in forward mode too.
    run = _bounded if plan.layout.divides(len(scored.columns)) else _fold
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

    waiting = start(scored.columns) if plan.columns_too else None
    home = functools.partial(kind.home, layout=layout) if plan.columns_too else lambda none: none
    rows, columns = layout.sweep(
        visit, start(scored.x), (scored.columns, known.columns), waiting, home
    )
    return kind.finish(rows), kind.finish(columns) if plan.columns_too else None


def _narrowed(plan: Plan, scored: Scored) -> Scored:
    """Rows as narrow as they came: what is gathered, and what the blocks are made from."""
    if not plan.bfloat16:
        return scored
    y = None if scored.y is None else scored.y.astype(jnp.bfloat16)
    return scored._replace(x=scored.x.astype(jnp.bfloat16), y=y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bounded(plan: Plan, scored: Scored, known: Known) -> tuple[Any, Any]:
    return _fold(plan, _narrowed(plan, scored), known)


def _bounded_forward(plan: Plan, scored: Scored, known: Known) -> tuple[Any, Any]:
    found = _bounded(plan, scored, known)
    return found, (_narrowed(plan, scored), known, found)


def _bounded_backward(plan: Plan, kept: Any, change: tuple[Any, Any]) -> tuple[Scored, None]:
    scored, known, found = kept
    x, scale, kind, wide = scored.x, scored.scale, plan.kind, scored.scale.dtype
    # What the rows are to each other, each is to the other: the columns know it already.
    mirrored = scored.y is None
    row_found, row_change = found[0], change[0]
    of_columns = (row_found, row_change) if mirrored else (found[1], change[1])

    def visit(state, columns, dy, first, fresh):
        dx, dbias = state
        y, side, (column_found, column_change) = columns
        logits = _product(plan, "nd,md->nm", x, y) * scale + scored.bias
        pairs = _block(plan, known, side, first, fresh)
        slope = kind.slope(row_found, row_change, logits, pairs, axis=1)
        if mirrored or plan.columns_too:
            slope += kind.slope(column_found, column_change, logits, pairs, axis=0)
        dx += _product(plan, "nm,md->nd", slope, y)
        if not mirrored:
            dy += _product(plan, "nm,nd->md", slope, x)
        return (dx, dbias + jnp.sum(slope, axis=1)), dy

    (dx, dbias), dy = plan.layout.sweep(
        visit,
        (jnp.zeros_like(x, wide), jnp.zeros_like(x[:, 0], wide)),
        (scored.columns, known.columns, of_columns),
        None if mirrored else jnp.zeros_like(scored.y, wide),
        plan.layout.own_sums,
    )
    # The scores are linear in x: by Euler, the derivative by their scale needs no scores either.
    # Mirrored, each pair has been seen from both its sides.
    share = 0.5 if mirrored else 1.0
    dscale, dbias = share * jnp.sum(x.astype(wide) * dx), share * jnp.sum(dbias)
    return Scored(scale * dx, None if mirrored else scale * dy, dscale, dbias), None


_bounded.defvjp(_bounded_forward, _bounded_backward)
