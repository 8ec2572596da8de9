"""Views of the same examples: valid rows around their mean, and what makes them uncorrelated."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.alignment.arithmetic import exact_einsum, reciprocal_or_0, root_or_0
from mmjax.alignment.counts import Count
from mmjax.alignment.spectra import inverse_root
from mmjax.arrays import Array, AxisName, Scalar, accumulation_dtype, as_scalar, checked


class Projection(NamedTuple):
    """A linear map that was fitted to one view.

    Attributes:
        mean: of the rows that it was fitted to.
        weights: one column per component.
    """

    mean: Float[jax.Array, "d"]
    weights: Float[jax.Array, "d k"]

    @checked
    def project(self, rows: Float[Array, "*n d"]) -> Float[jax.Array, "*n k"]:
        """Components of any rows of the view; ValueError if their features are not as many."""
        if rows.shape[-1:] != self.mean.shape:
            raise ValueError(
                f"rows must have the {len(self.mean)} features of the fitted view, got"
                f" {rows.shape[-1]}"
            )
        rows = jnp.asarray(rows).astype(self.mean.dtype)
        centred = rows - self.mean.reshape((1,) * (rows.ndim - 1) + self.mean.shape)
        return exact_einsum("...d,dk->...k", centred, self.weights)


@dataclasses.dataclass(frozen=True)
class View:
    r"""Rows of one modality, standardised, with the root that whitens them.

    With :math:`D` the diagonal of :math:`\sqrt{\Sigma_{jj} + r}`, rows are :math:`\tilde x = (x -
    \bar x) D^{-1}`, and with :math:`R` the inverse root of :math:`D^{-1} (\Sigma + r I) D^{-1}` the
    covariance of :math:`\tilde x R` is the identity but for the ridge. Whatever the units of the
    features, rounding hurts all of them alike; a constant feature gets zeros.

    Attributes:
        rows: standardised, 0 where invalid.
        valid: which rows count.
        freedom: how many do on all shards, less one; at least 1.
        mean: of the valid rows.
        scale: the diagonal of :math:`D`.
        root: :math:`R`, symmetric.
        axis_name: mesh axis or axes that shard the rows.
    """

    rows: Float[jax.Array, "n d"]
    valid: Bool[jax.Array, "n"]
    freedom: Float[jax.Array, ""]
    mean: Float[jax.Array, "d"]
    scale: Float[jax.Array, "d"]
    root: Float[jax.Array, "d d"]
    axis_name: AxisName | None

    @classmethod
    def of(
        cls,
        x: Array,
        valid: Bool[Array, "n"],
        ridge: Float[jax.Array, ""],
        axis_name: AxisName | None = None,
    ) -> "View":
        """Standardise in the dtype of ``ridge``; invalid rows are blanked before anything else."""
        valid = jnp.asarray(valid)
        rows = jnp.where(valid[:, None], x, 0).astype(ridge.dtype)
        count = _across(jnp.sum(valid, dtype=ridge.dtype), axis_name)
        origin = _middle(rows, valid, axis_name)
        rows = jnp.where(valid[:, None], rows - origin[None], 0)
        offset = _across(jnp.sum(rows, axis=0), axis_name) / jnp.maximum(count, 1)
        rows = jnp.where(valid[:, None], rows - offset[None], 0)
        freedom = jnp.maximum(count - 1, 1)
        variance = _across(jnp.sum(rows**2, axis=0), axis_name) / freedom + ridge
        # Nothing depends on the scale but the rounding: it is a constant.
        scale = jax.lax.stop_gradient(jnp.sqrt(jnp.where(variance > 0, variance, 1)))
        rows = rows / scale[None]
        covariance = _across(exact_einsum("nd,ne->de", rows, rows), axis_name) / freedom
        root = inverse_root(covariance + jnp.diag(ridge / scale**2))
        return cls(rows, valid, freedom, origin + offset, scale, root, axis_name)

    def covariance(self, other: "View") -> Float[jax.Array, "d e"]:
        """Covariance of the whitened rows of two views that are valid in the same places."""
        cross = _across(exact_einsum("nd,ne->de", self.rows, other.rows), self.axis_name)
        return exact_einsum("ad,de,eb->ab", self.root, cross / self.freedom, other.root)

    def projection(self, whitened: Float[jax.Array, "d k"]) -> Projection:
        """Turn weights of the whitened rows into weights of rows as they came."""
        return Projection(
            self.mean, exact_einsum("de,ek->dk", self.root, whitened) / self.scale[:, None]
        )


def _middle(
    rows: Float[jax.Array, "n d"], valid: Bool[jax.Array, "n"], axis_name: AxisName | None
) -> Float[jax.Array, "d"]:
    """Middle of each feature's range, so that a constant one deviates by exactly 0."""
    constant = jax.lax.stop_gradient(rows)
    lowest = jnp.finfo(rows.dtype).min
    ends = [
        jnp.max(sign * constant, axis=0, where=valid[:, None], initial=lowest) for sign in (1, -1)
    ]
    if axis_name is not None:
        ends = jax.lax.pmax(ends, axis_name)
    return ends[0] / 2 - ends[1] / 2


