"""Triplet objectives: a positive has to be closer than a negative, by a margin."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mmjax.arrays import Array, AxisName, Scalar, accumulation_dtype, as_scalar, checked
from mmjax.losses.pairs import global_numbers, masked_rows, valid_mask


@checked
def triplet_margin(
    anchor: Float[Array, "n d"],
    candidate: Float[Array, "n d"] | None = None,
    *,
    margin: Scalar = 0.2,
    mining: str = "hard",
    distance: str = "cosine",
    labels: Int[Array, "n"] | None = None,
    where: Bool[Array, "n"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, "n"]:
    r"""By how much each anchor's negatives are not yet further away than its positives.

    .. math:: h(p, q) = \max(0,\; m + d(a_i, c_p) - d(a_i, c_q))

    With :math:`P_i` the positives and :math:`Q_i` the negatives of anchor :math:`i`, the three
    minings are

    .. math:: \text{hard:} \quad & \max_{p \in P_i, q \in Q_i} h(p, q) \\
              \text{semi-hard:} \quad & \frac{1}{|P_i|} \sum_{p \in P_i}
                  \max_{q \in Q_i,\, d(a_i, c_q) > d(a_i, c_p)} h(p, q) \\
              \text{all:} \quad & \frac{1}{|P_i| |Q_i|} \sum_{p \in P_i, q \in Q_i} h(p, q)

    An anchor that has no such triplet costs 0. Which candidates are which:

    ========================== ============================ =======================
    call                       positives                    negatives
    ========================== ============================ =======================
    ``(x, y)``                 the own partner ``y[i]``     all other ``y``
    ``(x, y, labels=...)``     every ``y`` of equal label,  ``y`` of another label
                               the own partner too
    ``(x, labels=...)``        every other ``x`` of equal   ``x`` of another label
                               label
    ========================== ============================ =======================

    Of two modalities take both directions, ``triplet_margin(x, y)`` and ``triplet_margin(y, x)``.
    Memory is that of a few n x m arrays of distances, for the m candidates of all shards, whichever
    the mining: triplets are counted in sorted distances and never written out.

    The value and every gradient are exact under sharding where those of
    :func:`mmjax.losses.info_nce` are: with ``check_vma=False`` or ``pmap``, gradients taken inside
    have still to be averaged, ``jax.lax.pmean(grads, axis_name)``.

    Args:
        anchor: rows :math:`a`; unit-norm rows for the cosine distance, any rows for the others.
        candidate: rows :math:`c`; ``candidate[i]`` is the partner of ``anchor[i]`` and shares its
            label. None: the anchors themselves, by their labels; none is its own positive.
        margin: :math:`m > 0`, in the unit of the distance.
        mining: "hard", "semi-hard" or "all".
        distance: "cosine", :math:`1 - a \cdot c`; "euclidean", :math:`\lVert a - c \rVert`; or
            "squared", :math:`\lVert a - c \rVert^2`. Both of the latter come from inner products:
            differences below :math:`3 \cdot 10^{-4}` of the length of a row drown in float32. The
            gradient of a Euclidean distance of 0 is 0.
        labels: class of each row, any integers.
        where: valid rows, all if None. An invalid row is no anchor and no candidate; its loss and
            gradient are 0 even where it holds NaN.
        axis_name: mesh axis or axes that shard the rows; candidates are the rows of every shard.

    Returns:
        One loss per anchor, in the unit of the distance, float32. Reduce with
        :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for an unknown ``mining`` or ``distance``, without both ``candidate`` and
            ``labels``, or if a Python or NumPy ``margin`` is not positive and finite.

    Source: hard is one direction of the max of hinges of Faghri et al. 2017, arXiv:1707.05612, or,
    with labels, the "batch hard" of Hermans et al. 2017, arXiv:1703.07737, sec. 2. Semi-hard is
    Schroff et al. 2015, arXiv:1503.03832, sec. 3.2, eq. 4, and of those negatives the closest; a
    positive that has none costs 0. All is the "batch all" of Hermans et al. or, with one positive,
    the sum of hinges of Faghri et al. Both papers sum over the triplets of a batch; here each
    anchor takes the mean of its own.

    >>> x, y = jnp.eye(2), jnp.array([[1.0, 0.0], [0.6, 0.8]])
    >>> print(f"{triplet_margin(x, y, margin=0.5).sum():.4f}")
    0.1000
    """
    mine, between = _chosen("mining", mining, MININGS), _chosen("distance", distance, DISTANCES)
    if candidate is None and labels is None:
        raise ValueError("expected a candidate or labels, got neither: no row has a positive")
    others = anchor if candidate is None else candidate
    dtype = accumulation_dtype(anchor, others)
    margin = as_scalar("margin", margin, dtype=dtype, positive=True)
    valid = valid_mask(where, anchor, others)
    # Widen here, once: gradients of all uses, and of all shards, are then summed in float32.
    rows = columns = masked_rows(anchor, valid).astype(dtype)
    if candidate is not None:
        columns = masked_rows(candidate, valid).astype(dtype)
    number = global_numbers(valid, axis_name)
    group = number if labels is None else jnp.asarray(labels)
    seen = (columns, valid, number, group)
    if axis_name is not None:
        seen = jax.lax.all_gather(seen, axis_name, tiled=True)
    columns, usable, column_number, column_group = seen

    distances = between(rows, columns)
    counted = valid[:, None] & usable[None]
    itself = number[:, None] == column_number[None]
    alike = group[:, None] == column_group[None]
    nearby = Neighbours(distances, counted & alike, distances, counted & ~alike)
    if labels is None:
        own = jnp.sum(distances, axis=1, where=itself)
        nearby = nearby._replace(positives=own[:, None], is_positive=valid[:, None])
    elif candidate is None:
        nearby = nearby._replace(is_positive=nearby.is_positive & ~itself)
    return mine(nearby, margin)


class Neighbours(NamedTuple):
    """How far each anchor is from what may be a positive of it, and from what a negative."""

    positives: Float[jax.Array, "n p"]  # one column if an anchor has but its partner
    is_positive: Bool[jax.Array, "n p"]
    negatives: Float[jax.Array, "n m"]
    is_negative: Bool[jax.Array, "n m"]


def _hard(near: Neighbours, margin: Float[jax.Array, ""]) -> Float[jax.Array, "n"]:
    far = _far(near.positives)
    furthest = jnp.max(near.positives, axis=1, where=near.is_positive, initial=-far)
    nearest = jnp.min(near.negatives, axis=1, where=near.is_negative, initial=far)
    return jax.nn.relu(margin + furthest - nearest)


def _semi_hard(near: Neighbours, margin: Float[jax.Array, ""]) -> Float[jax.Array, "n"]:
    positives, is_positive, negatives, is_negative = near
    far = _far(negatives)
    if positives.shape[1] == 1:
        beyond = is_negative & (negatives > positives)
        nearest = jnp.min(negatives, axis=1, where=beyond, initial=far)[:, None]
    else:
        # The negatives from near to far: the one wanted comes after all that are no further away.
        ranked = jnp.where(is_negative, negatives, far)
        order = jnp.argsort(jax.lax.stop_gradient(ranked), axis=1)
        ranked = jnp.take_along_axis(ranked, order, axis=1)
        place = _count(ranked, positives, side="right")
        last = ranked.shape[1] - 1
        nearest = jnp.take_along_axis(ranked, jnp.minimum(place, last), axis=1)
        nearest = jnp.where(place > last, far, nearest)
    return _mean(jax.nn.relu(margin + positives - nearest), is_positive)


def _all(near: Neighbours, margin: Float[jax.Array, ""]) -> Float[jax.Array, "n"]:
    positives, is_positive, negatives, is_negative = near
    reach = margin + positives
    if positives.shape[1] == 1:
        return _mean(jax.nn.relu(reach - negatives), is_positive & is_negative)
    # Only triplets with d(q) < m + d(p) cost anything, and each costs that difference: how many of
    # them each p and each q is in says it all, and is constant between kinks.
    far, dtype = _far(reach), reach.dtype
    negatives_within = _count(jnp.where(is_negative, negatives, far), reach, side="left")
    positives_without = _count(jnp.where(is_positive, reach, -far), negatives, side="right")
    positives_reaching = positives.shape[1] - positives_without
    of_positive, of_negative = (
        jnp.maximum(jnp.sum(mask, axis=1, keepdims=True, dtype=dtype), 1)
        for mask in (is_positive, is_negative)
    )
    gain = _mean(reach * (negatives_within.astype(dtype) / of_negative), is_positive)
    loss = _mean(negatives * (positives_reaching.astype(dtype) / of_positive), is_negative)
    return gain - loss


def _far(like: Float[jax.Array, "n m"]) -> float:
    """Further than any distance; two of them and a margin still do not overflow."""
    return float(jnp.finfo(like.dtype).max) / 4


def _mean(
    values: Float[jax.Array, "n m"], counted: Bool[jax.Array, "n m"]
) -> Float[jax.Array, "n"]:
    count = jnp.sum(counted, axis=1, dtype=values.dtype)
    return jnp.sum(values, axis=1, where=counted) / jnp.maximum(count, 1)


def _count(
    among: Float[jax.Array, "n m"], values: Float[jax.Array, "n p"], *, side: str
) -> Int[jax.Array, "n p"]:
    """How many of each row's are below its values ("left"), or no more than them ("right")."""
    among, values = jax.lax.stop_gradient((among, values))
    search = jax.vmap(lambda line, value: jnp.searchsorted(line, value, side=side))
    return search(jnp.sort(among, axis=1), values)


