"""Metrics: pure functions of arrays, pessimistic about ties, never won by a NaN."""

from mmjax.metrics.classification import top_k_accuracy
from mmjax.metrics.retrieval import (
    mean_reciprocal_rank,
    median_rank,
    recall_at,
    retrieval_ranks,
)

__all__ = [
    "mean_reciprocal_rank",
    "median_rank",
    "recall_at",
    "retrieval_ranks",
    "top_k_accuracy",
]
