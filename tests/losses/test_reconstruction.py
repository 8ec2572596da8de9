"""What hidden patches cost where it can be worked out by hand, and what is refused."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.losses.reconstruction import masked_reconstruction

TARGET = np.array([[[0.0, 2.0], [1.0, 5.0], [np.nan, np.nan]]], np.float32)
NOTHING = np.zeros_like(TARGET)


def test_only_hidden_patches_count():
    one, two = (np.array([[True, also, False]]) for also in (False, True))
    np.testing.assert_allclose(masked_reconstruction(NOTHING, TARGET, masked=one), [2])
    np.testing.assert_allclose(masked_reconstruction(NOTHING, TARGET, masked=two), [(2 + 13) / 2])
    none = np.zeros_like(one)
    np.testing.assert_array_equal(masked_reconstruction(NOTHING, TARGET, masked=none), [0])


def test_a_normalized_patch_has_mean_0_and_unbiased_variance_1():
    # Deviations -2 and 2, variance 8: values -1/sqrt 2 and 1/sqrt 2, of mean square 1/2.
    masked = np.array([[False, True, False]])
    rows = masked_reconstruction(NOTHING, TARGET, masked=masked, normalize_target=True)
    np.testing.assert_allclose(rows, [0.5], rtol=1e-6)


@pytest.mark.parametrize("features", [1, 3])
def test_a_patch_of_one_colour_is_normalized_to_0(features):
    target, masked = np.full((1, 1, features), 7, np.float32), np.ones((1, 1), bool)
    prediction = np.full_like(target, 2)
    rows = masked_reconstruction(prediction, target, masked=masked, normalize_target=True)
    np.testing.assert_allclose(rows, [4], rtol=1e-6)


@pytest.mark.parametrize("masked", [np.ones((1, 3)), np.ones((1, 2), bool), np.ones(1, bool)])
def test_masks_of_another_kind_or_shape_are_refused(masked):
    with pytest.raises(TypeCheckError):
        masked_reconstruction(NOTHING, TARGET, masked=masked)
