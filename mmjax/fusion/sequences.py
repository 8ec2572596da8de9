"""What every fusion of sequences does first and last: tokens of one width, and a row or several."""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
from jaxtyping import Float

from mmjax.arrays import checked
from mmjax.fusion.blocks import Block, check_at_least, check_block
from mmjax.fusion.modalities import Modalities
from mmjax.fusion.tokens import Sequences, TokenMasks, Tokens


class SequenceFusion(nn.Module):
    """Makes tokens of sequences, which :meth:`fuse` of a subclass fuses by blocks.

    Attributes:
        features: of the tokens and of the result.
        heads: heads of every attention.
        kernel_size: of the convolutions that project the modalities, see :class:`Tokens`.
        mlp_ratio: hidden features of a feed-forward layer per feature.
        dropout: share of each branch's features set to 0 while training.

    Raises:
        ValueError: while being built, for fields that do not fit each other.
    """

    features: int
    heads: int
    # By keyword, so that the fields of a subclass come first.
    kernel_size: int = dataclasses.field(default=1, kw_only=True)
    mlp_ratio: float = dataclasses.field(default=4.0, kw_only=True)
    dropout: float = dataclasses.field(default=0.0, kw_only=True)

    def __post_init__(self):
        check_block(self.features, self.heads, self.mlp_ratio, self.dropout)
        check_at_least(1, kernel_size=self.kernel_size)
        super().__post_init__()

    @nn.compact
    @checked
    def __call__(
        self, inputs: Sequences, *, where: TokenMasks | None = None, train: bool = False
    ) -> Float[jax.Array, "n *l {self.features}"]:
        """Fuse sequences.

        Args:
            inputs: per modality, one sequence ``[n, t, d]`` per example, each with its own t and d.
            where: per modality, the valid tokens ``[n, t]``; all if None.
            train: turn dropout on; it draws from the random stream "dropout".

        Returns:
            One row per example, or of the resampler several; 0 for an example without a token.
        """
        given = Tokens(self.features, self.kernel_size, name="tokens")(inputs, where)
        block = functools.partial(Block, self.heads, self.mlp_ratio, self.dropout, train)
        return given.fused(self.fuse(given, block))

    def fuse(self, given: Modalities, block: Callable[..., nn.Module]) -> jax.Array:
        """Fuse tokens by what ``block`` makes, given a ``name``."""
        raise NotImplementedError
