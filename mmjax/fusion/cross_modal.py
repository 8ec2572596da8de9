"""The cross-modal transformer: every modality looks at every other one, token by token."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import checked
from mmjax.fusion.blocks import Block, LayerNorm, check_at_least, check_block, repeated, square
from mmjax.fusion.tokens import READOUTS, Sequences, TokenMasks, Tokens


class CrossModalTransformer(nn.Module):
    r"""Enriches each modality by every other one, and reads one row off all of them (MulT).

    .. math::
        Z_{\beta\to\alpha} &= \mathrm{Block}^{D}(X_\alpha \leftarrow X_\beta) \\
        Z_\alpha &= \mathrm{Block}^{S}\Big(X_\alpha
                    + \sum_{\beta \ne \alpha} W_{\beta\to\alpha} Z_{\beta\to\alpha}\Big) \\
        h &= \sum_\alpha U_\alpha\, \mathrm{readout}(Z_\alpha)

    where a block lets the tokens of :math:`\alpha` attend to the projected tokens :math:`X_\beta`,
    the same in every one of its :math:`D` layers, and then to themselves in :math:`S` layers.

    Padding is exact: the result, and every gradient, is that of the sequences without it. So are
    missing modalities, whose rows of ``where`` are False: neither a source nor a target. An example
    with a single modality is encoded by self-attention alone.

    Attributes:
        features: of the tokens and of the result.
        heads: heads of every attention.
        depth: :math:`D`, layers of each ordered pair of modalities.
        self_depth: :math:`S`, layers of each modality after that.
        readout: "last" valid token, or the "mean" of the valid ones.
        kernel_size: of the convolutions that project the modalities, see :class:`Tokens`.
        mlp_ratio: hidden features of a feed-forward layer per feature.
        dropout: share of each branch's features set to 0 while training.

    Raises:
        ValueError: while being built, for fields that do not fit each other.

    Source: Tsai et al. 2019, arXiv:1906.00295, sec. 3. Three departures, so that any modality may
    be missing: its streams are concatenated, here they pass through the linear map that a
    concatenation is read by and are added; the target itself is added to them; the readouts are
    added likewise, without the paper's residual layer before its output. The released code has no
    padding mask; ours is exact.

    >>> fusion = CrossModalTransformer(features=8, heads=2, depth=1, self_depth=1)
    >>> x = {"text": jnp.ones((3, 5, 4)), "sound": jnp.ones((3, 9, 6))}
    >>> jax.eval_shape(fusion.init_with_output, jax.random.key(0), x)[0].shape
    (3, 8)
    """

    features: int
    heads: int
    depth: int = 4
    self_depth: int = 3
    readout: str = "last"
    kernel_size: int = 1
    mlp_ratio: float = 4.0
    dropout: float = 0.0

    def __post_init__(self):
        check_block(self.features, self.heads, self.mlp_ratio, self.dropout)
        check_at_least(0, depth=self.depth, self_depth=self.self_depth)
        check_at_least(1, kernel_size=self.kernel_size)
        if self.readout not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}, got {self.readout!r}")
        super().__post_init__()

    @nn.compact
    @checked
    def __call__(
        self, inputs: Sequences, *, where: TokenMasks | None = None, train: bool = False
    ) -> Float[jax.Array, "n {self.features}"]:
        """Fuse sequences.

        Args:
            inputs: per modality, one sequence ``[n, t, d]`` per example, each with its own t and d.
            where: per modality, the valid tokens ``[n, t]``; all if None.
            train: turn dropout on; it draws from the random stream "dropout".

        Returns:
            One row per example; 0 for an example without a token.
        """
        tokens = Tokens(self.features, self.kernel_size, name="tokens")(inputs, where)
        block = functools.partial(Block, self.heads, self.mlp_ratio, self.dropout, train)
        fused = []
        for target, x, valid in tokens:
            stream = x
            for source, y, seen in tokens:
                if source == target:
                    continue
                name = f"{target}_from_{source}"
                gathered = LayerNorm(name=f"{name}_norm")(
                    repeated(block, self.depth, name, x, y, seen)
                )
                merge = square(f"{name}_merge", gathered)
                stream += jnp.where(jnp.any(seen, axis=1)[:, None, None], merge, 0)
            stream = LayerNorm(name=f"{target}_norm")(
                repeated(block, self.self_depth, f"{target}_alone", stream, None, valid)
            )
            fused.append(square(f"{target}_readout", READOUTS[self.readout](stream, valid)))
        return tokens.fused(functools.reduce(jnp.add, fused))
