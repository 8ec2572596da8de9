"""Losses of two modalities carried over to any number, of which a row may lack some."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked


@checked
def pairwise(
    loss: Callable[..., Any],
    embeddings: Mapping[str, Float[Array, "n _"]],
    where: Mapping[str, Bool[Array, "n"]] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Mean of a loss of two modalities over the pairs of modalities that a row has.

    .. math:: \ell_i = \frac{1}{|P_i|} \sum_{(a, b) \in P_i} \ell(x^a, x^b; V_a \cap V_b)_i,
              \qquad P_i = \{(a, b) : a < b,\; i \in V_a \cap V_b\}

    A row that lacks a modality takes part in the pairs that it has, as a row and as a negative, and
    in no other. Every row with a pair weighs the same, however many pairs it has.

    Args:
        loss: called once for every unordered pair as ``loss(x, y, where=both)``, where ``both``
            marks the rows that have both modalities (None without ``where``); returns one value
            per row. Options come bound, a sharded axis too:
            ``functools.partial(clip_loss, logit_scale=s, axis_name="data")``.
        embeddings: per modality, one row per example. Of two modalities, ``x`` is the one that
            comes first here, which matters to a loss of one direction; mind that ``jax.jit`` hands
            a dictionary over with its names sorted.
        where: per modality, the rows that have it, :math:`V_a`; all of them if None. What a row
            holds in place of a modality that it lacks, NaN included, reaches nothing.

    Returns:
        One loss per row, in the unit of ``loss``; that of two modalities is ``loss`` itself. A row
        with fewer than two modalities has 0, and is not to be counted in a mean: reduce with
        ``masked_mean(rows, has_pair(where))``, see :func:`has_pair`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype of one modality.
        ValueError: for fewer than two modalities, a name that only one of the mappings has,
            different numbers of rows, or a ``loss`` that does not return one value per row.

    Source: Tian et al. 2019 (CMC), arXiv:1906.05849, sec. 3.3, the full graph over all views and
    its treatment of missing ones; a mean over the pairs of a row instead of their sum, so that the
    loss does not grow with the number of modalities.

    >>> from mmjax.losses import clip_loss
    >>> views = {"image": jnp.eye(2), "text": jnp.eye(2), "sound": jnp.full((2, 2), jnp.nan)}
    >>> have = {name: jnp.full(2, name != "sound") for name in views}
    >>> rows = pairwise(functools.partial(clip_loss, logit_scale=1.0), views, have)
    >>> print(f"{rows.sum():.4f}")
    0.6265
    """
    embeddings = {name: _as_rows(rows) for name, rows in embeddings.items()}
    _check_rows("embeddings", embeddings)
    if len(embeddings) > 2:
        # Widen here, once: what the pairs of a modality add to its gradient is summed in float32.
        dtype = accumulation_dtype(*embeddings.values())
        embeddings = {name: rows.astype(dtype) for name, rows in embeddings.items()}
    if where is None:
        pairs = list(itertools.combinations(embeddings, 2))
        return _sum([_cost(loss, embeddings, pair, None) for pair in pairs]) / len(pairs)
    masks = {name: _as_mask(have) for name, have in where.items()}
    _check_rows("where", masks)
    _check_names(embeddings, masks)
    # Zero before the loss, so that not even a loss that forgets its mask could leak a NaN.
    seen = {name: _present(rows, masks[name]) for name, rows in embeddings.items()}
    both = {(a, b): masks[a] & masks[b] for a, b in itertools.combinations(seen, 2)}
    total = _sum([jnp.where(have, _cost(loss, seen, p, have), 0) for p, have in both.items()])
    return total / jnp.maximum(_sum([have.astype(total.dtype) for have in both.values()]), 1)


@checked
def has_pair(where: Mapping[str, Bool[Array, "n"]]) -> Bool[jax.Array, "n"]:
    r"""Mark the rows that :func:`pairwise` gives a loss: those that have two modalities or more.

    .. math:: \Big[\sum_a [i \in V_a] \ge 2\Big]

    The mean of ``pairwise`` over a batch is ``masked_mean(rows, has_pair(where), axis_name)``:
    without this mask, rows that have nothing to be compared with would pull it down, and the size
    of the gradient would depend on how many of them there are. Where rows are left out for a reason
    of their own too, such as padding, leave them out of every modality's mask before both calls.

    Args:
        where: per modality, the rows that have it.

    Returns:
        One mark per row.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype of one modality.
        ValueError: for fewer than two modalities, or different numbers of rows.

    Source: no paper; the count that :func:`pairwise` divides by, being positive.

    >>> where = {"image": jnp.array([True, True]), "text": jnp.array([True, False])}
    >>> print(has_pair(where | {"sound": jnp.array([False, False])}))
    [ True False]
    """
    masks = {name: _as_mask(have) for name, have in where.items()}
    _check_rows("where", masks)
    return jnp.sum(jnp.stack(list(masks.values())), axis=0, dtype=jnp.int32) >= 2


# What is annotated on a mapping is checked of its first entry only; these check every one.
@checked
def _as_rows(rows: Float[Array, "n _"]) -> jax.Array:
    return jnp.asarray(rows)


@checked
def _as_mask(where: Bool[Array, "n"]) -> jax.Array:
    return jnp.asarray(where)


@checked
def _present(rows: Float[Array, "n _"], where: Bool[Array, "n"]) -> Float[jax.Array, "n _"]:
    """Rows, with 0 for those that are missing."""
    return jnp.where(where[:, None], rows, 0)


def _cost(
    loss: Callable[..., Any],
    embeddings: Mapping[str, Array],
    pair: tuple[str, str],
    where: Array | None,
) -> jax.Array:
    """One value per row from the loss of one pair."""
    x, y = (embeddings[name] for name in pair)
    rows = loss(x, y, where=where)
    got = jnp.shape(rows) if isinstance(rows, Array) else type(rows).__name__
    if got != (len(x),):
        raise ValueError(
            f"loss must return one value per row, shape {(len(x),)}, got {got} for"
            f" {' and '.join(pair)}; a loss of the whole batch is to be added up over pairs by hand"
        )
    return jnp.asarray(rows).astype(accumulation_dtype(rows))


def _sum(terms: Sequence[jax.Array]) -> jax.Array:
    """Sum from the left; of one term, that term to the bit."""
    return functools.reduce(jnp.add, terms)


def _check_rows(what: str, modalities: Mapping[str, Array]) -> None:
    """Refuse fewer than two modalities, and such as do not have equally many rows."""
    if len(modalities) < 2:
        got = ", ".join(modalities) or "none"
        raise ValueError(f"{what} must hold at least two modalities, got {got}")
    rows = {name: len(x) for name, x in modalities.items()}
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in rows.items())
        raise ValueError(
            f"{what} must have the same number of rows for every modality, got {told}; where an"
            " example lacks a modality, fill its row with zeros and mark it False in where"
        )


def _check_names(embeddings: Mapping[str, Array], where: Mapping[str, Array]) -> None:
    """Refuse a modality without a mask, and a mask without a modality."""
    if set(embeddings) != set(where):
        raise ValueError(
            f"embeddings and where must name the same modalities, got {', '.join(embeddings)} and"
            f" {', '.join(where)}; give all rows of a modality that nothing lacks as True"
        )
