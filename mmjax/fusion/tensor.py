"""Tensor fusion: every product of at most one feature of each modality."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.fusion.modalities import Modalities, linear
from mmjax.fusion.parameters import make_kernel
from mmjax.modalities import Masks, Rows


@checked
def outer_product(inputs: Rows, *, where: Masks | None = None) -> Float[jax.Array, "n *d"]:
    r"""Outer product of all modalities, each with a constant 1 before its features.

    .. math:: Z = [1; x_1] \otimes \cdots \otimes [1; x_M]

    The 1 keeps the products of fewer modalities too: ``Z[:, 0, 0]`` is 1, ``Z[:, 1:, 0]`` the first
    modality by itself, ``Z[:, 1:, 1:]`` the products of both.

    Args:
        inputs: per modality, one row of features per example.
        where: per modality, the examples that have it, all if None. A missing one is
            :math:`[1; 0]`, which leaves the products of the others; its gradient is 0 even where it
            holds NaN.

    Returns:
        One axis per modality, in the order of their names, one longer than its features; in the
        dtype of the inputs. An example that has no modality has 0, also where others have the 1.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if ``inputs`` and ``where`` do not name the same modalities.

    Source: Zadeh et al. 2017, arXiv:1707.07250, eq. 2; the 1 stands first instead of last.

    >>> print(outer_product({"image": jnp.array([[2.0]]), "text": jnp.array([[3.0]])}))
    [[[1. 3.]
      [2. 6.]]]
    """
    modalities = Modalities.of(inputs, where)
    rows = [with_one(x).astype(accumulation_dtype(x)) for _, x, _ in modalities]
    product = functools.reduce(lambda z, x: jnp.einsum("n...,nd->n...d", z, x), rows)
    return modalities.fused(product)


@checked
def tensor_fusion(
    inputs: Rows, core: Float[Array, "*d k"], *, where: Masks | None = None
) -> Float[jax.Array, "n k"]:
    r"""Linear map of the outer product of all modalities.

    .. math:: h = Z\, W, \qquad Z = [1; x_1] \otimes \cdots \otimes [1; x_M]

    Every interaction of any number of modalities has a weight of its own: as many as the product of
    all :math:`d_m + 1`, which :func:`~mmjax.fusion.low_rank.low_rank_fusion` avoids.

    Args:
        inputs: per modality, one row of features per example.
        core: W, one axis per modality in the order of their names, one longer than its features,
            then the fused ones. ``core[0, ..., 0]`` is the bias.
        where: per modality, the examples that have it, all if None. All products of a missing one
            are left out, as in the operator with ``core[..., 0, ...]`` and without it; its gradient
            is 0 even where it holds NaN.

    Returns:
        k features per example, in the dtype of the inputs; 0 for an example that has no modality.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if ``inputs`` and ``where`` do not name the same modalities, or if ``core`` has
            other axes than they ask for.

    Source: Zadeh et al. 2017, arXiv:1707.07250, eq. 2 and the first layer of the network in its
    sec. 4.3, without the activation.

    >>> rows = {"image": jnp.array([[2.0]]), "text": jnp.array([[3.0]])}
    >>> print(tensor_fusion(rows, jnp.ones((2, 2, 1))))
    [[12.]]
    """
    product = outer_product(inputs, where=where)
    if core.shape[:-1] != product.shape[1:]:
        raise ValueError(
            f"core must have the axes {product.shape[1:]} and the fused features, one for each of"
            f" {', '.join(sorted(inputs))} and one longer than it, got {core.shape}"
        )
    flat = product.reshape(len(product), math.prod(product.shape[1:]))
    return linear(flat, jnp.asarray(core).reshape(flat.shape[1], -1)).astype(product.dtype)


def with_one(x: Float[jax.Array, "n d"]) -> Float[jax.Array, "n d_and_1"]:
    """Put a constant 1 before the features.

    >>> with_one(jnp.array([[2.0, 3.0]])).tolist()
    [[1.0, 2.0, 3.0]]
    """
    return jnp.concatenate([jnp.ones_like(x[:, :1]), x], axis=1)


class TensorFusion(nn.Module):
    """Owns the core of :func:`tensor_fusion`.

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
        axes = [inputs[name].shape[-1] + 1 for name in sorted(inputs)]
        core = make_kernel(self, "core", *axes, self.features, contracted=len(axes))
        return tensor_fusion(inputs, core, where=where)
