"""Bilinear fusion: every product of a feature of one modality and a feature of another."""

import itertools
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.fusion.modalities import Modalities, linear, plus_bias, total
from mmjax.fusion.parameters import make_bias, make_kernel
from mmjax.modalities import Masks, Rows, name_pairs

Pair: TypeAlias = tuple[str, str]


def pairs_of(names: Iterable[str]) -> list[Pair]:
    """Every pair of modalities, each in the order of their names.

    >>> pairs_of(["text", "image", "sound"])
    [('image', 'sound'), ('image', 'text'), ('sound', 'text')]
    """
    return list(itertools.combinations(sorted(names), 2))


@checked
def bilinear_fusion(
    inputs: Rows,
    kernels: Mapping[Pair, Float[Array, "_ _ k"]],
    bias: Float[Array, "k"],
    *,
    where: Masks | None = None,
) -> Float[jax.Array, "n k"]:
    r"""Sum over the pairs of modalities of a bilinear form.

    .. math:: h = b + \sum_{a < b} x_a^\top W_{ab}\, x_b

    Interactions of two modalities are captured, and nothing else: an example of which only one
    modality is there gives the bias.

    Args:
        inputs: per modality, one row of features per example.
        kernels: per pair as :func:`pairs_of` gives them, :math:`W_{ab}`, of the features of a, the
            features of b and the fused ones.
        bias: :math:`b`, one for the sum.
        where: per modality, the examples that have it, all if None. The pairs of a missing one are
            left out, and its gradient is 0 even where it holds NaN.

    Returns:
        k features per example, in the dtype of the inputs; 0 for an example that has no modality.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if the mappings do not name the same modalities.

    Source: Tenenbaum and Freeman 2000 (Separating style and content with bilinear models), Neural
    Computation 12(6), eq. 1, for two modalities; the sum over pairs for more of them is ours.

    >>> rows = {"image": jnp.array([[1.0, 2.0]]), "text": jnp.array([[3.0]])}
    >>> print(bilinear_fusion(rows, {("image", "text"): jnp.ones((2, 1, 1))}, jnp.zeros(1)))
    [[9.]]
    """
    modalities = Modalities.of(inputs, where)
    forms = bilinear_forms(modalities, kernels)
    nothing = jnp.zeros((len(modalities.there), len(bias)), modalities.wide)
    return modalities.fused(total([plus_bias(nothing, bias), *forms]))


def bilinear_forms(modalities: Modalities, kernels: Mapping[Pair, Array]) -> list[jax.Array]:
    """The terms of :func:`bilinear_fusion`, one per pair, in the dtype of their sums.

    Raises:
        ValueError: if the kernels are of other pairs.
    """
    pairs = pairs_of(modalities.arrays)
    if set(pairs) != set(kernels):
        wanted, got = (", ".join(map(str, sorted(found))) or "none" for found in (pairs, kernels))
        raise ValueError(f"kernels must be of the pairs {wanted}, got {got}")
    x = modalities.arrays
    return [_form(x[a], kernels[a, b], x[b]) for a, b in pairs]


@checked
def _form(
    x: Float[jax.Array, "n d"], kernel: Float[Array, "d e k"], y: Float[jax.Array, "n e"]
) -> Float[jax.Array, "n k"]:
    """One bilinear form per fused feature. A missing row is 0, and so is what comes of it."""
    mapped = linear(x, kernel)
    return jnp.einsum("nek,ne->nk", mapped, y.astype(mapped.dtype))


def make_pair_kernels(
    module: nn.Module, inputs: Mapping[str, Array], features: int
) -> dict[Pair, jax.Array]:
    """Declare ``kernel_A_and_B`` for each pair of modalities."""
    d = {name: x.shape[-1] for name, x in inputs.items()}
    return {
        (a, b): make_kernel(module, f"kernel_{name}", d[a], d[b], features, contracted=2)
        for (a, b), name in name_pairs(pairs_of(inputs), "_and_").items()
    }


class Bilinear(nn.Module):
    """Owns the kernels and the bias of :func:`bilinear_fusion`.

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
        kernels = make_pair_kernels(self, inputs, self.features)
        return bilinear_fusion(inputs, kernels, make_bias(self, "bias", self.features), where=where)
