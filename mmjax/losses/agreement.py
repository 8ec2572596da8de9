"""Agreement of paired rows, without negatives: nothing here keeps rows from all being the same."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.losses.gram import own_products
from mmjax.losses.kernels import Kernel
from mmjax.losses.samples import Sample, unit_length


@checked
def cosine_alignment(
    x: Float[Array, "n d"], y: Float[Array, "n d"], *, where: Bool[Array, "n"] | None = None
) -> Float[jax.Array, "n"]:
    r"""One minus the cosine of the angle between paired rows.

    .. math:: \ell_i = 1 - \frac{x_i \cdot y_i}{\lVert x_i \rVert \lVert y_i \rVert}

    Rows are taken by themselves, so that nothing has to be said of shards.

    Args:
        x: rows of any length; ``x[i]`` is paired with ``y[i]``.
        y: rows of any length.
        where: valid rows, all if None. The loss and gradient of an invalid row are 0 even where it
            holds NaN.

    Returns:
        One loss per row, dimensionless, in [0, 2], float32 or wider. A row of zeros has no
        direction: its pair costs 1 and has a gradient of 0. Reduce with
        :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Chen and He 2020, arXiv:2011.10566, eq. 1, which leaves out the 1; the stopped gradient
    of its eq. 3 is ``cosine_alignment(p, jax.lax.stop_gradient(z))``.

    >>> x, y = jnp.array([[2.0, 0.0], [1.0, 0.0]]), jnp.array([[5.0, 0.0], [0.0, 3.0]])
    >>> print(cosine_alignment(x, y))
    [0. 1.]
    """
    x, y, valid = _paired(x, y, where)
    x, y = unit_length(x), unit_length(y)
    defined = jnp.any(x != 0, axis=1) & jnp.any(y != 0, axis=1)
    # Half the squared chord: 1 minus a cosine near 1 would have nothing left but rounding.
    cost = jnp.where(defined, jnp.sum((x - y) ** 2, axis=1) / 2, 1)
    return jnp.where(valid, cost, 0)


@checked
def mean_squared_alignment(
    x: Float[Array, "n d"], y: Float[Array, "n d"], *, where: Bool[Array, "n"] | None = None
) -> Float[jax.Array, "n"]:
    r"""Mean over the features of the squared difference of paired rows.

    .. math:: \ell_i = \frac1d \lVert x_i - y_i \rVert^2

    Rows are taken by themselves, so that nothing has to be said of shards.

    Args:
        x: rows; ``x[i]`` is paired with ``y[i]``.
        y: rows, in the same unit.
        where: valid rows, all if None. The loss and gradient of an invalid row are 0 even where it
            holds NaN.

    Returns:
        One loss per row, in the squared unit of the rows, float32 or wider. Reduce with
        :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Bardes et al. 2022, arXiv:2105.04906, algorithm 1; its eq. 5 is ``d`` times as much.
    With unit rows it is the alignment of Wang and Isola 2020, arXiv:2005.10242, sec. 4.1.1 (with
    exponent 2), over ``d``.

    >>> print(mean_squared_alignment(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]])))
    [2.]
    """
    x, y, valid = _paired(x, y, where)
    return jnp.where(valid, jnp.mean((x - y) ** 2, axis=1), 0)


@checked
def kernel_alignment(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    kernel: Kernel,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Squared distance of paired rows in the feature space of a kernel.

    .. math:: \ell_i = \lVert \phi(x_i) - \phi(y_i) \rVert^2
                     = k(x_i, x_i) - 2 k(x_i, y_i) + k(y_i, y_i)

    Rows are taken by themselves, so that nothing has to be said of shards.

    Args:
        x: rows; ``x[i]`` is paired with ``y[i]``.
        y: rows, in the same unit.
        kernel: such as ``functools.partial(rbf_kernel, bandwidth=0.5)``, with which no pair costs
            more than 2 and one that is far apart is not pulled; see :mod:`mmjax.losses.kernels`.
        where: valid rows, all if None. The loss and gradient of an invalid row are 0 even where it
            holds NaN.

    Returns:
        One loss per row, in the unit of the kernel, float32 or wider; it may lie below 0 by a
        rounding. Reduce with :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``kernel`` does not return one product per pair.

    Source: Schoelkopf and Smola 2002, Learning with Kernels, sec. 2.2, the distance that a kernel
    induces.

    >>> from mmjax.losses.kernels import linear_kernel
    >>> x, y = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]])
    >>> print(kernel_alignment(x, y, kernel=linear_kernel))
    [4.]
    """
    x, y, valid = _paired(x, y, where)
    distance = own_products(kernel, x, x) - 2 * own_products(kernel, x, y)
    return jnp.where(valid, distance + own_products(kernel, y, y), 0)


def _paired(x: Array, y: Array, where: Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rows that are widened and blanked, and their mask."""
    dtype = accumulation_dtype(x, y)
    samples = [Sample.of(z, where, None, dtype) for z in (x, y)]
    return samples[0].rows, samples[1].rows, samples[0].valid
