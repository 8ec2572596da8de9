import jax
import numpy as np
import pytest

from mmjax.encoders.bag_of_words import BagOfWords, drop_words

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


def test_dropped_words_were_there_and_never_are_all_of_them():
    where = np.tile(np.array([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], bool), (500, 1))
    kept = np.asarray(drop_words(where, 0.5, key=jax.random.key(0)))
    assert not (kept & ~where).any()
    np.testing.assert_array_equal(kept.any(1), where.any(1))
    # Of four words, 2 stay on average, and 4 instead of none once in 16: 2 + 4 / 16. The standard
    # error of the mean of 500 texts is about 1.1 / sqrt(500) = 0.05.
    assert abs(kept[::3].sum(1).mean() - 2.25) < 0.25


def test_words_are_dropped_in_training_only(fill):
    tower = BagOfWords(vocab_size=9, width=8, word_dropout=0.5)
    variables = fill(tower, TEXTS)
    plain = BagOfWords(vocab_size=9, width=8).apply(variables, TEXTS)
    np.testing.assert_array_equal(tower.apply(variables, TEXTS), plain)
    train = [
        tower.apply(variables, TEXTS, train=True, rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 0, 1, 2)
    ]
    np.testing.assert_array_equal(train[0], train[1])
    assert max(np.abs(x - plain).max() for x in train[1:]) > 1e-2


def test_fields_that_cannot_be_are_refused_at_once():
    with pytest.raises(ValueError, match="pooling must be one of mean, sqrt, got 'max'"):
        BagOfWords(vocab_size=9, width=8, pooling="max")
    with pytest.raises(ValueError, match="word_dropout must be at least 0 and below 1, got 1"):
        BagOfWords(vocab_size=9, width=8, word_dropout=1.0)
