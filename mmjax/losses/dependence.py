"""Dependence of two samples that are paired: how much one says of the other."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, accumulation_dtype, checked
from mmjax.losses.gram_sums import feature_sums, gram_sums
from mmjax.losses.kernels import Kernel, linear_kernel
from mmjax.losses.samples import Sample, covariances, unit_length


@checked
def hsic(
    x: Float[Array, "n d"],
    y: Float[Array, "n e"],
    *,
    kernel_x: Kernel,
    kernel_y: Kernel,
    unbiased: bool = False,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int = 1024,
) -> Float[jax.Array, ""]:
    r"""Hilbert-Schmidt independence criterion: squared covariance of two feature spaces.

    .. math:: \mathrm{HSIC}_b &= \frac{\operatorname{tr}(K H L H)}{(n - 1)^2} \\
              \mathrm{HSIC}_u &= \frac{1}{n (n - 3)} \left[\operatorname{tr}(\tilde K \tilde L)
                + \frac{1^\top \tilde K 1 \; 1^\top \tilde L 1}{(n - 1)(n - 2)}
                - \frac{2}{n - 2} 1^\top \tilde K \tilde L 1 \right]

    where :math:`K, L` are the kernels of the :math:`n` valid rows of ``x`` and ``y``, :math:`H`
    takes the mean off, and :math:`\tilde K, \tilde L` have a diagonal of zeros. The value and every
    gradient, those of parameters in the kernels too, equal the unsharded ones; with
    ``check_vma=False`` or ``pmap``, gradients taken inside have still to be averaged,
    ``jax.lax.pmean(grads, axis_name)``.

    Args:
        x: rows; ``x[i]`` is paired with ``y[i]``.
        y: rows; they may have other features than ``x``.
        kernel_x: for ``x``, such as ``functools.partial(rbf_kernel, bandwidth=1.0)``; see
            :mod:`mmjax.losses.kernels`.
        kernel_y: for ``y``.
        unbiased: estimate without bias; the estimate of independent samples then spreads around 0
            on both sides.
        where: valid rows, all if None. An invalid row counts nowhere; its gradient is 0 even where
            it holds NaN.
        axis_name: mesh axis or axes that shard the rows; :math:`n` spans every shard.
        chunk_size: columns of a block. No pass holds more than some arrays of the rows of this
            shard times so many.

    Returns:
        One value for the batch, in the product of the units of the kernels, float32 or wider, the
        same on every shard: 0 if independent, to be minimised; negate it to maximise dependence. It
        is 0 for a constant side, and where there are fewer rows than the estimate needs (2, or 4 if
        ``unbiased``).

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``chunk_size`` is below 1, or a kernel does not return one product per pair.

    Source: Gretton et al. 2005, ALT, Measuring statistical dependence with Hilbert-Schmidt norms,
    eq. 9; unbiased: Song et al. 2012, JMLR 13, eq. 5.

    >>> x = jnp.array([[0.0], [1.0], [2.0], [3.0]])
    >>> linear = {"kernel_x": linear_kernel, "kernel_y": linear_kernel}
    >>> print(f"{hsic(x, 2 * x, **linear):.4f} {hsic(x, 0 * x, **linear):.4f}")
    11.1111 0.0000
    """
    samples = _samples(x, y, where, axis_name)
    grams = gram_sums(samples, {"x": kernel_x, "y": kernel_y}, ("xy",), chunk_size=chunk_size)
    n = samples["x"].count
    if unbiased:
        return jnp.where(n > 3, grams.unbiased("xy") / jnp.maximum(n * (n - 3), 1), 0)
    return grams.biased("xy") / jnp.maximum(n - 1, 1) ** 2


@checked
def cka(
    x: Float[Array, "n d"],
    y: Float[Array, "n e"],
    *,
    kernel_x: Kernel | None = None,
    kernel_y: Kernel | None = None,
    unbiased: bool = False,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int = 1024,
) -> Float[jax.Array, ""]:
    r"""Centred kernel alignment: a similarity of representations that may differ in width.

    .. math:: \mathrm{CKA} = \frac{\mathrm{HSIC}(x, y)}
                                  {\sqrt{\mathrm{HSIC}(x, x)\, \mathrm{HSIC}(y, y)}}

    It does not change if a linear kernel's rows are turned, or scaled as a whole. Linear, it is
    worked out from the covariances of the features, ``d`` by ``e``, and from no pairs of rows. The
    value and every gradient are exact under sharding where those of :func:`hsic` are, and under
    the same condition.

    Args:
        x: rows; ``x[i]`` is paired with ``y[i]``.
        y: rows; they may have other features than ``x``.
        kernel_x: for ``x``; linear if None.
        kernel_y: for ``y``; linear if None.
        unbiased: build it of unbiased estimates of HSIC, for batches that are not much larger than
            the features are many; without it, CKA of independent samples tends to 1 there.
        where: valid rows, all if None. An invalid row counts nowhere; its gradient is 0 even where
            it holds NaN.
        axis_name: mesh axis or axes that shard the rows.
        chunk_size: columns of a block, where one of the kernels is given: no pass holds more than
            some arrays of the rows of this shard times so many.

    Returns:
        One similarity for the batch, dimensionless, in [0, 1] (in [-1, 1] if ``unbiased``), float32
        or wider, the same on every shard. 1 is alike: as a loss, subtract it from 1. It is 0, with
        a gradient of 0, where a side is constant or there are fewer rows than the estimate needs
        (2, or 4 if ``unbiased``).

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``chunk_size`` is below 1, or a kernel does not return one product per pair.

    Source: Kornblith et al. 2019, arXiv:1905.00414, eqs. 3 to 5; unbiased: Nguyen et al. 2020,
    arXiv:2010.15327, eqs. 2 and 3, on one batch.

    >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    >>> print(f"{cka(x, 3 * x[:, ::-1]):.4f} {cka(x, x[:, :1]):.4f}")
    1.0000 0.7906
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    samples = _samples(x, y, where, axis_name)
    if kernel_x is None and kernel_y is None:
        sums = feature_sums(samples)
    else:
        kernels = {"x": kernel_x or linear_kernel, "y": kernel_y or linear_kernel}
        sums = gram_sums(samples, kernels, ("xy", "xx", "yy"), chunk_size=chunk_size)
    both, *each = (sums.unbiased(z) if unbiased else sums.biased(z) for z in ("xy", "xx", "yy"))
    defined = samples["x"].count > (3 if unbiased else 1)
    for side, name in zip(each, "xy", strict=True):
        varies = side > sums.rounding[name] ** 2
        both *= jax.lax.rsqrt(jnp.where(varies, side, 1))  # one by one: their product may overflow
        defined &= varies
    return jnp.where(defined, both, 0)


