"""Discrepancy of two samples that need not be paired: how far their distributions are apart."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, Scalar, accumulation_dtype, as_scalar, checked
from mmjax.losses.gram import FeatureRows, row_sums
from mmjax.losses.kernels import Kernel
from mmjax.losses.samples import Sample


@checked
def mmd(
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    *,
    kernel: Kernel,
    unbiased: bool = False,
    where_x: Bool[Array, "n"] | None = None,
    where_y: Bool[Array, "m"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int = 1024,
) -> Float[jax.Array, ""]:
    r"""Squared maximum mean discrepancy: distance of the mean features of two samples.

    .. math:: \mathrm{MMD}_b^2 &= \frac{1}{n^2} \sum_{i, j} k(x_i, x_j)
                + \frac{1}{m^2} \sum_{i, j} k(y_i, y_j) - \frac{2}{n m} \sum_{i, j} k(x_i, y_j) \\
              \mathrm{MMD}_u^2 &= \frac{1}{n (n - 1)} \sum_{i \ne j} k(x_i, x_j)
                + \frac{1}{m (m - 1)} \sum_{i \ne j} k(y_i, y_j)
                - \frac{2}{n m} \sum_{i, j} k(x_i, y_j)

    over the :math:`n` and :math:`m` valid rows of all shards. The value and every gradient, those
    of parameters in the kernel too, equal the unsharded ones; with ``check_vma=False`` or ``pmap``,
    gradients taken inside have still to be averaged, ``jax.lax.pmean(grads, axis_name)``.

    Args:
        x: rows of one sample.
        y: rows of the other, in the same unit; there may be more or fewer, in any order.
        kernel: such as ``functools.partial(rbf_kernel, bandwidth=1.0)``; see
            :mod:`mmjax.losses.kernels`. A sum of kernels is a kernel.
        unbiased: estimate without bias; the estimate of equal distributions then spreads around 0
            on both sides.
        where_x: valid rows of ``x``, all if None. An invalid row counts nowhere; its gradient is 0
            even where it holds NaN.
        where_y: valid rows of ``y``, likewise.
        axis_name: mesh axis or axes that shard the rows of both.
        chunk_size: columns of a block. No pass holds more than some arrays of the rows of this
            shard times so many.

    Returns:
        One value for the batch, in the unit of the kernel, float32 or wider, the same on every
        shard; squared, because the root has no finite slope at 0. It is 0 where a sample has fewer
        valid rows than the estimate needs: 1, or 2 if ``unbiased``.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``chunk_size`` is below 1, or ``kernel`` does not return a product per pair.

    Source: Gretton et al. 2012, JMLR 13, eqs. 5 and 3.

    >>> import functools
    >>> from mmjax.losses.kernels import rbf_kernel
    >>> kernel = functools.partial(rbf_kernel, bandwidth=1.0)
    >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [0.0], [0.0], [1.0]])
    >>> print(f"{mmd(x, y, kernel=kernel):.4f} {mmd(x, y + 9, kernel=kernel):.4f}")
    0.0000 1.6065
    """
    dtype = accumulation_dtype(x, y)
    first, second = (
        Sample.of(z, where, axis_name, dtype) for z, where in ((x, where_x), (y, where_y))
    )
    rows = first.count + second.count
    middle = (first.total(first.rows) + second.total(second.rows)) / jnp.maximum(rows, 1)
    one, other = (FeatureRows.of(kernel, z, middle) for z in (first, second))
    within = sum(_mean_within(z, unbiased, chunk_size) for z in (one, other))
    sums = row_sums(
        one.against, first, second, other.columns, chunk_size=chunk_size, others_only=False
    )
    counts = [jnp.maximum(z.count, 1) for z in (first, second)]
    between = first.total(sums) / counts[0] / counts[1]
    needed = 2 if unbiased else 1
    enough = (first.count >= needed) & (second.count >= needed)
    return jnp.where(enough, within - 2 * between, 0)


@checked
def cmd(
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    *,
    interval: tuple[Scalar, Scalar],
    moments: int = 5,
    where_x: Bool[Array, "n"] | None = None,
    where_y: Bool[Array, "m"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, ""]:
    r"""Central moment discrepancy: distances of the means and of the higher central moments.

    .. math:: \mathrm{CMD}_K = \frac{\lVert \bar x - \bar y \rVert}{b - a}
                + \sum_{k=2}^K \frac{\lVert c_k(x) - c_k(y) \rVert}{(b - a)^k}, \qquad
              c_k(z)_j = \frac{1}{|V|} \sum_{i \in V} (z_{ij} - \bar z_j)^k

    The value and every gradient are exact under sharding where those of :func:`mmd` are, and under
    the same condition.

    Args:
        x: rows of one sample, within the interval.
        y: rows of the other, likewise; there may be more or fewer, in any order.
        interval: the bounds :math:`(a, b)` of every feature, in its unit: (0, 1) after a sigmoid,
            (-1, 1) after a hyperbolic tangent.
        moments: the number :math:`K \ge 1` of them.
        where_x: valid rows of ``x``, all if None. An invalid row counts nowhere; its gradient is 0
            even where it holds NaN.
        where_y: valid rows of ``y``, likewise.
        axis_name: mesh axis or axes that shard the rows of both.

    Returns:
        One value for the batch, dimensionless, float32 or wider, the same on every shard; 0 where a
        sample has no valid row. A distance of exactly 0 has a gradient of 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``moments`` is below 1, or a Python or NumPy bound is not finite or not above
            the other.

    Source: Zellinger et al. 2017, arXiv:1702.08811, def. 2.

    >>> x = jnp.array([[0.0], [1.0]])
    >>> print(cmd(x, x, interval=(0.0, 1.0)), cmd(x, x / 2, interval=(0.0, 1.0), moments=2))
    0.0 0.4375
    """
    if moments < 1:
        raise ValueError(f"moments must be at least 1, got {moments}")
    dtype = accumulation_dtype(x, y)
    width = _width(interval, dtype)
    samples = [Sample.of(z, where, axis_name, dtype) for z, where in ((x, where_x), (y, where_y))]
    enough = (samples[0].count > 0) & (samples[1].count > 0)
    distance = _length((samples[0].mean() - samples[1].mean()) / width)
    deviations = [z.centred().rows / width for z in samples]
    powers = deviations
    for _ in range(2, moments + 1):
        powers = [power * deviation for power, deviation in zip(powers, deviations, strict=True)]
        moment = [
            z.total(power) / jnp.maximum(z.count, 1)
            for z, power in zip(samples, powers, strict=True)
        ]
        distance += _length(moment[0] - moment[1])
    return jnp.where(enough, distance, 0)


def _mean_within(rows: FeatureRows, unbiased: bool, chunk_size: int) -> Float[jax.Array, ""]:
    """Mean product of the rows of a sample with each other, and with themselves if biased."""
    sample, n = rows.sample, rows.sample.count
    sums = row_sums(
        rows.against, sample, sample, rows.columns, chunk_size=chunk_size, others_only=True
    )
    if unbiased:
        return sample.total(sums) / jnp.maximum(n, 1) / jnp.maximum(n - 1, 1)
    return sample.total(sums + rows.lengths()) / jnp.maximum(n, 1) / jnp.maximum(n, 1)


def _width(interval: tuple[Scalar, Scalar], dtype: jnp.dtype) -> Float[jax.Array, ""]:
    low, high = interval
    known = not any(isinstance(bound, jax.Array) for bound in interval)
    bounds = [as_scalar("interval", bound, dtype=dtype) for bound in interval]
    if known and not float(low) < float(high):
        raise ValueError(f"interval must go from its lower to its upper bound, got {interval}")
    return bounds[1] - bounds[0]


def _length(vector: Float[jax.Array, "d"]) -> Float[jax.Array, ""]:
    """Euclidean length; the gradient of one that is 0 is 0."""
    squares = jnp.sum(vector**2)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
