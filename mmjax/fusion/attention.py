"""Attention over modalities: how much each of them matters is a function of the example."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, checked
from mmjax.fusion.modalities import Modalities, linear, plus_bias, total
from mmjax.fusion.parameters import make_biases, make_kernel, make_kernels
from mmjax.modalities import Masks, Rows, check_names


@checked
def modality_attention(
    inputs: Mapping[str, Float[Array, "n d"]],
    scores: Mapping[str, Float[Array, "n"]],
    *,
    where: Masks | None = None,
) -> Float[jax.Array, "n d"]:
    r"""Mean of the modalities that an example has, weighted by a softmax over their scores.

    .. math:: h = \sum_{m \in V} \frac{e^{s_m}}{\sum_{l \in V} e^{s_l}}\, x_m

    Args:
        inputs: one row of d features per example and modality.
        scores: :math:`s_m`, one number per example and modality, in nats.
        where: per modality, the examples that have it (:math:`V`, of each example); all if None.

    Returns:
        The fused representation; 0 for an example without a modality.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if the mappings do not name the same modalities.

    Source: Hori et al. 2017, arXiv:1701.03126, sec. 3.2 (attentional multimodal fusion).

    >>> x = {"text": jnp.eye(2), "image": -jnp.eye(2)}
    >>> even = {"text": jnp.zeros(2), "image": jnp.zeros(2)}
    >>> have = {"text": jnp.array([True, True]), "image": jnp.array([True, False])}
    >>> print(modality_attention(x, even, where=have))
    [[0. 0.]
     [0. 1.]]
    """
    check_names("inputs", inputs, "scores", scores)
    given = Modalities.of(inputs, where)
    wide = given.wide
    logits = jnp.stack([_score(x, scores[name]).astype(wide) for name, x, _ in given])
    valid = jnp.stack(list(given.valid.values()))
    # A finite floor, not -inf: an example that has nothing then has no NaN in its gradient.
    weights = jax.nn.softmax(jnp.where(valid, logits, jnp.finfo(wide).min), axis=0)
    rows = zip(weights, given.arrays.values(), strict=True)
    return given.fused(total(weight[:, None] * x.astype(wide) for weight, x in rows))


class ModalityAttention(nn.Module):
    r"""Owns what makes the rows and the scores of :func:`modality_attention`.

    .. math:: x_m \mapsto A_m x_m + a_m, \qquad
              s_m = w^\top \tanh(B_m x_m + b_m)

    Attributes:
        features: of the fused representation.
        hidden: features of the tanh that a score is read from.

    Source: Hori et al. 2017, arXiv:1701.03126, sec. 3.2. There a decoder's state joins the tanh,
    and another tanh is applied to the sum; a representation has neither.

    >>> fusion = ModalityAttention(features=8)
    >>> x = {"text": jnp.ones((3, 5)), "image": jnp.ones((3, 7))}
    >>> jax.eval_shape(fusion.init_with_output, jax.random.key(0), x)[0].shape
    (3, 8)
    """

    features: int
    hidden: int = 32

    @nn.compact
    @checked
    def __call__(
        self, inputs: Rows, *, where: Masks | None = None
    ) -> Float[jax.Array, "n {self.features}"]:
        """Fuse the modalities of each example."""
        given = Modalities.of(inputs, where)
        values = make_kernels(self, "value", inputs, self.features)
        value_biases = make_biases(self, "value_bias", inputs, self.features)
        kernels = make_kernels(self, "score", inputs, self.hidden)
        biases = make_biases(self, "score_bias", inputs, self.hidden)
        direction = make_kernel(self, "score", self.hidden)
        rows, scores = {}, {}
        for name, x, _ in given:
            rows[name] = plus_bias(linear(x, values[name]), value_biases[name])
            hidden = jnp.tanh(plus_bias(linear(x, kernels[name]), biases[name]))
            scores[name] = linear(hidden, direction)
        return modality_attention(rows, scores, where=given.valid).astype(given.dtype)


# What is annotated on a mapping is checked of one of its entries only; this checks every one.
@checked
def _score(x: Float[Array, "n d"], score: Float[Array, "n"]) -> jax.Array:
    return jnp.asarray(score)
