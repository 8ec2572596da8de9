"""The pre-norm transformer that the image and the text tower share."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from mmjax.arrays import Array, checked
from mmjax.encoders.fields import check_heads
from mmjax.encoders.partitioned import dense, layer_norm, parameter


@checked
def masked_attention(
    query: Float[Array, "n q h k"],
    key: Float[Array, "n t h k"],
    value: Float[Array, "n t h k"],
    *,
    where: Bool[Array, "n #q t"] | None = None,
) -> Float[jax.Array, "n q h k"]:
    r"""Scaled dot-product attention in which a masked key has a weight of exactly 0.

    .. math:: o_i = \sum_{j \in V_i} \frac{e^{q_i \cdot k_j / \sqrt{d}}}
                    {\sum_{l \in V_i} e^{q_i \cdot k_l / \sqrt{d}}} v_j

    Args:
        query: q queries for each of h heads, k features each.
        key: t keys.
        value: t values; finite at masked places too, since 0 times NaN is NaN.
        where: the keys :math:`V_i` that a query may see; one row does for all queries.

    Returns:
        One row per query and head, in the dtype of ``value``; scores, softmax and sums are float32.
        A query that may see no key gets 0, with a gradient of 0.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.

    >>> one = jnp.ones((1, 2, 1, 4))
    >>> masked_attention(one, one, one, where=jnp.zeros((1, 1, 2), bool)).max().item()
    0.0
    """
    f32 = jnp.float32
    scores = jnp.einsum("nqhk,nthk->nhqt", query, key, preferred_element_type=f32)
    scores = scores * key.shape[-1] ** -0.5
    if where is not None:
        # A finite floor, not -inf: a row with no valid key then has no NaN in its gradient.
        scores = jnp.where(where[:, None], scores, jnp.finfo(f32).min)
    weights = jax.nn.softmax(scores, axis=-1)
    if where is not None:
        weights = jnp.where(where[:, None], weights, 0)
    weights = weights.astype(value.dtype)
    mixed = jnp.einsum("nhqt,nthk->nqhk", weights, value, preferred_element_type=f32)
    return mixed.astype(value.dtype)


class MultiHeadAttention(nn.Module):
    """Owns the four projections around :func:`masked_attention`.

    There is no bias on the keys: it would add the same number to all scores of a query, which the
    softmax takes away again.

    Attributes:
        heads: number of heads; they share the features of the queries equally.
        dtype: dtype of the computation; parameters are float32.
    """

    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    @checked
    def __call__(
        self,
        query: Float[Array, "n q d"],
        key: Float[Array, "n t d"],
        where: Bool[Array, "n #q t"] | None = None,
    ) -> Float[jax.Array, "n q d"]:
        """Let each row of ``query`` gather from the rows of ``key`` that ``where`` lets it see.

        Raises:
            ValueError: if ``heads`` does not divide the features.
        """
        width = query.shape[-1]
        check_heads(width, self.heads)
        split = (self.heads, width // self.heads)
        q, k, v = (
            jnp.einsum("ntd,dhk->nthk", x, self._kernel(name, (width, *split)))
            for name, x in (("query", query), ("key", key), ("value", key))
        )
        q, v = q + self._bias("query_bias", split), v + self._bias("value_bias", split)
        mixed = masked_attention(q, k, v, where=where)
        out = jnp.einsum("nthk,hkd->ntd", mixed, self._kernel("out", (*split, width)))
        return out + self._bias("out_bias", (width,))

    def _kernel(self, name: str, shape: tuple[int, int, int]) -> jax.Array:
        # The fans are those of the matrix before it is cut into heads.
        merges = name == "out"
        init = nn.initializers.variance_scaling(
            scale=1.0,
            mode="fan_avg",
            distribution="uniform",
            in_axis=(0, 1) if merges else 0,
            out_axis=2 if merges else (1, 2),
        )
        axes = ("heads", "kv", "embed") if merges else ("embed", "heads", "kv")
        return parameter(self, name, init, shape, axes).astype(self.dtype)

    def _bias(self, name: str, shape: tuple[int, ...]) -> jax.Array:
        axes = ("embed",) if len(shape) == 1 else ("heads", "kv")
        bias = parameter(self, name, nn.initializers.zeros, shape, axes)
        return bias.astype(self.dtype).reshape(1, 1, *shape)


class FeedForward(nn.Module):
    """Two dense layers with a GELU between them, for each token alone.

    Attributes:
        ratio: hidden features per input feature.
        dtype: dtype of the computation; parameters are float32.
    """

    ratio: float = 4.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    @checked
    def __call__(self, x: Float[Array, "*b d"]) -> Float[jax.Array, "*b d"]:
        """Transform the last axis."""
        width, hidden = x.shape[-1], round(x.shape[-1] * self.ratio)
        x = dense(hidden, axes=("embed", "mlp"), dtype=self.dtype, name="hidden")(x)
        return dense(width, axes=("mlp", "embed"), dtype=self.dtype, name="out")(nn.gelu(x))


class Block(nn.Module):
    """Attention, then a feed-forward layer, each normalised before and added to what came in.

    ``train`` is a field and not an argument, so that rematerialisation and scan see arrays only.

    Attributes:
        heads: heads of the attention.
        mlp_ratio: hidden features of the feed-forward layer per feature.
        dropout: share of each branch's features set to 0 while training.
        train: whether dropout is on; it draws from the random stream "dropout".
        dtype: dtype of the computation; parameters are float32.

    Source: Vaswani et al. 2017, arXiv:1706.03762, with the normalisation first as in Xiong et al.
    2020, arXiv:2002.04745.
    """

    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    train: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    @checked
    def __call__(
        self, x: Float[Array, "n t d"], where: Bool[Array, "n #t t"] | None = None
    ) -> Float[jax.Array, "n t d"]:
        """Transform t tokens; ``where`` says which keys (last axis) a query may see."""
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        y = layer_norm(x, name="attention_norm")
        y = MultiHeadAttention(self.heads, dtype=self.dtype, name="attention")(y, y, where)
        x = x + drop(y)
        y = layer_norm(x, name="mlp_norm")
        return x + drop(FeedForward(self.mlp_ratio, dtype=self.dtype, name="mlp")(y))


class Transformer(nn.Module):
    """A stack of ``depth`` blocks and a last normalisation.

    Scanned, the stack compiles once whatever its depth, and every parameter below ``layers`` has a
    leading axis of ``depth``. Unrolled, the blocks are ``layer_0``, ``layer_1``, ...; XLA then runs
    a shallow stack a little faster on a CPU, and compiles for longer. Both compute the same.

    Attributes:
        depth: number of blocks.
        heads: heads of the attention.
        mlp_ratio: hidden features of a feed-forward layer per feature.
        dropout: share of each branch's features set to 0 while training.
        scan_layers: run one compiled block ``depth`` times instead of compiling each.
        remat: recompute a block in the backward pass instead of keeping its activations: memory
            for one block instead of ``depth``, for about a third more time.
        dtype: dtype of the computation; parameters are float32.
    """

    depth: int
    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    scan_layers: bool = True
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    @checked
    def __call__(
        self,
        x: Float[Array, "n t d"],
        *,
        where: Bool[Array, "n t"] | None = None,
        causal: bool = False,
        train: bool = False,
    ) -> Float[jax.Array, "n t d"]:
        """Let t tokens look at each other.

        Args:
            x: tokens, with their positions added.
            where: valid tokens. What the others hold, NaN included, changes no valid token.
            causal: let a token see only itself and those before it.
            train: turn dropout on; it draws from the random stream "dropout".

        Returns:
            The tokens transformed and normalised; rows of invalid tokens are finite, and mean
            nothing.

        Raises:
            ValueError: if ``heads`` does not divide the features.
        """
        visible = None
        if where is not None:
            x = jnp.where(where[:, :, None], x, jnp.zeros((), x.dtype))
            visible = where[:, None, :]
        if causal:
            length = x.shape[1]
            past = jnp.tri(length, dtype=bool)[None]
            visible = past if visible is None else past & visible
            visible = jnp.broadcast_to(visible, (len(x), length, length))
        # Inside a scan nothing could be merged across blocks, so the barriers would only cost.
        block = nn.remat(Block, prevent_cse=not self.scan_layers) if self.remat else Block
        build = functools.partial(
            block, self.heads, self.mlp_ratio, self.dropout, train=train, dtype=self.dtype
        )
        x = x.astype(self.dtype)
        if self.scan_layers:
            scan = nn.scan(
                lambda layer, x, visible: (layer(x, visible), None),
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,
                length=self.depth,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, _ = scan(build(name="layers"), x, visible)
        else:
            for i in range(self.depth):
                x = build(name=f"layer_{i}")(x, visible)
        return layer_norm(x, name="final_norm")
