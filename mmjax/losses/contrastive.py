"""Contrastive objectives of two modalities: name a row's own partner among all rows."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, Scalar, accumulation_dtype, as_scalar, checked
from mmjax.losses.blocks import CHUNK_SIZE, Layout
from mmjax.losses.pairs import (
    Matrices,
    Pairs,
    Side,
    all_bfloat16,
    global_numbers,
    masked_rows,
    valid_mask,
)
from mmjax.losses.scoring import Known, Plan, fold_scores
from mmjax.losses.statistics import Competition, Softmax


@checked
def info_nce(
    query: Float[Array, "n d"],
    key: Float[Array, "n d"],
    *,
    temperature: Scalar,
    where: Bool[Array, "n"] | None = None,
    negatives: Float[Array, "k d"] | Float[Array, "n k d"] | None = None,
    negatives_where: Bool[Array, "k"] | Bool[Array, "n k"] | None = None,
    targets: Bool[Array, "n m"] | Float[Array, "n m"] | None = None,
    weights: Float[Array, "n"] | Float[Array, "n m"] | None = None,
    label_smoothing: float = 0.0,
    axis_name: AxisName | None = None,
    chunk_size: int | None = CHUNK_SIZE,
    ring: bool = False,
) -> Float[jax.Array, "n"]:
    r"""Cost of naming each query's own key among all valid keys.

    .. math:: \ell_i = \log \sum_{j \in V} e^{q_i \cdot k_j / \tau} - q_i \cdot k_i / \tau

    and with everything that can be added, over keys :math:`V` and negatives :math:`U`,

    .. math:: \ell_i = \log\Big(\sum_{j \in V} w_{ij} e^{q_i \cdot k_j / \tau}
                              + \sum_{u \in U} e^{q_i \cdot u / \tau}\Big)
                       - \sum_j t_{ij}\, q_i \cdot k_j / \tau

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
        negatives: further unit-norm rows :math:`U`, for all queries or, with three axes, for each
            query its own. Under ``axis_name`` they are sharded like the rows, and those for all
            queries are so for the queries of all shards.
        negatives_where: which of them are valid, all if None.
        targets: how much each key is a positive of each query, non-negative constants in place
            of "its own key only": columns are the keys of all shards. True, or any number; each
            row is divided by its sum :math:`t` over valid keys. A query without a valid positive
            costs 0.
        weights: constants. ``[n]``: a factor of each row's loss. ``[n, m]``: :math:`w \ge 0`, how
            often each key counts as a competitor; 0 leaves out a known false negative.
        label_smoothing: share in [0, 1) of :math:`t` that is spread evenly over all that competes.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.
        chunk_size: keys that are scored together; the memory of both passes is n x chunk_size
            instead of n x m. As soon as there are more keys than that, the backward pass makes the
            scores anew, and forward-mode differentiation needs None: all keys at once.
        ring: hand keys round from shard to shard instead of gathering all of them on each: memory
            then does not depend on the number of shards. Recomputes like ``chunk_size``.

    Returns:
        One loss per row, in nats, float32. Reduce with :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``temperature`` is not positive and finite, for a
            ``label_smoothing`` outside [0, 1), a ``chunk_size`` below 1, a ``ring`` without
            ``axis_name``, ``negatives_where`` that does not go with ``negatives``, or matrices
            without a column for each key of all shards.

    Source: van den Oord et al. 2018, arXiv:1807.03748, eq. 4, with the scoring function
    :math:`e^{q \cdot k / \tau}` of He et al. 2019, arXiv:1911.05722, eq. 1, whose queue is a case
    of ``negatives``. Several positives as in Khosla et al. 2020, arXiv:2004.11362, eq. 2.

    >>> print(f"{info_nce(jnp.eye(2), jnp.eye(2), temperature=1.0).sum():.4f}")
    0.6265
    """
    _check_smoothing(label_smoothing)
    layout = Layout(axis_name, chunk_size, ring)
    valid = valid_mask(where, query, key)
    plan = Plan(Competition(), layout, all_bfloat16(query, key))
    query, key = masked_rows(query, valid), masked_rows(key, valid)
    scale = 1 / as_scalar(
        "temperature", temperature, dtype=accumulation_dtype(query, key), positive=True
    )
    of_rows = weights if weights is not None and weights.ndim == 1 else None
    of_pairs = weights if weights is not None and weights.ndim == 2 else None
    matrices = pair_matrices(layout, len(valid), targets=targets, weights=of_pairs)
    side = Side(valid, global_numbers(valid, axis_name))
    found, _ = fold_scores(plan, query, key, Known(side, side, matrices), scale=scale)
    if negatives is not None:
        further = _against_negatives(plan, query, valid, negatives, negatives_where, scale)
        found = merged(found, further)
    elif negatives_where is not None:
        raise ValueError("negatives_where needs the negatives that it is about, got none")
    rows = cross_entropy(found, label_smoothing)
    if of_rows is None:
        return rows
    factor = jax.lax.stop_gradient(jnp.asarray(of_rows)).astype(rows.dtype)
    return rows * jnp.where(valid, factor, 0)


@checked
def clip_loss(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    logit_scale: Scalar,
    where: Bool[Array, "n"] | None = None,
    targets: Bool[Array, "n m"] | Float[Array, "n m"] | None = None,
    label_smoothing: float = 0.0,
    axis_name: AxisName | None = None,
    chunk_size: int | None = CHUNK_SIZE,
    ring: bool = False,
) -> Float[jax.Array, "n"]:
    r"""Cost of naming each row's partner, averaged over the two directions.

    .. math:: \ell_i = \tfrac12 \Big(\log \sum_{j \in V} e^{s\, x_i \cdot y_j}
                                    + \log \sum_{j \in V} e^{s\, x_j \cdot y_i}\Big)
                       - s\, x_i \cdot y_i

    Every pair is scored once for both directions, also under sharding: each shard scores its own
    ``x`` against all ``y``. Exact where :func:`info_nce` is, and under the same condition on
    gradients that are taken with ``check_vma=False`` or ``pmap``.

    Args:
        x: unit-norm rows; ``x[i]`` is paired with ``y[i]``.
        y: unit-norm rows.
        logit_scale: the multiplier :math:`s = 1/\tau > 0` itself, not its logarithm.
        where: valid rows :math:`V`, all if None. An invalid row is no query and no negative;
            its loss and gradient are 0 even where it holds NaN.
        targets: how much each ``x`` goes with each ``y``, non-negative constants in place of "its
            own partner only": columns are the ``y`` of all shards. Divided by its sum over valid
            ``y`` for the first direction, over valid ``x`` for the second.
        label_smoothing: share in [0, 1) of the targets that is spread evenly over all valid rows.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.
        chunk_size: ``y`` that are scored together; see :func:`info_nce`.
        ring: hand ``y`` round from shard to shard; see :func:`info_nce`.

    Returns:
        One loss per row, in nats, float32. Reduce with :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``logit_scale`` is not positive and finite, and as for
            :func:`info_nce`.

    Source: Radford et al. 2021, arXiv:2103.00020, fig. 3; ``targets`` as in Gao et al. 2023
    (SoftCLIP), arXiv:2303.17561, whose targets a caller computes.

    >>> print(f"{clip_loss(jnp.eye(2), jnp.eye(2), logit_scale=1.0).sum():.4f}")
    0.6265
    """
    _check_smoothing(label_smoothing)
    layout = Layout(axis_name, chunk_size, ring)
    valid = valid_mask(where, x, y)
    plan = Plan(Competition(), layout, all_bfloat16(x, y), columns_too=True)
    x, y = masked_rows(x, valid), masked_rows(y, valid)
    scale = as_scalar("logit_scale", logit_scale, dtype=accumulation_dtype(x, y), positive=True)
    matrices = pair_matrices(layout, len(valid), targets=targets)
    side = Side(valid, global_numbers(valid, axis_name))
    directions = fold_scores(plan, x, y, Known(side, side, matrices), scale=scale)
    forward, backward = (cross_entropy(found, label_smoothing) for found in directions)
    return (forward + backward) / 2


def cross_entropy(found: Softmax, label_smoothing: float = 0.0) -> Float[jax.Array, "n"]:
    r"""Negative log-probability of the positives.

    .. math:: \ell_i = \log \sum_j w_{ij} e^{l_{ij}} - \sum_j q_{ij} l_{ij}, \qquad
              q_{ij} = (1 - \epsilon) \frac{t_{ij}}{\sum_k t_{ik}} + \frac{\epsilon}{|C_i|}

    Args:
        found: statistics of the logits :math:`l` of each row.
        label_smoothing: share :math:`\epsilon` that goes evenly to all that competes, :math:`C_i`.

    Returns:
        One value per row, in nats; 0 for a row without a positive or without anything that
        competes.

    Source: van den Oord et al. 2018, arXiv:1807.03748, eq. 4; label smoothing after Szegedy et al.
    2015, arXiv:1512.00567, sec. 7.

    >>> one, zero = jnp.ones(1), jnp.zeros(1)  # two logits of 0, one of them a positive's
    >>> found = Softmax(zero, jnp.log(2 * one), zero, mass=one, total=zero, counted=2 * one)
    >>> print(cross_entropy(found))
    [0.6931472]
    """
    some = (found.mass > 0) & (found.counted > 0)
    positive = found.target / jnp.where(some, found.mass, 1)
    # The peak is subtracted first: two logits near 100 cancel before they are rounded.
    below = found.peak - positive
    if label_smoothing:
        even = found.peak - found.total / jnp.where(some, found.counted, 1)
        below = (1 - label_smoothing) * below + label_smoothing * even
    return jnp.where(some, found.log_sum + below, 0)


def merged(a: Softmax, b: Softmax) -> Softmax:
    r"""Statistics of all that ``a`` and ``b`` are statistics of.

    .. math:: \log \sum_{j \in A \cup B} e^{l_j}
              = \log \Big(\sum_{j \in A} e^{l_j} + \sum_{j \in B} e^{l_j}\Big)

    Args:
        a: statistics of each row against some columns.
        b: of the same rows against others.

    Returns:
        Statistics of each row against all of them.

    Source: Milakov and Gimelshein 2018, arXiv:1805.02867, eq. 4.

    >>> one, zero = jnp.ones(1), jnp.zeros(1)
    >>> single = Softmax(zero, zero, zero, mass=zero, total=zero, counted=one)  # one logit of 0
    >>> print(merged(single, single).log_partition)
    [0.6931472]
    """
    peak = jnp.maximum(a.peak, b.peak)
    # A side that counts nothing has the lowest peak there is and a log_sum of 0.
    shares = (jnp.where(s.counted > 0, jnp.exp(s.log_sum + (s.peak - peak)), 0) for s in (a, b))
    total = sum(shares)
    rest = (p + q for p, q in zip(a[2:], b[2:], strict=True))
    return Softmax(peak, jnp.log(jnp.where(total > 0, total, 1)), *rest)


def pair_matrices(
    layout: Layout, n: int, *, targets: Array | None = None, weights: Array | None = None
) -> Matrices:
    """Take what a user says of single pairs, as constants.

    Args:
        layout: for the number of shards.
        n: rows of this shard.
        targets: how much each column is a positive of each row, ``[n, m]``.
        weights: how often each column competes for each row, ``[n, m]``.

    Returns:
        The matrices, without gradient.

    Raises:
        ValueError: if there is not a column for each row of all shards.

    Source: no paper; the matrices of :func:`info_nce` and its neighbours.

    >>> pair_matrices(Layout(None, None, ring=False), 3, targets=jnp.eye(2))
    Traceback (most recent call last):
        ...
    ValueError: targets must have a column for each of the 3 rows of all shards, got shape (2, 2)
    """
    given = {"targets": targets, "weights": weights}
    for name, matrix in given.items():
        columns = n * layout.shards
        if matrix is not None and matrix.shape[1] != columns:
            raise ValueError(
                f"{name} must have a column for each of the {columns} rows of all shards, got "
                f"shape {matrix.shape}"
            )
    constants = {
        name: None if matrix is None else jax.lax.stop_gradient(jnp.asarray(matrix))
        for name, matrix in given.items()
    }
    return Matrices(**constants)


def _against_negatives(
    plan: Plan,
    query: jax.Array,
    valid: jax.Array,
    negatives: Array,
    where: Array | None,
    scale: jax.Array,
) -> Softmax:
    """Statistics of the queries against negatives only."""
    if where is not None and where.shape != negatives.shape[:-1]:
        raise ValueError(
            f"negatives_where must have shape {negatives.shape[:-1]}, one entry for each of the "
            f"negatives; got {where.shape}"
        )
    if negatives.ndim == 2:
        usable = valid_mask(where, negatives)
        known = Known(Side(valid), Side(usable), Matrices())
        plan = dataclasses.replace(plan, bfloat16=plan.bfloat16 and all_bfloat16(negatives))
        return fold_scores(plan, query, masked_rows(negatives, usable), known, scale=scale)[0]
    # The scores of a query's own negatives are smaller than the negatives: nothing to bound.
    usable = valid[:, None] & (True if where is None else jnp.asarray(where))
    dtype = accumulation_dtype(query, negatives)
    rows = jnp.where(usable[..., None], jnp.asarray(negatives).astype(dtype), 0)
    logits = scale * jnp.einsum(
        "nd,nkd->nk", query.astype(dtype), rows, precision=jax.lax.Precision.HIGHEST
    )
    pairs = Pairs(usable, jnp.zeros_like(usable), None)
    start = plan.kind.start(jnp.zeros_like(logits[:, 0]))
    return plan.kind.finish(plan.kind.fold(start, logits, pairs, axis=1))


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
