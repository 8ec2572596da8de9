"""The latent resampler: any number of tokens of any modality become a fixed number of latents."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import checked
from mmjax.fusion.blocks import Block, LayerNorm, check_at_least, check_block, repeated
from mmjax.fusion.tokens import Sequences, TokenMasks, Tokens, joined


class ResamplerLayer(nn.Module):
    r"""Lets latents gather from the tokens of all modalities, and from each other.

    .. math:: z' = \mathrm{Block}(z \leftarrow [x_1; \dots; x_M; z])

    Attributes:
        heads, mlp_ratio, dropout, train: of the block, see :class:`mmjax.fusion.blocks.Block`.

    Source: Alayrac et al. 2022, arXiv:2204.14198, app. A.1.1, with one normalisation for all that
    is looked at.
    """

    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    train: bool = False

    @nn.compact
    def __call__(self, latents: jax.Array, tokens: jax.Array, valid: jax.Array) -> jax.Array:
        """Give the latents ``[n, l, d]`` after the layer."""
        source = jnp.concatenate([tokens, latents], axis=1)
        seen = jnp.concatenate([valid, jnp.ones(latents.shape[:2], bool)], axis=1)
        block = Block(self.heads, self.mlp_ratio, self.dropout, self.train, name="block")
        return block(latents, source, seen)


class LatentResampler(nn.Module):
    """Learned latents that gather from the tokens of all modalities, layer by layer (Perceiver).

    Cost is linear in the number of tokens. Padding and missing modalities are not seen.

    Attributes:
        features: of the tokens and of the latents.
        heads: heads of every attention.
        latents: number of latents.
        depth: number of layers, at least 1: the latents look at nothing otherwise.
        mlp_ratio: hidden features of a feed-forward layer per feature.
        dropout: share of each branch's features set to 0 while training.

    Raises:
        ValueError: while being built, for fields that do not fit each other.

    Source: Jaegle et al. 2021, arXiv:2103.03206, sec. 3, in the form of Alayrac et al. 2022,
    arXiv:2204.14198, app. A.1.1, where latents attend to inputs and latents at once. Modalities are
    told apart by the bias of their projections, where the former appends learned features.

    >>> fusion = LatentResampler(features=8, heads=2, latents=4, depth=1)
    >>> x = {"image": jnp.ones((3, 5, 4)), "sound": jnp.ones((3, 9, 6))}
    >>> jax.eval_shape(fusion.init_with_output, jax.random.key(0), x)[0].shape
    (3, 4, 8)
    """

    features: int
    heads: int
    latents: int = 16
    depth: int = 2
    mlp_ratio: float = 4.0
    dropout: float = 0.0

    def __post_init__(self):
        check_block(self.features, self.heads, self.mlp_ratio, self.dropout)
        check_at_least(1, latents=self.latents, depth=self.depth)
        super().__post_init__()

    @nn.compact
    @checked
    def __call__(
        self, inputs: Sequences, *, where: TokenMasks | None = None, train: bool = False
    ) -> Float[jax.Array, "n {self.latents} {self.features}"]:
        """Fuse sequences.

        Args:
            inputs: per modality, one sequence ``[n, t, d]`` per example, each with its own t and d.
            where: per modality, the valid tokens ``[n, t]``; all if None.
            train: turn dropout on; it draws from the random stream "dropout".

        Returns:
            The latents of each example, normalised; 0 for an example without a token. Their mean
            is one row per example.
        """
        given = Tokens(self.features, name="tokens")(inputs, where)
        tokens, valid = joined(given)
        shape = (1, self.latents, self.features)
        learned = self.param("latents", nn.initializers.normal(0.02), shape)
        z = jnp.broadcast_to(learned.astype(tokens.dtype), (len(tokens), *shape[1:]))
        layer = functools.partial(ResamplerLayer, self.heads, self.mlp_ratio, self.dropout, train)
        z = repeated(layer, self.depth, "layers", z, tokens, valid)
        return given.fused(LayerNorm(name="norm")(z))
