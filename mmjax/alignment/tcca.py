"""Tensor canonical correlation: directions of several views that vary together all at once."""

import functools
import math
import string
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.alignment.arithmetic import exact_einsum, reciprocal_or_0, root_or_0
from mmjax.alignment.counts import Count, as_count
from mmjax.alignment.views import Projection, View, as_components, as_ridge, masks_of
from mmjax.arrays import Array, Scalar, checked


class TCCA(NamedTuple):
    """Directions that maximise the canonical correlation of all views together, strongest first.

    Attributes:
        correlations: mean product of the components of all views, not negative.
        projections: per view.
        residual: share of the tensor's length that the components leave unexplained, in [0, 1].
    """

    correlations: Float[jax.Array, "k"]
    projections: dict[str, Projection]
    residual: Float[jax.Array, ""]


@checked
def tcca(
    views: Mapping[str, Float[Array, "n _"]],
    *,
    components: Count,
    ridge: Scalar = 0.0,
    iterations: Count = 50,
    where: Mapping[str, Bool[Array, "n"]] | None = None,
) -> TCCA:
    r"""Tensor canonical correlation analysis: the higher-order covariance of whitened views.

    .. math:: \min_{\lambda, U} \Big\lVert \mathcal M - \sum_{c \le k} \lambda_c\,
              u_1^c \circ \dots \circ u_J^c \Big\rVert_F, \qquad
              \mathcal M = \frac{1}{n - 1} \sum_i \hat x_{1i} \circ \dots \circ \hat x_{Ji}

    where :math:`\hat x_j = (\Sigma_j + r I)^{-1/2} (x_j - \bar x_j)` and :math:`\lVert u \rVert =
    1`, by alternating least squares from the leading left singular vectors of every unfolding. For
    two views that start is the solution, and the analysis is :func:`mmjax.alignment.cca`.

    The tensor has as many entries as the product of the numbers of features: reduce wide views
    first.

    Args:
        views: per name, one row per example; rows of the same index are one example.
        components: :math:`k`, between 1 and the smallest number of features.
        ridge: :math:`r`, not negative, in the squared unit of the features.
        iterations: sweeps over all views, at least 1.
        where: per name, the rows that have the view; all if None. An example counts if it has all
            of them; what others hold, NaN included, reaches nothing.

    Returns:
        Correlations, projections and residual, float32 or wider. Of a tensor that is no sum of
        ``components`` terms it is a local optimum, and for more than one component of three views
        or more the best sum is not made of the best terms. Gradients are those of the sweeps, with
        the start as a constant. Constant features get weights of 0; a single row has correlations
        of 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for fewer than two views, names that ``where`` does not share, ``components`` or
            ``iterations`` out of range, or a Python or NumPy ``ridge`` that is negative or not
            finite.

    Source: Luo et al. 2015, arXiv:1502.02330, sec. 4; unbiased covariances.

    >>> x = jnp.array([[0.0], [1.0], [5.0]])
    >>> found = tcca({"a": x, "b": -x}, components=1)
    >>> print(f"{found.correlations[0]:.4f} {found.residual:.4f}")
    1.0000 0.0000
    """
    most = as_count("iterations", iterations)
    masks = masks_of(views, where)
    count = as_components(components, views)
    scalar = as_ridge(ridge, *views.values())
    valid = functools.reduce(jnp.logical_and, masks.values())
    standing = {name: View.of(views[name], valid, scalar) for name in sorted(views)}
    rows = [exact_einsum("nd,de->ne", view.rows, view.root) for view in standing.values()]
    axes = string.ascii_lowercase[: len(rows)]
    freedom = next(iter(standing.values())).freedom
    tensor = exact_einsum(f"{','.join('z' + a for a in axes)}->{axes}", *rows) / freedom
    lengths, factors = _decomposition(tensor, count, most)
    order = jnp.argsort(-lengths)
    model = _tensor_of(lengths, factors, axes)
    left = jnp.sum((tensor - model) ** 2) * reciprocal_or_0(jnp.sum(tensor**2))
    projections = {
        name: view.projection(factor[:, order])
        for (name, view), factor in zip(standing.items(), factors, strict=True)
    }
    return TCCA(lengths[order], projections, root_or_0(left))


def _decomposition(
    tensor: jax.Array, components: int, iterations: int
) -> tuple[Float[jax.Array, "k"], list[jax.Array]]:
    """Canonical polyadic decomposition: lengths, and unit columns for every axis."""
    axes = string.ascii_lowercase[: tensor.ndim]

    def sweep(_, state):
        lengths, factors = state
        factors = list(factors)
        for axis in range(tensor.ndim):
            others = [i for i in range(tensor.ndim) if i != axis]
            gram = math.prod(exact_einsum("dk,dl->kl", factors[i], factors[i]) for i in others)
            terms = ",".join([axes, *(f"{axes[i]}z" for i in others)])
            projected = exact_einsum(
                f"{terms}->{axes[axis]}z", tensor, *(factors[i] for i in others)
            )
            # Columns may become alike: a solution of least length exists where no inverse does.
            raw = exact_einsum("dk,kl->dl", projected, jnp.linalg.pinv(gram, hermitian=True))
            lengths = root_or_0(jnp.sum(raw**2, axis=0))
            factors[axis] = raw * reciprocal_or_0(lengths)[None]
        return lengths, factors

    start = jnp.zeros(components, tensor.dtype), _leading(tensor, components)
    return jax.lax.fori_loop(0, iterations, sweep, start)


def _leading(tensor: jax.Array, components: int) -> list[jax.Array]:
    """Leading left singular vectors of every unfolding, constants."""
    tensor = jax.lax.stop_gradient(tensor)
    found = []
    for axis in range(tensor.ndim):
        unfolded = jnp.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
        found.append(jnp.linalg.svd(unfolded, full_matrices=False)[0][:, :components])
    return found


def _tensor_of(lengths: jax.Array, factors: list[jax.Array], axes: str) -> jax.Array:
    """The tensor that lengths and unit columns stand for."""
    return exact_einsum(f"z,{','.join(a + 'z' for a in axes)}->{axes}", lengths, *factors)