Mining = Callable[[Neighbours, Float[jax.Array, ""]], Float[jax.Array, "n"]]
MININGS: Mapping[str, Mining] = {"hard": _hard, "semi-hard": _semi_hard, "all": _all}


def _inner(a: Float[jax.Array, "n d"], c: Float[jax.Array, "m d"]) -> Float[jax.Array, "n m"]:
    # The default precision of an accelerator would decide which of two near distances is smaller.
    return jnp.einsum("nd,md->nm", a, c, precision=jax.lax.Precision.HIGHEST)


def _cosine(a: Float[jax.Array, "n d"], c: Float[jax.Array, "m d"]) -> Float[jax.Array, "n m"]:
    return 1 - _inner(a, c)


def _squared(a: Float[jax.Array, "n d"], c: Float[jax.Array, "m d"]) -> Float[jax.Array, "n m"]:
    of_a, of_c = (jnp.sum(jnp.square(z), axis=1) for z in (a, c))
    return jnp.maximum(of_a[:, None] + of_c[None] - 2 * _inner(a, c), 0)


def _euclidean(a: Float[jax.Array, "n d"], c: Float[jax.Array, "m d"]) -> Float[jax.Array, "n m"]:
    squared = _squared(a, c)
    apart = squared > 0  # the square root has no finite gradient at 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)


Distance = Callable[[Float[jax.Array, "n d"], Float[jax.Array, "m d"]], Float[jax.Array, "n m"]]
DISTANCES: Mapping[str, Distance] = {
    "cosine": _cosine,
    "euclidean": _euclidean,
    "squared": _squared,
}


def _chosen(name: str, choice: str, choices: Mapping[str, Callable]) -> Callable:
    if choice not in choices:
        known = ", ".join(map(repr, choices))
        raise ValueError(f"{name} must be one of {known}, got {choice!r}")
    return choices[choice]
