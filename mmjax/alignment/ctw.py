"""Canonical time warping: align two sequences in time and in what they have features for."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mmjax.alignment.cca import cca
from mmjax.alignment.costs import squared_costs
from mmjax.alignment.counts import Count, as_count
from mmjax.alignment.dtw import dtw
from mmjax.alignment.views import Projection
from mmjax.arrays import Array, Scalar, accumulation_dtype, checked

Length = Int[Array, ""] | Count


class CTW(NamedTuple):
    """An alignment of two sequences in time and in space.

    Attributes:
        correlations: canonical correlations of the aligned steps, best first.
        x: projection of the first sequence.
        y: projection of the second sequence.
        path: aligned steps ``(i, j)`` in order, -1 after the last one.
        steps: how many cells the path has.
        distance: mean squared distance of the projected steps along the path.
        iterations: how many were made until the path stayed what it was.
    """

    correlations: Float[jax.Array, "k"]
    x: Projection
    y: Projection
    path: Int[jax.Array, "p 2"]
    steps: Int[jax.Array, ""]
    distance: Float[jax.Array, ""]
    iterations: Int[jax.Array, ""]


@checked
def ctw(
    x: Float[Array, "t d"],
    y: Float[Array, "s e"],
    *,
    components: Count,
    ridge: Scalar = 0.0,
    lengths: tuple[Length, Length] | None = None,
    band: Count | None = None,
    iterations: Count = 50,
) -> CTW:
    r"""Canonical time warping: projections and a warping path that are best for each other.

    .. math:: \min_{A, B, p} \sum_{(i, j) \in p} \lVert A^\top (x_i - \bar x) - B^\top (y_j - \bar
              y) \rVert^2 \quad \text{such that} \quad A^\top (\Sigma_{xx} + r I) A = B^\top
              (\Sigma_{yy} + r I) B = I

    with means and covariances along the path, by :func:`mmjax.alignment.cca` of the aligned steps
    and :func:`mmjax.alignment.dtw` of their projections in turn, until the path stays what it is.
    For many pairs of sequences use ``jax.vmap``.

    Args:
        x: steps of one sequence.
        y: steps of the other; they may have other features than ``x``.
        components: :math:`k`, between 1 and the smaller number of features.
        ridge: :math:`r`, not negative, in the squared unit of the features.
        lengths: how many steps of each are valid; all if None. Steps beyond reach nothing, even
            where they hold NaN, and their gradient is 0.
        band: largest ``|i - j|`` of aligned steps, any if None.
        iterations: bound on their number, at least 1.

    Returns:
        Projections, path and what they reach, float32 or wider. The end is a fixed point of both
        halves, no global optimum, unless ``iterations`` ran out. Gradients are those of the last
        analysis with its path as a constant. Where no path is possible (a sequence is empty, the
        lengths differ by more than the band) correlations are 0 and the distance is ``inf``, or 0
        for two empty sequences. NaN gives NaN, and no path.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``components`` or ``iterations`` is out of its range, a Python or NumPy
            ``ridge`` is negative or not finite, or as :func:`mmjax.alignment.dtw` for lengths and
            band.

    Source: Zhou and De la Torre 2009, NeurIPS, Canonical time warping, sec. 4. It
    starts from the alignment of uniform speed instead of from projections that are the identity, so
    that the sequences may have different features; the ridge is ours.

    >>> t = jnp.linspace(0.0, 1.0, 9)
    >>> curve = jnp.stack([jnp.cos(5 * t), jnp.sin(5 * t)], axis=1)
    >>> slower = jnp.repeat(curve, 2, axis=0) @ jnp.array([[0.0, 3.0], [1.0, 1.0]])
    >>> found = ctw(curve, slower, components=2)
    >>> print(f"{found.correlations[1]:.4f} {found.distance:.4f}")
    1.0000 0.0000
    """
    most = as_count("iterations", iterations)
    dtype = accumulation_dtype(x, y)
    given = (len(x), len(y)) if lengths is None else lengths
    sizes = tuple(jnp.asarray(size).astype(int) for size in given)
    each_x, each_y = (
        np.asarray(n)[None] if isinstance(n, int | np.integer | np.ndarray) else n[None]
        for n in given
    )
    x, y = (
        jnp.where(jnp.arange(len(z))[:, None] < size, jnp.asarray(z).astype(dtype), 0)
        for z, size in zip((x, y), sizes, strict=True)
    )

    def analyse(x, y, path):
        cells = jnp.maximum(path, 0)
        rows = x[cells[:, 0]], y[cells[:, 1]]
        return rows, cca(*rows, components=components, ridge=ridge, where=path[:, 0] >= 0)

    def warp(path):
        _, found = analyse(fixed_x, fixed_y, path)
        costs = squared_costs(found.x.project(fixed_x), found.y.project(fixed_y))
        warping = dtw(costs[None], lengths=None if lengths is None else (each_x, each_y), band=band)
        return warping.path[0], warping.cost[0]

    def step(state):
        path, _, _, made = state
        better, cost = warp(path)
        return better, cost, jnp.any(better != path), made + 1

    def unfinished(state):
        _, _, changed, made = state
        return changed & (made < most)

    fixed_x, fixed_y = jax.lax.stop_gradient((x, y))
    start = _uniform(sizes[0], sizes[1], len(x) + len(y) - 1)
    state = start, jnp.zeros((), dtype), jnp.array(True), jnp.zeros((), jnp.int32)
    path, cost, _, made = jax.lax.while_loop(unfinished, step, state)
    (first, second), found = analyse(x, y, path)
    valid = path[:, 0] >= 0
    steps = jnp.sum(valid)
    gaps = jnp.sum((found.x.project(first) - found.y.project(second)) ** 2, axis=1)
    distance = jnp.sum(jnp.where(valid, gaps, 0)) / jnp.maximum(steps, 1).astype(dtype)
    distance = jnp.where(jnp.isfinite(cost), distance, cost)
    # An analysis of no aligned steps would hide what they could not be aligned for.
    found = jax.tree.map(lambda z: jnp.where(jnp.isnan(cost), cost, z), found)
    return CTW(found.correlations, found.x, found.y, path, steps, distance, made)


def _uniform(t: jax.Array, s: jax.Array, cells: int) -> Int[jax.Array, "p 2"]:
    """Path of two sequences that go at a uniform speed each; empty if one of them is."""
    count = jnp.where((t > 0) & (s > 0), jnp.maximum(t, s), 0)
    k = jnp.arange(cells)
    both = jnp.stack([k * t, k * s], axis=1) // jnp.maximum(count, 1)
    return jnp.where((k < count)[:, None], both, -1)
