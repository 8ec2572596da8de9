"""MINE: Donsker-Varadhan with a gradient that is corrected by a moving average."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from mmjax.arrays import Array, Scalar, as_scalar, checked
from mmjax.information.lower_bounds import log_partition
from mmjax.information.scores import read_scores


class MovingPartition(NamedTuple):
    """What MINE remembers from batch to batch.

    Attributes:
        log_mean: logarithm of the moving average of the batches' mean ratios, in nats.
        batches: how many it has seen; before the first, ``log_mean`` is not read.
    """

    log_mean: Float[jax.Array, ""]
    batches: Int[jax.Array, ""]


def no_partition(dtype: DTypeLike = jnp.float32) -> MovingPartition:
    """State of :func:`mine` before its first batch.

    Args:
        dtype: of the average: float32, or float64 for scores in float64.

    Returns:
        An average over no batches.

    Source: no paper; where the state begins.

    >>> print(no_partition().batches)
    0
    """
    return MovingPartition(jnp.zeros((), dtype), jnp.zeros((), jnp.int32))


@checked
def mine(
    scores: Float[Array, "n m"],
    partition: MovingPartition,
    *,
    decay: Scalar = 0.99,
    where: Bool[Array, "n"] | Bool[Array, "n m"] | None = None,
) -> tuple[Float[jax.Array, "n"], MovingPartition]:
    r"""Donsker-Varadhan's bound, with the gradient that has the partition of many batches.

    .. math:: v_i &= f_{ii} - \log Z, \qquad Z = \mathbb E_{p(x) p(y)}[e^f] \\
              \nabla \bar v &= \mathbb E_{p(x, y)}[\nabla f]
                               - \frac{\mathbb E_{p(x) p(y)}[e^f\, \nabla f]}{\bar Z}, \qquad
              \bar Z \leftarrow \gamma \bar Z + (1 - \gamma) Z

    The plain gradient divides by the batch's own :math:`Z`, and a ratio of means is not the mean
    ratio: it is biased for small batches. The value is that of
    :func:`mmjax.information.donsker_varadhan_bound`, a lower bound up to the same bias.

    Args:
        scores: of any critic; the first n columns are the partners of the rows.
        partition: what this returned for the batch before, :func:`no_partition` for the first.
        decay: :math:`\gamma` in [0, 1): the share of the past. The first batch has no past, and its
            gradient is the plain one.
        where: as for :func:`mmjax.information.info_nce_bound`.

    Returns:
        One value per row, in nats, 0 for an invalid row and for one with nothing to be compared
        with; and the state for the next batch, without gradient. A batch in which no rows can be
        compared leaves it as it was.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if there are fewer columns than rows, or a Python or NumPy ``decay`` is not in
            [0, 1).

    Source: Belghazi et al. 2018, arXiv:1801.04062, sec. 3.2, who do not say how the
    average begins.

    >>> rows, partition = mine(jnp.full((3, 3), 7.0), no_partition())
    >>> print(rows, partition.log_mean)
    [0. 0. 0.] 7.0
    """
    if not isinstance(decay, jax.Array) and not 0 <= float(decay) < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay}")
    read = read_scores(scores, where)
    share = as_scalar("decay", decay, dtype=read.all.dtype)
    own = log_partition(read)
    now = jax.lax.stop_gradient(own)
    past = jax.lax.stop_gradient(partition.log_mean).astype(now.dtype)
    peak = jnp.maximum(now, past)
    mixed = peak + jnp.log(share * jnp.exp(past - peak) + (1 - share) * jnp.exp(now - peak))
    average = jnp.where(partition.batches > 0, mixed, now)
    # The value of log Z with the gradient of Z / average.
    ratio = jnp.exp(own - average)
    corrected = now + ratio - jax.lax.stop_gradient(ratio)
    seen = jnp.any(read.usable)
    following = MovingPartition(
        jnp.where(seen, average, past).astype(partition.log_mean.dtype),
        partition.batches + seen.astype(partition.batches.dtype),
    )
    return jnp.where(read.usable, read.joint - corrected, 0), following
