"""Contrastive objectives: name a row's own partner among all rows."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, Scalar, as_scalar, checked
from mmjax.losses.pairs import PairScores, pair_scores, paired_rows


@checked
def info_nce(
    query: Float[Array, "n d"],
    key: Float[Array, "n d"],
    *,
    temperature: Scalar,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, "n"]:
    r"""Cost of naming each query's own key among all valid keys.

    .. math:: \ell_i = \log \sum_{j \in V} e^{q_i \cdot k_j / \tau} - q_i \cdot k_i / \tau

    The value and every gradient equal the unsharded ones without shards, under jit with automatic
    sharding, under ``grad(shard_map(...))`` and under ``shard_map(grad(...))``. With
    ``check_vma=False`` or ``pmap``, gradients taken inside have still to be averaged over the
    shards: ``jax.lax.pmean(grads, axis_name)`` for every replicated parameter.

    Args:
        query: unit-norm rows; ``query[i]`` is paired with ``key[i]``.
        key: unit-norm rows.
        temperature: :math:`\tau > 0`, dimensionless.
        where: valid rows :math:`V`, all if None. An invalid row is no query and no negative;
            its loss and gradient are 0 even where it holds NaN.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.

    Returns:
        One loss per row, in nats, float32. Reduce with :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``temperature`` is not positive and finite.

    Source: van den Oord et al. 2018, arXiv:1807.03748, eq. 4, with the scoring function
    :math:`e^{q \cdot k / \tau}` of He et al. 2019, arXiv:1911.05722, eq. 1.

    >>> print(f"{info_nce(jnp.eye(2), jnp.eye(2), temperature=1.0).sum():.4f}")
    0.6265
    """
    rows = paired_rows(query, key, where)
    temperature = as_scalar("temperature", temperature, dtype=rows.x.dtype, positive=True)
    pairs = pair_scores(rows, axis_name)
    return _cross_entropy(pairs.scores / temperature, pairs)


@checked
def clip_loss(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    logit_scale: Scalar,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, "n"]:
    r"""Cost of naming each row's partner, averaged over the two directions.

    .. math:: \ell_i = \tfrac12 \Big(\log \sum_{j \in V} e^{s\, x_i \cdot y_j}
                                    + \log \sum_{j \in V} e^{s\, x_j \cdot y_i}\Big)
                       - s\, x_i \cdot y_i

    Exact under sharding where :func:`info_nce` is, and under the same condition on gradients that
    are taken with ``check_vma=False`` or ``pmap``.

    Args:
        x: unit-norm rows; ``x[i]`` is paired with ``y[i]``.
        y: unit-norm rows.
        logit_scale: the multiplier :math:`s = 1/\tau > 0` itself, not its logarithm.
        where: valid rows :math:`V`, all if None. An invalid row is no query and no negative;
            its loss and gradient are 0 even where it holds NaN.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.

    Returns:
        One loss per row, in nats, float32. Reduce with :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``logit_scale`` is not positive and finite.

    Source: Radford et al. 2021, arXiv:2103.00020, fig. 3.

    >>> print(f"{clip_loss(jnp.eye(2), jnp.eye(2), logit_scale=1.0).sum():.4f}")
    0.6265
    """
    rows = paired_rows(x, y, where)
    scale = as_scalar("logit_scale", logit_scale, dtype=rows.x.dtype, positive=True)
    # Two products rather than one and its transpose: each shard owns whole rows of both.
    directions = (pair_scores(seen, axis_name) for seen in (rows, rows.swapped()))
    forward, backward = (_cross_entropy(pairs.scores * scale, pairs) for pairs in directions)
    return (forward + backward) / 2


def _cross_entropy(logits: Float[jax.Array, "n m"], pairs: PairScores) -> Float[jax.Array, "n"]:
    """Negative log-probability of each row's positive among the valid columns."""
    own = jnp.sum(logits, axis=-1, where=pairs.positive)
    # Subtracted inside the logarithm: two logits near 100 cancel before they are rounded.
    margins = logits - own[:, None]
    # The own column always counts, so that a row is never empty and no NaN is ever made.
    counted = pairs.column_valid[None] | pairs.positive
    return jnp.where(pairs.row_valid, jax.nn.logsumexp(margins, axis=-1, where=counted), 0)
