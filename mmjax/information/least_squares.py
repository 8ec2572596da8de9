r"""Density ratios by least squares: pointwise information without a likelihood or a network."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer

from mmjax.arrays import Array, Scalar, accumulation_dtype, as_scalar, checked


class DensityRatio(NamedTuple):
    r"""A sum of kernels that stands for :math:`\frac{p(x, y)}{p(x)\, p(y)}`.

    Attributes:
        weights: of the b kernels, of either sign.
        centres_x: where they sit in x.
        centres_y: where they sit in y.
        bandwidth_x: their width in x, in the unit of x.
        bandwidth_y: their width in y.
    """

    weights: Float[jax.Array, "b"]
    centres_x: Float[jax.Array, "b d"]
    centres_y: Float[jax.Array, "b e"]
    bandwidth_x: Float[jax.Array, ""]
    bandwidth_y: Float[jax.Array, ""]


@checked
def fit_density_ratio(
    x: Float[Array, "n d"],
    y: Float[Array, "n e"],
    *,
    centres: Integer[Array, "b"],
    bandwidth_x: Scalar,
    bandwidth_y: Scalar,
    regularization: Scalar,
    where: Bool[Array, "n"] | None = None,
) -> DensityRatio:
    r"""Fit the ratio of the joint density to the product of marginals, in closed form.

    .. math:: \hat\alpha &= (\hat H + \lambda I)^{-1} \hat h, \qquad
              \hat h_l = \frac1n \sum_i \phi_l(x_i, y_i), \qquad
              \hat H_{lm} = \frac1{n^2} \sum_{i, j} \phi_l(x_i, y_j)\, \phi_m(x_i, y_j) \\
              \phi_l(x, y) &= e^{-\lVert x - u_l \rVert^2 / 2 \sigma_x^2}\,
                              e^{-\lVert y - v_l \rVert^2 / 2 \sigma_y^2}

    The double sum is the elementwise product of two Gram matrices: time n b^2, memory n b. Choose
    the bandwidths and :math:`\lambda` by :func:`density_ratio_cost` on rows that did not fit.

    Args:
        x: rows; ``x[i]`` is paired with ``y[i]``.
        y: rows.
        centres: numbers of the rows :math:`(u_l, v_l)` where kernels sit, such as 100 random ones.
            One that is invalid gets no weight.
        bandwidth_x: :math:`\sigma_x > 0`, in the unit of x.
        bandwidth_y: :math:`\sigma_y > 0`, in the unit of y.
        regularization: :math:`\lambda > 0`; values near :math:`10^{-3}` to 1 are usual. One below
            the rounding of :math:`\hat H`, in float32 some :math:`10^{-6}` for each kernel, is
            raised to it.
        where: valid rows, all if None.

    Returns:
        The ratio, for :func:`density_ratio`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy bandwidth or ``regularization`` is not positive and finite;
            outside of jit, if a centre is no row.

    Source: Suzuki et al. 2009, BMC Bioinformatics 10(S1):S52, least-squares mutual information.

    >>> x = jnp.array([[0.0], [0.1], [5.0], [5.1]])
    >>> fit = fit_density_ratio(x, x, centres=jnp.arange(4), bandwidth_x=1.0, bandwidth_y=1.0,
    ...                         regularization=1e-3)
    >>> print(f"{density_ratio(fit, x, x).mean():.2f}")  # two clusters: the ratio is 2
    2.00
    """
    dtype = accumulation_dtype(x, y)
    scalars = {"bandwidth_x": bandwidth_x, "bandwidth_y": bandwidth_y}
    widths = [as_scalar(k, v, dtype=dtype, positive=True) for k, v in scalars.items()]
    ridge = as_scalar("regularization", regularization, dtype=dtype, positive=True)
    _check_centres(centres, len(x))
    valid = jnp.ones(len(x), bool) if where is None else jnp.asarray(where)
    x, y = (jnp.where(valid[:, None], jnp.asarray(z).astype(dtype), 0) for z in (x, y))
    centres = jnp.asarray(centres, jnp.int32)
    places = [z[centres] for z in (x, y)]
    usable = valid[:, None] & valid[centres][None]
    kernels = [
        jnp.where(usable, _kernels(z, u, width), 0)
        for z, u, width in zip((x, y), places, widths, strict=True)
    ]
    count = jnp.maximum(jnp.sum(valid, dtype=dtype), 1)
    gram = _gram(kernels[0]) * _gram(kernels[1]) / count**2
    target = jnp.sum(kernels[0] * kernels[1], axis=0) / count
    rounding = 8 * jnp.finfo(dtype).eps * jax.lax.stop_gradient(jnp.trace(gram))
    system = gram + jnp.maximum(ridge, rounding) * jnp.eye(len(target), dtype=dtype)
    weights = jax.scipy.linalg.solve(system, target, assume_a="pos")
    return DensityRatio(weights, *places, *widths)


@checked
def density_ratio(
    ratio: DensityRatio,
    x: Float[Array, "n d"],
    y: Float[Array, "n e"],
    *,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Estimated density ratio of each pair, whose logarithm is its pointwise information.

    .. math:: \hat w(x_i, y_i) = \max\Big(0, \sum_l \hat\alpha_l\, \phi_l(x_i, y_i)\Big)
              \approx \frac{p(x_i, y_i)}{p(x_i)\, p(y_i)}

    Args:
        ratio: of :func:`fit_density_ratio`.
        x: rows, which need not be those that fitted it.
        y: rows.
        where: valid rows, all if None. The value and gradient of an invalid row are 0 even where it
            holds NaN.

    Returns:
        One ratio per row, not negative; 0 far from all centres. Half of its mean less one half is
        the squared-loss mutual information of the source; the mean of its logarithm estimates the
        mutual information, in nats.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if the ratio is of other numbers of features.

    Source: Suzuki et al. 2009, BMC Bioinformatics 10(S1):S52. One departure: what falls below 0,
    where no ratio of densities is, is 0.

    >>> fit = DensityRatio(jnp.ones(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.ones(()),
    ...                    jnp.ones(()))
    >>> print(density_ratio(fit, jnp.zeros((1, 1)), jnp.zeros((1, 1))))
    [1.]
    """
    valid, kernels = _at(ratio, x, y, where)
    rows = jnp.sum(kernels[0] * kernels[1] * ratio.weights[None], axis=1)
    return jnp.where(valid, jnp.maximum(rows, 0), 0)


