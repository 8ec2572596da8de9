"""Retrieval: the rank of the best right answer, and what is read off the ranks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.reduction import masked_mean

TIE = 1e-6  # two float32 inner products of unit rows that differ by less are no evidence


@checked
def retrieval_ranks(
    queries: Float[Array, "n d"],
    candidates: Float[Array, "m d"],
    *,
    query_ids: Int[Array, "n"],
    candidate_ids: Int[Array, "m"],
    chunk_size: int = 1024,
) -> Int[jax.Array, "n"]:
    r"""Rank of each query's best right candidate among the wrong ones; 1 is best.

    .. math:: r_i = 1 + \big|\{j \text{ wrong} : q_i \cdot c_j \ge
                   \max_{l \text{ right}} q_i \cdot c_l - 10^{-6}\}\big|

    A candidate is right if its id is the query's. A query may have several right candidates: the
    best one counts, and the others never count against it. Ties count against us, so that equal
    embeddings for everything rank last and not first. A NaN score never wins: such a candidate
    stands behind all others, and as a right one it counts as absent.

    Args:
        queries: unit-norm rows.
        candidates: unit-norm rows.
        query_ids: any integers.
        candidate_ids: any integers; equal ids mark right answers, and may repeat.
        chunk_size: queries scored at once; memory grows as ``chunk_size * m``, not as ``n * m``.

    Returns:
        One rank per query, at most ``m``; ``m + 1`` where no candidate is right. Such a query is
        a miss in :func:`recall_at` for every ``k <= m``.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``chunk_size`` is below 1, or NumPy ids do not fit JAX's integers.

    Source: the ranks behind R@K and Med r of Karpathy & Fei-Fei 2015, arXiv:1412.2306, sec. 4.1.

    >>> ids = jnp.array([7, 8])
    >>> print(retrieval_ranks(jnp.eye(2), jnp.eye(2)[::-1], query_ids=ids, candidate_ids=ids))
    [2 2]
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    return _ranks(
        queries,
        candidates,
        _as_ids("query_ids", query_ids),
        _as_ids("candidate_ids", candidate_ids),
        chunk_size=chunk_size,
    )


@checked
def recall_at(
    ranks: Int[Array, "n"], k: int, *, where: Bool[Array, "n"] | None = None
) -> Float[jax.Array, ""]:
    """Share of the queries whose best right candidate is among the first ``k``.

    Args:
        ranks: from :func:`retrieval_ranks`; 1 is best.
        k: at least 1; keep it at or below the number of candidates, since the rank of a query
            without a right candidate is one more than that.
        where: valid queries, all if None.

    Returns:
        A share in [0, 1]; 0 if no query is valid.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``k`` is below 1.

    Source: Karpathy & Fei-Fei 2015, arXiv:1412.2306, sec. 4.1 (R@K).

    >>> print(recall_at(jnp.array([1, 4, 11, 2]), 10))
    0.75
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return masked_mean((jnp.asarray(ranks) <= k).astype(jnp.float32), where)


@checked
def median_rank(
    ranks: Int[Array, "n"], *, where: Bool[Array, "n"] | None = None
) -> Float[jax.Array, ""]:
    """Median of the ranks, midway between the two middle ones if their number is even.

    Args:
        ranks: from :func:`retrieval_ranks`; 1 is best.
        where: valid queries, all if None.

    Returns:
        A rank; NaN if no query is valid, since every number would claim something.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Karpathy & Fei-Fei 2015, arXiv:1412.2306, sec. 4.1 (Med r).

    >>> print(median_rank(jnp.array([1, 9, 2, 3])))
    2.5
    """
    ranks = jnp.asarray(ranks).astype(jnp.float32)
    valid = ranks if where is None else jnp.where(where, ranks, jnp.nan)
    # One NaN more changes no median of the others, and is the median of none.
    return jnp.nanmedian(jnp.append(valid, jnp.float32(jnp.nan)))


@checked
def mean_reciprocal_rank(
    ranks: Int[Array, "n"], *, where: Bool[Array, "n"] | None = None
) -> Float[jax.Array, ""]:
    r"""Mean of the reciprocal ranks.

    .. math:: \frac{1}{|V|} \sum_{i \in V} \frac{1}{r_i}

    Args:
        ranks: from :func:`retrieval_ranks`; 1 is best.
        where: valid queries :math:`V`, all if None.

    Returns:
        A number in [0, 1]; 0 if no query is valid.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Voorhees 1999, "The TREC-8 Question Answering Track Report", sec. 3. A query without a
    right candidate scores ``1 / (m + 1)`` here, by its rank, and 0 there.

    >>> print(mean_reciprocal_rank(jnp.array([1, 2, 4, 4])))
    0.5
    """
    return masked_mean(1 / jnp.asarray(ranks).astype(jnp.float32), where)


def _as_ids(name: str, ids: Int[Array, "n"]) -> Int[jax.Array, "n"]:
    """Convert to JAX's default integer, refusing NumPy ids that would wrap and then collide."""
    converted = jnp.asarray(ids).astype(int)
    if isinstance(ids, np.ndarray) and np.any(np.asarray(converted) != ids):
        raise ValueError(
            f"{name} must fit {converted.dtype}, got up to {np.abs(ids).max()}: renumber the ids "
            "(np.unique with return_inverse) or set jax_enable_x64"
        )
    return converted


@functools.partial(jax.jit, static_argnames="chunk_size")  # else every call compiles its own loop
def _ranks(
    queries: Float[jax.Array, "n d"],
    candidates: Float[jax.Array, "m d"],
    query_ids: Int[jax.Array, "n"],
    candidate_ids: Int[jax.Array, "m"],
    *,
    chunk_size: int,
) -> Int[jax.Array, "n"]:
    dtype, last = accumulation_dtype(queries, candidates), len(candidates) + 1

    def rank(row: tuple[Float[jax.Array, "d"], Int[jax.Array, ""]]) -> Int[jax.Array, ""]:
        query, query_id = row
        scores = jnp.einsum(
            "d,md->m",
            query,
            candidates,
            precision=jax.lax.Precision.HIGHEST,  # TF32 errs by far more than TIE
            preferred_element_type=dtype,
        )
        scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
        right = candidate_ids == query_id
        best = jnp.max(scores, where=right, initial=-jnp.inf)
        above = jnp.sum(~right & (scores >= best - TIE), dtype=jnp.int32)
        return jnp.where(best > -jnp.inf, 1 + above, last)

    return jax.lax.map(rank, (queries, query_ids), batch_size=chunk_size)
