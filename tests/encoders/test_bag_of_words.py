import numpy as np
import pytest

from mmjax.encoders.bag_of_words import BagOfWords

TEXTS = np.array([[3, 4, 5, 4], [7, 0, 0, 3], [0, 0, 0, 0]], np.int32)


@pytest.mark.parametrize("pooling", ["mean", "sqrt"])
def test_it_is_the_mean_of_the_words_that_are_there(pooling, fill):
    tower = BagOfWords(vocab_size=9, width=8, pooling=pooling)
    variables = fill(tower, TEXTS)
    table = np.float64(variables["params"]["word_embedding"]["embedding"])
    want = []
    for text in TEXTS:
        words = table[text[text != 0]]
        power = 1 if pooling == "mean" else 0.5
        want.append(words.sum(0) / max(len(words), 1) ** power)
    got = tower.apply(variables, TEXTS)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    padded = tower.apply(variables, np.pad(TEXTS, ((0, 0), (3, 5))))
    np.testing.assert_allclose(padded, got, rtol=1e-5, atol=1e-6)


def test_fields_that_cannot_be_are_refused_at_once():
    with pytest.raises(ValueError, match="pooling must be one of mean, sqrt, got 'max'"):
        BagOfWords(vocab_size=9, width=8, pooling="max")