@checked
def density_ratio_cost(
    ratio: DensityRatio,
    x: Float[Array, "n d"],
    y: Float[Array, "n e"],
    *,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, ""]:
    r"""Squared error of an estimated ratio, up to a constant: what selects its options.

    .. math:: \hat J = \frac{1}{2 n^2} \sum_{i, j} \hat w(x_i, y_j)^2
                       - \frac1n \sum_i \hat w(x_i, y_i)

    with the sums of kernels as they are, below 0 too.

    Args:
        ratio: of :func:`fit_density_ratio`.
        x: rows that did not fit it.
        y: rows.
        where: valid rows, all if None.

    Returns:
        One value, the lower the better; 0 without valid rows.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if the ratio is of other numbers of features.

    Source: Suzuki et al. 2009, BMC Bioinformatics 10(S1):S52.

    >>> fit = DensityRatio(jnp.ones(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.ones(()),
    ...                    jnp.ones(()))
    >>> print(density_ratio_cost(fit, jnp.zeros((1, 1)), jnp.zeros((1, 1))))
    -0.5
    """
    valid, kernels = _at(ratio, x, y, where)
    count = jnp.maximum(jnp.sum(valid, dtype=kernels[0].dtype), 1)
    gram = _gram(kernels[0]) * _gram(kernels[1]) / count**2
    square = jnp.sum(gram * ratio.weights[:, None] * ratio.weights[None])
    return square / 2 - jnp.sum(kernels[0] * kernels[1] * ratio.weights[None]) / count


def _check_centres(centres: Array, n: int) -> None:
    """Refuse numbers that are no row's, where that can be seen: JAX would take the last row."""
    if isinstance(centres, jax.core.Tracer):
        return
    given = np.asarray(centres)
    wrong = (given < 0) | (given >= n)
    if wrong.any():
        raise ValueError(
            f"centres must be numbers of the {n} rows, from 0 to {n - 1}, got {given[wrong][0]}"
        )


def _at(
    ratio: DensityRatio, x: Array, y: Array, where: Array | None
) -> tuple[Bool[jax.Array, "n"], list[Float[jax.Array, "n b"]]]:
    """The valid rows, and the kernels at them."""
    fitted, given = ([z.shape[1] for z in pair] for pair in (ratio[1:3], (x, y)))
    if fitted != given:
        raise ValueError(
            f"the ratio was fitted to {fitted[0]} features of x and {fitted[1]} of y, "
            f"the rows have {given[0]} and {given[1]}"
        )
    dtype = ratio.weights.dtype
    valid = jnp.ones(len(x), bool) if where is None else jnp.asarray(where)
    x, y = (jnp.where(valid[:, None], jnp.asarray(z).astype(dtype), 0) for z in (x, y))
    kernels = [
        _kernels(x, ratio.centres_x, ratio.bandwidth_x),
        _kernels(y, ratio.centres_y, ratio.bandwidth_y),
    ]
    return valid, [jnp.where(valid[:, None], kernel, 0) for kernel in kernels]


def _kernels(
    z: Float[jax.Array, "n d"], centres: Float[jax.Array, "b d"], width: Float[jax.Array, ""]
) -> Float[jax.Array, "n b"]:
    z, centres = z / width, centres / width
    middle = jax.lax.stop_gradient(jnp.mean(centres, axis=0, keepdims=True))
    z, centres = z - middle, centres - middle
    products = jnp.einsum("nd,bd->nb", z, centres, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(z**2, axis=1)[:, None] + jnp.sum(centres**2, axis=1)[None]
    return jnp.exp(-jnp.maximum(squares - 2 * products, 0) / 2)


def _gram(kernels: Float[jax.Array, "n b"]) -> Float[jax.Array, "b b"]:
    return jnp.einsum("nb,nc->bc", kernels, kernels, precision=jax.lax.Precision.HIGHEST)
