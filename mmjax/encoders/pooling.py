"""From the tokens of an example to one row of features."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from mmjax.arrays import Array, checked
from mmjax.encoders.partitioned import layer_norm, parameter
from mmjax.encoders.transformer import FeedForward, MultiHeadAttention


@checked
def class_pool(
    x: Float[Array, "n t d"], where: Bool[Array, "n t"] | None = None
) -> Float[jax.Array, "n d"]:
    """Take the first token; 0 where it is not valid.

    Args:
        x: t tokens per example, the class token first.
        where: valid tokens.

    Returns:
        One row per example.

    >>> class_pool(jnp.arange(6.0).reshape(1, 3, 2)).tolist()
    [[0.0, 1.0]]
    """
    first = jnp.asarray(x)[:, 0]
    return first if where is None else jnp.where(where[:, :1], first, 0)


@checked
def last_pool(
    x: Float[Array, "n t d"], where: Bool[Array, "n t"] | None = None
) -> Float[jax.Array, "n d"]:
    """Take the last valid token, wherever it stands; 0 if there is none.

    Args:
        x: t tokens per example.
        where: valid tokens.

    Returns:
        One row per example.

    >>> last_pool(jnp.arange(6.0).reshape(1, 3, 2), jnp.array([[True, True, False]])).tolist()
    [[2.0, 3.0]]
    """
    x = jnp.asarray(x)
    if where is None:
        return x[:, -1]
    last = x.shape[1] - 1 - jnp.argmax(jnp.asarray(where)[:, ::-1], axis=1)
    token = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
    return jnp.where(jnp.any(where, axis=1, keepdims=True), token, 0)


@checked
def mean_pool(
    x: Float[Array, "n t d"], where: Bool[Array, "n t"] | None = None
) -> Float[jax.Array, "n d"]:
    """Average the valid tokens; 0 if there is none.

    Args:
        x: t tokens per example. What the invalid ones hold, NaN included, does not matter.
        where: valid tokens.

    Returns:
        One row per example, in the dtype of ``x``; the sum is float32.

    >>> mean_pool(jnp.arange(6.0).reshape(1, 3, 2), jnp.array([[True, True, False]])).tolist()
    [[1.0, 2.0]]
    """
    where = jnp.ones(x.shape[:2], bool) if where is None else where
    # Zero first: `jnp.sum(where=)` would do for the value, and this holds for the gradient too.
    total = jnp.sum(jnp.where(where[:, :, None], x, 0), axis=1, dtype=jnp.float32)
    count = jnp.sum(where, axis=1, keepdims=True, dtype=jnp.float32)
    return (total / jnp.maximum(count, 1)).astype(x.dtype)


class AttentionPool(nn.Module):
    """One learned query gathers from the valid tokens; a feed-forward layer follows.

    Attributes:
        heads: heads of the attention.
        mlp_ratio: hidden features of the feed-forward layer per feature.
        dtype: dtype of the computation; parameters are float32.

    Source: Lee et al. 2019, arXiv:1810.00825, section 3.2 (pooling by multi-head attention), in the
    form of Zhai et al. 2022, arXiv:2106.04560, section 3.2: a residual around the feed-forward
    layer, which has its own normalisation, and none around the attention.
    """

    heads: int
    mlp_ratio: float = 4.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    @checked
    def __call__(
        self, x: Float[Array, "n t d"], where: Bool[Array, "n t"] | None = None
    ) -> Float[jax.Array, "n d"]:
        """Gather t tokens per example into one row; 0 if no token of ``where`` is valid."""
        batch, _, width = x.shape
        init = nn.initializers.xavier_uniform()
        query = parameter(self, "query", init, (1, width), (None, "embed")).astype(self.dtype)
        query = jnp.broadcast_to(query[None], (batch, 1, width))
        if where is not None:
            x = jnp.where(where[:, :, None], x, jnp.zeros((), x.dtype))
        attention = MultiHeadAttention(self.heads, dtype=self.dtype, name="attention")
        x = attention(query, x.astype(self.dtype), None if where is None else where[:, None, :])
        y = layer_norm(x, name="mlp_norm")
        x = (x + FeedForward(self.mlp_ratio, dtype=self.dtype, name="mlp")(y))[:, 0]
        return x if where is None else jnp.where(jnp.any(where, axis=1, keepdims=True), x, 0)
