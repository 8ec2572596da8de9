"""Multimodal low-rank bilinear pooling (MLB): a product of projections, one per modality."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.fusion.modalities import Modalities, linear, plus_bias
from mmjax.fusion.parameters import make_bias, make_biases, make_kernel, make_kernels
from mmjax.modalities import Masks, Rows, check_names


@checked
def mlb_fusion(
    inputs: Rows,
    kernels: Mapping[str, Float[Array, "_ r"]],
    biases: Mapping[str, Float[Array, "r"]],
    out_kernel: Float[Array, "r k"],
    out_bias: Float[Array, "k"],
    *,
    where: Masks | None = None,
) -> Float[jax.Array, "n k"]:
    r"""Project each modality, multiply feature by feature, project again.

    .. math:: h = \Big(\prod_m \tanh(x_m U_m + b_m)\Big) P + c

    For two modalities, without the tanh, a bilinear form whose kernel has rank r.

    Args:
        inputs: per modality, one row of features per example.
        kernels: per modality, :math:`U_m`.
        biases: per modality, :math:`b_m`.
        out_kernel: :math:`P`.
        out_bias: :math:`c`.
        where: per modality, the examples that have it, all if None. A missing one leaves the
            product to the others, and its gradient is 0 even where it holds NaN.

    Returns:
        k features per example, in the dtype of the inputs; 0 for an example that has no modality.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if the mappings do not name the same modalities.

    Source: Kim et al. 2017, arXiv:1610.04325, sec. 3.1 (the biases) and 3.2 (the tanh), for two
    modalities; the product over more of them is ours.

    >>> rows = {"image": jnp.array([[100.0]]), "text": jnp.array([[-100.0]])}
    >>> kernels = dict.fromkeys(rows, jnp.ones((1, 1)))
    >>> biases = dict.fromkeys(rows, jnp.zeros(1))
    >>> print(mlb_fusion(rows, kernels, biases, jnp.ones((1, 1)), jnp.zeros(1)))
    [[-1.]]
    """
    modalities = Modalities.of(inputs, where)
    check_names("inputs", inputs, "kernels", kernels)
    check_names("inputs", inputs, "biases", biases)
    factors = {
        name: jnp.tanh(plus_bias(linear(x, kernels[name]), biases[name]))
        for name, x, _ in modalities
    }
    product = modalities.product(factors).astype(modalities.dtype)
    return modalities.fused(plus_bias(linear(product, out_kernel), out_bias))


class MLB(nn.Module):
    """Owns the projections of :func:`mlb_fusion`.

    Attributes:
        features: fused features.
        rank: features of the product.
    """

    features: int
    rank: int = 32

    @nn.compact
    @checked
    def __call__(
        self, inputs: Rows, *, where: Masks | None = None
    ) -> Float[jax.Array, "n {self.features}"]:
        """Fuse the modalities of each example."""
        return mlb_fusion(
            inputs,
            make_kernels(self, "kernel", inputs, self.rank),
            make_biases(self, "bias", inputs, self.rank),
            make_kernel(self, "out_kernel", self.rank, self.features),
            make_bias(self, "out_bias", self.features),
            where=where,
        )
