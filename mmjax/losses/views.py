"""Contrastive objectives of one space: rows are compared with all others, never with themselves."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mmjax.arrays import Array, AxisName, Scalar, accumulation_dtype, as_scalar, checked
from mmjax.losses.blocks import CHUNK_SIZE, Layout
from mmjax.losses.contrastive import cross_entropy, merged, pair_matrices
from mmjax.losses.pairs import Matrices, Side, all_bfloat16, global_numbers, masked_rows, valid_mask
from mmjax.losses.scoring import Known, Plan, fold_scores
from mmjax.losses.statistics import Competition


@checked
def nt_xent(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    temperature: Scalar,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int | None = CHUNK_SIZE,
    ring: bool = False,
) -> Float[jax.Array, "n"]:
    r"""Cost of naming each view's other view among all other views of all examples.

    .. math:: \ell_i = \tfrac12 \sum_{z \in \{x_i, y_i\}}
                       \log \sum_{u \in X_V \cup Y_V \setminus \{z\}} e^{z \cdot u / \tau}
                       - x_i \cdot y_i / \tau

    Unlike :func:`mmjax.losses.clip_loss` it also compares ``x`` with ``x`` and ``y`` with ``y``,
    which is right for two views of one kind. Exact where :func:`mmjax.losses.info_nce` is, and
    under the same condition on gradients taken with ``check_vma=False`` or ``pmap``.

    Args:
        x: unit-norm rows, one view of each example.
        y: unit-norm rows, the other.
        temperature: :math:`\tau > 0`, dimensionless.
        where: valid examples :math:`V`, all if None; of an invalid one both views are left out,
            and its loss and gradient are 0 even where they hold NaN.
        axis_name: mesh axis or axes that shard the examples; :math:`V` spans every shard.
        chunk_size: views that are compared together; see :func:`mmjax.losses.info_nce`.
        ring: hand views round from shard to shard; see :func:`mmjax.losses.info_nce`.

    Returns:
        One loss per example, the mean of its two views, in nats, float32.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``temperature`` is not positive and finite, for a
            ``chunk_size`` below 1, or a ``ring`` without ``axis_name``.

    Source: Chen et al. 2020 (SimCLR), arXiv:2002.05709, eq. 1 and alg. 1.

    >>> print(f"{nt_xent(jnp.eye(2), jnp.eye(2), temperature=1.0).sum():.4f}")
    1.1029
    """
    return _two_views(x, y, temperature, where, Layout(axis_name, chunk_size, ring), False)


@checked
def decoupled_contrastive(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    temperature: Scalar,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int | None = CHUNK_SIZE,
    ring: bool = False,
) -> Float[jax.Array, "n"]:
    r"""NT-Xent whose positive does not compete: its gradient does not fade in small batches.

    .. math:: \ell_i = \tfrac12 \sum_{z \in \{x_i, y_i\}}
                       \log \sum_{u \in X_V \cup Y_V \setminus \{x_i, y_i\}} e^{z \cdot u / \tau}
                       - x_i \cdot y_i / \tau

    Exact where :func:`mmjax.losses.info_nce` is, and under the same condition on gradients taken
    with ``check_vma=False`` or ``pmap``.

    Args:
        x: unit-norm rows, one view of each example.
        y: unit-norm rows, the other.
        temperature: :math:`\tau > 0`, dimensionless.
        where: valid examples :math:`V`, all if None; of an invalid one both views are left out,
            and its loss and gradient are 0 even where they hold NaN.
        axis_name: mesh axis or axes that shard the examples; :math:`V` spans every shard.
        chunk_size: views that are compared together; see :func:`mmjax.losses.info_nce`.
        ring: hand views round from shard to shard; see :func:`mmjax.losses.info_nce`.

    Returns:
        One loss per example, the mean of its two views, in nats, float32. It is not bounded below
        by 0, and is 0 for an example without any negative.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``temperature`` is not positive and finite, for a
            ``chunk_size`` below 1, or a ``ring`` without ``axis_name``.

    Source: Yeh et al. 2022, arXiv:2110.06848, eq. 5, without the weights of its eq. 6.

    >>> print(f"{decoupled_contrastive(jnp.eye(2), jnp.eye(2), temperature=1.0).sum():.4f}")
    -0.6137
    """
    return _two_views(x, y, temperature, where, Layout(axis_name, chunk_size, ring), True)


@checked
def supervised_contrastive(
    x: Float[Array, "n d"],
    *,
    temperature: Scalar,
    labels: Int[Array, "n"] | None = None,
    positives: Bool[Array, "n m"] | None = None,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
    chunk_size: int | None = CHUNK_SIZE,
    ring: bool = False,
) -> Float[jax.Array, "n"]:
    r"""Mean cost of naming each of a row's positives among all other rows.

    .. math:: \ell_i = \log \sum_{j \in V \setminus \{i\}} e^{x_i \cdot x_j / \tau}
                       - \frac{1}{|P_i|} \sum_{p \in P_i} x_i \cdot x_p / \tau

    Several views of an example are several rows of one label. Exact where
    :func:`mmjax.losses.info_nce` is, and under the same condition on gradients taken with
    ``check_vma=False`` or ``pmap``.

    Args:
        x: unit-norm rows.
        temperature: :math:`\tau > 0`, dimensionless.
        labels: rows of one label are positives of each other. Either these or ``positives``.
        positives: which rows of all shards, in columns, are positives of each local row.
        where: valid rows :math:`V`, all if None. An invalid row is neither anchor, positive nor
            negative; its loss and gradient are 0 even where it holds NaN.
        axis_name: mesh axis or axes that shard the rows; :math:`V` spans every shard.
        chunk_size: rows that are compared together; see :func:`mmjax.losses.info_nce`.
        ring: hand rows round from shard to shard; see :func:`mmjax.losses.info_nce`.

    Returns:
        One loss per row, in nats, float32; 0 for a row without a valid positive (a row is not its
        own).

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype, such as labels that are no integers.
        ValueError: if a Python or NumPy ``temperature`` is not positive and finite, if not exactly
            one of ``labels`` and ``positives`` is given, for ``positives`` without a column for
            each row of all shards, a ``chunk_size`` below 1, or a ``ring`` without ``axis_name``.

    Source: Khosla et al. 2020, arXiv:2004.11362, eq. 2 (the sum over positives outside of the
    logarithm).

    >>> rows = jnp.eye(2)[jnp.array([0, 0, 1])]
    >>> costs = supervised_contrastive(rows, temperature=1.0, labels=jnp.array([5, 5, 7]))
    >>> [f"{cost:.4f}" for cost in costs]
    ['0.3133', '0.3133', '0.0000']
    """
    if (labels is None) == (positives is None):
        got = "neither" if labels is None else "both"
        raise ValueError(f"expected either labels or positives, got {got}")
    layout = Layout(axis_name, chunk_size, ring)
    valid = valid_mask(where, x)
    plan = Plan(Competition(), layout, all_bfloat16(x))
    x = masked_rows(x, valid)
    scale = _inverse(temperature, x)
    side = Side(
        valid,
        None if labels is None else jnp.where(valid, jnp.asarray(labels), jnp.zeros_like(labels)),
        global_numbers(valid, axis_name),
    )
    known = Known(side, side, pair_matrices(layout, len(valid), targets=positives))
    # Labels say the same of a pair from both its sides; positives need not.
    found, _ = fold_scores(plan, x, None if positives is None else x, known, scale=scale)
    return cross_entropy(found)


def _two_views(
    x: Array,
    y: Array,
    temperature: Scalar,
    where: Array | None,
    layout: Layout,
    negatives_only: bool,
) -> Float[jax.Array, "n"]:
    valid = valid_mask(where, x, y)
    plan = Plan(Competition(), layout, all_bfloat16(x, y))
    x, y = masked_rows(x, valid), masked_rows(y, valid)
    scale = _inverse(temperature, x, y)
    number = global_numbers(valid, layout.axis_name)
    # What x sees in y, y sees in x: one product for both.
    across = Side(valid, group=number)
    both = dataclasses.replace(plan, columns_too=True, negatives_only=negatives_only)
    directions = fold_scores(both, x, y, Known(across, across, Matrices()), scale=scale)
    within = Side(valid, identity=number)
    alone = Known(within, within, Matrices())
    total = jnp.zeros_like(valid, accumulation_dtype(x, y))
    for view, of_other in zip((x, y), directions, strict=True):
        of_own, _ = fold_scores(plan, view, None, alone, scale=scale)
        total += cross_entropy(merged(of_own, of_other))
    return total / 2


def _inverse(temperature: Scalar, *rows: jax.Array) -> jax.Array:
    dtype = accumulation_dtype(*rows)
    return 1 / as_scalar("temperature", temperature, dtype=dtype, positive=True)
