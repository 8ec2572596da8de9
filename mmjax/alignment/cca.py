"""Canonical correlation analysis: the directions of two or more views that agree best."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.alignment.arithmetic import exact_einsum, reciprocal_or_0, root_or_0
from mmjax.alignment.counts import Count
from mmjax.alignment.spectra import largest_singular
from mmjax.alignment.views import (
    Projection,
    View,
    as_components,
    as_ridge,
    masks_of,
    presence,
    whitened_views,
)
from mmjax.arrays import Array, Scalar, checked


class CCA(NamedTuple):
    """Canonical directions of two views, best first.

    Attributes:
        correlations: canonical correlations, in [0, 1].
        x: projection of the first view.
        y: projection of the second view.
    """

    correlations: Float[jax.Array, "k"]
    x: Projection
    y: Projection


@checked
def cca(
    x: Float[Array, "n d"],
    y: Float[Array, "n e"],
    *,
    components: Count,
    ridge: Scalar = 0.0,
    where: Bool[Array, "n"] | None = None,
) -> CCA:
    r"""Canonical correlation analysis, of ridge type if ``ridge`` is positive.

    .. math:: \max_{A, B} \operatorname{tr} A^\top \Sigma_{xy} B \quad \text{such that} \quad
              A^\top (\Sigma_{xx} + r I) A = B^\top (\Sigma_{yy} + r I) B = I

    by the singular values of :math:`(\Sigma_{xx} + r I)^{-1/2} \Sigma_{xy} (\Sigma_{yy} + r
    I)^{-1/2}`, a matrix of features by features; :math:`\Sigma` are unbiased covariances of the
    valid rows.

    Args:
        x: rows; ``x[i]`` is paired with ``y[i]``.
        y: rows; they may have other features than ``x``.
        components: :math:`k`, between 1 and the smaller number of features.
        ridge: :math:`r`, not negative, in the squared unit of the features, which should then have
            one unit.
        where: valid rows, all if None. An invalid row counts nowhere; its gradient is 0 even where
            it holds NaN.

    Returns:
        Correlations and projections, float32 or wider. Without a ridge the components of the rows
        it was fitted to have variance 1; with one, the correlations are those of the regularised
        criterion. Where a covariance is singular (constant features, fewer rows than features) the
        analysis is that of the directions which vary: what does not gets weights of 0, and
        components beyond those have the correlation 0. A single row has correlations of 0. Vectors
        are known up to their common sign, and can be differentiated where no other correlation
        equals one of those that are returned; of equal ones, the gradient leaves out how vectors
        turn among themselves. :func:`mmjax.alignment.dcca_loss` is right everywhere.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``components`` is out of its range, or a Python or NumPy ``ridge`` is
            negative or not finite.

    Source: Hotelling 1936, Biometrika 28; the ridge: Vinod 1976, Journal of Econometrics 4, with
    one ridge for both views.

    >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [4.0, 3.0]])
    >>> found = cca(x, x @ jnp.array([[1.0, 2.0], [0.0, 1.0]]), components=2)
    >>> [f"{correlation:.4f}" for correlation in found.correlations]
    ['1.0000', '1.0000']
    """
    components = as_components(components, {"x": x, "y": y})
    ridge = as_ridge(ridge, x, y)
    valid = jnp.ones(len(x), bool) if where is None else jnp.asarray(where)
    first, second = (View.of(z, valid, ridge) for z in (x, y))
    left, values, right = largest_singular(first.covariance(second), components)
    return CCA(jnp.minimum(values, 1), first.projection(left), second.projection(right))


class GCCA(NamedTuple):
    """What several views share, best first.

    Attributes:
        agreement: mean squared multiple correlation of each component with the views, in [0, 1].
        shared: the components themselves, one row per example.
        projections: per view, the map from its rows to the components.
    """

    agreement: Float[jax.Array, "k"]
    shared: Float[jax.Array, "n k"]
    projections: dict[str, Projection]


@checked
def gcca(
    views: Mapping[str, Float[Array, "n _"]],
    *,
    components: Count,
    ridge: Scalar = 0.0,
    where: Mapping[str, Bool[Array, "n"]] | None = None,
) -> GCCA:
    r"""Generalised canonical correlation analysis of any number of views (MAXVAR).

    .. math:: \min_{G, U} \sum_j \lVert K_j (G - X_j U_j) \rVert_F^2
              \quad \text{such that} \quad G^\top K G = J I, \qquad K = \sum_j K_j

    where :math:`K_j` is the diagonal of the rows that view :math:`j` of :math:`J` has. The shared
    components are eigenvectors of :math:`K^{-1/2} \sum_j K_j P_j K_j K^{-1/2} = B B^\top`, with
    :math:`P_j` the projection on the columns of :math:`X_j`. No matrix of rows by rows is made: the
    eigenvectors of :math:`B^\top B`, features by features of all views, give the same.

    Args:
        views: per name, one row per example; rows of the same index are one example.
        components: :math:`k`, between 1 and the smallest number of features.
        ridge: :math:`r`, not negative: :math:`P_j = X_j (X_j^\top X_j + (n_j - 1) r I)^{-1}
            X_j^\top`, in the squared unit of the features, on the scale of their variances.
        where: per name, the rows that have the view; all if None. What an example holds in place of
            a view that it lacks, NaN included, reaches nothing; an example without any has a shared
            row of 0.

    Returns:
        Agreement, shared components and projections, float32 or wider. With all rows valid
        :math:`G^\top G = I`. Singular covariances and constant features are treated as in
        :func:`cca`; components beyond what varies have agreement 0 and zeros. Vectors are known up
        to their sign, and can be differentiated as those of :func:`cca`;
        :func:`mmjax.alignment.dgcca_loss` can everywhere.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for fewer than two views, names that ``where`` does not share, ``components``
            out of range, or a Python or NumPy ``ridge`` that is negative or not finite.

    Source: Kettenring 1971, Biometrika 58 (MAXVAR); missing rows: Rastogi et al. 2015, NAACL,
    Multiview LSA, sec. 3, with the constraint weighted by :math:`K`, so that an example counts as
    often as it has views.

    >>> x = jnp.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [4.0, 3.0]])
    >>> found = gcca({"a": x, "b": -x, "c": x[:, ::-1]}, components=1)
    >>> print(f"{found.agreement[0]:.4f}")
    1.0000
    """
    masks = masks_of(views, where)
    components = as_components(components, views)
    ridge = as_ridge(ridge, *views.values())
    standing, rows = whitened_views(views, masks, ridge)
    vectors, values, _ = largest_singular(exact_einsum("nd,ne->de", rows, rows), components)
    values = jnp.where(values <= len(vectors) * jnp.finfo(values.dtype).eps, 0, values)
    unit = (
        exact_einsum("nd,dk->nk", rows, vectors)
        * root_or_0(len(views) * reciprocal_or_0(values))[None]
    )
    shared = root_or_0(reciprocal_or_0(presence(standing)))[:, None] * unit
    projections = {
        name: view.projection(
            exact_einsum("dh,nh,nk->dk", view.root, view.rows, shared) / view.freedom
        )
        for name, view in standing.items()
    }
    return GCCA(values, shared, projections)
