import numpy as np
import pytest

from mmjax.evaluation.answers import Hit, answer, sample_queries, worst_queries
from mmjax.evaluation.embed import Embedded
from mmjax.evaluation.retrieval import directions, ranks_between


def embedded(image, text, text_owners):
    count = len(image)
    return Embedded(
        tuple(f"r{i}" for i in range(count)),
        np.arange(count, dtype=np.int32),
        {"image": np.asarray(image, np.float32), "text": np.asarray(text, np.float32)},
        {"image": np.arange(count, dtype=np.int32), "text": np.asarray(text_owners, np.int32)},
        ("",) * count,
    )


@pytest.fixture(scope="module")
def noisy():
    """Forty records with five texts each, except that record 7 has none."""
    rng = np.random.default_rng(0)
    owners = np.repeat(np.delete(np.arange(40), 7), 5)
    image = rng.normal(size=(40, 6))
    text = image[owners] + 1.5 * rng.normal(size=(len(owners), 6))
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    return embedded(image, text, owners)


def test_the_nearest_come_first_and_the_right_one_is_known():
    found = embedded([[1, 0], [0, 1]], [[0.6, 0.8], [1, 0], [0, 1]], [0, 1, 1])
    ranks = ranks_between(found, "image", "text")
    (first,) = answer(found, "image", "text", rows=[0], ranks=ranks, count=2)
    assert first.hits == (
        Hit(value=1, score=1.0, right=False),
        Hit(value=0, score=pytest.approx(0.6), right=True),
    )
    assert (first.query, first.right, first.rank) == (0, first.hits[1], 2)


def test_a_wrong_candidate_that_ties_stands_first_and_nan_last():
    found = embedded([[1, 0], [1, 0], [np.nan, 0]], [[1, 0]] * 3, [0, 1, 2])
    ranks = ranks_between(found, "text", "image")
    (first,) = answer(found, "text", "image", rows=[0], ranks=ranks)
    assert [hit.value for hit in first.hits] == [1, 0, 2]
    assert first.rank == 2


def test_the_place_of_the_right_answer_is_the_rank_of_the_metrics(noisy):
    for query, candidate in directions(noisy):
        ranks = ranks_between(noisy, query, candidate)
        rows = sample_queries(noisy, query, candidate, count=40)
        for shown in answer(noisy, query, candidate, rows=rows, ranks=ranks, count=1000):
            places = [hit.right for hit in shown.hits]
            assert places.index(True) + 1 == shown.rank
            assert shown.right == shown.hits[shown.rank - 1]


def test_the_sample_is_even_repeatable_and_answerable(noisy):
    rows = sample_queries(noisy, "image", "text", count=4)
    assert rows == sample_queries(noisy, "image", "text", count=4)
    # 39 answerable records, record 7 left out: the middles of four parts are 4, 14, 24, 34.
    assert rows == [4, 15, 25, 35]
    texts = sample_queries(noisy, "text", "image", count=4)
    np.testing.assert_array_equal(noisy.owners["text"][texts], rows)
    others = [sample_queries(noisy, "text", "image", count=4, seed=seed) for seed in range(5)]
    assert any(other != texts for other in others)


def test_a_small_set_is_shown_whole():
    found = embedded(np.eye(3), np.eye(3), [0, 1, 2])
    assert sample_queries(found, "text", "image", count=9) == [0, 1, 2]


def test_the_worst_are_the_lowest_ranks_one_a_record(noisy):
    ranks = ranks_between(noisy, "text", "image")
    rows = worst_queries(noisy, "text", "image", ranks=ranks, count=5)
    owners = noisy.owners["text"]
    best_of_worst = sorted((ranks[owners == r].max() for r in set(owners)), reverse=True)
    assert [ranks[row] for row in rows] == best_of_worst[:5]
    assert len({int(owners[row]) for row in rows}) == 5


def test_what_came_first_is_no_mistake():
    found = embedded(np.eye(3), np.eye(3), [0, 1, 2])
    ranks = ranks_between(found, "text", "image")
    assert worst_queries(found, "text", "image", ranks=ranks, count=5) == []
