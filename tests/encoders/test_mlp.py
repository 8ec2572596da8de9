import math

import jax
import numpy as np
import pytest

from mmjax.encoders.mlp import MLP

X = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def gelu(x):
    """The tanh form, from Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("hidden", [(), (4,), (4, 6)], ids=str)
def test_it_is_its_layers_one_after_the_other(hidden, fill):
    tower = MLP(hidden=hidden, features=2)
    variables = fill(tower, X)
    params, want = jax.tree.map(np.float64, variables["params"]), np.float64(X)
    for i in range(len(hidden)):
        layer = params[f"hidden_{i}"]
        want = gelu(want @ layer["kernel"] + layer["bias"])
    want = want @ params["out"]["kernel"] + params["out"]["bias"]
    np.testing.assert_allclose(jax.jit(tower.apply)(variables, X), want, rtol=1e-4, atol=1e-6)


def test_dropout_follows_its_key_and_only_while_training(fill):
    tower = MLP(hidden=(32,), features=2, dropout=0.5)
    variables = fill(tower, X)
    a, b = (
        tower.apply(variables, X, train=True, rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 1)
    )
    assert np.abs(a - b).max() > 1e-2
    plain = MLP(hidden=(32,), features=2).apply(variables, X)
    np.testing.assert_array_equal(tower.apply(variables, X), plain)


def test_a_share_that_cannot_be_is_refused_at_once():
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1, got 1"):
        MLP(hidden=(4,), features=2, dropout=1.0)
