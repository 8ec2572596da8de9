"""Ranks by hand and by brute force, and the numbers that are read off them."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from jaxtyping import TypeCheckError

from mmjax.metrics import mean_reciprocal_rank, median_rank, recall_at, retrieval_ranks

# Hypothesis: one shape, so that one compilation serves all examples; no clock in a shared machine.
cheap = hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)


def brute_force(queries, candidates, query_ids, candidate_ids):
    """The definition, one query and one candidate at a time, in float64."""
    ranks = []
    for query, query_id in zip(np.float64(queries), query_ids, strict=True):
        scores = [float(np.nan_to_num(query @ c, nan=-np.inf)) for c in np.float64(candidates)]
        right = [s for s, i in zip(scores, candidate_ids, strict=True) if i == query_id]
        wrong = [s for s, i in zip(scores, candidate_ids, strict=True) if i != query_id]
        best = max(right, default=-np.inf)
        above = sum(s >= best - 1e-6 for s in wrong)
        ranks.append(len(scores) + 1 if best == -np.inf else 1 + above)
    return ranks


def on_a_line(scores, query_ids, candidate_ids):
    """Ranks of queries that all score the candidates like this."""
    queries = np.ones((len(query_ids), 1), np.float32)
    candidates = np.array(scores, np.float32)[:, None]
    ids = {"query_ids": np.array(query_ids), "candidate_ids": np.array(candidate_ids)}
    return retrieval_ranks(queries, candidates, **ids).tolist()


def test_the_rank_counts_the_candidates_above():
    scores = [0.1, 0.9, 0.5]
    assert on_a_line(scores, [0, 1, 2], [0, 1, 2]) == [3, 1, 2]


def test_the_best_of_several_right_answers_counts_and_the_others_do_not_count_against_it():
    scores = [0.9, 0.8, 0.7, 0.1]
    assert on_a_line(scores, [5, 6], [6, 5, 5, 5]) == [2, 1]
    assert on_a_line(scores, [5], [5, 5, 6, 5]) == [1]


def test_ties_count_against_us_even_within_rounding():
    assert on_a_line([0.5, 0.5, 0.5], [0, 1, 2], [0, 1, 2]) == [3, 3, 3]
    assert on_a_line([0.5, 0.5 - 5e-7, 0.5 - 5e-6], [0], [0, 1, 2]) == [2]


def test_equal_embeddings_for_everything_never_hit():
    constant = np.ones((6, 2), np.float32) / np.sqrt(2, dtype=np.float32)
    ids = np.arange(6)
    ranks = retrieval_ranks(constant, constant, query_ids=ids, candidate_ids=ids)
    assert recall_at(ranks, 5) == 0


def test_a_query_without_a_right_candidate_ranks_behind_all_of_them():
    assert on_a_line([0.3, 0.2], [9], [0, 1]) == [3]


def test_a_nan_never_wins():
    nan = np.nan
    assert on_a_line([nan, 0.2, 0.1], [1], [0, 1, 2]) == [1]  # nor does it push others down
    assert on_a_line([nan, 0.2, 0.1], [0], [0, 1, 2]) == [4]  # a right one counts as absent
    assert on_a_line([nan, 0.2, 0.1], [7], [7, 7, 2]) == [1]
    assert on_a_line([nan, nan], [0, 1], [0, 1]) == [3, 3]
    assert on_a_line([nan], [0], [0]) == [2]


@cheap
@hypothesis.given(
    # Few values make many exact ties, several right answers and some queries without any.
    rows=st_numpy.arrays(np.float32, (12, 2), elements=st.sampled_from([-1, 0, 0.5, 1, np.nan])),
    ids=st_numpy.arrays(np.int32, 12, elements=st.integers(-1, 3)),
    chunk_size=st.sampled_from([2, 5, 1024]),
)
def test_ranks_equal_brute_force_whatever_the_chunks(rows, ids, chunk_size):
    (queries, candidates), (query_ids, candidate_ids) = np.split(rows, [5]), np.split(ids, [5])
    ranks = retrieval_ranks(
        queries,
        candidates,
        query_ids=query_ids,
        candidate_ids=candidate_ids,
        chunk_size=chunk_size,
    )
    assert ranks.tolist() == brute_force(queries, candidates, query_ids, candidate_ids)


def test_bfloat16_embeddings_are_compared_in_float32():
    # In bfloat16 all of these would be one score of 1: a tie, and a last rank.
    queries = jnp.ones((1, 3), jnp.bfloat16)
    candidates = jnp.array([[1, 0, 0], [1, 1e-3, 1e-3], [1, 1e-3, 0]], jnp.bfloat16)
    ids = jnp.array([1, 2, 3])
    ranks = retrieval_ranks(queries, candidates, query_ids=ids[1:2], candidate_ids=ids)
    assert ranks.tolist() == [1]


def test_memory_grows_with_the_chunk_and_not_with_the_queries():
    n, m, chunk_size = 4096, 512, 32
    f32, i32 = jax.ShapeDtypeStruct((n, 8), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.int32)
    run = jax.jit(
        lambda q, c, i, j: retrieval_ranks(
            q, c, query_ids=i, candidate_ids=j, chunk_size=chunk_size
        )
    )
    candidates = jax.ShapeDtypeStruct((m, 8), jnp.float32), jax.ShapeDtypeStruct((m,), jnp.int32)
    analysis = run.lower(f32, candidates[0], i32, candidates[1]).compile().memory_analysis()
    assert analysis.temp_size_in_bytes < n * m  # a quarter of the scores; 16 chunks of them


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0)], ids=["no-queries", "no-candidates"])
def test_nothing_to_rank_is_no_error(n, m):
    ids = {"query_ids": np.arange(n), "candidate_ids": np.arange(m)}
    assert retrieval_ranks(np.ones((n, 2)), np.ones((m, 2)), **ids).tolist() == [m + 1] * n


def test_ids_that_would_wrap_and_collide_are_refused():
    ids = np.array([1, 2**32 + 1])
    with pytest.raises(ValueError, match=r"query_ids must fit int32, got up to 4294967297.*unique"):
        retrieval_ranks(np.eye(2), np.eye(2), query_ids=ids, candidate_ids=ids)


def test_ids_of_any_integer_dtype_compare_by_value():
    ids = np.array([3, 4], np.int8), np.array([3, 4], np.int64)
    ranks = retrieval_ranks(np.eye(2), np.eye(2), query_ids=ids[0], candidate_ids=ids[1])
    assert ranks.tolist() == [1, 1]


def test_wrong_input_is_refused():
    rows, ids = np.eye(2, dtype=np.float32), np.arange(2)
    ranks = functools.partial(retrieval_ranks, rows, query_ids=ids)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        ranks(rows, candidate_ids=ids, chunk_size=0)
    with pytest.raises(TypeCheckError):
        ranks(rows, candidate_ids=ids[:1])
    with pytest.raises(TypeCheckError):
        ranks(rows[:, :1], candidate_ids=ids)


RANKS = np.array([1, 12, 3, 3, 10, 7], np.int32)
WHERE = {
    "none": None,
    "odd": np.array([1, 1, 0, 0, 1, 0], bool),
    "even": np.array([0, 1, 1, 0, 1, 1], bool),
    "one": np.array([0, 1, 0, 0, 0, 0], bool),
}


@pytest.mark.parametrize("mask", WHERE)
def test_summaries_equal_numpy_on_the_valid_ranks(mask):
    where = WHERE[mask]
    kept = RANKS if where is None else RANKS[where]
    for k in (1, 3, 10):
        np.testing.assert_allclose(recall_at(RANKS, k, where=where), np.mean(kept <= k), rtol=1e-6)
    np.testing.assert_allclose(median_rank(RANKS, where=where), np.median(kept), rtol=1e-6)
    np.testing.assert_allclose(
        mean_reciprocal_rank(RANKS, where=where), np.mean(1 / kept), rtol=1e-6
    )


@pytest.mark.parametrize("ranks", [RANKS, RANKS[:0]], ids=["none-valid", "none-at-all"])
def test_no_valid_query_earns_nothing(ranks):
    nothing = np.zeros(len(ranks), bool)
    assert recall_at(ranks, 1, where=nothing) == 0
    assert mean_reciprocal_rank(ranks, where=nothing) == 0
    assert np.isnan(median_rank(ranks, where=nothing))


def test_a_recall_at_less_than_one_is_refused():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        recall_at(RANKS, 0)
