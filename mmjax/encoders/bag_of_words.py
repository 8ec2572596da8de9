"""A text as the set of its words: the cheapest tower for it, and hard to beat when short."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from mmjax.arrays import Array, checked
from mmjax.encoders.fields import check_choice
from mmjax.encoders.mlp import MLP
from mmjax.encoders.partitioned import named
from mmjax.encoders.pooling import mean_pool


class BagOfWords(nn.Module):
    r"""Average the embeddings of a text's words, in whatever order they stand.

    .. math:: h = \frac{1}{|V|^{p}} \sum_{j \in V} e_j,
              \qquad p = 1 \text{ ("mean") or } 1/2 \text{ ("sqrt")}

    Token 0 is padding wherever it stands, and a text of nothing else has :math:`h = 0`.

    Attributes:
        vocab_size: number of tokens, padding included.
        width: features of a word and of the result.
        pooling: "mean", or "sqrt", whose length does not shrink as texts grow. The two differ only
            if ``hidden`` layers follow: the projection of a two-tower model normalises.
        hidden: features of the hidden layers between the average and the result; with none, the
            average is the result.
        dtype: dtype of the computation; parameters are float32.

    Raises:
        ValueError: while being built, for a field that cannot be.

    Source: Iyyer et al. 2015 (deep averaging networks), ACL P15-1162, for the hidden layers.

    >>> tower = BagOfWords(vocab_size=9, width=16)
    >>> texts = jnp.array([[3, 4, 0], [5, 0, 0]])
    >>> features, _ = jax.eval_shape(tower.init_with_output, jax.random.key(0), texts)
    >>> features.shape
    (2, 16)
    """

    vocab_size: int
    width: int
    pooling: str = "mean"
    hidden: tuple[int, ...] = ()
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        check_choice("pooling", self.pooling, ("mean", "sqrt"))
        super().__post_init__()

    @nn.compact
    @checked
    def __call__(
        self, tokens: Int[Array, "n t"], *, train: bool = False
    ) -> Float[jax.Array, "n {self.width}"]:
        """Encode texts.

        Args:
            tokens: token numbers below ``vocab_size``; 0 is padding.
            train: changes nothing: words are dropped where texts are prepared.

        Returns:
            One row of features per text, before any shared projection.
        """
        where = jnp.asarray(tokens) != 0
        words = nn.Embed(
            self.vocab_size,
            self.width,
            embedding_init=named(nn.initializers.normal(self.width**-0.5), ("vocab", "embed")),
            dtype=self.dtype,
            name="word_embedding",
        )(jnp.asarray(tokens))
        x = mean_pool(words, where)
        if self.pooling == "sqrt":
            count = jnp.sum(where, axis=1, keepdims=True, dtype=jnp.float32)
            x = (x.astype(jnp.float32) * jnp.sqrt(count)).astype(self.dtype)
        if self.hidden:
            x = MLP(self.hidden, self.width, dtype=self.dtype, name="mlp")(x)
        return x
