"""MUTAN: a Tucker decomposition of the bilinear form, whose core is a sum of R products."""

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
def mutan_fusion(
    inputs: Rows,
    kernels: Mapping[str, Float[Array, "_ t"]],
    biases: Mapping[str, Float[Array, "t"]],
    factors: Mapping[str, Float[Array, "t r z"]],
    out_kernel: Float[Array, "z k"],
    out_bias: Float[Array, "k"],
    *,
    where: Masks | None = None,
) -> Float[jax.Array, "n k"]:
    r"""Project each modality, let a core of rank R tie the projections together, project again.

    .. math:: h = \Big(\sum_{r=1}^R \prod_m \tilde x_m M_m^{(r)}\Big) W_o + c,
              \qquad \tilde x_m = \tanh(x_m W_m + b_m)

    Args:
        inputs: per modality, one row of features per example.
        kernels: per modality, :math:`W_m`.
        biases: per modality, :math:`b_m`.
        factors: per modality, the R matrices :math:`M_m^{(r)}`, from t projected features to the z
            features of the core's output.
        out_kernel: :math:`W_o`.
        out_bias: :math:`c`.
        where: per modality, the examples that have it, all if None. A missing one leaves the
            products to the others, and its gradient is 0 even where it holds NaN.

    Returns:
        k features per example, in the dtype of the inputs; 0 for an example that has no modality.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if the mappings do not name the same modalities.

    Source: Ben-younes et al. 2017, arXiv:1705.06676, sec. 3.2, for two modalities; the product over
    more of them, and the biases, are ours.

    >>> rows = {"image": jnp.array([[100.0]]), "text": jnp.array([[-100.0]])}
    >>> kernels = dict.fromkeys(rows, jnp.ones((1, 1)))
    >>> biases = dict.fromkeys(rows, jnp.zeros(1))
    >>> factors = dict.fromkeys(rows, jnp.ones((1, 3, 1)))
    >>> print(mutan_fusion(rows, kernels, biases, factors, jnp.ones((1, 1)), jnp.zeros(1)))
    [[-3.]]
    """
    modalities = Modalities.of(inputs, where)
    for what, parameters in (("kernels", kernels), ("biases", biases), ("factors", factors)):
        check_names("inputs", inputs, what, parameters)
    terms = {}
    for name, x, _ in modalities:
        projected = jnp.tanh(plus_bias(linear(x, kernels[name]), biases[name]))
        terms[name] = linear(projected.astype(modalities.dtype), factors[name])
    core = jnp.sum(modalities.product(terms), axis=1).astype(modalities.dtype)
    return modalities.fused(plus_bias(linear(core, out_kernel), out_bias))


class MUTAN(nn.Module):
    """Owns the projections and the core of :func:`mutan_fusion`.

    Attributes:
        features: fused features.
        width: features of each projected modality, and of the core's output.
        rank: R, how many products the core adds up.
    """

    features: int
    width: int = 32
    rank: int = 4

    @nn.compact
    @checked
    def __call__(
        self, inputs: Rows, *, where: Masks | None = None
    ) -> Float[jax.Array, "n {self.features}"]:
        """Fuse the modalities of each example."""
        kernels = make_kernels(self, "kernel", inputs, self.width)
        return mutan_fusion(
            inputs,
            kernels,
            make_biases(self, "bias", inputs, self.width),
            {
                name: make_kernel(self, f"factor_{name}", self.width, self.rank, self.width)
                for name in kernels
            },
            make_kernel(self, "out_kernel", self.width, self.features),
            make_bias(self, "out_bias", self.features),
            where=where,
        )
