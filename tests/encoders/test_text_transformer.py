import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.text_transformer import TextTransformer

FIELDS = {
    "vocab_size": 9,
    "max_length": 9,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "mlp_ratio": 1.0,
    "scan_layers": False,  # compiles sooner when there is one layer
}
TEXTS = np.array([[3, 4, 5, 6], [7, 3, 0, 0], [0, 0, 0, 0]], np.int32)
LONGER = np.pad(TEXTS, ((0, 0), (0, 5)))


@pytest.mark.parametrize("pooling", ["last", "mean", "attention"])
@pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
def test_appended_padding_changes_no_feature(causal, pooling, fill):
    tower = TextTransformer(**FIELDS, causal=causal, pooling=pooling)
    both = jax.jit(lambda variables: [tower.apply(variables, x) for x in (TEXTS, LONGER)])
    features, longer = both(fill(tower, TEXTS))
    np.testing.assert_allclose(longer, features, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(features[2], 0)  # a text of nothing


@pytest.mark.parametrize(("causal", "pooling"), [(True, "last"), (False, "mean")])
def test_appended_padding_changes_no_gradient(causal, pooling, fill):
    tower = TextTransformer(**FIELDS, causal=causal, pooling=pooling)
    weights = np.random.default_rng(1).normal(size=(3, 16)).astype(np.float32)

    def loss(variables, tokens):
        return jnp.sum(tower.apply(variables, tokens) * weights)

    both = jax.jit(lambda variables: [jax.grad(loss)(variables, x) for x in (TEXTS, LONGER)])
    for one, other in zip(*map(jax.tree.leaves, both(fill(tower, TEXTS))), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=2e-6 * np.abs(one).max())


def test_word_order_matters(fill):
    tower = TextTransformer(**FIELDS)
    variables = fill(tower, TEXTS)
    a, b = jax.jit(tower.apply)(variables, np.array([[3, 4], [4, 3]], np.int32))
    assert np.abs(a - b).max() > 1e-4


def test_a_text_that_is_too_long_is_refused():
    tower = TextTransformer(**FIELDS)
    message = "at most max_length=9 tokens, got 10; cut them in the tokenizer"
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.eval_shape(tower.init, jax.random.key(0), np.ones((1, 10), np.int32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling": "class"}, "pooling must be one of last, mean, attention, got 'class'"),
        ({"heads": 5}, "heads must divide width, got width=16 and heads=5"),
        ({"dropout": 1.5}, "dropout must be at least 0 and below 1, got 1.5"),
    ],
)
def test_fields_that_cannot_be_are_refused_at_once(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TextTransformer(**(FIELDS | fields))
