"""The sigmoid objective: is this pair of rows a pair, asked of every pair by itself."""

import math

import jax
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, Scalar, accumulation_dtype, as_scalar, checked
from mmjax.losses.blocks import CHUNK_SIZE, Layout
from mmjax.losses.contrastive import pair_matrices
from mmjax.losses.pairs import Side, all_bfloat16, global_numbers, masked_rows, valid_mask
from mmjax.losses.scoring import Known, Plan, fold_scores
from mmjax.losses.statistics import Judgement


@checked
def siglip_loss(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    logit_scale: Scalar,
    logit_bias: Scalar,
    where: Bool[Array, "n"] | None = None,
    targets: Bool[Array, "n m"] | Float[Array, "n m"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int | None = CHUNK_SIZE,
    ring: bool = False,
) -> Float[jax.Array, "n"]:
    r"""Cost of telling, for every column by itself, whether it is the row's own partner.

    .. math:: \ell_i = -\sum_{j \in V} \log \sigma\big(z_{ij} (s\, x_i \cdot y_j + b)\big),
              \qquad z_{ii} = 1,\; z_{ij} = -1

    The mean over valid rows is the paper's loss. With targets, a pair costs
    :math:`-t \log \sigma(l) - (1 - t) \log \sigma(-l)` for its logit :math:`l`.

    The value and every gradient are exact under sharding where those of
    :func:`mmjax.losses.info_nce` are: with ``check_vma=False`` or ``pmap``, gradients taken inside
    have still to be averaged, ``jax.lax.pmean(grads, axis_name)``.

    Args:
        x: unit-norm rows; ``x[i]`` is paired with ``y[i]``.
        y: unit-norm rows.
        logit_scale: the multiplier :math:`s > 0` itself, not its logarithm.
        logit_bias: the bias :math:`b`; start from :func:`siglip_bias_init`.
        where: valid rows :math:`V`, all if None. An invalid row is neither row nor column;
            its loss and gradient are 0 even where it holds NaN.
        targets: how probable it is that each ``x`` goes with each ``y``, constants in [0, 1] (or
            True and False) in place of "its own partner only": columns are the ``y`` of all shards.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.
        chunk_size: ``y`` that are scored together; see :func:`mmjax.losses.info_nce`.
        ring: hand ``y`` round from shard to shard; see :func:`mmjax.losses.info_nce`.

    Returns:
        One loss per row, summed over its columns, in nats, float32. Reduce with
        :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``logit_scale`` is not positive and finite or such a
            ``logit_bias`` is not finite, for a ``chunk_size`` below 1, a ``ring`` without
            ``axis_name``, or ``targets`` without a column for each row of all shards.

    Source: Zhai et al. 2023, arXiv:2303.15343, algorithm 1, whose bias enters with a plus; the
    equation of sec. 3.2 writes it with the opposite sign.

    >>> x = jax.numpy.eye(2)
    >>> rows = siglip_loss(x, x, logit_scale=1.0, logit_bias=0.0)
    >>> print(f"{rows.sum():.4f}")
    2.0128
    """
    layout = Layout(axis_name, chunk_size, ring)
    valid = valid_mask(where, x, y)
    plan = Plan(Judgement(), layout, all_bfloat16(x, y))
    x, y = masked_rows(x, valid), masked_rows(y, valid)
    dtype = accumulation_dtype(x, y)
    scale = as_scalar("logit_scale", logit_scale, dtype=dtype, positive=True)
    bias = as_scalar("logit_bias", logit_bias, dtype=dtype)
    side = Side(valid, global_numbers(valid, axis_name))
    known = Known(side, side, pair_matrices(layout, len(valid), targets=targets))
    found, _ = fold_scores(plan, x, y, known, scale=scale, bias=bias)
    return found.cost


def siglip_bias_init(batch_size: int) -> float:
    r"""Bias at which a model that knows nothing predicts the true share of positives.

    .. math:: b = \log \frac{p}{1 - p}, \qquad p = 1 / \text{batch size}

    Args:
        batch_size: rows of the global batch, over all shards, at least 2.

    Returns:
        The bias, a logit in nats: -10.4 for a batch of 32,768.

    Raises:
        ValueError: if ``batch_size`` is below 2: without a negative no bias is finite.

    Source: Zhai et al. 2023, arXiv:2303.15343, sec. 3.2, where b = -10 for batches near 32,768;
    here it follows the batch size.

    >>> print(f"{siglip_bias_init(32_768):.1f}")
    -10.4
    """
    if batch_size < 2:
        raise ValueError(
            f"batch_size must be at least 2, got {batch_size}: a batch of one has no negative"
        )
    return -math.log(batch_size - 1)
