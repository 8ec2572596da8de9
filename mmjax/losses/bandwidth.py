"""The bandwidth that a Gaussian kernel starts with."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, UInt32

from mmjax.arrays import Array, AxisName, checked
from mmjax.losses.gram import row_sums
from mmjax.losses.kernels import squared_distances
from mmjax.losses.samples import Sample

MOST_ROWS = 92_682  # the pairs of one more would not fit into an unsigned 32-bit number


@checked
def median_bandwidth(
    x: Float[Array, "n d"],
    *,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int = 1024,
) -> Float[jax.Array, ""]:
    r"""Median distance of two rows: the usual first bandwidth of a Gaussian kernel.

    .. math:: h = \operatorname{median} \{ \lVert x_i - x_j \rVert : i < j \in V \}

    The median is found without a sort, by counting the distances below a threshold 31 times over,
    in blocks. That costs 31 products of all rows with all rows: better asked now and then than at
    every step. For a loss of two samples, concatenate them (and their masks) on each shard.

    Args:
        x: rows, at most 92,682 on all shards.
        where: valid rows :math:`V`, all if None.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.
        chunk_size: columns of a block; memory is the rows of this shard times so many.

    Returns:
        The bandwidth, float32, in the unit of the rows; a constant, without gradient. It is 1
        where the median is 0 or fewer than two rows are valid: a bandwidth has to be positive.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``chunk_size`` is below 1, or there are more rows than can be counted.

    Source: Gretton et al. 2012, JMLR 13, sec. 8. An even number of pairs has the mean of the two in
    the middle.

    >>> print(f"{median_bandwidth(jnp.array([[0.0], [1.0], [3.0]])):.4f}")
    2.0000
    """
    rows = len(x) * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    if rows > MOST_ROWS:
        raise ValueError(
            f"x must have at most {MOST_ROWS} rows on all shards, got {rows}: take a part of them"
        )
    sample = Sample.of(jax.lax.stop_gradient(x), where, axis_name, jnp.dtype(jnp.float32)).centred()
    # No entry above 1, so that no square overflows or vanishes.
    size = jnp.max(sample.largest(jnp.abs(sample.rows)))
    size = jnp.where(size > 0, size, 1)
    unit = Sample(sample.rows / size, sample.valid, axis_name)

    def pairs_within(thresholds: Float[jax.Array, "2"]) -> UInt32[jax.Array, "2"]:
        def within(columns: Float[jax.Array, "c d"]) -> list[jax.Array]:
            squares = squared_distances(unit.rows, columns)
            return [(squares <= threshold).astype(jnp.uint32) for threshold in thresholds]

        counts = row_sums(within, unit, unit, unit.rows, chunk_size=chunk_size, others_only=True)
        return jnp.stack([_half_total(unit, count) for count in counts])

    pairs = _half_total(unit, _other_rows(unit))
    nearest = _smallest(
        pairs_within, jnp.stack([(pairs + 1) // 2, pairs // 2 + 1]), 8.0 * x.shape[1]
    )
    median = jnp.mean(jnp.sqrt(nearest)) * size
    return jnp.where((pairs > 0) & (median > 0), median, 1)


def _other_rows(sample: Sample) -> UInt32[jax.Array, "n"]:
    """For each valid row, the number of other valid rows."""
    return jnp.where(sample.valid, sample.count.astype(jnp.uint32) - jnp.uint32(1), 0)


def _half_total(sample: Sample, counts: UInt32[jax.Array, "n"]) -> UInt32[jax.Array, ""]:
    """Half of the sum over all shards, though the sum itself may not fit: pairs have two ends."""
    halves, odd = (sample.across(jnp.sum(z, dtype=jnp.uint32)) for z in (counts // 2, counts % 2))
    return halves + odd // 2


def _smallest(
    count_within: Callable[[jax.Array], jax.Array], wanted: UInt32[jax.Array, "k"], highest: float
) -> Float[jax.Array, "k"]:
    """For each wanted count, the smallest float32 within which there are so many."""
    # Positive floats are in the order of their bits, so that halving ends at the very float.
    most = jax.lax.bitcast_convert_type(jnp.float32(highest), jnp.uint32)
    low, high = jnp.zeros_like(wanted), jnp.full_like(wanted, most)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = count_within(jax.lax.bitcast_convert_type(middle, jnp.float32)) >= wanted
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    return jax.lax.bitcast_convert_type(low, jnp.float32)
