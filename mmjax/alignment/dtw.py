"""Dynamic time warping: the cheapest way to align two sequences without changing their order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from mmjax.alignment.antidiagonals import Lengths, Table, table_of
from mmjax.alignment.arithmetic import far
from mmjax.alignment.counts import Count
from mmjax.arrays import Array, checked


class Warping(NamedTuple):
    """The cheapest path through each table of costs.

    Attributes:
        cost: sum of the costs of its cells, one per row; ``inf`` where no path is possible.
        path: its cells ``(i, j)`` in order, -1 after the last one.
        steps: how many cells it has; 0 where no path is possible, and for two empty sequences.
    """

    cost: Float[jax.Array, "n"]
    path: Int[jax.Array, "n k 2"]
    steps: Int[jax.Array, "n"]


@checked
def dtw(
    cost: Float[Array, "n t s"], *, lengths: Lengths | None = None, band: Count | None = None
) -> Warping:
    r"""Least, over all monotone alignments of two sequences, of what an alignment costs.

    .. math:: \mathrm{dtw}(C) = \min_{A \in \mathcal A} \langle A, C \rangle = r_{t s}, \qquad
              r_{ij} = c_{ij} + \min(r_{i-1, j-1},\, r_{i-1, j},\, r_{i, j-1})

    where :math:`\mathcal A` holds the 0/1 matrices of the paths from the first cell to the last
    with steps down, right and across. Of equally cheap steps back, across comes first, then down.

    Args:
        cost: ``cost[r, i, j]`` is what it costs in row ``r`` to align step ``i`` of one sequence
            with step ``j`` of the other, see :func:`mmjax.alignment.squared_costs`; ``inf`` forbids
            it.
        lengths: of both sequences, one per row; the whole axes if None. Cells beyond them reach
            nothing, even where they hold NaN, and their gradient is 0.
        band: largest ``|i - j|`` of a cell that a path may visit, any if None.

    Returns:
        The cost in the unit of the costs, float32 or wider, and the path. The gradient of the cost
        is 1 on the path and 0 elsewhere: the one gradient where the cheapest path is the only one,
        and a subgradient of the negative where several tie. Two sequences of length 0 cost 0; where
        no path leads from the first cell to the last (one sequence is empty, the lengths differ by
        more than the band, too many cells are forbidden) the cost is ``inf``, with a gradient of 0.
        NaN gives NaN.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``band`` is negative or narrower than the difference of two whole axes, an
            axis is empty, or NumPy lengths do not fit the axes.

    Source: Sakoe and Chiba 1978, IEEE ASSP 26, sec. II, the symmetric form without slope
    constraint; a step across is weighed once, as the others are, and not twice.

    >>> warping = dtw(jnp.array([[[0.0, 1.0, 4.0], [1.0, 0.0, 1.0]]]))
    >>> print(warping.cost[0], warping.path[0, : warping.steps[0]].tolist())
    1.0 [[0, 0], [1, 1], [1, 2]]
    """
    table = table_of(jax.lax.stop_gradient(jnp.asarray(cost)), lengths, band)
    reached, back = _fill(table)
    path, steps = _trace(back, table, reached < far(table.diagonals.dtype) / 2)
    rows = jnp.arange(len(path))[:, None]
    on_path = path[:, :, 0] >= 0
    cells = jnp.where(on_path[..., None], path, 0)
    # Read anew, so that the gradient is the path itself.
    costs = jnp.where(on_path, jnp.asarray(cost)[rows, cells[..., 0], cells[..., 1]], 0)
    total = jnp.sum(costs.astype(reached.dtype), axis=1)
    total = jnp.where(reached >= far(reached.dtype) / 2, jnp.inf, total)
    total = jnp.where(jnp.isnan(reached), reached, total)
    return Warping(jnp.where(table.empty, 0, total), path, steps)


def _fill(table: Table) -> tuple[Float[jax.Array, "n"], Int[jax.Array, "k n t"]]:
    """Cost of the last cells, and for every cell which one it is best reached from."""
    limit = jnp.full_like(table.diagonals[0], far(table.diagonals.dtype))
    ends = jnp.where(jnp.all(table.last >= 0, axis=1), jnp.sum(table.last, axis=1), -1)

    def step(carry, now):
        before, previous, edge, found = carry
        k, cost = now
        across = jnp.concatenate([edge, before[:, :-1]], axis=1)
        down = jnp.concatenate([limit[:, :1], previous[:, :-1]], axis=1)
        reached = jnp.stack([across, down, previous])
        diagonal = jnp.minimum(cost + jnp.min(reached, axis=0), limit)
        here = jnp.take_along_axis(diagonal, table.last[:, :1], axis=1, mode="clip")[:, 0]
        found = jnp.where(ends == k, here, found)
        back = jnp.argmin(reached, axis=0).astype(jnp.int8)
        return (previous, diagonal, limit[:, :1], found), back

    start = (limit, limit, jnp.zeros_like(limit[:, :1]), limit[:, 0])
    numbered = jnp.arange(len(table.diagonals)), table.diagonals
    (*_, found), back = jax.lax.scan(step, start, numbered)
    return found, back


def _trace(
    back: Int[jax.Array, "k n t"], table: Table, possible: jax.Array
) -> tuple[Int[jax.Array, "n k 2"], Int[jax.Array, "n"]]:
    """Walk from the last cells to the first."""
    k, n, _ = back.shape
    moves = jnp.array([[-1, -1], [-1, 0], [0, -1]])  # across, down, right, undone

    def step(cell, _):
        i, j = cell[:, 0], cell[:, 1]
        going = i >= 0
        chosen = back[jnp.maximum(i + j, 0), jnp.arange(n), jnp.maximum(i, 0)]
        # From the first cell the way back is across, to (-1, -1), where it stays.
        return jnp.where(going[:, None], cell + moves[chosen], cell), cell

    start = jnp.where(possible[:, None], table.last, -1)
    _, reverse = jax.lax.scan(step, start, length=k)
    steps = jnp.sum(reverse[:, :, 0] >= 0, axis=0)
    order = steps[:, None] - 1 - jnp.arange(k)[None]
    path = jnp.take_along_axis(reverse.transpose(1, 0, 2), order[:, :, None], axis=1, mode="clip")
    return jnp.where((order >= 0)[:, :, None], path, -1), steps
