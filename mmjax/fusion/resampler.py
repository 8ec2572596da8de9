"""The latent resampler: any number of tokens of any modality become a fixed number of latents."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.fusion.blocks import LayerNorm, check_at_least, repeated
from mmjax.fusion.modalities import Modalities
from mmjax.fusion.sequences import SequenceFusion
from mmjax.fusion.tokens import joined


class ResamplerLayer(nn.Module):
    r"""Lets latents gather from the tokens of all modalities, and from each other.

    .. math:: z' = \mathrm{Block}(z \leftarrow [x_1; \dots; x_M; z])

    Attributes:
        block: makes a block, given its name.

    Source: Alayrac et al. 2022, arXiv:2204.14198, app. A.1.1, with one normalisation for all that
    is looked at.
    """

    block: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, latents: jax.Array, tokens: jax.Array, valid: jax.Array) -> jax.Array:
        """Give the latents ``[n, l, d]`` after the layer."""
        source = jnp.concatenate([tokens, latents], axis=1)
        seen = jnp.concatenate([valid, jnp.ones(latents.shape[:2], bool)], axis=1)
        return self.block(name="block")(latents, source, seen)


class LatentResampler(SequenceFusion):
    """Learned latents that gather from the tokens of all modalities, layer by layer (Perceiver).

    Cost is linear in the number of tokens. Padding and missing modalities are not seen. The result
    is the latents of each example, normalised; their mean is one row per example.

    Attributes:
        latents: number of latents.
        depth: number of layers, at least 1: the latents look at nothing otherwise.
        features, heads, kernel_size, mlp_ratio, dropout: see :class:`SequenceFusion`.

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

    latents: int = 16
    depth: int = 2

    def __post_init__(self):
        check_at_least(1, latents=self.latents, depth=self.depth)
        super().__post_init__()

    def fuse(self, given: Modalities, block: Callable[..., nn.Module]) -> jax.Array:
        """Give the latents ``[n, l, d]`` of each example."""
        tokens, valid = joined(given)
        shape = (1, self.latents, self.features)
        learned = self.param("latents", nn.initializers.normal(0.02), shape)
        z = jnp.broadcast_to(learned.astype(tokens.dtype), (len(tokens), *shape[1:]))
        layer = functools.partial(ResamplerLayer, block)
        return LayerNorm(name="norm")(repeated(layer, self.depth, "layers", z, tokens, valid))
