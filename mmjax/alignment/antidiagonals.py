"""Tables that are filled cell by cell, turned so that all cells of a step stand side by side.

A cell of a warping table needs its neighbours above, to the left and across. Along an antidiagonal
none needs another, so that a scan over the antidiagonals fills a whole one at each step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.alignment.arithmetic import far
from mmjax.alignment.counts import Count
from mmjax.arrays import Array, accumulation_dtype, checked

Lengths = tuple[Int[Array, "n"], Int[Array, "n"]]


class Table(NamedTuple):
    """Costs of the cells that a path may visit, by antidiagonal, and where the path has to end."""

    diagonals: Float[jax.Array, "k n t"]  # entry (k, row, i) is cell (i, k - i); far if forbidden
    last: Int[jax.Array, "n 2"]  # the cell that a path ends in
    empty: Bool[jax.Array, "n"]  # both sequences have length 0


@checked
def table_of(cost: Float[Array, "n t s"], lengths: Lengths | None, band: Count | None) -> Table:
    r"""Lay out the cells that a warping path may visit.

    .. math:: \{(i, j) : i < t_r,\ j < s_r,\ |i - j| \le b,\ c_{ij} < \infty\}

    Args:
        cost: one table per row; what lies beyond the lengths, NaN included, reaches nothing.
        lengths: of both axes, one per row; the whole axes if None.
        band: :math:`b`, the Sakoe-Chiba band; all cells if None.

    Returns:
        The table, float32 or wider. NaN within the lengths stays NaN.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``band`` is negative, or narrower than the difference of two whole axes, an
            axis is empty, or NumPy lengths do not fit the axes.

    Source: Sakoe and Chiba 1978, IEEE ASSP 26 (their adjustment window); no paper for the layout.

    >>> table = table_of(jnp.array([[[1.0, 2.0], [3.0, 4.0]]]), None, 0)
    >>> print(table.diagonals[:, 0] < 1e9)
    [[ True False]
     [False False]
     [False  True]]
    """
    t, s = cost.shape[1:]
    if t == 0 or s == 0:
        raise ValueError(
            f"cost must have cells, got shape {cost.shape}: give an empty sequence as a length of 0"
        )
    if band is not None and (band < 0 or (lengths is None and abs(t - s) > band)):
        raise ValueError(
            f"band must be at least {abs(t - s) if lengths is None else 0}, or no path reaches the"
            f" last of {t} by {s} cells, got {band}"
        )
    ends = _ends(cost.shape, lengths)
    x, y = jnp.arange(t)[None, :, None], jnp.arange(s)[None, None]
    within = (x < ends[:, :1, None]) & (y < ends[:, 1:, None])
    if band is not None:
        within &= jnp.abs(x - y) <= int(band)
    dtype = accumulation_dtype(cost)
    cost = jnp.asarray(cost).astype(dtype)
    # Not isfinite: a NaN within the lengths is an error of the caller's, and has to show.
    allowed = within & ~(cost >= far(dtype))
    diagonals = skew(_allow(cost, allowed), far(dtype))
    return Table(diagonals, ends - 1, jnp.all(ends == 0, axis=1))


@jax.custom_vjp
def _allow(cost: Float[jax.Array, "n t s"], allowed: Bool[jax.Array, "n t s"]) -> jax.Array:
    return jnp.where(allowed, cost, far(cost.dtype))


# No path visits a forbidden cell, so that its gradient is 0 already: no mask has to be kept for it.
_allow.defvjp(
    lambda cost, allowed: (_allow(cost, allowed), None),
    lambda _, visits: (visits, None),
)


def _ends(shape: tuple[int, ...], lengths: Lengths | None) -> Int[jax.Array, "n 2"]:
    """Lengths of both axes side by side, those that can be seen to be wrong refused."""
    n, *sides = shape
    if lengths is None:
        return jnp.broadcast_to(jnp.array(sides)[None], (n, 2))
    for length, side in zip(lengths, sides, strict=True):
        if isinstance(length, np.ndarray) and n and not 0 <= length.min() <= length.max() <= side:
            raise ValueError(
                f"lengths must lie between 0 and the axis of {side}, got {length.min()} to"
                f" {length.max()}"
            )
    return jnp.stack([jnp.asarray(length).astype(int) for length in lengths], axis=1)


def skew(cells: Float[jax.Array, "n t s"], fill: float) -> Float[jax.Array, "k n t"]:
    """Shift row ``i`` of a table to the right by ``i``, so that antidiagonals become columns.

    Args:
        cells: one table per row.
        fill: what stands where an antidiagonal has left the table.

    Returns:
        The ``t + s - 1`` antidiagonals; entry ``(k, row, i)`` is ``cells[row, i, k - i]``.

    Source: no paper.

    >>> print(skew(jnp.array([[[1.0, 2.0], [3.0, 4.0]]]), 0.0)[:, 0])
    [[1. 0.]
     [2. 3.]
     [0. 4.]]
    """
    n, t, s = cells.shape
    # Rows that are t longer than the table and read as if they were one shorter: no gather.
    padded = jnp.pad(cells, ((0, 0), (0, 0), (0, t)), constant_values=fill)
    shifted = padded.reshape(n, t * (s + t))[:, : t * (s + t - 1)].reshape(n, t, s + t - 1)
    return shifted.transpose(2, 0, 1)


def unskew(diagonals: Float[jax.Array, "k n t"]) -> Float[jax.Array, "n t s"]:
    """Undo :func:`skew`.

    Args:
        diagonals: antidiagonals of tables of ``t`` by ``k + 1 - t``.

    Returns:
        The tables.

    Source: no paper.

    >>> cells = jnp.arange(6.0).reshape(1, 2, 3)
    >>> print(jnp.array_equal(unskew(skew(cells, 0.0)), cells))
    True
    """
    k, n, t = diagonals.shape
    flat = diagonals.transpose(1, 2, 0).reshape(n, t * k)
    return jnp.pad(flat, ((0, 0), (0, t))).reshape(n, t, k + 1)[:, :, : k + 1 - t]
