"""Low-rank multimodal fusion: the tensor product of all modalities, never formed."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.fusion.modalities import Modalities, linear
from mmjax.fusion.parameters import make_kernel
from mmjax.fusion.tensor import with_one
from mmjax.modalities import Masks, Rows, check_names


@checked
def low_rank_fusion(
    inputs: Rows,
    factors: Mapping[str, Float[Array, "_ r k"]],
    *,
    where: Masks | None = None,
) -> Float[jax.Array, "n k"]:
    r"""Sum over ranks of the product over modalities.

    .. math:: h = \sum_r \prod_m [1; x_m]\, W_m^{(r)}

    This is :func:`~mmjax.fusion.tensor.tensor_fusion` with a core of CP rank r: memory and time
    grow with the sum of the modalities' features, not with their product.

    Args:
        inputs: per modality, one row of features per example.
        factors: per modality, :math:`W_m^{(r)}`; the first row belongs to the 1.
        where: per modality, the examples that have it, all if None. A missing one leaves the
            products to the others, and its gradient is 0 even where it holds NaN. (The first row
            of its factor is left out with it, so that this equals the operator without the
            modality; putting zeros in its place would leave that row in the product.)

    Returns:
        k features per example, in the dtype of the inputs; 0 for an example that has no modality.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if the mappings do not name the same modalities.

    Source: Liu et al. 2018, arXiv:1806.00064, eq. 6; the 1 stands first instead of last.

    >>> rows = {"image": jnp.array([[2.0]]), "text": jnp.array([[3.0]])}
    >>> print(low_rank_fusion(rows, dict.fromkeys(rows, jnp.ones((2, 1, 1)))))
    [[12.]]
    """
    modalities = Modalities.of(inputs, where)
    check_names("inputs", inputs, "factors", factors)
    terms = {name: linear(with_one(x), factors[name]) for name, x, _ in modalities}
    return modalities.fused(jnp.sum(modalities.product(terms), axis=1))


class LowRankFusion(nn.Module):
    """Owns the factors of :func:`low_rank_fusion`, every one a parameter that learns.

    Attributes:
        features: fused features.
        rank: of the tensor that is never formed.
    """

    features: int
    rank: int = 4

    @nn.compact
    @checked
    def __call__(
        self, inputs: Rows, *, where: Masks | None = None
    ) -> Float[jax.Array, "n {self.features}"]:
        """Fuse the modalities of each example."""
        factors = {
            name: make_kernel(
                self, f"factor_{name}", inputs[name].shape[-1] + 1, self.rank, self.features
            )
            for name in sorted(inputs)
        }
        return low_rank_fusion(inputs, factors, where=where)
