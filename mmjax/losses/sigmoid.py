"""The sigmoid objective: is this pair of rows a pair, asked of every pair by itself."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, Scalar, as_scalar, checked
from mmjax.losses.pairs import pair_scores, paired_rows


@checked
def siglip_loss(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    logit_scale: Scalar,
    logit_bias: Scalar,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, "n"]:
    r"""Cost of telling, for every column by itself, whether it is the row's own partner.

    .. math:: \ell_i = -\sum_{j \in V} \log \sigma\big(z_{ij} (s\, x_i \cdot y_j + b)\big),
              \qquad z_{ii} = 1,\; z_{ij} = -1

    The mean over valid rows is the paper's loss. The value and every gradient are exact under
    sharding where those of :func:`mmjax.losses.info_nce` are: with ``check_vma=False`` or ``pmap``,
    gradients taken inside have still to be averaged, ``jax.lax.pmean(grads, axis_name)``.

    Args:
        x: unit-norm rows; ``x[i]`` is paired with ``y[i]``.
        y: unit-norm rows.
        logit_scale: the multiplier :math:`s > 0` itself, not its logarithm.
        logit_bias: the bias :math:`b`; start from :func:`siglip_bias_init`.
        where: valid rows :math:`V`, all if None. An invalid row is neither row nor column;
            its loss and gradient are 0 even where it holds NaN.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.

    Returns:
        One loss per row, summed over its columns, in nats, float32. Reduce with
        :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``logit_scale`` is not positive and finite, or such a
            ``logit_bias`` is not finite.

    Source: Zhai et al. 2023, arXiv:2303.15343, algorithm 1, whose bias enters with a plus; the
    equation of sec. 3.2 writes it with the opposite sign.

    >>> rows = siglip_loss(jnp.eye(2), jnp.eye(2), logit_scale=1.0, logit_bias=0.0)
    >>> print(f"{rows.sum():.4f}")
    2.0128
    """
    rows = paired_rows(x, y, where)
    dtype = rows.x.dtype
    scale = as_scalar("logit_scale", logit_scale, dtype=dtype, positive=True)
    bias = as_scalar("logit_bias", logit_bias, dtype=dtype)
    pairs = pair_scores(rows, axis_name)
    logits = pairs.scores * scale + bias
    costs = jax.nn.softplus(jnp.where(pairs.positive, -logits, logits))
    total = jnp.sum(costs, axis=-1, where=pairs.column_valid[None])
    return jnp.where(pairs.row_valid, total, 0)


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
