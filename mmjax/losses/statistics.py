"""What a loss has to know of each row's scores: a few numbers, folded block by block.

Source: the running logarithm of a sum is that of Milakov and Gimelshein 2018, arXiv:1805.02867,
alg. 3.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from mmjax.losses.blocks import Layout
from mmjax.losses.pairs import Pairs


class Kind(Protocol):
    """Folds blocks of scores into statistics; ``axis`` is that along which they are folded."""

    def start(self, like: jax.Array) -> Any:
        """Statistics before any pair was seen, as many as ``like`` has entries."""

    def fold(self, state: Any, logits: jax.Array, pairs: Pairs, axis: int) -> Any:
        """Take a block in."""

    def finish(self, state: Any) -> Any:
        """Give what the loss reads of what was folded."""

    def home(self, state: Any, layout: Layout) -> Any:
        """Bring together what the shards hold for all columns; each keeps its own columns."""

    def slope(
        self, found: Any, change: Any, logits: jax.Array, pairs: Pairs, axis: int
    ) -> jax.Array:
        """Derivative by the logits: from the final statistics, and the derivative by those."""


class Softmax(NamedTuple):
    r"""Statistics of logits :math:`l_j` that compete: each ``[n]``, in the dtype of the logits.

    ``peak`` is a constant: all of the gradient of :math:`\log \sum_j w_j e^{l_j}` is in
    ``log_sum``. A row that counts nothing has a ``counted`` of 0 and a ``log_sum`` of 0.
    """

    peak: jax.Array  # the largest counted logit, P
    log_sum: jax.Array  # log of the sum of w exp(l - P) over counted pairs
    target: jax.Array  # sum of t l over positives
    mass: jax.Array  # sum of t
    total: jax.Array  # sum of l over counted pairs
    counted: jax.Array  # how many pairs are

    @property
    def log_partition(self) -> jax.Array:
        """The logarithm of the sum itself; only for a row that counts something."""
        return self.peak + self.log_sum


@dataclasses.dataclass(frozen=True)
class Competition:
    """Folds scores into :class:`Softmax`."""

    def start(self, like: jax.Array) -> Softmax:
        """Statistics before any pair was seen, as many as ``like`` has entries."""
        zero = jnp.zeros_like(like)
        return Softmax(jnp.full_like(like, jnp.finfo(like.dtype).min), zero, zero, zero, zero, zero)

    def fold(self, state: Softmax, logits: jax.Array, pairs: Pairs, axis: int) -> Softmax:
        """Take a block in. While folding, ``log_sum`` is the sum and not yet its logarithm."""
        constant = jax.lax.stop_gradient(logits)
        lowest = jnp.finfo(logits.dtype).min
        peak = jnp.max(constant, axis=axis, where=pairs.counted, initial=lowest)
        peak = jnp.maximum(state.peak, peak)
        above = jnp.where(pairs.counted, logits - jnp.expand_dims(peak, axis), lowest)
        share = _weighted(jnp.exp(above), pairs)
        target = pairs.target.astype(logits.dtype)
        return Softmax(
            peak,
            state.log_sum * jnp.exp(state.peak - peak) + jnp.sum(share, axis=axis),
            state.target + jnp.sum(logits * target, axis=axis),
            state.mass + jnp.sum(target, axis=axis),
            state.total + jnp.sum(logits, axis=axis, where=pairs.counted),
            state.counted + jnp.sum(pairs.counted, axis=axis, dtype=logits.dtype),
        )

    def finish(self, state: Softmax) -> Softmax:
        """Turn the sum into its logarithm."""
        return state._replace(log_sum=jnp.log(jnp.where(state.log_sum > 0, state.log_sum, 1)))

    def home(self, state: Softmax, layout: Layout) -> Softmax:
        """Bring together what the shards hold for all columns; each keeps its own columns."""
        peak = jax.lax.pmax(state.peak, layout.axis_name)
        summand = state._replace(log_sum=state.log_sum * jnp.exp(state.peak - peak))
        return layout.own_sums(summand)._replace(peak=layout.own_part(peak))

    def slope(
        self, found: Softmax, change: Softmax, logits: jax.Array, pairs: Pairs, axis: int
    ) -> jax.Array:
        """Derivative by the logits: from the final statistics, and the derivative by those."""
        peak, log_sum, d_log_sum, d_target, d_total = (
            jnp.expand_dims(z, axis)
            for z in (found.peak, found.log_sum, change.log_sum, change.target, change.total)
        )
        lowest = jnp.finfo(logits.dtype).min
        above = jnp.where(pairs.counted, logits - peak - log_sum, lowest)
        share = _weighted(jnp.exp(above), pairs)
        slope = share * d_log_sum + jnp.where(pairs.counted, d_total, 0)
        return slope + pairs.target.astype(logits.dtype) * d_target


class Reweighted(NamedTuple):
    r"""Statistics of logits whose competitors are weighed by themselves, each ``[n]``.

    ``peak`` is a constant; a row without negatives has a ``number`` of 0.
    """

    peak: jax.Array  # the largest negative logit, P
    log_hard: jax.Array  # log of the sum of exp((1 + beta) (l - P)) over negatives
    log_weights: jax.Array  # log of the sum of exp(beta (l - P))
    own: jax.Array  # the logit of the positive
    number: jax.Array  # of negatives

    @property
    def log_negatives(self) -> jax.Array:
        """Logarithm of the sum over negatives, weighed so that the weights have a mean of 1."""
        number = jnp.where(self.number > 0, self.number, 1)
        peak = jnp.where(self.number > 0, self.peak, 0)
        return peak + self.log_hard - self.log_weights + jnp.log(number)


@dataclasses.dataclass(frozen=True)
class HardCompetition:
    """Folds scores into :class:`Reweighted`: both of its sums in one pass."""

    hardness: float

    def start(self, like: jax.Array) -> Reweighted:
        """Statistics before any pair was seen, as many as ``like`` has entries."""
        zero = jnp.zeros_like(like)
        return Reweighted(jnp.full_like(like, jnp.finfo(like.dtype).min), zero, zero, zero, zero)

    def fold(self, state: Reweighted, logits: jax.Array, pairs: Pairs, axis: int) -> Reweighted:
        """Take a block in. While folding, the logarithms are the sums themselves."""
        constant, lowest = jax.lax.stop_gradient(logits), jnp.finfo(logits.dtype).min
        peak = jnp.max(constant, axis=axis, where=pairs.counted, initial=lowest)
        peak = jnp.maximum(state.peak, peak)
        above = jnp.where(pairs.counted, logits - jnp.expand_dims(peak, axis), 0)
        earlier = jnp.where(state.number > 0, state.peak - peak, 0)
        hard, weights = (
            total * jnp.exp(factor * earlier)
            + jnp.sum(jnp.exp(factor * above), axis=axis, where=pairs.counted)
            for factor, total in (
                (1 + self.hardness, state.log_hard),
                (self.hardness, state.log_weights),
            )
        )
        target = pairs.target.astype(logits.dtype)
        own = state.own + jnp.sum(logits * target, axis=axis)
        number = state.number + jnp.sum(pairs.counted, axis=axis, dtype=logits.dtype)
        return Reweighted(peak, hard, weights, own, number)

    def finish(self, state: Reweighted) -> Reweighted:
        """Turn the sums into their logarithms."""
        hard, weights = (
            jnp.log(jnp.where(state.number > 0, total, 1))
            for total in (state.log_hard, state.log_weights)
        )
        return state._replace(log_hard=hard, log_weights=weights)

    def home(self, state: Reweighted, layout: Layout) -> Reweighted:
        """Bring together what the shards hold for all columns; each keeps its own columns."""
        peak = jax.lax.pmax(state.peak, layout.axis_name)
        earlier = jnp.where(state.number > 0, state.peak - peak, 0)
        summand = state._replace(
            log_hard=state.log_hard * jnp.exp((1 + self.hardness) * earlier),
            log_weights=state.log_weights * jnp.exp(self.hardness * earlier),
        )
        own = layout.own_sums(summand)
        return own._replace(peak=layout.own_part(peak))

    def slope(
        self, found: Reweighted, change: Reweighted, logits: jax.Array, pairs: Pairs, axis: int
    ) -> jax.Array:
        """Derivative by the logits: from the final statistics, and the derivative by those."""
        peak, log_hard, log_weights, d_hard, d_weights, d_own = (
            jnp.expand_dims(z, axis)
            for z in (*found[:3], change.log_hard, change.log_weights, change.own)
        )
        above = jnp.where(pairs.counted, logits - peak, 0)
        hard = (1 + self.hardness) * jnp.exp((1 + self.hardness) * above - log_hard)
        weights = self.hardness * jnp.exp(self.hardness * above - log_weights)
        slope = jnp.where(pairs.counted, hard * d_hard + weights * d_weights, 0)
        return slope + pairs.target.astype(logits.dtype) * d_own


class Sigmoid(NamedTuple):
    """Statistics of logits that are judged each by itself, ``[n]``."""

    cost: jax.Array  # sum over counted pairs of the binary cross-entropy, nats


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Folds scores into :class:`Sigmoid`."""

    def start(self, like: jax.Array) -> Sigmoid:
        """Statistics before any pair was seen, as many as ``like`` has entries."""
        return Sigmoid(jnp.zeros_like(like))

    def fold(self, state: Sigmoid, logits: jax.Array, pairs: Pairs, axis: int) -> Sigmoid:
        """Take a block in: t softplus(-l) + (1 - t) softplus(l)."""
        target = pairs.target
        if target.dtype == bool:
            cost = jax.nn.softplus(jnp.where(target, -logits, logits))
        else:
            target = target.astype(logits.dtype)
            cost = target * jax.nn.softplus(-logits) + (1 - target) * jax.nn.softplus(logits)
        return Sigmoid(state.cost + jnp.sum(cost, axis=axis, where=pairs.counted))

    def finish(self, state: Sigmoid) -> Sigmoid:
        """Nothing is left to do."""
        return state

    def home(self, state: Sigmoid, layout: Layout) -> Sigmoid:
        """Bring together what the shards hold for all columns; each keeps its own columns."""
        return layout.own_sums(state)

    def slope(
        self, found: Sigmoid, change: Sigmoid, logits: jax.Array, pairs: Pairs, axis: int
    ) -> jax.Array:
        """Derivative by the logits: from the final statistics, and the derivative by those."""
        error = jax.nn.sigmoid(logits) - pairs.target.astype(logits.dtype)
        return jnp.where(pairs.counted, error * jnp.expand_dims(change.cost, axis), 0)


def _weighted(share: jax.Array, pairs: Pairs) -> jax.Array:
    return share if pairs.weight is None else share * pairs.weight.astype(share.dtype)
