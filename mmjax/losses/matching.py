"""The matching objective: do these two go together, asked of a fusion encoder.

A contrastive loss compares embeddings; a fusion encoder looks at both inputs at once and can afford
few pairs. So each row brings its own partner and one wrong one, which the embeddings think likely:

>>> x = y = jnp.eye(4)
>>> def fuse(x, y):  # stands for a fusion encoder with one logit
...     return 8 * jnp.sum(x * y, axis=-1) - 4
>>> towards_y, towards_x = jax.random.split(jax.random.key(0))
>>> wrong_y = hard_negative_indices(x, y, logit_scale=10.0, key=towards_y)
>>> wrong_x = hard_negative_indices(y, x, logit_scale=10.0, key=towards_x)
>>> matched = jnp.repeat(jnp.array([True, False, False]), 4)
>>> logits = fuse(jnp.concatenate([x, x, x[wrong_x]]), jnp.concatenate([y, y[wrong_y], y]))
>>> where = matched | (jnp.concatenate([wrong_y, wrong_y, wrong_x]) != jnp.tile(jnp.arange(4), 3))
>>> print(f"{matching_loss(logits, matched, where=where).mean():.3f}")
0.018

Here ``x`` and ``y`` are both what is compared and what is fused; a model fuses sequences of tokens,
taken by the same indices. Under ``axis_name`` the indices are global: take them from
``jax.lax.all_gather(tokens, axis_name, tiled=True)``, and compare them, for ``where``, with
``jax.lax.axis_index(axis_name) * n + jnp.arange(n)``.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key, UInt32

from mmjax.arrays import Array, AxisName, Scalar, accumulation_dtype, as_scalar, checked
from mmjax.losses.pairs import global_numbers, masked_rows, valid_mask

# Columns that are drawn from together. Fixed, for the noise depends on it: the same key has to
# mean the same draws on any number of shards.
_BLOCK = 128


@checked
def hard_negative_indices(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    logit_scale: Scalar,
    key: Key[jax.Array, ""] | UInt32[Array, "_"],
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
) -> Int[jax.Array, "n"]:
    r"""Draw for each row of ``x`` one wrong row of ``y``, the likelier the more alike they are.

    .. math:: P(j \mid i) \propto e^{s\, x_i \cdot y_j}, \qquad j \in V \setminus \{i\}

    Scores and noise are made block by block of columns, so that no n x m array is held. The draws
    depend on the key, the rows and their global order, and not on the number of shards.

    Args:
        x: unit-norm rows; ``x[i]`` is paired with ``y[i]``.
        y: unit-norm rows.
        logit_scale: the multiplier :math:`s > 0` itself, not its logarithm: that of the
            contrastive loss. Larger is harder.
        key: a random key, the same on all shards. A new one for each step and each direction.
        where: valid rows :math:`V`, all if None. An invalid row, NaN or not, is never drawn.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.

    Returns:
        For each row, the index of its negative among the rows of all shards, int32. A row that is
        invalid, or has no valid negative, gets its own index, which is safe to take rows by, and
        shows what ``where`` of :func:`matching_loss` has to leave out. No gradient.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``logit_scale`` is not positive and finite.

    Source: Li et al. 2021, arXiv:2107.07651, sec. 3.2, "Image-Text Matching"; there the draw is
    within one device's rows, here within all. Drawn by the Gumbel-max trick, Maddison et al. 2014,
    arXiv:1411.0030.

    >>> x = jnp.array([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])
    >>> print(hard_negative_indices(x, x, logit_scale=100.0, key=jax.random.key(0)))
    [1 0 1]
    """
    valid = valid_mask(where, x, y)
    dtype = accumulation_dtype(x, y)
    scale = as_scalar("logit_scale", logit_scale, dtype=dtype, positive=True)
    rows, columns = (masked_rows(z, valid).astype(dtype) for z in (x, y))
    # Nothing here is differentiable; said at the start, no derivative of the blocks is ever made.
    rows, columns, scale = jax.lax.stop_gradient((rows, columns, scale))
    usable, own = valid, global_numbers(valid, axis_name)
    if axis_name is not None:
        columns, usable = jax.lax.all_gather((columns, valid), axis_name, tiled=True)
    # Drawn by threefry whatever the key's own kind: others draw differently under vmap.
    seed = jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")
    total = len(columns)
    size = min(_BLOCK, total)

    def best_of(block: Int[jax.Array, ""]) -> tuple[jax.Array, jax.Array]:
        # The last block reaches back to stay whole; what it sees again does not count again.
        start = jnp.minimum(block * size, total - size)
        here, counted = (jax.lax.dynamic_slice_in_dim(z, start, size) for z in (columns, usable))
        column = start + jnp.arange(size, dtype=jnp.int32)
        counted &= column >= block * size
        counted = counted[None] & valid[:, None] & (column[None] != own[:, None])
        scores = scale * jnp.einsum("nd,md->nm", rows, here, precision=jax.lax.Precision.HIGHEST)
        scores += _noise(seed, own, block, size).astype(dtype)
        scores = jnp.where(counted, scores, jnp.finfo(dtype).min)
        best = jnp.argmax(scores, axis=1)
        found = jnp.where(jnp.any(counted, axis=1), column[best], own)
        return jnp.max(scores, axis=1), found

    scores, found = jax.lax.map(best_of, jnp.arange(-(-total // size), dtype=jnp.int32))
    return jnp.take_along_axis(found, jnp.argmax(scores, axis=0)[None], axis=0)[0]


@checked
def matching_loss(
    logits: Float[Array, "n 2"] | Float[Array, "n"],
    labels: Bool[Array, "n"],
    *,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Cost of telling whether the two halves of each row go together.

    .. math:: \ell_i = -\log \sigma(\pm z_i), \qquad z_i = z_{i1} - z_{i0}

    with plus for a match. Each row is on its own: no ``axis_name`` is needed, under any sharding.

    Args:
        logits: log-odds :math:`z` of a match, or two columns, "no match" before "match", as a head
            with two outputs gives them; in nats.
        labels: True where the row is a match.
        where: valid rows, all if None. The loss and gradient of an invalid row are 0 even where
            it holds NaN.

    Returns:
        One loss per row, in nats, float32. Reduce with :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Li et al. 2021, arXiv:2107.07651, eq. 4.

    >>> print(matching_loss(jnp.array([[0.0, 30.0], [0.0, 0.0]]), jnp.array([False, True])))
    [30.         0.6931472]
    """
    odds = jnp.asarray(logits).astype(accumulation_dtype(logits))
    valid = jnp.ones_like(labels, bool) if where is None else jnp.asarray(where)
    # Zero before the difference: a mask applied after it would let NaN gradients through.
    if odds.ndim == 2:
        odds = jnp.where(valid[:, None], odds, 0)
        odds = odds[:, 1] - odds[:, 0]
    odds = jnp.where(valid, odds, 0)
    return jnp.where(valid, jax.nn.softplus(jnp.where(jnp.asarray(labels), -odds, odds)), 0)


def _noise(
    key: Key[jax.Array, ""],
    rows: Int[jax.Array, "n"],
    block: Int[jax.Array, ""],
    size: int,
) -> Float[jax.Array, "n m"]:
    """Standard Gumbel noise for these global rows and one block of columns."""

    def of_row(row: Int[jax.Array, ""]) -> Float[jax.Array, "m"]:
        row_key = jax.random.fold_in(jax.random.fold_in(key, row), block)
        # "low" knows 2**23 values, and would draw early columns too often among very many.
        return jax.random.gumbel(row_key, (size,), jnp.float32, mode="high")

    return jax.vmap(of_row)(rows)
