"""Fusion at a chosen depth: early, in between, late, and fed back to where it came from."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.fusion.blocks import LayerNorm, check_at_least, check_fusion_depth, repeated, square
from mmjax.fusion.bottleneck import mean_of_present
from mmjax.fusion.modalities import Modalities
from mmjax.fusion.sequences import SequenceFusion
from mmjax.fusion.tokens import joined, mean_token


class Round(nn.Module):
    """One pass from the tokens of each modality to what is fused of them.

    Attributes:
        block: makes a block, given its name.
        alone: layers before modalities meet.
        together: layers after that.

    Source: Nagrani et al. 2021, arXiv:2107.00135, sec. 3.2-3.3.
    """

    block: Callable[..., nn.Module]
    alone: int
    together: int

    @nn.compact
    def __call__(self, given: Modalities, context: jax.Array | None) -> jax.Array:
        """Give one row per example; ``context`` is what the round before gave, if there was one."""
        tokens = {}
        for name, x, valid in given:
            if context is not None:
                x = x + square(f"{name}_back", context)[:, None]
            tokens[name] = repeated(self.block, self.alone, f"{name}_alone", x, None, valid)
        x, valid = joined(Modalities(tokens, given.valid))
        x = repeated(self.block, self.together, "together", x, None, valid)
        x = LayerNorm(name="norm")(x)
        ends = np.cumsum([seen.shape[1] for seen in given.valid.values()])[:-1]
        parts = jnp.split(x, ends, axis=1)
        masks = given.valid.items()
        said = {
            name: mean_token(part, seen) for part, (name, seen) in zip(parts, masks, strict=True)
        }
        there = {name: jnp.any(seen, axis=1) for name, seen in masks}
        return mean_of_present(said, there, jnp.zeros_like(x[:, 0]))


class DepthFusion(SequenceFusion):
    r"""Layers of each modality alone up to some depth, layers of all tokens together after it.

    .. math::
        Z_m &= \mathrm{Block}_m^{F}(X_m + A_m c_{r-1}), \qquad
        [Z_1'; \dots; Z_M'] = \mathrm{Block}^{D - F}([Z_1; \dots; Z_M]) \\
        c_r &= \frac{1}{|V|} \sum_{m \in V} \mathrm{mean}(Z_m'), \qquad c_0 = 0, \qquad h = c_R

    ``fusion_depth`` :math:`F = 0` is early fusion, :math:`F = D` late fusion, what lies between is
    intermediate. With :math:`R > 1` rounds fusion is progressive: what was fused goes back to the
    tokens of each modality, which are encoded anew by the same layers. Padding and missing
    modalities change nothing.

    Attributes:
        depth: :math:`D`, layers that a token passes in each round.
        fusion_depth: :math:`F`, how many of them before modalities meet.
        rounds: :math:`R`, at least 1.
        features, heads, kernel_size, mlp_ratio, dropout: see :class:`SequenceFusion`.

    Raises:
        ValueError: while being built, for fields that do not fit each other.

    Source: Nagrani et al. 2021, arXiv:2107.00135, sec. 3.2-3.3 (vanilla self-attention, where to
    fuse), with one mean per modality instead of class tokens; Shankar et al. 2022,
    arXiv:2209.00302 (progressive fusion: backward connections, unrolled), for any depth of fusion.

    >>> fusion = DepthFusion(features=8, heads=2, depth=2, fusion_depth=1, rounds=2)
    >>> x = {"image": jnp.ones((3, 5, 4)), "sound": jnp.ones((3, 9, 6))}
    >>> jax.eval_shape(fusion.init_with_output, jax.random.key(0), x)[0].shape
    (3, 8)
    """

    depth: int = 4
    fusion_depth: int = 2
    rounds: int = 1

    def __post_init__(self):
        check_fusion_depth(self.depth, self.fusion_depth)
        check_at_least(1, rounds=self.rounds)
        super().__post_init__()

    def fuse(self, given: Modalities, block: Callable[..., nn.Module]) -> jax.Array:
        """Give what the last round gives."""
        once = Round(block, self.fusion_depth, self.depth - self.fusion_depth, name="round")
        fused = once(given, None)
        for _ in range(self.rounds - 1):
            fused = once(given, fused)
        return fused
