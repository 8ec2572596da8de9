"""A transformer over tokens, in which padding does not exist."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from mmjax.arrays import Array, checked
from mmjax.encoders.fields import check_choice, check_heads, check_rate
from mmjax.encoders.partitioned import named
from mmjax.encoders.pooling import AttentionPool, last_pool, mean_pool
from mmjax.encoders.positions import LearnedPositions
from mmjax.encoders.transformer import Transformer


class TextTransformer(nn.Module):
    """Token embeddings, learned positions, a transformer, one row per text.

    Token 0 is padding wherever it stands: appending it changes nothing, and a text of nothing else
    gives 0. A token beyond ``vocab_size`` gives NaN, which no run survives unnoticed.

    Attributes:
        vocab_size: number of tokens, padding included.
        max_length: longest text, in tokens.
        width: features of a token and of the result.
        depth: number of blocks.
        heads: attention heads; they divide ``width``.
        mlp_ratio: hidden features of a feed-forward layer per feature.
        causal: let a token see only itself and those before it.
        pooling: "last" (the last valid token), "mean" or "attention" (a learned query). A causal
            tower wants "last", since only that token has seen the whole text.
        dropout: share of the features of each branch of a block set to 0 while training.
        scan_layers: see :class:`~mmjax.encoders.transformer.Transformer`.
        remat: see :class:`~mmjax.encoders.transformer.Transformer`.
        dtype: dtype of the computation; parameters are float32.

    Raises:
        ValueError: while being built, for a field that cannot be.

    Source: Radford et al. 2021, arXiv:2103.00020, section 2.4, which is causal with "last".

    >>> tower = TextTransformer(vocab_size=9, max_length=5, width=16, depth=1, heads=2)
    >>> texts = jnp.array([[3, 4, 0], [5, 0, 0]])
    >>> features, _ = jax.eval_shape(tower.init_with_output, jax.random.key(0), texts)
    >>> features.shape
    (2, 16)
    """

    vocab_size: int
    max_length: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    causal: bool = False
    pooling: str = "mean"
    dropout: float = 0.0
    scan_layers: bool = True
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_choice("pooling", self.pooling, ("last", "mean", "attention"))
        check_heads(self.width, self.heads)
        check_rate("dropout", self.dropout)
        super().__post_init__()

    @nn.compact
    @checked
    def __call__(
        self, tokens: Int[Array, "n t"], *, train: bool = False
    ) -> Float[jax.Array, "n {self.width}"]:
        """Encode texts.

        Args:
            tokens: token numbers below ``vocab_size``; 0 is padding.
            train: turn dropout on; it draws from the random stream "dropout".

        Returns:
            One row of features per text, before any shared projection.

        Raises:
            ValueError: if the texts are longer than ``max_length``.
        """
        length = tokens.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"texts must have at most max_length={self.max_length} tokens, got {length}; "
                "cut them in the tokenizer, or build the tower with a larger max_length"
            )
        where = tokens != 0
        x = nn.Embed(
            self.vocab_size,
            self.width,
            embedding_init=named(nn.initializers.normal(0.02), ("vocab", "embed")),
            dtype=self.dtype,
            name="token_embedding",
        )(jnp.asarray(tokens))
        table = LearnedPositions(self.max_length, self.width, name="positions")()
        x = x + table[None, :length].astype(self.dtype)
        x = Transformer(
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            dropout=self.dropout,
            scan_layers=self.scan_layers,
            remat=self.remat,
            dtype=self.dtype,
            name="transformer",
        )(x, where=where, causal=self.causal, train=train)
        if self.pooling == "attention":
            return AttentionPool(self.heads, self.mlp_ratio, self.dtype, name="pooling")(x, where)
        return last_pool(x, where) if self.pooling == "last" else mean_pool(x, where)
