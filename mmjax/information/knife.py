"""KNIFE: the density of continuous rows as a learned mixture, and with it their entropy."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked


class Knife(NamedTuple):
    """A mixture of Gaussians whose every part is learned.

    Attributes:
        logits: of the weights of the k components.
        means: of the components.
        log_scales: logarithms of the inverse widths of each feature.
        skew: how much of each feature goes into which later one; only entries below the diagonal
            are read.
    """

    logits: Float[jax.Array, "k"]
    means: Float[jax.Array, "k d"]
    log_scales: Float[jax.Array, "k d"]
    skew: Float[jax.Array, "k d d"]


@checked
def knife_init(
    x: Float[Array, "n d"],
    *,
    components: int,
    key: jax.Array,
    where: Bool[Array, "n"] | None = None,
) -> Knife:
    r"""A mixture to begin with: components at rows of the data, as wide as all of it.

    .. math:: \mu_m = x_{i_m}, \qquad \sigma_m = \operatorname{std}(x)

    Args:
        x: rows.
        components: their number :math:`k`.
        key: draws the rows :math:`i_m`, with replacement, of those that are valid.
        where: valid rows, all if None.

    Returns:
        The parameters, to be fitted by maximising the mean of :func:`knife_log_density`. A constant
        feature has a width of 1.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``components`` is below 1.

    Source: Pichler et al. 2022, arXiv:2202.06618, sec. 3, whose components begin at random.

    >>> knife_init(jnp.eye(3), components=2, key=jax.random.key(0)).means.shape
    (2, 3)
    """
    if components < 1:
        raise ValueError(f"components must be at least 1, got {components}")
    dtype = accumulation_dtype(x)
    valid = jnp.ones(len(x), bool) if where is None else jnp.asarray(where)
    x = jnp.where(valid[:, None], jnp.asarray(x).astype(dtype), 0)
    count = jnp.maximum(jnp.sum(valid, dtype=dtype), 1)
    mean = jnp.sum(x, axis=0, keepdims=True) / count
    variance = jnp.sum(jnp.where(valid[:, None], (x - mean) ** 2, 0), axis=0) / count
    # By its extremes: the mean of what is constant is rounded, and leaves a variance.
    most = jnp.finfo(dtype).max
    lowest = jnp.min(x, axis=0, where=valid[:, None], initial=most)
    varies = (variance > 0) & (jnp.max(x, axis=0, where=valid[:, None], initial=-most) > lowest)
    log_scales = -jnp.log(jnp.where(varies, variance, 1)) / 2
    # The highest of random numbers among the valid rows, once for each component.
    draws = jnp.where(valid[None], jax.random.uniform(key, (components, len(x))), -1)
    shape = (components, x.shape[1])
    return Knife(
        jnp.zeros(components, dtype),
        x[jnp.argmax(draws, axis=1)],
        jnp.broadcast_to(log_scales[None], shape),
        jnp.zeros((*shape, x.shape[1]), dtype),
    )


@checked
def knife_log_density(
    x: Float[Array, "n d"],
    knife: Knife,
    *,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Log-density of rows under a kernelised neural differential entropy estimator (KNIFE).

    .. math:: \log p(x) = \log \sum_m w_m \,
              \mathcal N\big(x; \mu_m, (A_m^\top A_m)^{-1}\big), \qquad
              A_m = (I + T_m) \operatorname{diag}(e^{s_m})

    with :math:`T_m` strictly lower triangular. The mean of :math:`-\log p(x)` is an upper bound of
    the differential entropy of X, for fresh rows, and what training minimises.

    Args:
        x: rows.
        knife: the mixture, of as many features.
        where: valid rows, all if None. The value and gradient of an invalid row are 0 even where it
            holds NaN.

    Returns:
        One value per row, in nats. Memory is n x k x d.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if the mixture is of another number of features.

    Source: Pichler et al. 2022, arXiv:2202.06618, sec. 3. The widths are not squeezed through a
    hyperbolic tangent, as the released code does.

    >>> x = jnp.zeros((1, 2))
    >>> knife = Knife(jnp.zeros(1), jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.zeros((1, 2, 2)))
    >>> print(knife_log_density(x, knife))
    [-1.837877]
    """
    d = x.shape[1]
    if knife.means.shape[1] != d:
        raise ValueError(f"the mixture has {knife.means.shape[1]} features, the rows have {d}")
    dtype = accumulation_dtype(x, *knife)
    logits, means, log_scales, skew = (jnp.asarray(z).astype(dtype) for z in knife)
    valid = jnp.ones(len(x), bool) if where is None else jnp.asarray(where)
    x = jnp.where(valid[:, None], jnp.asarray(x).astype(dtype), 0)
    deviations = (x[:, None] - means[None]) * jnp.exp(log_scales)[None]
    lower = jnp.tril(skew, -1)
    precision = jax.lax.Precision.HIGHEST
    deviations += jnp.einsum("kde,nke->nkd", lower, deviations, precision=precision)
    components = jax.nn.log_softmax(logits) + jnp.sum(log_scales, axis=1)
    exponents = components[None] - jnp.sum(deviations**2, axis=2) / 2
    rows = jax.nn.logsumexp(exponents, axis=1) - d * math.log(2 * math.pi) / 2
    return jnp.where(valid, rows, 0)