def _across(values: jax.Array, axis_name: AxisName | None) -> jax.Array:
    """Sum of what the shards hold."""
    return values if axis_name is None else jax.lax.psum(values, axis_name)


def masks_of(
    views: Mapping[str, Array], where: Mapping[str, Array] | None
) -> dict[str, Bool[jax.Array, "n"]]:
    """Valid rows of every view, all where no masks are given.

    Args:
        views: per name, one row per example.
        where: per name, the rows that are there.

    Returns:
        One mask per name, in the order of ``views``.

    Raises:
        ValueError: for fewer than two views, different numbers of rows, or other names.

    Source: no paper.

    >>> masks = masks_of({"a": jnp.ones((2, 1)), "b": jnp.ones((2, 3))}, None)
    >>> print(masks["b"])
    [ True  True]
    """
    if len(views) < 2:
        raise ValueError(f"views must hold at least two views, got {', '.join(views) or 'none'}")
    if where is None:
        where = {name: jnp.ones(len(x), bool) for name, x in views.items()}
    if set(views) != set(where):
        raise ValueError(
            f"views and where must name the same views, got {', '.join(views)} and"
            f" {', '.join(where)}; give all rows of a view that nothing lacks as True"
        )
    views = {name: _as_rows(x) for name, x in views.items()}
    masks = {name: _as_mask(where[name]) for name in views}
    rows = {len(x) for x in [*views.values(), *masks.values()]}
    if len(rows) > 1:
        told = ", ".join(f"{name} {len(x)} and {len(masks[name])}" for name, x in views.items())
        raise ValueError(
            f"views must have the same number of rows, and where as many, got {told}; where an"
            " example lacks a view, fill its row with zeros and mark it False in where"
        )
    return masks


def whitened_views(
    views: Mapping[str, Array],
    masks: Mapping[str, Array],
    ridge: Float[jax.Array, ""],
    axis_name: AxisName | None = None,
) -> tuple[dict[str, View], Float[jax.Array, "n D"]]:
    r"""Whiten every view and set the rows side by side, each weighted by how many views it has.

    .. math:: B = K^{-1/2} \big[ K_1 X_1 (X_1^\top X_1 + (n_1 - 1) r I)^{-1/2}, \dots \big]

    Args:
        views: per name, one row per example.
        masks: per name, the rows that have the view.
        ridge: :math:`r`; its dtype is computed in.
        axis_name: mesh axis or axes that shard the rows.

    Returns:
        The views by name, in the order of their names, and :math:`B`.

    Source: see :func:`mmjax.alignment.gcca`.

    >>> masks = {"a": jnp.ones(3, bool), "b": jnp.ones(3, bool)}
    >>> x = jnp.array([[0.0], [1.0], [5.0]])
    >>> rows = whitened_views({"a": x, "b": -x}, masks, jnp.float32(0))[1]
    >>> print(f"{jnp.sum(rows**2):.4f}")
    1.0000
    """
    # In the order of the names, which is the one that jit hands a mapping over in.
    standing = {name: View.of(views[name], masks[name], ridge, axis_name) for name in sorted(views)}
    blocks = [
        exact_einsum("nd,de->ne", view.rows, view.root) / jnp.sqrt(view.freedom)
        for view in standing.values()
    ]
    weight = root_or_0(reciprocal_or_0(presence(standing)))
    return standing, weight[:, None] * jnp.concatenate(blocks, axis=1)


def presence(views: Mapping[str, View]) -> Float[jax.Array, "n"]:
    """How many views each example has."""
    masks = [view.valid.astype(view.rows.dtype) for view in views.values()]
    return jnp.sum(jnp.stack(masks), axis=0)


def as_components(components: Count, views: Mapping[str, Array]) -> int:
    """Refuse fewer than one component, and more than the smallest view has features."""
    most = min((jnp.shape(x)[-1] for x in views.values()), default=0)
    if not 1 <= components <= most:
        widths = ", ".join(f"{name} {jnp.shape(x)[-1]}" for name, x in views.items())
        raise ValueError(
            f"components must be between 1 and the smallest number of features, {most}, got"
            f" {components} (features: {widths})"
        )
    return int(components)


def as_ridge(ridge: Scalar, *views: Array) -> Float[jax.Array, ""]:
    """Turn a ridge into an array of the dtype that the views are computed in; refuse negatives."""
    if not isinstance(ridge, jax.Array) and float(ridge) < 0:
        raise ValueError(f"ridge must not be negative, got {ridge}")
    return as_scalar("ridge", ridge, dtype=accumulation_dtype(*views))


# What is annotated on a mapping is checked of its first entry only; these check every one.
@checked
def _as_rows(rows: Float[Array, "n _"]) -> Array:
    return rows


@checked
def _as_mask(where: Bool[Array, "n"]) -> jax.Array:
    return jnp.asarray(where)
