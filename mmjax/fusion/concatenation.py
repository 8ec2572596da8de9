"""Fusion by concatenation: the modalities side by side, and a layer that sees all of them."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.fusion.additive import linear_terms
from mmjax.fusion.modalities import Modalities, linear, plus_bias
from mmjax.fusion.parameters import make_bias, make_kernel, make_kernels
from mmjax.modalities import Masks, Rows, check_names


@checked
def concatenate(inputs: Rows, *, where: Masks | None = None) -> Float[jax.Array, "n d"]:
    r"""The features of all modalities side by side, in the order of the modalities' names.

    .. math:: [x_1; \ldots; x_M]

    Args:
        inputs: per modality, one row of features per example.
        where: per modality, the examples that have it, all if None. A missing one leaves zeros in
            its place, and its gradient is 0 even where it holds NaN.

    Returns:
        As many features as the modalities have together, in the dtype of the inputs.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if ``inputs`` and ``where`` do not name the same modalities.

    Source: no paper.

    >>> print(concatenate({"text": jnp.array([[3.0]]), "image": jnp.array([[1.0, 2.0]])}))
    [[1. 2. 3.]]
    """
    return jnp.concatenate([x for _, x, _ in Modalities.of(inputs, where)], axis=1)


@checked
def concatenation_fusion(
    inputs: Rows,
    kernels: Mapping[str, Float[Array, "_ h"]],
    bias: Float[Array, "h"],
    out_kernel: Float[Array, "h k"],
    out_bias: Float[Array, "k"],
    *,
    where: Masks | None = None,
) -> Float[jax.Array, "n k"]:
    r"""A hidden layer over the concatenated modalities, and a linear one.

    .. math:: h = \mathrm{GELU}([x_1; \ldots; x_M] W + b)\, V + c

    The kernel W comes in one block of rows per modality. With enough hidden features any
    interaction is captured; without the hidden layer this is
    :func:`~mmjax.fusion.additive.additive_fusion`.

    Args:
        inputs: per modality, one row of features per example.
        kernels: per modality, its rows of W.
        bias: b, of the hidden features.
        out_kernel: V.
        out_bias: c, of the fused features.
        where: per modality, the examples that have it, all if None. A missing one adds nothing to
            the hidden layer, and its gradient is 0 even where it holds NaN.

    Returns:
        k features per example, in the dtype of the inputs; 0 for an example that has no modality.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if the mappings do not name the same modalities.

    Source: Ngiam et al. 2011 (Multimodal deep learning), sec. 3, the shared layer over two
    modalities; a GELU in the place of its sigmoid.

    >>> rows = {"image": jnp.array([[1.0, 2.0]]), "text": jnp.array([[-3.0]])}
    >>> kernels = {"image": jnp.ones((2, 1)), "text": jnp.ones((1, 1))}
    >>> print(concatenation_fusion(rows, kernels, jnp.zeros(1), jnp.ones((1, 1)), jnp.ones(1)))
    [[1.]]
    """
    modalities = Modalities.of(inputs, where)
    check_names("inputs", inputs, "kernels", kernels)
    hidden = jax.nn.gelu(linear_terms(modalities, kernels, bias)).astype(modalities.dtype)
    return modalities.fused(plus_bias(linear(hidden, out_kernel), out_bias))


class Concatenation(nn.Module):
    """Owns both layers of :func:`concatenation_fusion`.

    Attributes:
        features: fused features.
        hidden: features of the hidden layer.
    """

    features: int
    hidden: int = 64

    @nn.compact
    @checked
    def __call__(
        self, inputs: Rows, *, where: Masks | None = None
    ) -> Float[jax.Array, "n {self.features}"]:
        """Fuse the modalities of each example."""
        return concatenation_fusion(
            inputs,
            make_kernels(self, "kernel", inputs, self.hidden),
            make_bias(self, "bias", self.hidden),
            make_kernel(self, "out_kernel", self.hidden, self.features),
            make_bias(self, "out_bias", self.features),
            where=where,
        )
