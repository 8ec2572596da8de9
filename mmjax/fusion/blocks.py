"""Transformer blocks in which one sequence looks at another, exact under padding."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked


@checked
def attend(
    query: Float[Array, "n q h k"],
    key: Float[Array, "n t h k"],
    value: Float[Array, "n t h k"],
    where: Bool[Array, "n t"],
) -> Float[jax.Array, "n q h k"]:
    r"""Scaled dot-product attention to the valid keys of each example.

    .. math:: o_i = \sum_{j \in V} \frac{e^{q_i \cdot k_j / \sqrt{k}}}
                    {\sum_{l \in V} e^{q_i \cdot k_l / \sqrt{k}}} v_j

    Args:
        query: q queries for each of h heads, k features each.
        key: t keys; finite at masked places too, and so are the values.
        value: t values.
        where: the valid keys :math:`V` of each example.

    Returns:
        One row per query and head, in the dtype of ``value``; the softmax is float32 or wider.
        Where an example has no valid key: 0, with a gradient of 0.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.

    >>> one = jnp.ones((2, 1, 1, 4))
    >>> attend(one, one, one, jnp.array([[True], [False]])).max(axis=(1, 2, 3)).tolist()
    [1.0, 0.0]
    """
    wide = accumulation_dtype(value)
    scores = jnp.einsum("nqhk,nthk->nhqt", query, key, preferred_element_type=wide)
    seen = jnp.asarray(where)[:, None, None]
    # A finite floor, not -inf: an example with no valid key then has no NaN in its gradient.
    scores = jnp.where(seen, scores * key.shape[-1] ** -0.5, jnp.finfo(wide).min)
    weights = jnp.where(seen, jax.nn.softmax(scores, axis=-1), 0).astype(value.dtype)
    mixed = jnp.einsum("nhqt,nthk->nqhk", weights, value, preferred_element_type=wide)
    return mixed.astype(value.dtype)


class MultiHeadAttention(nn.Module):
    """Owns the four projections around :func:`attend`, and computes in the dtype of the queries.

    There is no bias on the keys: it would add the same number to all scores of a query, which the
    softmax takes away again.

    Attributes:
        heads: number of heads; they share the features of the queries equally.
    """

    heads: int

    @nn.compact
    @checked
    def __call__(
        self, query: Float[Array, "n q d"], key: Float[Array, "n t d"], where: Bool[Array, "n t"]
    ) -> Float[jax.Array, "n q d"]:
        """Let each row of ``query`` gather from the valid rows of ``key``."""
        features, dtype = query.shape[-1], query.dtype
        split = (self.heads, features // self.heads)

        def project(x: Array, name: str) -> jax.Array:
            return nn.DenseGeneral(
                split,
                use_bias=name != "key",
                kernel_init=_named(nn.initializers.xavier_uniform(), "embed", "heads", "kv"),
                bias_init=_named(nn.initializers.zeros, "heads", "kv"),
                dtype=dtype,
                name=name,
            )(x)

        q, k, v = project(query, "query"), project(key, "key"), project(key, "value")
        return nn.DenseGeneral(
            features,
            axis=(-2, -1),
            kernel_init=_named(nn.initializers.xavier_uniform(), "heads", "kv", "embed"),
            bias_init=_named(nn.initializers.zeros, "embed"),
            dtype=dtype,
            name="out",
        )(attend(q, k, v, where))


class Block(nn.Module):
    """Attention, then a feed-forward layer, each normalised before and added to what came in.

    ``train`` is a field and not an argument, so that a scan over layers sees arrays only.

    Attributes:
        heads: heads of the attention.
        mlp_ratio: hidden features of the feed-forward layer per feature.
        dropout: share of each branch's features set to 0 while training.
        train: whether dropout is on; it draws from the random stream "dropout".

    Source: Vaswani et al. 2017, arXiv:1706.03762, with the normalisation first as in Xiong et al.
    2020, arXiv:2002.04745.
    """

    heads: int
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    train: bool = False

    @nn.compact
    @checked
    def __call__(
        self,
        x: Float[Array, "n q d"],
        source: Float[Array, "n t d"] | None,
        where: Bool[Array, "n t"],
    ) -> Float[jax.Array, "n q d"]:
        """Transform q tokens.

        Args:
            x: the tokens that look.
            source: the tokens that they look at; themselves if None.
            where: the valid ones of those that are looked at.

        Returns:
            The tokens, in their own dtype. An example that may look at nothing is transformed by
            the biases and the feed-forward layer alone.
        """
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        query = LayerNorm(name="query_norm")(x)
        key = query if source is None else LayerNorm(name="source_norm")(source)
        x = x + drop(MultiHeadAttention(self.heads, name="attention")(query, key, where))
        hidden = round(x.shape[-1] * self.mlp_ratio)
        y = nn.gelu(
            dense(hidden, "hidden", x, axes=("embed", "mlp"))(LayerNorm(name="mlp_norm")(x))
        )
        return x + drop(dense(x.shape[-1], "out", x, axes=("mlp", "embed"))(y))


def repeated(layer: Callable[..., nn.Module], depth: int, name: str, x: Any, *fixed: Any) -> Any:
    """Run ``depth`` layers of one kind, which compile once whatever their number.

    Args:
        layer: makes the layer, given its ``name``; it takes ``x`` and ``fixed`` and gives ``x``.
        depth: number of layers, 0 for none.
        name: under which the parameters lie, with a leading axis of ``depth``.
        x: what goes from layer to layer.
        *fixed: what every layer sees as it is.

    Returns:
        What the last layer gives.
    """
    if depth == 0:
        return x
    scan = nn.scan(
        lambda layer, x, *fixed: (layer(x, *fixed), None),
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=nn.broadcast,
        length=depth,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    return scan(layer(name=name), x, *fixed)[0]


@checked
def normalised(
    x: Float[Array, "*n d"], scale: Float[Array, "d"], bias: Float[Array, "d"]
) -> Float[jax.Array, "*n d"]:
    r"""Layer normalisation.

    .. math:: y = \frac{x - \bar x}{\sqrt{\overline{(x - \bar x)^2} + 10^{-6}}}\, s + b

    Args:
        x: rows of d features.
        scale: :math:`s`.
        bias: :math:`b`.

    Returns:
        As many rows, in the dtype of ``x``; means are float32 or wider. Equal features give
        ``bias``, with a gradient that is finite.

    Raises:
        jaxtyping.TypeCheckError: on shapes that do not fit.

    Source: Ba et al. 2016, arXiv:1607.06450, sec. 3.

    >>> print(normalised(jnp.array([[1.0, 3.0]]), jnp.ones(2), jnp.zeros(2)).round(3))
    [[-1.  1.]]
    """
    wide = accumulation_dtype(x)
    centred = x.astype(wide) - jnp.mean(x, axis=-1, keepdims=True, dtype=wide)
    spread = jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-6)
    scale, bias = (p.astype(wide).reshape(*[1] * (x.ndim - 1), -1) for p in (scale, bias))
    return jnp.asarray(centred * spread * scale + bias).astype(x.dtype)


class LayerNorm(nn.Module):
    """Owns the scale and the bias of :func:`normalised`."""

    @nn.compact
    def __call__(self, x: Array) -> jax.Array:
        """Normalise the last axis."""
        shape = (x.shape[-1],)
        scale = self.param("scale", _named(nn.initializers.ones, "embed"), shape)
        bias = self.param("bias", _named(nn.initializers.zeros, "embed"), shape)
        return normalised(x, scale, bias)


def dense(
    features: int,
    name: str,
    x: Array,
    *,
    axes: tuple[str | None, str | None],
    use_bias: bool = True,
) -> nn.Dense:
    """Build a dense layer that computes in the dtype of ``x``.

    ``axes`` names its (in, out); a name that stood twice could not be laid over a mesh.
    """
    return nn.Dense(
        features,
        use_bias=use_bias,
        kernel_init=_named(nn.initializers.xavier_uniform(), *axes),
        bias_init=_named(nn.initializers.zeros, axes[1]),
        dtype=x.dtype,
        name=name,
    )


def square(name: str, x: Array) -> jax.Array:
    """Map features to as many; without a bias, so that what is missing adds nothing."""
    return dense(x.shape[-1], name, x, axes=(None, "embed"), use_bias=False)(x)


def check_block(features: int, heads: int, mlp_ratio: float, dropout: float) -> None:
    """Raise ValueError unless a block can be built like that."""
    check_at_least(1, features=features)
    if heads < 1 or features % heads:
        raise ValueError(f"heads must divide features, got features={features} and heads={heads}")
    if round(features * mlp_ratio) < 1:
        raise ValueError(
            "features * mlp_ratio must round to at least 1 hidden feature, got"
            f" features={features} and mlp_ratio={mlp_ratio}"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")


def check_at_least(least: int, **fields: int) -> None:
    """Raise ValueError if one of the fields is less."""
    for name, value in fields.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def check_fusion_depth(depth: int, fusion_depth: int) -> None:
    """Raise ValueError unless the layers before the fusion are among all ``depth`` layers."""
    if not 0 <= fusion_depth <= depth:
        raise ValueError(
            f"fusion_depth must be between 0 and depth, got {fusion_depth} and depth={depth}"
        )


def _named(init: Callable[..., jax.Array], *axes: str | None) -> Callable[..., Any]:
    """Let what ``init`` makes carry logical names of its axes, which a sharding rule may read."""
    return nn.with_logical_partitioning(init, axes)
