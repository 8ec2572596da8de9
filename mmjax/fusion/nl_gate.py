"""NL-gate: the tokens of one modality gather from the tokens of all others."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.fusion.modalities import Modalities, check_content, linear
from mmjax.fusion.parameters import make_kernel, make_kernels
from mmjax.modalities import Masks, Rows, check_names


@checked
def non_local_gate(
    query: Float[Array, "n q d"],
    key: Float[Array, "n t d"],
    value: Float[Array, "n t d"],
    *,
    where: Bool[Array, "n t"] | None = None,
) -> Float[jax.Array, "n q d"]:
    r"""Add to each query what it gathers by dot products that are not scaled.

    .. math:: h_i = q_i + \sum_{j \in V}
                    \frac{e^{q_i \cdot k_j}}{\sum_{l \in V} e^{q_i \cdot k_l}} v_j

    Args:
        query: q tokens of the modality that gathers.
        key: t tokens of what it gathers from.
        value: what those t tokens give.
        where: the tokens :math:`V` that are there, all if None; the others have to be finite.

    Returns:
        One row per query, in the dtype of ``query``, scores and sums being float32 or wider; the
        query itself where no token is there.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.

    Source: Wang et al. 2020, arXiv:1905.12681, the NL-gate of the supplement, after Wang et al.
    2018, arXiv:1711.07971, eq. 4, without the division by the root of d.

    >>> one = jnp.ones((1, 1, 2))
    >>> non_local_gate(one, one, 3 * one).tolist()
    [[[4.0, 4.0]]]
    """
    query, key, value = (jnp.asarray(x) for x in (query, key, value))
    there = jnp.ones(key.shape[:2], bool) if where is None else jnp.asarray(where)
    there = there[:, None]
    wide = accumulation_dtype(query)
    scores = jnp.einsum("nqd,ntd->nqt", query, key, preferred_element_type=wide)
    # A finite floor, not -inf: where no token is there, nothing becomes NaN.
    weights = jax.nn.softmax(jnp.where(there, scores, jnp.finfo(wide).min), axis=2)
    weights = jnp.where(there, weights, 0).astype(value.dtype)
    gathered = jnp.einsum("nqt,ntd->nqd", weights, value, preferred_element_type=wide)
    return (query.astype(wide) + gathered).astype(query.dtype)


@checked
def nl_gate_fusion(
    inputs: Rows,
    query: Float[Array, "_ q d"],
    keys: Mapping[str, Float[Array, "_ t d"]],
    values: Mapping[str, Float[Array, "_ t d"]],
    *,
    content: str,
    where: Masks | None = None,
) -> Float[jax.Array, "n q*d"]:
    r"""Make tokens of each modality, and let those of one gather from those of all others.

    .. math:: h = [q_1; \ldots; q_Q] + \text{what each } q_i = x_c Q_i \text{ gathers from the }
              x_m K_{mj} \text{ and } x_m V_{mj},\; m \ne c

    Args:
        inputs: per modality, one row of features per example.
        query: :math:`Q_i`, from the features of the content to its q tokens of d features.
        keys: :math:`K_{mj}`, to the keys of t tokens of every other modality.
        values: :math:`V_{mj}`, to what those tokens give.
        content: c, the modality that gathers.
        where: per modality, the examples that have it, all if None. Nothing is gathered from a
            missing one; missing content gathers from all tokens alike. Its gradient is 0 even where
            it holds NaN.

    Returns:
        The q tokens of d features side by side, in the dtype of the inputs; 0 for an example that
        has no modality.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.
        ValueError: if the mappings do not name the same modalities, or lack ``content``.

    Source: Wang et al. 2020, arXiv:1905.12681, the NL-gate of the supplement. There the tokens are
    places and moments of a video and of its sound; rows of features have none, and get them from a
    linear map. Tokens of several modalities under one softmax are ours.

    >>> rows = {"image": jnp.array([[1.0]]), "text": jnp.array([[2.0]])}
    >>> one = jnp.ones((1, 1, 1))
    >>> print(nl_gate_fusion(rows, one, {"text": one}, {"text": one}, content="image"))
    [[3.]]
    """
    modalities = Modalities.of(inputs, where)
    check_content([content], inputs)
    check_names("inputs", inputs, "content and keys", [content, *keys])
    check_names("inputs", inputs, "content and values", [content, *values])

    def tokens(name: str, kernel: Array) -> jax.Array:
        return linear(modalities.arrays[name], kernel).astype(modalities.dtype)

    h, others = tokens(content, query), sorted(keys)
    if others:
        there = [
            jnp.broadcast_to(modalities.valid[name][:, None], (len(h), keys[name].shape[1]))
            for name in others
        ]
        h = non_local_gate(
            h,
            jnp.concatenate([tokens(name, keys[name]) for name in others], axis=1),
            jnp.concatenate([tokens(name, values[name]) for name in others], axis=1),
            where=jnp.concatenate(there, axis=1),
        )
    return modalities.fused(h.reshape(len(h), h.shape[1] * h.shape[2]))


class NLGate(nn.Module):
    """Owns the maps of :func:`nl_gate_fusion` from rows to tokens.

    Attributes:
        features: fused features, those of all tokens of the content.
        content: the modality that gathers.
        tokens: tokens of each modality.

    Raises:
        ValueError: while being built, if ``tokens`` does not divide ``features``.
    """

    features: int
    content: str
    tokens: int = 4

    def __post_init__(self):
        if self.tokens < 1 or self.features % self.tokens:
            raise ValueError(
                f"tokens must divide features, got tokens={self.tokens} and"
                f" features={self.features}"
            )
        super().__post_init__()

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
        shape = (self.tokens, self.features // self.tokens)
        others = {name: x for name, x in inputs.items() if name != self.content}
        return nl_gate_fusion(
            inputs,
            make_kernel(self, "query", inputs[self.content].shape[-1], *shape),
            make_kernels(self, "key", others, *shape),
            make_kernels(self, "value", others, *shape),
            content=self.content,
            where=where,
        )
