"""Contrastive objectives that correct or reweigh the negatives: debiased, hard, HN-NCE."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, Scalar, accumulation_dtype, as_scalar, checked
from mmjax.losses.blocks import CHUNK_SIZE, Layout
from mmjax.losses.pairs import Matrices, Side, all_bfloat16, global_numbers, masked_rows, valid_mask
from mmjax.losses.scoring import Known, Plan, fold_scores
from mmjax.losses.statistics import HardCompetition, Reweighted


@checked
def debiased_info_nce(
    query: Float[Array, "n d"],
    key: Float[Array, "n d"],
    *,
    temperature: Scalar,
    prior: float,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int | None = CHUNK_SIZE,
    ring: bool = False,
) -> Float[jax.Array, "n"]:
    r"""InfoNCE whose negatives are corrected for the positives that hide among them.

    .. math:: \ell_i = \log\big(e^{l_{ii}} + N g_i\big) - l_{ii}, \qquad
              g_i = \max\Big(\frac{\tfrac1N \sum_{j \in V \setminus i} e^{l_{ij}} - \pi e^{l_{ii}}}
                                  {1 - \pi},\; e^{-1/\tau}\Big), \qquad
              l_{ij} = q_i \cdot k_j / \tau

    Exact where :func:`mmjax.losses.info_nce` is, and under the same condition on gradients taken
    with ``check_vma=False`` or ``pmap``.

    Args:
        query: unit-norm rows; ``query[i]`` is paired with ``key[i]``.
        key: unit-norm rows.
        temperature: :math:`\tau > 0`, dimensionless.
        prior: :math:`\pi` in [0, 1), the probability that a negative is a positive in truth.
        where: valid rows :math:`V`, all if None. An invalid row is no query and no negative;
            its loss and gradient are 0 even where it holds NaN.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.
        chunk_size: keys that are scored together; see :func:`mmjax.losses.info_nce`.
        ring: hand keys round from shard to shard; see :func:`mmjax.losses.info_nce`.

    Returns:
        One loss per row, in nats, float32.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``temperature`` is not positive and finite, for a
            ``prior`` outside [0, 1), a ``chunk_size`` below 1, or a ``ring`` without ``axis_name``.

    Source: Chuang et al. 2020, arXiv:2007.00224, eqs. 7 and 8, with one positive of each query
    (M = 1) and, as negatives, the other keys only: not the other queries.

    >>> rows = debiased_info_nce(jnp.eye(2), jnp.eye(2), temperature=1.0, prior=0.1)
    >>> print(f"{rows.sum():.4f}")
    0.5211
    """
    return hard_negative_info_nce(
        query,
        key,
        temperature=temperature,
        hardness=0.0,
        prior=prior,
        where=where,
        axis_name=axis_name,
        chunk_size=chunk_size,
        ring=ring,
    )


@checked
def hard_negative_info_nce(
    query: Float[Array, "n d"],
    key: Float[Array, "n d"],
    *,
    temperature: Scalar,
    hardness: float,
    prior: float = 0.0,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int | None = CHUNK_SIZE,
    ring: bool = False,
) -> Float[jax.Array, "n"]:
    r"""InfoNCE that draws its negatives the likelier the more they resemble the query.

    As :func:`debiased_info_nce`, with the mean over negatives replaced by

    .. math:: \frac{\sum_{j \in V \setminus i} e^{(1 + \beta) l_{ij}}}
                   {\sum_{j \in V \setminus i} e^{\beta l_{ij}}}

    Args:
        query: unit-norm rows; ``query[i]`` is paired with ``key[i]``.
        key: unit-norm rows.
        temperature: :math:`\tau > 0`, dimensionless.
        hardness: the concentration :math:`\beta \ge 0`; 0 weighs all negatives alike.
        prior: :math:`\pi` in [0, 1), the probability that a negative is a positive in truth.
        where: valid rows :math:`V`, all if None. An invalid row is no query and no negative;
            its loss and gradient are 0 even where it holds NaN.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.
        chunk_size: keys that are scored together; see :func:`mmjax.losses.info_nce`.
        ring: hand keys round from shard to shard; see :func:`mmjax.losses.info_nce`.

    Returns:
        One loss per row, in nats, float32.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``temperature`` is not positive and finite, for a
            negative ``hardness``, a ``prior`` outside [0, 1), a ``chunk_size`` below 1, or a
            ``ring`` without ``axis_name``.

    Source: Robinson et al. 2021, arXiv:2010.04592, section 3: the importance weights of its
    objective, whose concentration multiplies the logits. The negatives are the other keys only, and
    the weights are differentiated too.

    >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> rows = hard_negative_info_nce(x, x, temperature=0.5, hardness=1.0)
    >>> [f"{row:.3f}" for row in rows]
    ['0.771', '0.772', '0.561']
    """
    if not 0 <= prior < 1:
        raise ValueError(f"prior must be a probability in [0, 1), got {prior}")
    layout = Layout(axis_name, chunk_size, ring)
    valid = valid_mask(where, query, key)
    plan = _plan(layout, hardness, query, key)
    query, key = masked_rows(query, valid), masked_rows(key, valid)
    dtype = accumulation_dtype(query, key)
    scale = 1 / as_scalar("temperature", temperature, dtype=dtype, positive=True)
    side = Side(valid, global_numbers(valid, axis_name))
    found, _ = fold_scores(plan, query, key, Known(side, side, Matrices()), scale=scale)
    own, negatives, number = found.own, found.log_negatives, found.number
    # All in units of e^peak; no cosine is below -1, so that the floor lies below every peak.
    peak = jax.lax.stop_gradient(jnp.maximum(own, negatives))
    positive = jnp.exp(own - peak)
    corrected = (jnp.exp(negatives - peak) - prior * number * positive) / (1 - prior)
    floor = number * jnp.exp(jnp.minimum(-scale - peak, 0))
    cost = jnp.log(positive + jnp.maximum(corrected, floor)) + (peak - own)
    return jnp.where(valid & (number > 0), cost, 0)


@checked
def hn_nce(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    logit_scale: Scalar,
    hardness: float = 0.25,
    positive_weight: float = 1.0,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int | None = CHUNK_SIZE,
    ring: bool = False,
) -> Float[jax.Array, "n"]:
    r"""CLIP's loss with hard negatives weighed up, averaged over the two directions.

    .. math:: \ell_{x \to y, i} = \log\Big(\alpha e^{l_{ii}} + \sum_{j \in V \setminus i} w_{ij}
              e^{l_{ij}}\Big) - l_{ii}, \qquad
              w_{ij} = \frac{N e^{\beta l_{ij}}}{\sum_{k \in V \setminus i} e^{\beta l_{ik}}}

    for the :math:`N` other valid rows and logits :math:`l_{ij} = s\, x_i \cdot y_j`. With
    :math:`\alpha = 1` and :math:`\beta = 0` it is :func:`mmjax.losses.clip_loss`. Exact where that
    is, and under the same condition on gradients taken with ``check_vma=False`` or ``pmap``.

    Args:
        x: unit-norm rows; ``x[i]`` is paired with ``y[i]``.
        y: unit-norm rows.
        logit_scale: the multiplier :math:`s = 1/\tau > 0` itself, not its logarithm.
        hardness: :math:`\beta \ge 0`; 0 weighs all negatives alike.
        positive_weight: :math:`\alpha` in [0, 1]; 0 decouples the positive.
        where: valid rows :math:`V`, all if None. An invalid row is no query and no negative;
            its loss and gradient are 0 even where it holds NaN.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.
        chunk_size: ``y`` that are scored together; see :func:`mmjax.losses.info_nce`.
        ring: hand ``y`` round from shard to shard; see :func:`mmjax.losses.info_nce`.

    Returns:
        One loss per row, in nats, float32; 0 for a row without any negative.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``logit_scale`` is not positive and finite, for a
            negative ``hardness``, a ``positive_weight`` outside [0, 1], a ``chunk_size`` below 1,
            or a ``ring`` without ``axis_name``.

    Source: Radenovic et al. 2023, arXiv:2301.02280, section 3, HN-NCE. The weights are
    differentiated too.

    >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> [f"{row:.3f}" for row in hn_nce(x, x, logit_scale=2.0, hardness=1.0)]
    ['0.771', '0.772', '0.561']
    """
    if not 0 <= positive_weight <= 1:
        raise ValueError(f"positive_weight must be in [0, 1], got {positive_weight}")
    layout = Layout(axis_name, chunk_size, ring)
    valid = valid_mask(where, x, y)
    plan = _plan(layout, hardness, x, y, columns_too=True)
    x, y = masked_rows(x, valid), masked_rows(y, valid)
    dtype = accumulation_dtype(x, y)
    scale = as_scalar("logit_scale", logit_scale, dtype=dtype, positive=True)
    side = Side(valid, global_numbers(valid, axis_name))

    def direction(found: Reweighted) -> jax.Array:
        own, negatives = found.own, found.log_negatives
        peak = jax.lax.stop_gradient(jnp.maximum(own, negatives))
        total = positive_weight * jnp.exp(own - peak) + jnp.exp(negatives - peak)
        return jnp.where(valid & (found.number > 0), jnp.log(total) + (peak - own), 0)

    rows, columns = fold_scores(plan, x, y, Known(side, side, Matrices()), scale=scale)
    return (direction(rows) + direction(columns)) / 2


def _plan(
    layout: Layout, hardness: float, x: Array, y: Array, *, columns_too: bool = False
) -> Plan:
    if not 0 <= hardness < math.inf:
        raise ValueError(f"hardness must be at least 0 and finite, got {hardness}")
    return Plan(
        HardCompetition(hardness),
        layout,
        all_bfloat16(x, y),
        columns_too=columns_too,
        negatives_only=True,
    )
