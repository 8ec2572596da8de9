"""Redundancy reduction: views agree while their features vary and say different things."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, Scalar, accumulation_dtype, as_scalar, checked
from mmjax.losses.samples import Sample, covariances

DEVIATION = 1.0  # gamma: the standard deviation up to which VICReg pushes
FLOOR = 1e-4  # epsilon: added to variances, so that the slope of their root is finite


@checked
def vicreg(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    invariance: Scalar = 25.0,
    variance: Scalar = 25.0,
    covariance: Scalar = 1.0,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, ""]:
    r"""Variance, invariance and covariance of two views of the whole batch.

    .. math:: \ell &= \lambda \frac{1}{|V| d} \sum_{i \in V} \lVert x_i - y_i \rVert^2
                   + \frac{\mu}{2} (v(x) + v(y)) + \nu (c(x) + c(y)) \\
              v(z) &= \frac1d \sum_j \max\!\big(0, 1 - \sqrt{C_{jj}(z) + 10^{-4}}\big), \qquad
              c(z) = \frac1d \sum_{j \ne k} C_{jk}(z)^2

    where :math:`C(z)` is the unbiased covariance matrix of the features over the valid rows. The
    value and every gradient equal the unsharded ones; with ``check_vma=False`` or ``pmap``,
    gradients taken inside have still to be averaged, ``jax.lax.pmean(grads, axis_name)``.

    Args:
        x: rows as the expander made them, not normalised; ``x[i]`` is paired with ``y[i]``.
        y: rows likewise.
        invariance: the weight :math:`\lambda`.
        variance: the weight :math:`\mu`.
        covariance: the weight :math:`\nu`.
        where: valid rows :math:`V`, all if None. An invalid row counts nowhere; its gradient is 0
            even where it holds NaN.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.

    Returns:
        One loss for the batch, dimensionless, float32 or wider, the same on every shard. Below two
        valid rows nothing can vary and only the invariance is left; it is 0 without valid rows.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy weight is not finite.

    Source: Bardes et al. 2022, arXiv:2105.04906, eqs. 1 to 6 with gamma = 1 and epsilon = 1e-4.
    Two departures, for the sake of which the published weights mean what they meant to the
    authors, whose released code has both: the invariance is a mean over the features (as in
    algorithm 1; eq. 5 sums them), and the variance terms are averaged (eq. 6 adds them).

    >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    >>> print(vicreg(x, x), vicreg(x, -x))
    0.0 100.0
    """
    dtype = accumulation_dtype(x, y)
    weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
    scalars = [as_scalar(name, value, dtype=dtype) for name, value in weights.items()]
    first, second = (Sample.of(z, where, axis_name, dtype) for z in (x, y))
    squares = jnp.mean((first.rows - second.rows) ** 2, axis=1)
    distance = first.total(squares) / jnp.maximum(first.count, 1)
    spreads, overlaps = zip(*(_variance_and_covariance(z) for z in (first, second)), strict=True)
    return scalars[0] * distance + scalars[1] * sum(spreads) / 2 + scalars[2] * sum(overlaps)


@checked
def barlow_twins(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    redundancy: Scalar = 5e-3,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, ""]:
    r"""How far the correlations between the features of two views are from the identity.

    .. math:: \ell = \sum_j (1 - C_{jj})^2 + \lambda \sum_{j \ne k} C_{jk}^2, \qquad
              C_{jk} = \frac{\sum_{i \in V} \tilde x_{ij} \tilde y_{ik}}
                            {\sqrt{\sum_{i \in V} \tilde x_{ij}^2}
                             \sqrt{\sum_{i \in V} \tilde y_{ik}^2}}

    where :math:`\tilde x, \tilde y` are the deviations from the mean over the valid rows. The
    value and every gradient equal the unsharded ones; with ``check_vma=False`` or ``pmap``,
    gradients taken inside have still to be averaged, ``jax.lax.pmean(grads, axis_name)``.

    Args:
        x: rows as the projector made them, of any scale; ``x[i]`` is paired with ``y[i]``.
        y: rows likewise.
        redundancy: the weight :math:`\lambda`.
        where: valid rows :math:`V`, all if None. An invalid row counts nowhere; its gradient is 0
            even where it holds NaN.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.

    Returns:
        One loss for the batch, dimensionless, float32 or wider, the same on every shard. A feature
        that is constant correlates with nothing: it costs 1, with a gradient of 0. Below two valid
        rows there are no correlations to judge, and the loss is 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``redundancy`` is not finite.

    Source: Zbontar et al. 2021, arXiv:2103.03230, eqs. 1 and 2. Nothing is added to the variances.

    >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    >>> print(barlow_twins(x, 3 * x), barlow_twins(x, -x))
    0.0 8.0
    """
    dtype = accumulation_dtype(x, y)
    weight = as_scalar("redundancy", redundancy, dtype=dtype)
    first, second = (Sample.of(z, where, axis_name, dtype).centred() for z in (x, y))
    correlations = covariances(first.unit_columns(), second.unit_columns())
    own = jnp.sum((1 - jnp.diagonal(correlations)) ** 2)
    return jnp.where(first.count > 1, own + weight * _off_diagonal_squares(correlations), 0)


def _variance_and_covariance(z: Sample) -> tuple[jax.Array, jax.Array]:
    """Mean hinge of the deviations and off-diagonal covariances over the features."""
    matrix = covariances(*[z.centred()] * 2) / jnp.maximum(z.count - 1, 1)
    deviation = jnp.sqrt(jnp.diagonal(matrix) + FLOOR)
    hinge = jnp.mean(jnp.maximum(DEVIATION - deviation, 0))
    return jnp.where(z.count > 1, hinge, 0), _off_diagonal_squares(matrix) / len(matrix)


def _off_diagonal_squares(matrix: Float[jax.Array, "d d"]) -> Float[jax.Array, ""]:
    return jnp.sum(matrix**2, where=~jnp.eye(len(matrix), dtype=bool))
