"""How well one modality finds another, over everything that was embedded."""

import itertools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Int

from mmjax.arrays import checked
from mmjax.evaluation.embed import Embedded
from mmjax.metrics.retrieval import (
    mean_reciprocal_rank,
    median_rank,
    recall_at,
    retrieval_ranks,
)


def directions(embedded: Embedded) -> list[tuple[str, str]]:
    """Every ordered pair of modalities, as (query, candidate), in the order of the embeddings."""
    return list(itertools.permutations(embedded.embeddings, 2))


@checked
def ranks_between(embedded: Embedded, query: str, candidate: str) -> Int[np.ndarray, "values"]:
    """Rank of the best right answer to every value of ``query``.

    Args:
        embedded: holds both modalities.
        query: the modality that asks.
        candidate: the modality that is searched, all of it.

    Returns:
        One rank per value of ``query``; 1 is best. Values of the query's own record are right;
        ties count against us. The number of candidates + 1 where the record has no such value.
    """
    ranks = retrieval_ranks(
        embedded.embeddings[query],
        embedded.embeddings[candidate],
        query_ids=embedded.owners[query],
        candidate_ids=embedded.owners[candidate],
    )
    return np.asarray(jax.device_get(ranks))


@checked
def retrieval_metrics(
    embedded: Embedded,
    *,
    ks: Sequence[int] = (1, 5, 10),
    queries: Bool[np.ndarray, "records"] | None = None,
) -> dict[str, float]:
    """Recall, median rank and mean reciprocal rank of every ordered pair of modalities.

    Args:
        embedded: at least two modalities.
        ks: the cut-offs of recall, each at least 1.
        queries: records whose values ask; None is all of them. All values stay candidates, so
            that the numbers of two subsets compare: the search is equally hard for both.

    Returns:
        ``<query>_to_<candidate>_recall@<k>`` and ``_mrr``, fractions in [0, 1], and
        ``_median_rank``, at least 1. A query without any right answer (its record lacks that
        modality) is not counted.

    Raises:
        ValueError: with fewer than two modalities, ``queries`` of another length, or nothing
            left to ask in some direction.
    """
    if len(embedded.embeddings) < 2:
        raise ValueError(f"retrieval needs two modalities, got {sorted(embedded.embeddings)}")
    if queries is not None and len(queries) != len(embedded.ids):
        raise ValueError(f"queries has {len(queries)} rows for {len(embedded.ids)} records")
    metrics = {}
    for query, candidate in directions(embedded):
        name = f"{query}_to_{candidate}"
        where = np.isin(embedded.owners[query], embedded.owners[candidate])
        if queries is not None:
            where &= queries[embedded.owners[query]]
        if not where.any():
            raise ValueError(f"{name}: no query is selected that has a right answer")
        ranks = ranks_between(embedded, query, candidate)
        for k in ks:
            metrics[f"{name}_recall@{k}"] = float(recall_at(ranks, k, where=where))
        metrics[f"{name}_median_rank"] = float(median_rank(ranks, where=where))
        metrics[f"{name}_mrr"] = float(mean_reciprocal_rank(ranks, where=where))
    return metrics


def chance_recall_at_1(embedded: Embedded, query: str, candidate: str) -> float:
    """Recall@1 that a random order of the candidates would reach on average.

    Args:
        embedded: holds both modalities.
        query: the modality that asks.
        candidate: the modality that is searched.

    Returns:
        The mean over queries that have a right answer of (right answers / candidates), in
        (0, 1]; 0 if no query has one.
    """
    right = np.bincount(embedded.owners[candidate], minlength=len(embedded.ids))
    right = right[embedded.owners[query]]
    right = right[right > 0]
    return float(right.mean() / len(embedded.owners[candidate])) if right.size else 0.0
