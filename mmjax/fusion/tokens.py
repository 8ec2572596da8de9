"""From sequences of named modalities to tokens of one width, and from tokens back to one row."""

from collections.abc import Mapping
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.fusion.blocks import check_at_least, dense
from mmjax.fusion.modalities import Modalities

Sequences: TypeAlias = Mapping[str, Float[Array, "n _ _"]]  # per modality, tokens of each example
TokenMasks: TypeAlias = Mapping[str, Bool[Array, "n _"]]  # per modality, the tokens that are there


@checked
def sinusoidal_positions(
    where: Bool[Array, "n t"], features: int
) -> Float[jax.Array, "n t {features}"]:
    r"""Waves of the place of each valid token among the valid ones of its sequence.

    .. math:: [\sin(p\, \omega), \cos(p\, \omega)], \qquad \omega_k = 10000^{-2k/d},\;
              p_t = \big|\{s \in V : s < t\}\big|

    Args:
        where: the valid tokens :math:`V`. What is not valid takes no place, so that padding moves
            nothing, wherever it stands.
        features: size of a position, :math:`d`.

    Returns:
        One position per token, float32; of a token that is not valid it means nothing.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5, with sines before cosines instead of
    interleaved.

    >>> where = jnp.array([[True, False, True]])
    >>> print(sinusoidal_positions(where, 2)[0, ::2, 1].round(3))
    [1.   0.54]
    """
    half = -(-features // 2)
    omega = 10_000.0 ** (-2 * np.arange(half) / features)
    place = jnp.cumsum(jnp.asarray(where), axis=1) - 1
    angle = place[:, :, None].astype(jnp.float32) * omega[None, None].astype(np.float32)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)[:, :, :features]


@checked
def mean_token(x: Float[Array, "n t d"], where: Bool[Array, "n t"]) -> Float[jax.Array, "n d"]:
    r"""Average the valid tokens, :math:`\sum_{t \in V} x_t / |V|`; 0 if there is none.

    Args:
        x: t tokens per example.
        where: the valid ones.

    Returns:
        One row per example, in the dtype of ``x``; the sum is float32 or wider.

    Source: no paper; an average over the tokens that there are.

    >>> mean_token(jnp.arange(6.0).reshape(1, 3, 2), jnp.array([[True, True, False]])).tolist()
    [[1.0, 2.0]]
    """
    wide = accumulation_dtype(x)
    # Zero first: a mask on the sum would do for the value, and this holds for the gradient too.
    total = jnp.sum(jnp.where(where[:, :, None], x, 0), axis=1, dtype=wide)
    count = jnp.sum(where, axis=1, keepdims=True, dtype=wide)
    return (total / jnp.maximum(count, 1)).astype(x.dtype)


@checked
def last_token(x: Float[Array, "n t d"], where: Bool[Array, "n t"]) -> Float[jax.Array, "n d"]:
    """Take the last valid token, wherever it stands; 0 if there is none.

    Args:
        x: t tokens per example.
        where: the valid ones.

    Returns:
        One row per example.

    Source: Tsai et al. 2019, arXiv:1906.00295, sec. 3.3 (the last element of a sequence), where no
    sequence is padded.

    >>> last_token(jnp.arange(6.0).reshape(1, 3, 2), jnp.array([[True, True, False]])).tolist()
    [[2.0, 3.0]]
    """
    last = x.shape[1] - 1 - jnp.argmax(jnp.asarray(where)[:, ::-1], axis=1)
    token = jnp.take_along_axis(jnp.asarray(x), last[:, None, None], axis=1)[:, 0]
    return jnp.where(jnp.any(where, axis=1, keepdims=True), token, 0)


def joined(tokens: Modalities) -> tuple[jax.Array, jax.Array]:
    """Put the tokens of all modalities behind each other: ``[n, t, d]`` and its mask ``[n, t]``."""
    arrays, masks = tokens.arrays.values(), tokens.valid.values()
    return jnp.concatenate(list(arrays), axis=1), jnp.concatenate(list(masks), axis=1)


READOUTS = {"last": last_token, "mean": mean_token}


class Tokens(nn.Module):
    """Projects each modality to one width and adds positions.

    Each modality has a projection of its own, whose bias tells its tokens from the others'.

    Attributes:
        features: width of the tokens.
        kernel_size: neighbouring tokens that a projection sees, 1 for each token alone. With more,
            padding has to stand before or after a sequence, not within it.

    Raises:
        ValueError: while being built, if ``kernel_size`` is below 1.

    Source: Tsai et al. 2019, arXiv:1906.00295, sec. 3.2 (temporal convolutions, positional
    embedding).
    """

    features: int
    kernel_size: int = 1

    def __post_init__(self):
        check_at_least(1, kernel_size=self.kernel_size)
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: Sequences, where: TokenMasks | None) -> Modalities:
        """Give tokens ``[n, t, features]``, 0 where they are not valid, in the inputs' dtype."""
        given = Modalities.of(inputs, where)
        tokens = {}
        for name, x, valid in given:
            _check_sequence(name, x)
            if self.kernel_size == 1:
                x = dense(self.features, name, x, axes=(None, "embed"))(x)
            else:
                x = nn.Conv(self.features, (self.kernel_size,), dtype=x.dtype, name=name)(x)
            x = x + sinusoidal_positions(valid, self.features).astype(x.dtype)
            tokens[name] = jnp.where(valid[:, :, None], x, 0)
        return Modalities(tokens, given.valid)


def _check_sequence(name: str, x: jax.Array) -> None:
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise ValueError(
            f"{name} must be sequences [n, t, d] of at least one token and feature, got shape"
            f" {x.shape}; one row per example is a sequence of one, x[:, None]; leave out what no"
            " example has"
        )
