"""What measures of dependence have to know of kernel matrices: a few sums for each row."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.losses.gram import FeatureRows, row_sums
from mmjax.losses.kernels import Kernel
from mmjax.losses.samples import Sample, covariances


@dataclasses.dataclass(frozen=True)
class GramSums:
    r"""Sums over the kernel matrices :math:`K^x, K^y` of paired samples, by the names x and y.

    Attributes:
        sample: either sample, for its mask and its shards.
        products: by two names ``ab``, over all pairs of different rows, :math:`K^a_{ij} K^b_{ij}`.
        sums: by name, for each row of this shard, over the other rows, :math:`K_{ij}`.
        diagonal: by name, for each row of this shard, :math:`K_{ii}`.
        rounding: by name, what the centred matrix of a constant sample may have for a norm.
    """

    sample: Sample
    products: Mapping[str, Float[jax.Array, ""]]
    sums: Mapping[str, Float[jax.Array, "n"]]
    diagonal: Mapping[str, Float[jax.Array, "n"]]
    rounding: Mapping[str, Float[jax.Array, ""]]

    def biased(self, names: str) -> Float[jax.Array, ""]:
        r"""Return :math:`\operatorname{tr}(K^a H K^b H)`."""
        n, total = jnp.maximum(self.sample.count, 1), self.sample.total
        own, other = (self.diagonal[name] for name in names)
        products = self.products[names] + total(own * other)
        own, other = (self.diagonal[name] + self.sums[name] for name in names)
        return products - 2 * total(own * (other / n)) + (total(own) / n) * (total(other) / n)

    def unbiased(self, names: str) -> Float[jax.Array, ""]:
        r"""Return the same of U-centred matrices: :math:`n (n - 3)` times the unbiased estimate."""
        n, total = self.sample.count, self.sample.total
        less_one, less_two = (jnp.maximum(n - z, 1) for z in (1, 2))
        own, other = (self.sums[name] for name in names)
        means = (total(own) / less_one) * (total(other) / less_two)
        return self.products[names] + means - 2 * total(own * (other / less_two))


def gram_sums(
    samples: Mapping[str, Sample],
    kernels: Mapping[str, Kernel],
    wanted: Sequence[str],
    *,
    chunk_size: int,
) -> GramSums:
    r"""Sums over kernel matrices, of which only blocks are ever held.

    .. math:: \sum_{j \ne i} K^a_{ij} K^b_{ij}, \qquad \sum_{j \ne i} K^a_{ij}, \qquad K^a_{ii}

    Args:
        samples: by the names x and y, paired.
        kernels: by the same names. Their feature spaces are seen from the features of the mean row.
        wanted: which products, by two names each.
        chunk_size: columns of a block.

    Returns:
        The sums.

    Raises:
        ValueError: if ``chunk_size`` is below 1, or a kernel does not return one product per pair.

    Source: no paper; the terms of Song et al. 2012, JMLR 13, eq. 5.

    >>> from mmjax.losses.kernels import linear_kernel
    >>> x = Sample.of(jnp.array([[1.0], [2.0], [3.0]]), None, None, jnp.dtype("float32"))
    >>> sums = gram_sums({"x": x}, {"x": linear_kernel}, ("xx",), chunk_size=2)
    >>> print(sums.sums["x"], sums.diagonal["x"], sums.products["xx"])
    [-1.  0. -1.] [1. 0. 1.] 2.0
    """
    seen = {a: FeatureRows.of(kernels[a], z, z.mean()) for a, z in samples.items()}
    sample = next(iter(samples.values()))

    def block(columns: dict[str, tuple[jax.Array, jax.Array]]) -> tuple[dict, dict]:
        k = {a: seen[a].against(z) for a, z in columns.items()}
        return {ab: k[ab[0]] * k[ab[1]] for ab in wanted}, k

    values = {a: z.columns for a, z in seen.items()}
    found, sums = row_sums(block, sample, sample, values, chunk_size=chunk_size, others_only=True)
    diagonal = {a: z.lengths() for a, z in seen.items()}
    rounding = {}
    for a, z in seen.items():
        size = jnp.abs(z.base) * sample.count + sample.total(diagonal[a])
        rounding[a] = jax.lax.stop_gradient(32 * jnp.finfo(size.dtype).eps * size)
    return GramSums(
        sample, {ab: sample.total(z) for ab, z in found.items()}, sums, diagonal, rounding
    )


def feature_sums(samples: Mapping[str, Sample]) -> GramSums:
    r"""The same for linear kernels, out of the covariances of the features: no pairs at all.

    .. math:: \sum_{j \ne i} (x_i \cdot x_j) (y_i \cdot y_j)
              = \lVert X^\top Y \rVert_F^2 - \sum_i \lVert x_i \rVert^2 \lVert y_i \rVert^2

    The rows are centred, and divided by their largest entry.

    Args:
        samples: by the names x and y, paired.

    Returns:
        The sums, of rows without unit.

    Source: Kornblith et al. 2019, arXiv:1905.00414, sec. 3, the equality of dot products.

    >>> x = Sample.of(jnp.array([[1.0], [2.0], [3.0]]), None, None, jnp.dtype("float32"))
    >>> print(feature_sums({"x": x, "y": x}).products["xy"])
    2.0
    """
    scaled, sums, diagonal = {}, {}, {}
    for a, z in samples.items():
        centred = z.centred()
        size = jnp.max(centred.largest(jnp.abs(centred.rows)))
        scaled[a] = dataclasses.replace(centred, rows=centred.rows / jnp.where(size > 0, size, 1))
        diagonal[a] = jnp.sum(scaled[a].rows ** 2, axis=1)
        sums[a] = -diagonal[a]  # a centred row against all rows is nothing, itself included
    products = {
        a + b: jnp.sum(covariances(scaled[a], scaled[b]) ** 2)
        - scaled[a].total(diagonal[a] * diagonal[b])
        for a, b in ("xy", "xx", "yy")
    }
    # Centred rows of a constant sample are exactly 0.
    rounding = dict.fromkeys(samples, jnp.zeros((), scaled["x"].rows.dtype))
    return GramSums(scaled["x"], products, sums, diagonal, rounding)
