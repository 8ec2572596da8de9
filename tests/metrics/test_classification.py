"""Accuracy by hand and by brute force: ties, NaN and impossible labels are misses."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from mmjax.metrics import top_k_accuracy

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], np.float32)
LABELS = np.array([0, 1, 2, 2])


@pytest.mark.parametrize(("k", "wanted"), [(1, 2 / 4), (2, 3 / 4), (3, 1.0)])
def test_a_hit_is_a_label_among_the_k_highest_scores(k, wanted):
    np.testing.assert_allclose(top_k_accuracy(SCORES, LABELS, k=k), wanted)


def test_invalid_rows_do_not_count_even_where_they_hold_nan():
    scores = np.where(np.array([0, 1, 0, 0], bool)[:, None], np.nan, SCORES)
    where = np.array([True, False, True, True])
    np.testing.assert_allclose(top_k_accuracy(scores, LABELS, where=where), 2 / 3, rtol=1e-6)
    assert top_k_accuracy(SCORES, LABELS, where=np.zeros(4, bool)) == 0


def test_equal_scores_for_all_classes_never_hit():
    assert top_k_accuracy(np.zeros((4, 3), np.float32), LABELS, k=2) == 0


def test_a_nan_never_wins():
    scores = np.array([[np.nan, 0.2, 0.1]] * 2, np.float32)
    assert top_k_accuracy(scores, np.array([0, 1])) == 0.5  # the second row's label leads
    assert top_k_accuracy(scores, np.array([0, 0]), k=3) == 0


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_a_miss(label):
    assert top_k_accuracy(SCORES, np.full(4, label), k=3) == 0


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    scores=st_numpy.arrays(np.float32, (6, 4), elements=st.sampled_from([-1, 0, 1, 2, np.nan])),
    labels=st_numpy.arrays(np.int32, 6, elements=st.integers(0, 3)),
    where=st_numpy.arrays(bool, 6),
    k=st.integers(1, 4),
)
def test_accuracy_equals_brute_force(scores, labels, where, k):
    hits = []
    for row, label in zip(scores[where], labels[where], strict=True):
        above = sum(s >= row[label] for j, s in enumerate(row) if j != label)
        hits.append(not np.isnan(row[label]) and above < k)
    wanted = np.mean(hits) if hits else 0.0
    np.testing.assert_allclose(
        top_k_accuracy(scores, labels, k=k, where=where), wanted, rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("k", [0, 4])
def test_a_k_that_is_no_number_of_classes_is_refused(k):
    with pytest.raises(ValueError, match=f"k must be between 1 and the 3 classes, got {k}"):
        top_k_accuracy(SCORES, LABELS, k=k)
