"""What the definitions of the operators on sequences do not show by themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.fusion.blocks import attend, normalised, repeated
from mmjax.fusion.bottleneck import mean_of_present
from mmjax.fusion.tokens import last_token, mean_token, sinusoidal_positions

N, T, D = 4, 5, 3
WHERE = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)
X = np.random.default_rng(0).normal(size=(N, T, D)).astype(np.float32)


@pytest.mark.parametrize("features", [1, 4, 5])
def test_positions_count_valid_tokens_only(features):
    got = np.asarray(sinusoidal_positions(WHERE, features))
    for n in range(N):
        place = np.arange(WHERE[n].sum())[:, None]
        half = np.arange((features + 1) // 2)[None]
        angle = place / 10_000.0 ** (2 * half / features)
        want = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)[:, :features]
        np.testing.assert_allclose(got[n][WHERE[n]], want, atol=1e-6)


@pytest.mark.parametrize(("read", "of_kept"), [(last_token, -1), (mean_token, None)], ids=str)
def test_a_readout_sees_valid_tokens_only(read, of_kept):
    holed = np.where(WHERE[:, :, None], X, np.nan)
    rows = [x[keep] for x, keep in zip(X, WHERE, strict=True)]
    want = [
        np.zeros(D) if not len(kept) else kept.mean(axis=0) if of_kept is None else kept[of_kept]
        for kept in rows
    ]
    np.testing.assert_allclose(read(holed, WHERE), want, rtol=1e-5, atol=1e-7)
    slope = jax.grad(lambda x: jnp.sum(read(x, WHERE) ** 2))(holed)
    assert np.isfinite(slope).all()
    assert not np.any(slope[~WHERE])
    assert np.any(slope[WHERE])


def test_attention_is_even_where_scores_are_and_blind_where_nothing_is():
    even = np.zeros((N, 2, 1, D), np.float32)
    value = X[:, :, None]
    mixed = attend(even, np.zeros_like(value), value, WHERE)
    want = np.asarray(mean_token(X, WHERE))[:, None, None]
    np.testing.assert_allclose(mixed, np.broadcast_to(want, mixed.shape), rtol=1e-5, atol=1e-7)


def test_attention_bears_scores_of_any_size():
    """Softmax of a thousand and minus a thousand: one key takes all."""
    query = np.full((1, 1, 1, 1), 1e3, np.float32)
    key = np.array([1.0, -1.0, 3.0], np.float32).reshape(1, 3, 1, 1)
    value = np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1)
    where = np.array([[True, True, False]])
    assert attend(query, key, value, where).item() == 0.0
    assert attend(query, key, value, np.ones((1, 3), bool)).item() == 2.0


def test_equal_features_normalise_to_the_bias():
    bias, ones = jnp.arange(3.0), jnp.ones(3)
    value, slope = jax.value_and_grad(lambda x: jnp.sum(normalised(x, ones, bias)))(
        jnp.full(3, 7.0)
    )
    assert value == 3.0
    assert np.isfinite(slope).all()


@pytest.mark.parametrize(
    ("x", "there"),
    [
        (np.ones((1, D), np.float32), np.ones(N, bool)),
        (np.ones((N, D), np.float32), np.ones(1, bool)),
        (np.ones((N, D), np.float32), np.full(N, 3)),
    ],
    ids=["rows", "mask rows", "mask dtype"],
)
def test_a_mean_checks_every_modality(x, there):
    rows, have = {"a": X[:, 0], "b": x}, {"a": np.ones(N, bool), "b": there}
    with pytest.raises(TypeCheckError):
        mean_of_present(rows, have, np.zeros((N, D), np.float32))


def test_no_layer_changes_nothing():
    assert repeated(None, 0, "none", X) is X
