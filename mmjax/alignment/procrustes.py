"""Procrustes alignment: lay one cloud of points on another by turning, scaling and moving it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.alignment.arithmetic import exact_einsum, reciprocal_or_0
from mmjax.arrays import Array, accumulation_dtype, checked


class Procrustes(NamedTuple):
    """How points have to be turned, scaled and moved, in this order.

    Attributes:
        rotation: orthogonal, applied to rows from the right.
        scale: 1 unless it was asked for; never negative.
        offset: what is added last; 0 unless it was asked for.
        residual: mean squared distance that is left between the valid pairs.
    """

    rotation: Float[jax.Array, "d d"]
    scale: Float[jax.Array, ""]
    offset: Float[jax.Array, "d"]
    residual: Float[jax.Array, ""]

    @checked
    def move(self, rows: Float[Array, "n d"]) -> Float[jax.Array, "n d"]:
        """Lay any rows as those it was fitted to; ValueError if their features are not as many."""
        if rows.shape[-1:] != self.offset.shape:
            raise ValueError(
                f"rows must have the {len(self.offset)} features of the fitted points, got"
                f" {rows.shape[-1]}"
            )
        rows = jnp.asarray(rows).astype(self.rotation.dtype)
        return self.scale * exact_einsum("nd,de->ne", rows, self.rotation) + self.offset[None]


@checked
def procrustes(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    translation: bool = True,
    scaling: bool = False,
    reflection: bool = True,
    where: Bool[Array, "n"] | None = None,
) -> Procrustes:
    r"""The similarity that brings ``x`` closest to ``y``.

    .. math:: \min_{R^\top R = I,\, s \ge 0,\, t} \sum_{i \in V} \lVert s\, x_i R + t - y_i
              \rVert^2, \qquad R = U S V^\top \text{ with } U \Sigma V^\top = \sum_{i \in V}
              \tilde x_i \tilde y_i^\top

    where :math:`\tilde x, \tilde y` are the deviations from the means, and :math:`S` is the
    identity, or has -1 as its last entry where only that makes the determinant of :math:`R` 1.

    Args:
        x: points to be moved; ``x[i]`` is paired with ``y[i]``.
        y: points that they are to be laid on. Of two spaces with different features, fill the
            narrower one up with columns of zeros.
        translation: whether to move; without it, the origins are taken to be the same.
        scaling: whether to scale.
        reflection: whether to allow mirror images; without them the determinant is 1 (Kabsch).
        where: valid pairs :math:`V`, all if None. An invalid one counts nowhere; its gradient is 0
            even where it holds NaN.

    Returns:
        The similarity, float32 or wider. It can be differentiated wherever it is the only best one,
        in closed form, ties of singular values included. Where it is not (fewer pairs than
        features, points on a line), it is one of the best, and the directions that nothing
        determines have a gradient of 0. Points that all coincide are not scaled, and without valid
        pairs nothing is done to points.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Schoenemann 1966, Psychometrika 31; with scale and translation, and determinant 1:
    Umeyama 1991, IEEE PAMI 13, eqs. 40 to 43.

    >>> x = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> found = procrustes(x, 3 * x[:, ::-1] + 1, scaling=True)
    >>> print(f"{found.scale:.4f} {found.residual:.4f}")
    3.0000 0.0000
    """
    dtype = accumulation_dtype(x, y)
    valid = jnp.ones(len(x), bool) if where is None else jnp.asarray(where)
    x, y = (jnp.where(valid[:, None], jnp.asarray(z).astype(dtype), 0) for z in (x, y))
    count = jnp.maximum(jnp.sum(valid, dtype=dtype), 1)
    means = [jnp.sum(z, axis=0) / count if translation else jnp.zeros_like(z[0]) for z in (x, y)]
    x, y = (
        jnp.where(valid[:, None], z - mean[None], 0) for z, mean in zip((x, y), means, strict=True)
    )
    cross = exact_einsum("nd,ne->de", x, y)
    rotation = _nearest_rotation(cross, reflection)
    turned = exact_einsum("nd,de->ne", x, rotation)
    scale = jnp.ones((), dtype)
    if scaling:
        spread = jnp.sum(x**2)
        # Below 0 in one dimension only, where it would be the mirror image that is not allowed.
        overlap = jnp.maximum(jnp.sum(turned * y), 0)
        scale = jnp.where(spread <= 0, 1, overlap * reciprocal_or_0(spread))
    residual = jnp.sum((scale * turned - y) ** 2) / count
    offset = means[1] - scale * exact_einsum("d,de->e", means[0], rotation)
    return Procrustes(rotation, scale, offset, residual)


def _nearest_rotation(matrix: Float[jax.Array, "d d"], reflection: bool) -> jax.Array:
    """Orthogonal matrix with the largest inner product with another."""

    @jax.custom_jvp
    def nearest(matrix):
        left, _, right = _signed_svd(matrix, reflection)
        return exact_einsum("dk,ke->de", left, right)

    @nearest.defjvp
    def _(primals, tangents):
        # R changes by U X V' with X antisymmetric, and by sums of singular values, not differences.
        left, values, right = _signed_svd(primals[0], reflection)
        turned = exact_einsum("dk,de,le->kl", left, tangents[0], right)
        sums = values[:, None] + values[None]
        floor = len(values) * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values), initial=0)
        inverse = jnp.where(sums > floor, 1 / jnp.where(sums > floor, sums, 1), 0)
        change = exact_einsum("dk,kl,le->de", left, (turned - turned.T) * inverse, right)
        return exact_einsum("dk,ke->de", left, right), change

    return nearest(matrix)


def _signed_svd(
    matrix: Float[jax.Array, "d d"], reflection: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Singular values and vectors, the last turned round if else their product were a mirror."""
    left, values, right = jnp.linalg.svd(matrix)
    if reflection:
        return left, values, right
    sign = jnp.sign(jnp.linalg.det(left) * jnp.linalg.det(right))
    signs = jnp.ones_like(values).at[-1].set(sign)
    return left * signs[None], values * signs, right
