"""Multiplicative interactions: each modality by itself, and every product of two of them."""

from collections.abc import Mapping

import flax.linen as nn
import jax
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.fusion.additive import linear_terms
from mmjax.fusion.bilinear import Pair, bilinear_forms, make_pair_kernels
from mmjax.fusion.modalities import Modalities, total
from mmjax.fusion.parameters import make_bias, make_kernels
from mmjax.modalities import Masks, Rows, check_names


@checked
def multiplicative_fusion(
    inputs: Rows,
    pair_kernels: Mapping[Pair, Float[Array, "_ _ k"]],
    kernels: Mapping[str, Float[Array, "_ k"]],
    bias: Float[Array, "k"],
    *,
    where: Masks | None = None,
) -> Float[jax.Array, "n k"]:
    r"""Sum of a bilinear form per pair of modalities and a linear map per modality.

    .. math:: h = b + \sum_m x_m U_m + \sum_{a < b} x_a^\top W_{ab}\, x_b

    Additive and bilinear fusion in one: what one modality says by itself, and how one changes what
    another says.

    Args:
        inputs: per modality, one row of features per example.
        pair_kernels: per pair as :func:`~mmjax.fusion.bilinear.pairs_of` gives them,
            :math:`W_{ab}`, of the features of a, the features of b and the fused ones.
        kernels: per modality, :math:`U_m`.
        bias: :math:`b`, one for the sum.
        where: per modality, the examples that have it, all if None. All terms of a missing one are
            left out, and its gradient is 0 even where it holds NaN.

    Returns:
        k features per example, in the dtype of the inputs; 0 for an example that has no modality.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if the mappings do not name the same modalities.

    Source: Jayakumar et al. 2020 (Multiplicative interactions and where to find them), ICLR,
    sec. 3, for two modalities; the sum over pairs for more of them is ours.

    >>> import jax.numpy as jnp
    >>> rows = {"image": jnp.array([[1.0, 2.0]]), "text": jnp.array([[3.0]])}
    >>> pairs = {("image", "text"): jnp.ones((2, 1, 1))}
    >>> kernels = {"image": jnp.ones((2, 1)), "text": jnp.ones((1, 1))}
    >>> print(multiplicative_fusion(rows, pairs, kernels, jnp.zeros(1)))
    [[15.]]
    """
    modalities = Modalities.of(inputs, where)
    check_names("inputs", inputs, "kernels", kernels)
    by_itself = linear_terms(modalities, kernels, bias)
    return modalities.fused(total([by_itself, *bilinear_forms(modalities, pair_kernels)]))


class Multiplicative(nn.Module):
    """Owns the kernels and the bias of :func:`multiplicative_fusion`.

    Attributes:
        features: fused features.
    """

    features: int

    @nn.compact
    @checked
    def __call__(
        self, inputs: Rows, *, where: Masks | None = None
    ) -> Float[jax.Array, "n {self.features}"]:
        """Fuse the modalities of each example."""
        return multiplicative_fusion(
            inputs,
            make_pair_kernels(self, inputs, self.features),
            make_kernels(self, "kernel", inputs, self.features),
            make_bias(self, "bias", self.features),
            where=where,
        )
