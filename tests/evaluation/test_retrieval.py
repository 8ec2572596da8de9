import numpy as np
import pytest

from mmjax.evaluation.embed import Embedded
from mmjax.evaluation.retrieval import (
    chance_recall_at_1,
    directions,
    ranks_between,
    retrieval_metrics,
)


def on_the_circle(degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


@pytest.fixture
def embedded():
    """Three images with two, one and one text; angles decide who is near whom."""
    return Embedded(
        ids=("a", "b", "c"),
        positions=np.arange(3, dtype=np.int32),
        embeddings={
            "image": on_the_circle([0, 40, 90]),
            "text": on_the_circle([5, 80, 20, 41]),
        },
        owners={"image": np.arange(3, dtype=np.int32), "text": np.array([0, 0, 1, 2], np.int32)},
        labels=("", "", ""),
    )


def test_ranks_by_hand(embedded):
    # Image a (0): 5* first. Image b (40): 41, 20*, .... Image c (90): 80, 41*, ....
    np.testing.assert_array_equal(ranks_between(embedded, "image", "text"), [1, 2, 2])
    # Text 5 of a: 0*. 80 of a: 90, 40, 0*. 20 of b: 0 and 40* tie, against us. 41 of c: 40, 0, 90:
    # 90 is 49 away, 0 is 41 away.
    np.testing.assert_array_equal(ranks_between(embedded, "text", "image"), [1, 3, 2, 3])


def test_metrics_by_hand(embedded):
    metrics = retrieval_metrics(embedded, ks=(1, 2))
    assert metrics == pytest.approx(
        {
            "image_to_text_recall@1": 1 / 3,
            "image_to_text_recall@2": 1.0,
            "image_to_text_median_rank": 2.0,
            "image_to_text_mrr": (1 + 1 / 2 + 1 / 2) / 3,
            "text_to_image_recall@1": 1 / 4,
            "text_to_image_recall@2": 2 / 4,
            "text_to_image_median_rank": 2.5,
            "text_to_image_mrr": (1 + 1 / 3 + 1 / 2 + 1 / 3) / 4,
        }
    )


def test_a_subset_asks_but_everything_stays_a_candidate(embedded):
    metrics = retrieval_metrics(embedded, ks=(1,), queries=np.array([False, True, True]))
    assert metrics["image_to_text_median_rank"] == 2.0
    assert metrics["image_to_text_recall@1"] == 0.0
    assert metrics["text_to_image_mrr"] == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_a_query_without_any_right_answer_is_not_counted(embedded):
    owners = {"image": np.array([0, 1], np.int32), "text": embedded.owners["text"]}
    embeddings = dict(embedded.embeddings) | {"image": embedded.embeddings["image"][:2]}
    partial = Embedded(embedded.ids, embedded.positions, embeddings, owners, embedded.labels)
    metrics = retrieval_metrics(partial, ks=(1,))
    # Without image c, text 41 of c has no answer; 5 and 80 of a rank 1 and 2, 20 of b ranks 2.
    assert metrics["text_to_image_recall@1"] == pytest.approx(1 / 3)
    assert chance_recall_at_1(partial, "text", "image") == pytest.approx(1 / 2)


def test_chance_is_right_answers_over_candidates(embedded):
    assert chance_recall_at_1(embedded, "text", "image") == pytest.approx(1 / 3)
    assert chance_recall_at_1(embedded, "image", "text") == pytest.approx((2 + 1 + 1) / 3 / 4)


def test_every_ordered_pair_of_three_modalities(embedded):
    three = Embedded(
        embedded.ids,
        embedded.positions,
        dict(embedded.embeddings) | {"audio": embedded.embeddings["image"]},
        dict(embedded.owners) | {"audio": embedded.owners["image"]},
        embedded.labels,
    )
    assert len(directions(three)) == 6
    metrics = retrieval_metrics(three)
    assert len(metrics) == 6 * 5
    assert metrics["image_to_audio_recall@1"] == 1.0


@pytest.mark.parametrize(
    ("queries", "message"),
    [(np.zeros(3, bool), "no query is selected"), (np.ones(2, bool), "2 rows for 3 records")],
)
def test_a_selection_that_asks_nothing_is_refused(embedded, queries, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(embedded, queries=queries)


def test_one_modality_cannot_retrieve(embedded):
    alone = Embedded(
        embedded.ids,
        embedded.positions,
        {"image": embedded.embeddings["image"]},
        {"image": embedded.owners["image"]},
        embedded.labels,
    )
    with pytest.raises(ValueError, match="two modalities"):
        retrieval_metrics(alone)
