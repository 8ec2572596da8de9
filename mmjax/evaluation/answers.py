"""Which queries to look at, and what came back for them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmjax.evaluation.embed import Embedded
from mmjax.metrics.retrieval import TIE


@dataclasses.dataclass(frozen=True)
class Hit:
    """One candidate that a query found.

    Attributes:
        value: row among the candidate modality's values.
        score: cosine with the query.
        right: whether it is of the query's own record.
    """

    value: int
    score: float
    right: bool


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one query found.

    Attributes:
        query: row among the query modality's values.
        hits: the nearest candidates, best first.
        right: the nearest right candidate, in ``hits`` or not.
        rank: rank of ``right`` among all candidates, 1 is best.
    """

    query: int
    hits: tuple[Hit, ...]
    right: Hit
    rank: int


def answerable(embedded: Embedded, query: str, candidate: str) -> np.ndarray:
    """``bool[values]``: the values of ``query`` whose record also has a ``candidate``."""
    return np.isin(embedded.owners[query], embedded.owners[candidate])


def sample_queries(
    embedded: Embedded, query: str, candidate: str, *, count: int, seed: int = 0
) -> list[int]:
    """A few answerable queries, evenly spaced over the records and the same every time.

    Args:
        embedded: holds both modalities.
        query: the modality that asks.
        candidate: the modality that is searched.
        count: records wanted; fewer come back if there are fewer.
        seed: draws which of a record's several values asks.

    Returns:
        Rows among the query modality's values, ascending, each of another record.
    """
    owners = embedded.owners[query]
    rows = np.flatnonzero(answerable(embedded, query, candidate))
    records = np.unique(owners[rows])
    count = min(count, len(records))
    # The middles of equal parts: the ends of a sorted source are no better a sample than others.
    chosen = records[((np.arange(count) + 0.5) * len(records) / max(count, 1)).astype(int)]
    rng = np.random.default_rng(seed)
    return [int(rng.choice(rows[owners[rows] == record])) for record in chosen]


def worst_queries(
    embedded: Embedded, query: str, candidate: str, *, ranks: np.ndarray, count: int
) -> list[int]:
    """The answerable queries whose right answer ranks lowest, one a record, worst first.

    Args:
        embedded: holds both modalities.
        query: the modality that asks.
        candidate: the modality that is searched.
        ranks: ``i32[values]`` of ``query``, from :func:`~mmjax.evaluation.retrieval.ranks_between`.
        count: queries wanted; fewer come back if fewer were answered wrongly.

    Returns:
        Rows among the query modality's values; none of rank 1.
    """
    wrong = np.flatnonzero(answerable(embedded, query, candidate) & (ranks > 1))
    worst: dict[int, int] = {}
    for row in wrong[np.argsort(-ranks[wrong], kind="stable")].tolist():
        worst.setdefault(int(embedded.owners[query][row]), row)
        if len(worst) == count:
            break
    return list(worst.values())


def answer(
    embedded: Embedded,
    query: str,
    candidate: str,
    *,
    rows: Sequence[int],
    ranks: np.ndarray,
    count: int = 5,
) -> list[Answer]:
    """What each of the queries ``rows`` found.

    Args:
        embedded: holds both modalities.
        query: the modality that asks.
        candidate: the modality that is searched.
        rows: answerable rows among the query modality's values.
        ranks: ``i32[values]`` of ``query``, from :func:`~mmjax.evaluation.retrieval.ranks_between`.
        count: candidates to keep for each.

    Returns:
        One answer per row, in that order. A candidate whose score is NaN comes last.
    """
    answers = []
    for row in rows:
        scores = embedded.embeddings[candidate] @ embedded.embeddings[query][row]
        right = embedded.owners[candidate] == embedded.owners[query][row]
        # As in the metrics: a wrong candidate that ties with the right one stands before it.
        order = np.argsort(-np.where(right, scores, scores + TIE), kind="stable")
        nearest = order[:count]
        best = order[np.argmax(right[order])]
        hits = [Hit(int(v), float(scores[v]), bool(right[v])) for v in (*nearest, best)]
        answers.append(Answer(int(row), tuple(hits[:-1]), hits[-1], int(ranks[row])))
    return answers
