"""High-order polynomial pooling: products of any features, of one modality or of several."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.fusion.modalities import Modalities, linear, plus_bias, total
from mmjax.fusion.parameters import make_kernel, make_kernels
from mmjax.losses.samples import unit_length
from mmjax.modalities import Masks, Rows, check_names


@checked
def polynomial_fusion(
    inputs: Rows,
    kernels: Mapping[str, Float[Array, "_ r k"]],
    constant: Float[Array, "r k"],
    *,
    order: int = 3,
    where: Masks | None = None,
) -> Float[jax.Array, "n k"]:
    r"""Polynomial of the concatenated modalities, as a sum of r powers.

    .. math:: p = \sum_r \big([\tfrac12; x_1; \ldots; x_M]\, W^{(r)}\big)^P, \qquad
              s = \mathrm{sign}(p)\, |p|^{1/P}, \qquad h = s / \lVert s \rVert_2

    All products of up to P features are there, of one modality or of several. With an even P no
    feature of p is negative. A window over time is fused by giving its steps as modalities.

    Args:
        inputs: per modality, one row of features per example.
        kernels: per modality, its rows of :math:`W^{(r)}`.
        constant: the row of :math:`W^{(r)}` that belongs to the 1/2.
        order: P, at least 1.
        where: per modality, the examples that have it, all if None. All products of a missing one
            are left out, and its gradient is 0 even where it holds NaN.

    Returns:
        k features per example, of length 1, in the dtype of the inputs; 0 for an example that has
        no modality. The slope of the root has no bound near 0; exactly there it is taken as 0.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if the mappings do not name the same modalities, or ``order`` is below 1.

    Source: Hou et al. 2019 (Deep multimodal multilinear fusion with high-order polynomial pooling),
    NeurIPS, sec. 3, one polynomial tensor pooling block with a core of symmetric rank r.

    >>> rows = {"image": jnp.array([[1.0]]), "text": jnp.array([[0.5]])}
    >>> kernels = dict.fromkeys(rows, jnp.array([[[3.0, 4.0]]]))
    >>> [f"{h:.1f}" for h in polynomial_fusion(rows, kernels, jnp.array([[3.0, 4.0]]))[0]]
    ['0.6', '0.8']
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    modalities = Modalities.of(inputs, where)
    check_names("inputs", inputs, "kernels", kernels)
    by_features = total(linear(x, kernels[name]) for name, x, _ in modalities)
    projected = plus_bias(by_features, jnp.asarray(constant) / 2)
    # The size of a fused feature passes power and root unchanged: it is a constant within them, so
    # that the power of a large one does not overflow, nor that of a small one vanish.
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(projected), axis=1, keepdims=True))
    size = jnp.where(size > 0, size, 1)
    power = jnp.sum((projected / size) ** order, axis=1)
    return modalities.fused(unit_length(size[:, 0] * _signed_root(power, order)))


def _signed_root(x: jax.Array, order: int) -> jax.Array:
    """The root of the size with the sign kept; at 0 its infinite slope is taken as 0."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sign(x) * jnp.where(zero, 1, jnp.abs(x)) ** (1 / order))


class Polynomial(nn.Module):
    """Owns the kernels of :func:`polynomial_fusion`.

    Attributes:
        features: fused features.
        rank: r, how many powers are added up.
        order: P, how many features a product may have.
    """

    features: int
    rank: int = 4
    order: int = 3

    @nn.compact
    @checked
    def __call__(
        self, inputs: Rows, *, where: Masks | None = None
    ) -> Float[jax.Array, "n {self.features}"]:
        """Fuse the modalities of each example."""
        return polynomial_fusion(
            inputs,
            make_kernels(self, "kernel", inputs, self.rank, self.features),
            make_kernel(self, "constant", self.rank, self.features, contracted=0),
            order=self.order,
            where=where,
        )
