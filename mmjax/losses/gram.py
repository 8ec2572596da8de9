"""Sums over all pairs of a sample, block by block: no matrix of all pairs is ever held."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.losses.kernels import Kernel
from mmjax.losses.samples import Sample


def row_sums(
    block: Callable[[Any], Any],
    rows: Sample,
    columns: Sample,
    values: Any,
    *,
    chunk_size: int,
    others_only: bool,
) -> Any:
    r"""For each row of this shard, sums of what a block says of it and of the columns.

    .. math:: s_i = \sum_{j \in V} b(i, j)

    Args:
        block: from the values of some columns, ``[c, ...]`` each, to arrays ``[n, c]``.
        rows: what ``block`` holds against the columns; said here for its size and its mask.
        columns: the sample that the columns are, likewise said for its size and its mask.
        values: arrays with one entry for each row of ``columns`` that ``block`` wants to see; it
            sees those of all shards.
        chunk_size: ``c``. The backward pass makes each block anew, so that either pass holds
            arrays of ``n`` times ``c`` and none of all pairs.
        others_only: whether to leave out the pair of a row with itself; ``rows`` are then
            ``columns``.

    Returns:
        What ``block`` returns, summed to ``[n]``, 0 for invalid rows.

    Raises:
        ValueError: if ``chunk_size`` is below 1.

    Source: Chen et al. 2016, arXiv:1604.06174, for making anew what the backward pass needs.

    >>> x = Sample.of(jnp.array([[1.0], [2.0], [4.0]]), None, None, jnp.dtype("float32"))
    >>> def products(columns):
    ...     return x.rows @ columns.T
    >>> print(row_sums(products, x, x, x.rows, chunk_size=2, others_only=True))
    [ 6. 10. 12.]
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    axis_name, own = rows.axis_name, jnp.arange(len(rows.rows), dtype=jnp.int32)
    valid = columns.valid
    if axis_name is not None:
        values, valid = jax.lax.all_gather((values, valid), axis_name, tiled=True)
        own += jax.lax.axis_index(axis_name) * len(own)
    number = jnp.arange(len(valid), dtype=jnp.int32)

    def sums(columns: tuple[Any, jax.Array, jax.Array]) -> Any:
        values, valid, number = columns
        counted = rows.valid[:, None] & valid[None]
        if others_only:
            counted &= own[:, None] != number[None]
        return jax.tree.map(
            lambda z: jnp.sum(jnp.where(counted, z, 0), axis=1, dtype=z.dtype), block(values)
        )

    if len(valid) <= chunk_size:  # a single block may as well be kept for the backward pass
        return sums((values, valid, number))
    blocks = jax.tree.map(lambda z: _in_blocks(z, chunk_size), (values, valid, number))
    # Summed after the loop rather than in it: what a loop carries would have to be known to vary
    # over the shards before the first block is. It is one number per row and block.
    found = jax.lax.map(jax.checkpoint(sums, prevent_cse=False), blocks)
    return jax.tree.map(lambda z: jnp.sum(z, axis=0, dtype=z.dtype), found)


def _in_blocks(columns: Float[jax.Array, "m *d"], size: int) -> Float[jax.Array, "k c *d"]:
    """Blocks of equal size; the last is filled up with zeros, which are no valid columns."""
    missing = -len(columns) % size
    padding = [(0, missing)] + [(0, 0)] * (columns.ndim - 1)
    return jnp.pad(columns, padding).reshape(-1, size, *columns.shape[1:])


@dataclasses.dataclass(frozen=True)
class FeatureRows:
    r"""A sample in the feature space of a kernel, with the origin moved to a point's features.

    .. math:: k'(x, y) = (\phi(x) - \phi(a)) \cdot (\phi(y) - \phi(a))
                       = k(x, y) - k(x, a) - k(a, y) + k(a, a)

    Differences between means in feature space, and all that is centred there, do not depend on the
    origin, so that what moves it is a constant; but a wide kernel, whose products are all near 1,
    would be rounded away without it.

    Attributes:
        kernel: positive semi-definite.
        sample: the rows.
        level: :math:`k(x_i, a)`.
        base: :math:`k(a, a)`.
    """

    kernel: Kernel
    sample: Sample
    level: Float[jax.Array, "n"]
    base: Float[jax.Array, ""]

    @classmethod
    def of(cls, kernel: Kernel, sample: Sample, origin: Float[jax.Array, "d"]) -> "FeatureRows":
        """Take a point amid the rows, such as their mean, for the origin."""
        point = origin[None]
        found = products(kernel, sample.rows, point), products(kernel, point, point)
        level, base = jax.lax.stop_gradient(found)
        return cls(kernel, sample, level[:, 0], base[0, 0])

    @property
    def columns(self) -> tuple[Float[jax.Array, "n d"], Float[jax.Array, "n"]]:
        """What other rows have to know of these."""
        return self.sample.rows, self.level

    def against(
        self, columns: tuple[Float[jax.Array, "m d"], Float[jax.Array, "m"]]
    ) -> Float[jax.Array, "n m"]:
        """Products of all these rows with others, as seen from the same origin."""
        rows, level = columns
        found = products(self.kernel, self.sample.rows, rows)
        return found - self.level[:, None] - level[None] + self.base

    def lengths(self) -> Float[jax.Array, "n"]:
        """Squared lengths: products of the valid rows with themselves."""
        rows = self.sample.rows
        found = own_products(self.kernel, rows, rows) - 2 * self.level + self.base
        return jnp.where(self.sample.valid, found, 0)


def own_products(
    kernel: Kernel, x: Float[jax.Array, "n d"], y: Float[jax.Array, "n d"]
) -> Float[jax.Array, "n"]:
    r"""Product of each row with its own partner: the diagonal of the matrix of all pairs.

    .. math:: k(x_i, y_i)

    Args:
        kernel: of rows ``[1, d]`` and ``[1, d]``, under :func:`jax.vmap`.
        x: rows.
        y: rows, paired with those of ``x``.

    Returns:
        One product per pair, in the unit of the kernel.

    Raises:
        ValueError: if ``kernel`` does not return one product per pair.

    Source: no paper.

    >>> def product(x, y):
    ...     return x @ y.T
    >>> print(own_products(product, jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [4.0]])))
    [3. 8.]
    """
    return jax.vmap(lambda x, y: products(kernel, x[None], y[None])[0, 0])(x, y)


def products(
    kernel: Kernel, x: Float[jax.Array, "n d"], y: Float[jax.Array, "m d"]
) -> Float[jax.Array, "n m"]:
    r"""Products of all rows with all rows: a kernel, held to its word.

    .. math:: k(x_i, y_j)

    Args:
        kernel: of rows ``[n, d]`` and ``[m, d]`` to ``[n, m]``.
        x: rows.
        y: rows.

    Returns:
        One product per pair, in the unit of the kernel.

    Raises:
        ValueError: if ``kernel`` does not return one product per pair.

    Source: no paper.

    >>> def product(x, y):
    ...     return x @ y.T
    >>> print(products(product, jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [4.0]])))
    [[3. 4.]
     [6. 8.]]
    """
    found = kernel(x, y)
    if jnp.shape(found) != (len(x), len(y)):
        raise ValueError(
            f"kernel must return one product per pair: {(len(x), len(y))} for rows of shape "
            f"{x.shape} and {y.shape}, got {jnp.shape(found)}"
        )
    return found
