"""The cross-modal transformer: every modality looks at every other one, token by token."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.fusion.blocks import LayerNorm, check_at_least, repeated, square
from mmjax.fusion.modalities import Modalities
from mmjax.fusion.sequences import SequenceFusion
from mmjax.fusion.tokens import READOUTS


class CrossModalTransformer(SequenceFusion):
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
        depth: :math:`D`, layers of each ordered pair of modalities.
        self_depth: :math:`S`, layers of each modality after that.
        readout: "last" valid token, or the "mean" of the valid ones.
        features, heads, kernel_size, mlp_ratio, dropout: see :class:`SequenceFusion`.

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

    depth: int = 4
    self_depth: int = 3
    readout: str = "last"

    def __post_init__(self):
        check_at_least(0, depth=self.depth, self_depth=self.self_depth)
        if self.readout not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}, got {self.readout!r}")
        super().__post_init__()

    def fuse(self, given: Modalities, block: Callable[..., nn.Module]) -> jax.Array:
        """Give the sum of what is read off the stream of each modality."""
        fused = []
        for target, x, valid in given:
            stream = x
            for source, y, seen in given:
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
        return functools.reduce(jnp.add, fused)
