"""Objectives of deep canonical correlation: train encoders until their outputs correlate."""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.alignment.arithmetic import exact_einsum
from mmjax.alignment.counts import Count
from mmjax.alignment.spectra import eigenvalue_sum, singular_value_sum
from mmjax.alignment.views import (
    View,
    as_components,
    as_ridge,
    masks_of,
    whitened_views,
)
from mmjax.arrays import Array, AxisName, Scalar, checked


@checked
def dcca_loss(
    x: Float[Array, "n d"],
    y: Float[Array, "n e"],
    *,
    components: Count | None = None,
    power: Literal[1, 2] = 1,
    ridge: Scalar = 1e-4,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, ""]:
    r"""Minus the total canonical correlation of two views of the whole batch.

    .. math:: \ell = -\sum_{i \le k} \sigma_i^p(T), \qquad
              T = (\Sigma_{xx} + r I)^{-1/2} \Sigma_{xy} (\Sigma_{yy} + r I)^{-1/2}

    The sum is of singular values for :math:`p = 1`, of their squares for :math:`p = 2`; the two are
    different objectives, and releases that speak of one have been seen to optimise the other. No
    derivative of a single singular or eigenvector is taken: gradients are finite and right where
    correlations, or variances, tie.

    Args:
        x: rows as an encoder made them; ``x[i]`` is paired with ``y[i]``.
        y: rows likewise; they may have other features than ``x``.
        components: :math:`k`, between 1 and the smaller number of features; all of them if None.
        power: :math:`p`.
        ridge: :math:`r`, not negative, in the squared unit of the features. In batches that are not
            much larger than the features are many, correlations are overstated without it.
        where: valid rows, all if None. An invalid row counts nowhere; its gradient is 0 even where
            it holds NaN.
        axis_name: mesh axis or axes that shard the rows. The value and every gradient equal the
            unsharded ones; with ``check_vma=False`` or ``pmap``, gradients taken inside have still
            to be averaged, ``jax.lax.pmean(grads, axis_name)``.

    Returns:
        One loss for the batch, dimensionless, in [-k, 0], float32 or wider, the same on every
        shard. It is 0, with a gradient of 0, for a constant side and below two valid rows.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype, or a ``power`` that is neither 1 nor 2.
        ValueError: if ``components`` is out of its range, or a Python or NumPy ``ridge`` is
            negative or not finite.

    Source: Andrew et al. 2013, ICML, Deep canonical correlation analysis, eqs. 10 to 13 (p = 1).

    >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    >>> print(f"{dcca_loss(x, 3 * x, ridge=0.0):.4f} {dcca_loss(x, 0 * x):.4f}")
    -2.0000 0.0000
    """
    sides = {"x": x, "y": y}
    count = as_components(min(x.shape[1], y.shape[1]) if components is None else components, sides)
    scalar = as_ridge(ridge, x, y)
    valid = jnp.ones(len(x), bool) if where is None else jnp.asarray(where)
    first, second = (View.of(z, valid, scalar, axis_name) for z in sides.values())
    return 0 - singular_value_sum(first.covariance(second), count, power)  # not -0 for a constant


@checked
def dgcca_loss(
    views: Mapping[str, Float[Array, "n _"]],
    *,
    components: Count,
    ridge: Scalar = 1e-4,
    where: Mapping[str, Bool[Array, "n"]] | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, ""]:
    r"""What the best shared representation of all views leaves unexplained in the whole batch.

    .. math:: \ell = \min_{G, U} \sum_j \lVert K_j (G - X_j U_j) \rVert_F^2
              = J \Big( k - \sum_{i \le k} \lambda_i(B^\top B) \Big)

    without a ridge, with :math:`G^\top K G = J I` as in :func:`mmjax.alignment.gcca`, whose
    agreements the :math:`\lambda_i` are. The matrix is one of features by features of all views,
    and no derivative of a single eigenvector is taken: gradients are finite and right where
    agreements tie.

    Args:
        views: per name, rows as an encoder made them; rows of the same index are one example.
        components: :math:`k`, between 1 and the smallest number of features.
        ridge: :math:`r`, not negative, in the squared unit of the features, on the scale of their
            variances.
        where: per name, the rows that have the view; all if None. What an example holds in place of
            a view that it lacks, NaN included, reaches nothing.
        axis_name: mesh axis or axes that shard the rows; exact where :func:`dcca_loss` is.

    Returns:
        One loss for the batch, dimensionless, in [0, J k], float32 or wider, the same on every
        shard. A constant view explains nothing, and has a gradient of 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for fewer than two views, names that ``where`` does not share, ``components``
            out of range, or a Python or NumPy ``ridge`` that is negative or not finite.

    Source: Benton et al. 2017, arXiv:1702.02519, sec. 3 and its supplement; missing rows as in
    :func:`mmjax.alignment.gcca`.

    >>> x = jnp.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    >>> loss = dgcca_loss({"a": x, "b": -x, "c": 0 * x}, components=1, ridge=0.0)
    >>> print(f"{loss:.4f}")
    1.0000
    """
    masks = masks_of(views, where)
    count = as_components(components, views)
    scalar = as_ridge(ridge, *views.values())
    _, rows = whitened_views(views, masks, scalar, axis_name)
    overlap = exact_einsum("nd,ne->de", rows, rows)
    if axis_name is not None:
        overlap = jax.lax.psum(overlap, axis_name)
    return len(views) * (count - eigenvalue_sum(overlap, count))
