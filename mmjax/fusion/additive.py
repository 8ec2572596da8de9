"""Additive fusion: every modality says its part, and the parts are added up."""

from collections.abc import Mapping

import flax.linen as nn
import jax
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.fusion.modalities import Modalities, linear, plus_bias, total
from mmjax.fusion.parameters import make_bias, make_kernels
from mmjax.modalities import Masks, Rows, check_names


@checked
def additive_fusion(
    inputs: Rows,
    kernels: Mapping[str, Float[Array, "_ k"]],
    bias: Float[Array, "k"],
    *,
    where: Masks | None = None,
) -> Float[jax.Array, "n k"]:
    r"""Sum of a linear map of each modality.

    .. math:: h = b + \sum_m x_m W_m

    This is also what a linear map of the concatenated modalities gives. No interaction is captured:
    what one modality adds does not depend on the others.

    Args:
        inputs: per modality, one row of features per example.
        kernels: per modality, :math:`W_m`.
        bias: :math:`b`, one for the sum.
        where: per modality, the examples that have it, all if None. A missing one adds nothing, and
            its gradient is 0 even where it holds NaN.

    Returns:
        k features per example, in the dtype of the inputs; 0 for an example that has no modality.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if the mappings do not name the same modalities.

    Source: no paper; the additive fusion of Kiela et al. 2018, arXiv:1802.02892, with a map of its
    own for each modality.

    >>> import jax.numpy as jnp
    >>> rows = {"image": jnp.array([[1.0, 2.0]]), "text": jnp.array([[3.0]])}
    >>> kernels = {"image": jnp.ones((2, 1)), "text": jnp.full((1, 1), 10.0)}
    >>> print(additive_fusion(rows, kernels, jnp.zeros(1)))
    [[33.]]
    """
    modalities = Modalities.of(inputs, where)
    check_names("inputs", inputs, "kernels", kernels)
    return modalities.fused(linear_terms(modalities, kernels, bias))


def linear_terms(
    modalities: Modalities, kernels: Mapping[str, Array], bias: Array
) -> Float[jax.Array, "n k"]:
    """The sum of :func:`additive_fusion`, in the dtype of its sums, of modalities made ready."""
    return plus_bias(total(linear(x, kernels[name]) for name, x, _ in modalities), bias)


class Additive(nn.Module):
    """Owns the kernels and the bias of :func:`additive_fusion`.

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
        return additive_fusion(
            inputs,
            make_kernels(self, "kernel", inputs, self.features),
            make_bias(self, "bias", self.features),
            where=where,
        )
