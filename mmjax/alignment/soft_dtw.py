"""Soft dynamic time warping: a differentiable cost of the best ways to align two sequences."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mmjax.alignment.antidiagonals import Lengths, table_of
from mmjax.alignment.arithmetic import far
from mmjax.alignment.counts import Count
from mmjax.arrays import Array, Scalar, accumulation_dtype, as_scalar, checked


@checked
def soft_dtw(
    cost: Float[Array, "n t s"],
    *,
    gamma: Scalar,
    lengths: Lengths | None = None,
    band: Count | None = None,
) -> Float[jax.Array, "n"]:
    r"""Soft minimum, over all monotone alignments of two sequences, of what an alignment costs.

    .. math:: \mathrm{dtw}_\gamma(C) &= -\gamma \log \sum_{A \in \mathcal A}
                  e^{-\langle A, C \rangle / \gamma} = r_{t s} \\
              r_{ij} &= c_{ij} - \gamma \log \big( e^{-r_{i-1, j-1} / \gamma}
                  + e^{-r_{i-1, j} / \gamma} + e^{-r_{i, j-1} / \gamma} \big)

    where :math:`\mathcal A` holds the 0/1 matrices of the paths from the first cell to the last
    with steps down, right and across. The gradient with respect to the costs is the expected path
    :math:`E[A]` under :math:`p(A) \propto e^{-\langle A, C \rangle / \gamma}`. It has a rule of its
    own, which keeps the table and nothing else, and can be differentiated again; all that in
    reverse mode only: a Hessian is ``jax.jacrev(jax.grad(f))``, as ``jax.hessian`` goes forward.

    Args:
        cost: ``cost[r, i, j]`` is what it costs in row ``r`` to align step ``i`` of one sequence
            with step ``j`` of the other, see :func:`mmjax.alignment.squared_costs`; ``inf`` forbids
            it.
        gamma: :math:`\gamma > 0`, in the unit of the costs; towards 0 the value tends to that of
            :func:`mmjax.alignment.dtw`.
        lengths: of both sequences, one per row; the whole axes if None. Cells beyond them reach
            nothing, even where they hold NaN, and their gradient is 0.
        band: largest ``|i - j|`` of a cell that a path may visit, any if None. Paths are bounded by
            it, memory is not.

    Returns:
        One value per row, in the unit of the costs, float32 or wider; it may be negative, see
        :func:`soft_dtw_divergence`. Two sequences of length 0 cost 0. Where no path leads from the
        first cell to the last (one sequence is empty, the lengths differ by more than the band, too
        many cells are forbidden) the value is ``inf``, with a gradient of 0. NaN gives NaN.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``gamma`` is not positive and finite, ``band`` is negative
            or narrower than the difference of two whole axes, an axis is empty, or NumPy lengths do
            not fit the axes.

    Source: Cuturi and Blondel 2017, arXiv:1703.01541, algorithms 1 and 2, by antidiagonals instead
    of by cells.

    >>> cost = jnp.array([[[0.0, 1.0], [1.0, 0.0]]])
    >>> print(f"{soft_dtw(cost, gamma=0.01)[0]:.4f} {soft_dtw(cost, gamma=1.0)[0]:.4f}")
    0.0000 -0.5514
    """
    t, s = cost.shape[1:]
    if t > s:  # the shorter antidiagonal holds all of its cells
        cost, lengths = jnp.swapaxes(jnp.asarray(cost), 1, 2), lengths and lengths[::-1]
    table = table_of(cost, lengths, band)
    gamma = as_scalar("gamma", gamma, dtype=table.diagonals.dtype, positive=True)
    value, possible = _soft_minimum(table.diagonals, table.last, gamma)
    return jnp.where(table.empty, 0, jnp.where(possible, value, jnp.inf))


@checked
def soft_dtw_divergence(
    cost_xy: Float[Array, "n t s"],
    cost_xx: Float[Array, "n t t"],
    cost_yy: Float[Array, "n s s"],
    *,
    gamma: Scalar,
    lengths: Lengths | None = None,
    band: Count | None = None,
) -> Float[jax.Array, "n"]:
    r"""Soft dynamic time warping without its bias: 0 between equal sequences.

    .. math:: D_\gamma(x, y) = \mathrm{dtw}_\gamma(C_{xy})
              - \tfrac12 \mathrm{dtw}_\gamma(C_{xx}) - \tfrac12 \mathrm{dtw}_\gamma(C_{yy})

    Args:
        cost_xy: of aligning steps of ``x`` with steps of ``y``.
        cost_xx: of aligning ``x`` with itself.
        cost_yy: of aligning ``y`` with itself.
        gamma: :math:`\gamma > 0`, in the unit of the costs.
        lengths: of ``x`` and of ``y``, one per row; the whole axes if None.
        band: largest ``|i - j|`` of a cell that a path may visit, any if None.

    Returns:
        One value per row, in the unit of the costs, float32 or wider; ``inf`` where ``x`` and ``y``
        cannot be aligned, and 0 for two empty sequences, as :func:`soft_dtw`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: as :func:`soft_dtw`.

    Source: Blondel et al. 2021, arXiv:2010.08354, sec. 3.

    >>> x = jnp.array([[[0.0, 1.0], [1.0, 0.0]]])
    >>> print(f"{soft_dtw_divergence(x, x, x, gamma=1.0)[0]:.4f}")
    0.0000
    """
    both = soft_dtw(cost_xy, gamma=gamma, lengths=lengths, band=band)
    value = both
    for axis, own in enumerate((cost_xx, cost_yy)):
        sizes = None if lengths is None else (lengths[axis], lengths[axis])
        bias = soft_dtw(own, gamma=gamma, lengths=sizes, band=band)
        dtype = accumulation_dtype(value, bias)
        # An empty sequence aligns with itself; it is the other one that it does not align with.
        value = value.astype(dtype) - bias.astype(dtype) / 2
    return value


@jax.custom_vjp
def _soft_minimum(
    diagonals: Float[jax.Array, "k n t"], last: Int[jax.Array, "n 2"], gamma: Float[jax.Array, ""]
) -> tuple[Float[jax.Array, "n"], Bool[jax.Array, "n"]]:
    """Soft minimum in the last cell, 0 where no path leads there, and whether one does."""
    return _forward(diagonals, last, gamma)[0]


def _forward(diagonals, last, gamma):
    unit = _unit(gamma)
    table = _fill(diagonals, gamma, unit)
    found = _at(table, last)
    possible = ~(found >= far(diagonals.dtype) / 2)  # NaN is possible: it has to show
    value = unit * jnp.where(possible, found, 0)
    return (value, possible), (diagonals, last, gamma, table, value, possible)


def _backward(residuals, cotangents):
    diagonals, last, gamma, table, value, possible = residuals
    cotangent = jnp.where(possible, cotangents[0], 0)
    visits = _visits(table, diagonals, last, _unit(gamma) / gamma, cotangent)
    # The value is homogeneous of degree 1 in costs and gamma together: Euler's theorem.
    slope = (jnp.sum(cotangent * value) - jnp.sum(visits * diagonals)) / gamma
    return visits, None, slope


_soft_minimum.defvjp(_forward, _backward)


def _unit(gamma: Float[jax.Array, ""]) -> Float[jax.Array, ""]:
    """Unit of the table, a constant that no result depends on.

    Counted in a small gamma, costs would come near what stands for infinity; so would a large gamma
    counted in the unit of the costs.
    """
    return jax.lax.stop_gradient(jnp.maximum(gamma, 1))


def _fill(
    diagonals: Float[jax.Array, "k n t"], gamma: Float[jax.Array, ""], unit: Float[jax.Array, ""]
) -> Float[jax.Array, "k n t"]:
    """Soft minima of all cells, in that unit."""
    limit = jnp.full_like(diagonals[0], far(diagonals.dtype))
    smoothing, scale, rate = gamma / unit, 1 / unit, unit / gamma  # quotients cost more

    def step(carry, cost):
        across, right = carry
        # Moved by one, an antidiagonal is what lies above the next, and across from the one after.
        down = jnp.concatenate([limit[:, :1], right[:, :-1]], axis=1)
        least, shares = _shares(across, down, right, rate)
        cost = jnp.where(cost >= limit, limit, cost * scale)  # here, for no second table of costs
        found = jnp.minimum(cost + least - smoothing * jnp.log(sum(shares)), limit)
        return (down, found), found

    start = (limit.at[:, 0].set(0), limit)  # only the first cell begins from nothing
    return jax.lax.scan(step, start, diagonals)[1]


def _shares(
    across: Float[jax.Array, "n t"],
    down: Float[jax.Array, "n t"],
    right: Float[jax.Array, "n t"],
    rate: Float[jax.Array, ""],
) -> tuple[Float[jax.Array, "n t"], list[Float[jax.Array, "n t"]]]:
    """Least of the three cells before each, and what each of them weighs against it.

    The weights are ``exp(rate (least - r))``, of the cells (i - 1, j - 1), (i - 1, j), (i, j - 1).
    """
    least = jnp.minimum(jnp.minimum(across, down), right)
    return least, [jnp.exp(rate * (least - r)) for r in (across, down, right)]


def _at(table: Float[jax.Array, "k n t"], last: Int[jax.Array, "n 2"]) -> Float[jax.Array, "n"]:
    """Entries of the last cells; ``far`` for a cell that is not in the table."""
    k = jnp.where(jnp.all(last >= 0, axis=1), jnp.sum(last, axis=1), len(table))
    cells = table.at[k, jnp.arange(len(last)), last[:, 0]]
    return cells.get(mode="fill", fill_value=far(table.dtype))


def _visits(
    table: Float[jax.Array, "k n t"],
    place: Float[jax.Array, "k n t"],
    last: Int[jax.Array, "n 2"],
    rate: Float[jax.Array, ""],
    weight: Float[jax.Array, "n"],
) -> Float[jax.Array, "k n t"]:
    """Expected visits of every cell times a weight per row, from the last cell to the first.

    They overwrite ``place``, whatever it holds: a third table would be there all the time.
    """
    limit, none = far(table.dtype), jnp.zeros_like(table[0])
    ends, at_end = jnp.sum(last, axis=1), jnp.arange(table.shape[2])[None] == last[:, :1]

    def above(visits):
        return jnp.concatenate([visits[:, 1:], none[:, :1]], axis=1)

    def below(cells):
        return jnp.concatenate([none[:, :1] + limit, cells[:, :-1]], axis=1)

    def antidiagonal(k):
        found = jax.lax.dynamic_index_in_dim(table, k, keepdims=False)
        return jnp.where(k < 0, limit, found)

    def step(carry, k):
        place, from_across, from_later_across, from_next = carry
        ending = jnp.where(at_end & (ends == k)[:, None], weight[:, None], 0)
        visits = ending + from_across + from_next
        right = antidiagonal(k - 1)
        _, shares = _shares(below(antidiagonal(k - 2)), below(right), right, rate)
        part = visits / sum(shares)
        across, down, right = (part * share for share in shares)
        place = jax.lax.dynamic_update_index_in_dim(place, visits, k, axis=0)
        return (place, from_later_across, above(across), above(down) + right), None

    start = (place, none, none, none)
    return jax.lax.scan(step, start, jnp.arange(len(table)), reverse=True)[0][0]
