"""Mutual information of continuous samples from the distances to their nearest neighbours."""

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.units import in_unit

CHUNK_SIZE = 256  # rows whose distances to all others are in memory together


@checked
def ksg(
    x: Float[Array, "n d"],
    y: Float[Array, "n e"],
    *,
    neighbours: int = 3,
    estimator: int = 1,
    where: Bool[Array, "n"] | None = None,
    unit: str = "nats",
    chunk_size: int = CHUNK_SIZE,
) -> Float[jax.Array, "n"]:
    r"""Kraskov-Stoegbauer-Grassberger: local estimates whose mean is the mutual information.

    .. math:: v_i^{(1)} &= \psi(k) - \psi(n_{x, i} + 1) - \psi(n_{y, i} + 1) + \psi(N) \\
              v_i^{(2)} &= \psi(k) - 1/k - \psi(m_{x, i}) - \psi(m_{y, i}) + \psi(N)

    where :math:`n_x` counts the other rows nearer in x alone than the k-th neighbour is in
    :math:`(x, y)`, and :math:`m_x` those no farther in x than any of the k neighbours is. Distances
    are the largest difference of a feature. Consistent for densities; with few rows or many
    features it is too low, and it is nearly unbiased where X and Y are independent. The mean
    (:func:`mmjax.reduction.masked_mean`) may be below 0.

    Args:
        x: rows; ``x[i]`` is paired with ``y[i]``. Monotone changes of a feature leave the
            information as it is, and not the estimate: bring features to one scale.
        y: rows.
        neighbours: :math:`k`. More mean less variance and more bias.
        estimator: 1 or 2. The second has the smaller statistical error, and the larger bias in many
            dimensions.
        where: valid rows, all if None; :math:`N` is their number.
        unit: "nats" or "bits".
        chunk_size: rows whose distances are in memory together: chunk_size x n of them.

    Returns:
        One value per row; 0 for an invalid row, and for all if no more than k rows are valid. A
        constant, without gradient. A constant x or y gives exactly 0. All valid rows are NaN if one
        of them is not finite: nobody knows whose neighbour that is.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``neighbours`` is not between 1 and n - 1, ``estimator`` neither 1 nor 2,
            ``chunk_size`` below 1, or for another unit.

    Source: Kraskov et al. 2004, arXiv:cond-mat/0305641, eqs. 8 and 9. Two departures. Where the
    k-th neighbour is at distance 0,
    :math:`v_i = \psi(K_{xy}) - \psi(K_x) - \psi(K_y) + \psi(N)` with the numbers of rows equal to
    row i in both, in x and in y, itself among them, after Gao et al. 2017, arXiv:1709.06212,
    sec. 3: right for discrete values, and for mixtures of both. A constant gives 0, whatever eq. 9
    or ties in the other variable would make of it. Values that are rounded and yet many, such as
    integers, want a little noise to break their ties.

    >>> x = jnp.arange(6.0)[:, None]
    >>> print(f"{ksg(x, x, neighbours=1).mean():.4f} {ksg(x, 0 * x, neighbours=1).mean():.4f}")
    2.2833 0.0000
    """
    if not 1 <= neighbours < len(x):
        raise ValueError(
            f"neighbours must be between 1 and {len(x) - 1}, one less than the rows; got "
            f"{neighbours}"
        )
    if estimator not in (1, 2):
        raise ValueError(f"estimator must be 1 or 2, got {estimator}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    dtype = accumulation_dtype(x, y)
    valid = jnp.ones(len(x), bool) if where is None else jnp.asarray(where)
    known = jnp.all(jnp.stack([jnp.all(jnp.isfinite(z), axis=1) for z in (x, y)]), axis=0)
    x, y = (
        jax.lax.stop_gradient(jnp.where(valid[:, None], jnp.asarray(z).astype(dtype), 0))
        for z in (x, y)
    )
    number = jnp.arange(len(x))

    def terms(i: jax.Array) -> jax.Array:
        others = valid & (number != i)
        return _local_terms(_distances(x, i), _distances(y, i), others, neighbours, estimator)

    total = jnp.sum(valid, dtype=dtype)
    rows = jax.lax.map(terms, number, batch_size=min(chunk_size, len(x)))
    rows = jnp.where(jnp.all(known | ~valid), rows, jnp.nan)
    return in_unit(jnp.where(valid & (total > neighbours), rows, 0), unit)


def _distances(z: Float[jax.Array, "n d"], i: jax.Array) -> Float[jax.Array, "n"]:
    return jnp.max(jnp.abs(z - z[i][None]), axis=1)


def _local_terms(
    dx: Float[jax.Array, "n"],
    dy: Float[jax.Array, "n"],
    others: Bool[jax.Array, "n"],
    k: int,
    estimator: int,
) -> Float[jax.Array, ""]:
    """Local estimate of a valid row."""
    both = jnp.where(others, jnp.maximum(dx, dy), jnp.finfo(dx.dtype).max)
    nearest, index = jax.lax.top_k(-both, k)
    radius = -nearest[-1]

    def count(near: Bool[jax.Array, "n"]) -> Float[jax.Array, ""]:
        return jnp.sum(near & others, dtype=dx.dtype)

    if estimator == 1:
        regular = digamma(jnp.asarray(k, dx.dtype))
        regular -= digamma(count(dx < radius) + 1) + digamma(count(dy < radius) + 1)
    else:
        regular = digamma(jnp.asarray(k, dx.dtype)) - 1 / k
        sides = (count(z <= jnp.max(z[index])) for z in (dx, dy))
        regular -= sum(digamma(jnp.maximum(side, 1)) for side in sides)
    alike = digamma(count(both == 0) + 1)
    alike -= digamma(count(dx == 0) + 1) + digamma(count(dy == 0) + 1)
    constant = jnp.all((dx == 0) | ~others) | jnp.all((dy == 0) | ~others)
    number = digamma(jnp.sum(others, dtype=dx.dtype) + 1)
    return jnp.where(constant, 0, jnp.where(radius > 0, regular, alike) + number)
