"""FiLM: the other modalities scale and shift the features of one."""

from collections.abc import Mapping

import flax.linen as nn
import jax
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.fusion.modalities import Modalities, check_content, linear, plus_bias, total
from mmjax.fusion.parameters import make_bias, make_kernel, make_kernels
from mmjax.modalities import Masks, Rows, check_names


@checked
def film_fusion(
    inputs: Rows,
    value: Float[Array, "_ k"],
    scales: Mapping[str, Float[Array, "_ k"]],
    shifts: Mapping[str, Float[Array, "_ k"]],
    bias: Float[Array, "k"],
    *,
    content: str,
    where: Masks | None = None,
) -> Float[jax.Array, "n k"]:
    r"""Feature-wise linear modulation of one modality by all others.

    .. math:: h = \gamma \odot x_c V + \beta, \qquad
              \gamma = 1 + \sum_{m \ne c} x_m S_m, \qquad \beta = b + \sum_{m \ne c} x_m T_m

    Args:
        inputs: per modality, one row of features per example.
        value: :math:`V`, of the content.
        scales: :math:`S_m`, of every other modality.
        shifts: :math:`T_m`, of every other modality.
        bias: :math:`b`. One of the scales would be no more than another :math:`V`.
        content: c, the modality that is modulated.
        where: per modality, the examples that have it, all if None. A missing one neither scales
            nor shifts; missing content leaves :math:`\beta`. Its gradient is 0 even where it holds
            NaN.

    Returns:
        k features per example, in the dtype of the inputs; 0 for an example that has no modality.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if the mappings do not name the same modalities, or lack ``content``.

    Source: Perez et al. 2018, arXiv:1709.07871, eq. 1 and 2, for one modality that modulates, with
    the 1 in :math:`\gamma` that its sec. 3 recommends; the sum over more of them is ours.

    >>> import jax.numpy as jnp
    >>> rows, one = {"image": jnp.array([[5.0]]), "text": jnp.array([[2.0]])}, jnp.ones((1, 1))
    >>> print(film_fusion(rows, one, {"text": one}, {"text": one}, jnp.zeros(1), content="image"))
    [[17.]]
    """
    modalities = Modalities.of(inputs, where)
    check_content([content], inputs)
    check_names("inputs", inputs, "content and scales", [content, *scales])
    check_names("inputs", inputs, "content and shifts", [content, *shifts])
    h = linear(modalities.arrays[content], value)
    others = {name: x for name, x, _ in modalities if name != content}
    if others:
        gamma = 1 + total(linear(x, scales[name]) for name, x in others.items())
        h = total([gamma * h, *(linear(x, shifts[name]) for name, x in others.items())])
    return modalities.fused(plus_bias(h, bias))


class FiLM(nn.Module):
    """Owns the kernels and the bias of :func:`film_fusion`.

    Attributes:
        features: fused features.
        content: the modality that the others modulate.
    """

    features: int
    content: str

    @nn.compact
    @checked
    def __call__(
        self, inputs: Rows, *, where: Masks | None = None
    ) -> Float[jax.Array, "n {self.features}"]:
        """Fuse the modalities of each example.

        Raises:
            ValueError: if ``inputs`` lacks ``content``.
        """
        check_content([self.content], inputs)
        others = {name: x for name, x in inputs.items() if name != self.content}
        return film_fusion(
            inputs,
            make_kernel(self, "value", inputs[self.content].shape[-1], self.features),
            make_kernels(self, "scale", others, self.features),
            make_kernels(self, "shift", others, self.features),
            make_bias(self, "bias", self.features),
            content=self.content,
            where=where,
        )
