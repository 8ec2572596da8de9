"""What the losses of one space are worth where it can be worked out by hand."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.losses import decoupled_contrastive, nt_xent, supervised_contrastive

EYE = np.eye(3, dtype=np.float32)
E = np.exp(1.0)


def test_orthonormal_pairs():
    np.testing.assert_allclose(
        nt_xent(EYE, EYE, temperature=1.0), np.full(3, np.log(E + 4) - 1), rtol=1e-6
    )
    np.testing.assert_allclose(
        decoupled_contrastive(EYE, EYE, temperature=1.0), np.full(3, np.log(4) - 1), rtol=1e-6
    )


def test_two_views_are_rows_of_one_label():
    views, labels = np.concatenate([EYE, EYE]), np.tile(np.arange(3), 2)
    rows = supervised_contrastive(views, temperature=1.0, labels=labels)
    np.testing.assert_allclose(rows[:3], nt_xent(EYE, EYE, temperature=1.0), rtol=1e-6)


def test_labels_and_positives_say_the_same():
    labels = np.array([4, 4, -1])
    by_labels = supervised_contrastive(EYE, temperature=0.5, labels=labels)
    by_pairs = supervised_contrastive(
        EYE, temperature=0.5, positives=labels[:, None] == labels[None]
    )
    np.testing.assert_array_equal(by_labels, by_pairs)
    assert by_labels[2] == 0 < by_labels[0]  # alone of its class


def test_a_single_example_has_nothing_to_be_told_from():
    assert nt_xent(EYE[:1], EYE[:1], temperature=1.0) == 0
    assert decoupled_contrastive(EYE[:1], EYE[:1], temperature=1.0) == 0


@pytest.mark.parametrize(
    ("given", "got"),
    [({}, "neither"), ({"labels": np.arange(3), "positives": np.eye(3, dtype=bool)}, "both")],
)
def test_either_labels_or_positives(given, got):
    with pytest.raises(ValueError, match=f"expected either labels or positives, got {got}"):
        supervised_contrastive(EYE, temperature=1.0, **given)


@pytest.mark.parametrize("labels", [np.ones(3, np.float32), np.ones(2, np.int32), ["a", "b", "c"]])
def test_labels_of_the_wrong_type_are_refused(labels):
    with pytest.raises(TypeCheckError, match="labels"):
        supervised_contrastive(EYE, temperature=1.0, labels=labels)
