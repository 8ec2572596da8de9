"""What the contrastive losses are worth where it can be worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses import clip_loss, info_nce

SAME = np.tile(np.array([[0.6, 0.8]], np.float32), (5, 1))
SKEWED = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[0, 0, 1]]


def test_orthonormal_pairs():
    rows = info_nce(jnp.eye(4), jnp.eye(4), temperature=0.5)
    np.testing.assert_allclose(rows, np.full(4, np.log(1 + 3 * np.exp(-1 / 0.5))), rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_rows_that_cannot_be_told_apart_cost_the_logarithm_of_their_number(scale):
    # At 1e4 a float32 is good to 1e-3 only: it takes logits that cancel before they are rounded.
    np.testing.assert_allclose(
        info_nce(SAME, SAME, temperature=1 / scale), np.full(5, np.log(5)), rtol=1e-6
    )
    np.testing.assert_allclose(
        clip_loss(SAME, SAME, logit_scale=scale), np.full(5, np.log(5)), rtol=1e-6
    )


def test_an_invalid_row_is_no_negative():
    where = np.array([True, True, False, False, True])
    rows = info_nce(SAME, SAME, temperature=1.0, where=where)
    np.testing.assert_allclose(rows, np.log(3) * where, rtol=1e-6)


def test_clip_is_half_of_both_directions():
    x, y = SKEWED  # the two directions differ: y repeats a row and x does not
    there = info_nce(x, y, temperature=0.25)
    back = info_nce(y, x, temperature=0.25)
    assert np.abs(there - back).max() > 0.5
    np.testing.assert_allclose(clip_loss(x, y, logit_scale=4), (there + back) / 2, rtol=1e-6)


def test_info_nce_ranks_keys_for_a_query_and_not_queries_for_a_key():
    e = np.exp(1.0)
    wanted = [np.log(2 * e + 1) - 1, np.log(2 + e), np.log(3.0)]
    np.testing.assert_allclose(info_nce(*SKEWED, temperature=1.0), wanted, rtol=1e-6)


def test_negatives_are_further_columns():
    rows = info_nce(np.eye(4)[:3], np.eye(4)[:3], temperature=1.0, negatives=np.eye(4)[3:])
    np.testing.assert_allclose(rows, np.full(3, np.log(np.e + 3) - 1), rtol=1e-6)


def test_a_known_false_negative_can_be_left_out():
    weights = 1 - np.eye(5, k=1)  # what follows row i is no negative of it
    rows = info_nce(SAME, SAME, temperature=1.0, weights=weights)
    np.testing.assert_allclose(rows, np.log([4, 4, 4, 4, 5]), rtol=1e-6)


def test_several_positives_share_the_target():
    x = np.eye(4)[[0, 0, 1, 2]]
    targets = x @ x.T > 0
    rows = clip_loss(x, x, logit_scale=1.0, targets=targets)
    pair, single = np.log(2 * np.e + 2) - 1, np.log(np.e + 3) - 1
    np.testing.assert_allclose(rows, [pair, pair, single, single], rtol=1e-6)


def test_a_query_without_a_valid_positive_costs_nothing():
    targets, where = np.eye(5, k=1) > 0, np.array([True, True, True, False, True])
    rows = info_nce(SAME, SAME, temperature=1.0, targets=targets, where=where)
    np.testing.assert_allclose(rows, np.log(4) * np.array([1, 1, 0, 0, 0]), rtol=1e-6)


def test_smoothing_is_the_same_share_for_all():
    hard = info_nce(np.eye(4), np.eye(4), temperature=1.0)
    even = np.log(np.e + 3) - 1 / 4
    soft = info_nce(np.eye(4), np.eye(4), temperature=1.0, label_smoothing=0.2)
    np.testing.assert_allclose(soft, 0.8 * hard + 0.2 * even, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing must be in"),
        ({"negatives_where": np.ones(3, bool)}, "negatives_where needs the negatives"),
        (
            {"negatives": SAME, "negatives_where": np.ones((5, 5), bool)},
            r"negatives_where must have shape \(5,\).* got \(5, 5\)",
        ),
        (
            {"targets": np.ones((5, 4), bool)},
            r"targets must have a column for each of the 5 rows of all shards, got shape \(5, 4\)",
        ),
        ({"weights": np.ones((5, 6), np.float32)}, "weights must have a column for each"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        info_nce(SAME, SAME, temperature=1.0, **options)
