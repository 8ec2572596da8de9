"""Samples: valid rows that lie on any number of shards, and the statistics of all of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, checked
from mmjax.losses.pairs import masked_rows, valid_mask


@dataclasses.dataclass(frozen=True)
class Sample:
    """Rows of one shard that stand for a sample on all shards.

    Attributes:
        rows: float32 or wider, 0 where invalid.
        valid: which of them belong to the sample.
        axis_name: mesh axis or axes that shard them.
    """

    rows: Float[jax.Array, "n d"]
    valid: Bool[jax.Array, "n"]
    axis_name: AxisName | None

    @classmethod
    def of(
        cls, x: Array, where: Array | None, axis_name: AxisName | None, dtype: np.dtype
    ) -> "Sample":
        """Widen the rows and blank the invalid ones, before any product sees what they hold."""
        valid = valid_mask(where, x)
        return cls(masked_rows(x, valid).astype(dtype), valid, axis_name)

    @property
    def count(self) -> Float[jax.Array, ""]:
        """Valid rows on all shards."""
        return self.total(self.valid.astype(self.rows.dtype))

    def total(self, values: Float[jax.Array, "n *k"]) -> Float[jax.Array, "*k"]:
        """Sum of values that the rows of all shards have, 0 for an invalid row."""
        return self.across(jnp.sum(values, axis=0))

    def across(self, values: jax.Array) -> jax.Array:
        """Sum of what the shards hold."""
        return values if self.axis_name is None else jax.lax.psum(values, self.axis_name)

    def mean(self) -> Float[jax.Array, "d"]:
        """Mean of the valid rows, 0 if there is none."""
        return self.total(self.rows) / jnp.maximum(self.count, 1)

    def largest(self, values: Float[jax.Array, "n d"]) -> Float[jax.Array, "d"]:
        """Largest entry of each column over the valid rows, a constant; lowest float if none is."""
        lowest = jnp.finfo(values.dtype).min
        constant = jax.lax.stop_gradient(values)
        found = jnp.max(constant, axis=0, where=self.valid[:, None], initial=lowest)
        return found if self.axis_name is None else jax.lax.pmax(found, self.axis_name)

    def middle(self) -> Float[jax.Array, "d"]:
        """Middle of each column's range, a constant; 0 if no row is valid."""
        return self.largest(self.rows) / 2 - self.largest(-self.rows) / 2

    def centred(self) -> "Sample":
        """The deviations from the mean; exactly 0 for a constant column, whatever its value."""
        # A mean of equal numbers may differ from them by a rounding, which would then be taken for
        # variation. The middle of the range does not, and leaves nothing to round off.
        shifted = self._replace(self.rows - self.middle()[None])
        return self._replace(shifted.rows - shifted.mean()[None])

    def unit_columns(self) -> "Sample":
        """Columns divided by their lengths; a column of zeros stays one, with a gradient of 0."""
        size = self.largest(jnp.abs(self.rows))
        rows = self.rows / jnp.where(size > 0, size, 1)[None]
        squares = self.total(rows**2)
        return self._replace(rows * _inverse_root(squares)[None])

    def _replace(self, rows: jax.Array) -> "Sample":
        return dataclasses.replace(self, rows=jnp.where(self.valid[:, None], rows, 0))


def covariances(x: Sample, y: Sample) -> Float[jax.Array, "d e"]:
    r"""Sum of the outer products of paired rows over all shards.

    .. math:: \sum_{i \in V} x_i y_i^\top

    Args:
        x: rows; centred ones, if the result is to be a covariance (times the count).
        y: rows, paired with those of ``x``.

    Returns:
        The sums, in the units of ``x`` times those of ``y``.

    Source: no paper.

    >>> x = Sample.of(jnp.array([[1.0], [2.0]]), None, None, jnp.dtype("float32"))
    >>> print(covariances(x, x))
    [[5.]]
    """
    # A single pass of an accelerator would lose 2**-8 of a product: these are differences already.
    return x.across(jnp.einsum("nd,ne->de", x.rows, y.rows, precision=jax.lax.Precision.HIGHEST))


@checked
def unit_length(x: Float[Array, "n d"]) -> Float[jax.Array, "n d"]:
    r"""Rows divided by their lengths, whatever those are.

    .. math:: x_i / \lVert x_i \rVert_2

    Args:
        x: rows of any length: neither a square of 1e20 nor one of 1e-20 is made on the way.

    Returns:
        Rows of length 1, dimensionless. A row of zeros stays one, with a gradient of 0.

    Source: no paper.

    >>> rows = unit_length(jnp.array([[3e30, 4e30], [0.0, 0.0]]))
    >>> [[f"{value:.4f}" for value in row] for row in rows]
    [['0.6000', '0.8000'], ['0.0000', '0.0000']]
    """
    # The length of the row cancels, and with it whatever depends on the scale: it is a constant.
    x = jnp.asarray(x)
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=1, keepdims=True))
    scaled = x / jnp.where(size > 0, size, 1)
    squares = jnp.sum(scaled**2, axis=1, keepdims=True)
    return scaled * _inverse_root(squares)


def _inverse_root(squares: jax.Array) -> jax.Array:
    """One over the root; 0 for a square that is 0, so that no gradient passes either."""
    return jnp.where(squares > 0, jax.lax.rsqrt(jnp.where(squares > 0, squares, 1)), 0)
