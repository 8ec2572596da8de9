"""What the losses with corrected negatives are worth, and what they become at their ends."""

import numpy as np
import pytest

from mmjax.losses import clip_loss, debiased_info_nce, hard_negative_info_nce, hn_nce, info_nce

X, Y = np.random.default_rng(0).normal(size=(2, 6, 3))
X, Y = (np.float32(z / np.linalg.norm(z, axis=1, keepdims=True)) for z in (X, Y))


def test_without_hardness_and_prior_it_is_info_nce():
    plain = info_nce(X, Y, temperature=0.5)
    for rows in (
        hard_negative_info_nce(X, Y, temperature=0.5, hardness=0.0),
        debiased_info_nce(X, Y, temperature=0.5, prior=0.0),
    ):
        np.testing.assert_allclose(rows, plain, rtol=1e-5)


def test_without_hardness_it_is_clip():
    rows = hn_nce(X, Y, logit_scale=2.0, hardness=0.0)
    np.testing.assert_allclose(rows, clip_loss(X, Y, logit_scale=2.0), rtol=1e-5)


def test_hardness_weighs_up_the_negatives_that_are_near():
    costs = [hard_negative_info_nce(X, Y, temperature=0.5, hardness=h) for h in (0.0, 1.0, 4.0)]
    assert np.all(np.diff(costs, axis=0) > 0)


def test_in_the_end_only_the_hardest_is_left():
    logits = 2 * X @ Y.T
    hardest = np.max(logits - 1e9 * np.eye(6), axis=1)
    own = np.diag(logits)
    wanted = np.log(np.exp(own) + 5 * np.exp(hardest)) - own
    rows = hard_negative_info_nce(X, Y, temperature=0.5, hardness=500.0)
    np.testing.assert_allclose(rows, wanted, rtol=1e-4)


def test_what_a_prior_takes_off_stops_at_the_least_a_negative_can_be():
    rows = debiased_info_nce(np.eye(3), np.eye(3), temperature=1.0, prior=0.9)
    np.testing.assert_allclose(rows, np.full(3, np.log(np.e + 2 / np.e) - 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (debiased_info_nce, {"temperature": 1.0, "prior": 1.0}, r"prior .* \[0, 1\), got 1.0"),
        (hard_negative_info_nce, {"temperature": 1.0, "hardness": -1.0}, "hardness must be at"),
        (hn_nce, {"logit_scale": 1.0, "hardness": float("nan")}, "hardness .* got nan"),
        (hn_nce, {"logit_scale": 1.0, "positive_weight": 1.5}, r"positive_weight .* got 1.5"),
    ],
)
def test_options_that_cannot_be_are_refused(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(X, Y, **options)