@checked
def orthogonality(
    x: Float[Array, "n d"],
    y: Float[Array, "n e"],
    *,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, ""]:
    r"""How much two representations of the same examples share: squared overlap of their features.

    .. math:: \ell = \Big\lVert \frac{1}{|V|} \sum_{i \in V} \hat x_i \hat y_i^\top
                    \Big\rVert_F^2, \qquad
              \hat z_i = \frac{z_i - \bar z}{\lVert z_i - \bar z \rVert}

    where :math:`\bar z` is the mean of the valid rows. The value and every gradient are exact under
    sharding where those of :func:`hsic` are, and under the same condition.

    Args:
        x: rows of any length, such as what a modality shares; ``x[i]`` is paired with ``y[i]``.
        y: rows of any length, such as what it keeps to itself.
        where: valid rows :math:`V`, all if None. An invalid row counts nowhere; its gradient is 0
            even where it holds NaN.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.

    Returns:
        One loss for the batch, dimensionless, in [0, 1], float32 or wider, the same on every shard.
        A row at the mean has no direction and counts as zeros, with a gradient of 0: the loss is 0
        for a constant side and for a single row.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Hazarika et al. 2020, arXiv:2005.03545, the difference loss. Two departures: it is
    divided by the squared number of rows, so that it does not grow with the batch (the released
    code divides by the number of entries of the matrix instead), and its gradient is the whole one
    (the released code takes the lengths for constants and adds 1e-6 to them).

    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    >>> y = jnp.array([[2.0], [2.0], [-2.0], [-2.0]])
    >>> print(orthogonality(x, x), orthogonality(x, y))
    1.0 0.0
    """
    first, second = (
        dataclasses.replace(z, rows=unit_length(z.rows))
        for z in (sample.centred() for sample in _samples(x, y, where, axis_name).values())
    )
    mean = covariances(first, second) / jnp.maximum(first.count, 1)
    return jnp.sum(mean**2)


def _samples(
    x: Array, y: Array, where: Array | None, axis_name: AxisName | None
) -> dict[str, Sample]:
    dtype = accumulation_dtype(x, y)
    return {name: Sample.of(z, where, axis_name, dtype) for name, z in (("x", x), ("y", y))}
