"""Gated fusion: a modality lets through what the others tell it to."""

from collections.abc import Mapping

import flax.linen as nn
import jax
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.fusion.modalities import Modalities, check_content, linear, plus_bias, total
from mmjax.fusion.parameters import make_biases, make_kernels
from mmjax.modalities import Masks, Rows, check_names


@checked
def gated_fusion(
    inputs: Rows,
    values: Mapping[str, Float[Array, "_ k"]],
    gates: Mapping[str, Float[Array, "_ k"]],
    gate_biases: Mapping[str, Float[Array, "k"]],
    *,
    where: Masks | None = None,
) -> Float[jax.Array, "n k"]:
    r"""Sum over modalities of their features, each let through by the gates of all others.

    .. math:: h = \sum_{m \in C} x_m V_m \odot
              \prod_{l \in G,\; l \ne m} \sigma(x_l U_l + c_l)

    Args:
        inputs: per modality, one row of features per example.
        values: :math:`V_m`, of the modalities C whose features are let through.
        gates: :math:`U_l`, of the modalities G that have a gate.
        gate_biases: :math:`c_l`, of the same.
        where: per modality, the examples that have it, all if None. A missing one adds nothing and
            holds nothing back, and its gradient is 0 even where it holds NaN.

    Returns:
        k features per example, in the dtype of the inputs; 0 for an example that has no modality of
        ``values``.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if a parameter is of a modality that ``inputs`` lacks, a modality has neither
            values nor a gate, none has values, or ``gates`` and ``gate_biases`` differ.

    Source: Kiela et al. 2018, arXiv:1802.02892, the gated fusion, which is C and G of one modality
    each; the sum over both directions and more modalities is ours.

    >>> import jax.numpy as jnp
    >>> rows = {"image": jnp.array([[8.0]]), "text": jnp.array([[0.0]])}
    >>> one = jnp.ones((1, 1))
    >>> print(gated_fusion(rows, {"image": one}, {"text": one}, {"text": jnp.zeros(1)}))
    [[4.]]
    """
    modalities = Modalities.of(inputs, where)
    check_content(values, inputs)
    check_names("inputs", inputs, "values or gates", {**values, **gates})
    check_names("gates", gates, "gate_biases", gate_biases)
    gate = {
        name: jax.nn.sigmoid(plus_bias(linear(x, gates[name]), gate_biases[name]))
        for name, x, _ in modalities
        if name in gates
    }
    let_through = (
        modalities.product(
            {other: gate[other] for other in gate if other != name},
            initial=linear(modalities.arrays[name], values[name]),
        )
        for name in sorted(values)
    )
    return modalities.fused(total(let_through))


class Gated(nn.Module):
    """Owns the values and the gates of :func:`gated_fusion`.

    Attributes:
        features: fused features.
        content: the modalities whose features are let through by the others; all if None.
    """

    features: int
    content: tuple[str, ...] | None = None

    @nn.compact
    @checked
    def __call__(
        self, inputs: Rows, *, where: Masks | None = None
    ) -> Float[jax.Array, "n {self.features}"]:
        """Fuse the modalities of each example.

        Raises:
            ValueError: if ``content`` is empty, or names a modality that ``inputs`` lacks.
        """
        content = tuple(inputs) if self.content is None else self.content
        check_content(content, inputs)
        valued = {name: inputs[name] for name in content}
        gating = {name: x for name, x in inputs.items() if set(content) - {name}}
        return gated_fusion(
            inputs,
            make_kernels(self, "value", valued, self.features),
            make_kernels(self, "gate", gating, self.features),
            make_biases(self, "gate_bias", gating, self.features),
            where=where,
        )
