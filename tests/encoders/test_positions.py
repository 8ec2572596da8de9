import re

import jax
import numpy as np
import pytest

from mmjax.encoders.positions import LearnedPositions, sincos_2d


def test_sincos_is_its_definition():
    height, width, features = 3, 5, 12
    rows = []
    for y in range(height):
        for x in range(width):
            omega = [10_000 ** -(k / (features // 4 - 1)) for k in range(features // 4)]
            rows.append(
                [np.sin(x * w) for w in omega]
                + [np.cos(x * w) for w in omega]
                + [np.sin(y * w) for w in omega]
                + [np.cos(y * w) for w in omega]
            )
    np.testing.assert_allclose(sincos_2d(height, width, features), rows, atol=1e-6)


def test_sincos_products_depend_on_the_displacement_only():
    table = sincos_2d(4, 4, 16).reshape(4, 4, 16)
    np.testing.assert_allclose(table[0, 0] @ table[1, 2], table[2, 1] @ table[3, 3], rtol=1e-5)
    assert abs(table[0, 0] @ table[1, 2] - table[0, 0] @ table[3, 2]) > 0.01


@pytest.mark.parametrize("features", [4, 10])
def test_sincos_refuses_features_that_do_not_fit(features):
    with pytest.raises(ValueError, match=f"multiple of 4 and at least 8 features, got {features}"):
        sincos_2d(2, 2, features)


def test_learned_positions_name_both_lengths():
    variables = LearnedPositions(4, 8).init(jax.random.key(0))
    message = "learned for 4 places, got 9; give inputs of the size seen at initialisation, or use"
    with pytest.raises(ValueError, match=re.escape(message)):
        LearnedPositions(9, 8).apply(variables)
