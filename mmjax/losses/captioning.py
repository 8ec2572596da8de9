"""The captioning objective: name every next token of the text that goes with an example."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt

from mmjax.arrays import Array, accumulation_dtype, checked

Carry = TypeVar("Carry")


@checked
def captioning_loss(
    logits: Float[Array, "n t v"],
    tokens: Int[Array, "n t"],
    *,
    where_tokens: Bool[Array, "n t"] | None = None,
    where: Bool[Array, "n"] | None = None,
    label_smoothing: float = 0.0,
    chunk_size: int | None = None,
) -> Float[jax.Array, "n"]:
    r"""Cost of naming each token of a text, averaged over the text.

    .. math:: \ell_i = -\frac{1}{|T_i|} \sum_{t \in T_i} \sum_v q_{itv} \log p_{itv},
              \qquad p_{it} = \mathrm{softmax}(z_{it}),
              \qquad q_{itv} = (1 - \epsilon)\,[v = y_{it}] + \epsilon / |\text{vocabulary}|

    Nothing is shifted here: ``logits[:, t]`` has to be the prediction of ``tokens[:, t]``. From a
    decoder that reads ``text``, pass ``logits[:, :-1]`` and ``text[:, 1:]``.

    Each row is on its own: no ``axis_name`` is needed, under any sharding of the rows. The loss has
    a reverse-mode rule of its own, which keeps the logits as they came and two numbers per token;
    forward-mode differentiation (``jax.jvp``) is not defined.

    Args:
        logits: :math:`z`, unnormalised log-probabilities over the vocabulary, in nats.
        tokens: :math:`y`, indices into the vocabulary. Where not valid, any integer will do.
        where_tokens: the tokens :math:`T_i` that are to be named, all if None: True for words
            and the end of the text, False for padding.
        where: valid rows, all if None. What an invalid row or token holds counts nowhere; its loss
            and gradient are 0 even where it holds NaN.
        label_smoothing: share :math:`\epsilon` in [0, 1) of the target that is spread evenly over
            the vocabulary.
        chunk_size: tokens of each row that are widened to float32 together, in both passes: those
            copies hold n x chunk_size x v numbers. None widens all at once.

    Returns:
        One loss per row, in nats per token, float32; 0 for a row without a valid token. Reduce
        with :func:`mmjax.reduction.masked_mean`: every row then weighs the same. Where every token
        is to weigh the same: ``masked_mean(rows * length) / masked_mean(length)``, for the number
        of valid tokens of each row.
        A valid token outside the vocabulary makes its row NaN: nothing else can tell of it.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for a ``label_smoothing`` outside [0, 1) or a ``chunk_size`` below 1.

    Source: Yu et al. 2022, arXiv:2205.01917, eq. 3. That is a sum over the text: here it is divided
    by the text's length. Label smoothing after Szegedy et al. 2015, arXiv:1512.00567, sec. 7.

    >>> rows = captioning_loss(jnp.zeros((2, 3, 8)), jnp.zeros((2, 3), jnp.int32))
    >>> print(f"{rows[0] / jnp.log(2):.1f} bits")
    3.0 bits
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(
            f"chunk_size must be at least 1, got {chunk_size}; None is one single chunk"
        )
    logits, tokens = jnp.asarray(logits), jnp.asarray(tokens)
    valid = jnp.ones_like(tokens, bool) if where_tokens is None else jnp.asarray(where_tokens)
    if where is not None:
        valid &= jnp.asarray(where)[:, None]
    costs = _token_costs(logits, tokens, valid, float(label_smoothing), chunk_size)
    named = (tokens >= 0) & (tokens < logits.shape[-1])
    costs = jnp.where(named | ~valid, costs, jnp.nan)
    return jnp.sum(costs, axis=1) / jnp.maximum(jnp.sum(valid, axis=1, dtype=costs.dtype), 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _token_costs(
    logits: Float[jax.Array, "n t v"],
    tokens: Int[jax.Array, "n t"],
    valid: Bool[jax.Array, "n t"],
    smoothing: float,
    chunk_size: int | None,
) -> Float[jax.Array, "n t"]:
    return _forward(logits, tokens, valid, smoothing, chunk_size)[0]


def _forward(logits, tokens, valid, smoothing, chunk_size):
    """Cost of each token, and what the backward pass needs of its distribution."""

    bits = _bits(logits)

    def visit(found, start, width):
        z, token, counted = _taken((bits, tokens, valid), start, width)
        z = _widened(z, logits.dtype, counted)
        peak = jnp.max(z, axis=-1)
        log_total = jnp.log(jnp.sum(jnp.exp(z - peak[..., None]), axis=-1))
        # Differences from the peak, not from zero: they are exact however large the logits are.
        named = jax.nn.one_hot(token, z.shape[-1], dtype=bool)
        gap = jnp.sum(peak[..., None] - z, axis=-1, where=named)
        if smoothing:
            gap = (1 - smoothing) * gap + smoothing * jnp.mean(peak[..., None] - z, axis=-1)
        cost = jnp.where(counted, log_total + gap, 0)
        return tuple(
            jax.lax.dynamic_update_slice_in_dim(whole, part, start, axis=1)
            for whole, part in zip(found, (cost, peak, log_total), strict=True)
        )

    empty = jnp.zeros_like(logits[..., 0], accumulation_dtype(logits))
    found = _by_chunks(visit, (empty, empty, empty), tokens.shape[1], chunk_size)
    cost, peak, log_total = found
    return cost, (logits, tokens, valid, peak, log_total)


def _backward(smoothing, chunk_size, kept, change):
    """Softmax minus target, in the dtype of the logits and, where XLA can, in their place."""
    logits, tokens, valid, peak, log_total = kept

    def visit(bits, start, width):
        # The chunk is read from what it is then written to, so that no second copy is needed.
        aside = (tokens, valid, peak, log_total, change)
        z, token, counted, top, log_sum, push = _taken((bits, *aside), start, width)
        z = _widened(z, logits.dtype, counted)
        excess = jnp.exp(z - top[..., None] - log_sum[..., None]) - smoothing / z.shape[-1]
        named = jax.nn.one_hot(token, z.shape[-1], dtype=bool)
        excess = jnp.where(named, excess - (1 - smoothing), excess)
        excess = jnp.where(counted[..., None], push[..., None] * excess, 0)
        part = _bits(excess.astype(logits.dtype))
        return jax.lax.dynamic_update_slice_in_dim(bits, part, start, axis=1)

    gradient = _by_chunks(visit, _bits(logits), tokens.shape[1], chunk_size)
    return jax.lax.bitcast_convert_type(gradient, logits.dtype), None, None


_token_costs.defvjp(_forward, _backward)


def _by_chunks(
    visit: Callable[[Carry, Int[jax.Array, ""] | int, int], Carry],
    carry: Carry,
    time: int,
    chunk_size: int | None,
) -> Carry:
    """Call ``visit(carry, start, width)`` until all of ``time`` has been seen, once each."""
    width = max(1, time if chunk_size is None else min(chunk_size, time))
    whole, rest = divmod(time, width)
    if whole == 1:
        carry = visit(carry, 0, width)
    elif whole > 1:
        step = jnp.int32(width)
        carry = jax.lax.fori_loop(0, whole, lambda i, c: visit(c, i * step, width), carry)
    return visit(carry, whole * width, rest) if rest else carry


def _taken(arrays: tuple, start: Int[jax.Array, ""] | int, width: int) -> tuple:
    return tuple(jax.lax.dynamic_slice_in_dim(z, start, width, axis=1) for z in arrays)


def _bits(z: Float[jax.Array, "n t v"]) -> UInt[jax.Array, "n t v"]:
    # XLA for CPUs cuts and puts pieces of bfloat16 by widening all of the array, but of bits it
    # does not; elsewhere this is no operation at all.
    return jax.lax.bitcast_convert_type(z, f"uint{8 * z.dtype.itemsize}")


def _widened(
    bits: UInt[jax.Array, "n c v"], dtype: np.dtype, counted: Bool[jax.Array, "n c"]
) -> Float[jax.Array, "n c v"]:
    """Logits in which sums may run, 0 wherever a token does not count."""
    z = jax.lax.bitcast_convert_type(bits, dtype)
    return jnp.where(counted[..., None], z.astype(accumulation_dtype(z)), 0)
