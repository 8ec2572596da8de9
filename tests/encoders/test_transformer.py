import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.transformer import MultiHeadAttention, Transformer, masked_attention

N, T, WIDTH, HEADS, DEPTH = 3, 4, 16, 2, 2
X = np.random.default_rng(0).normal(size=(N, T, WIDTH)).astype(np.float32)
RAGGED = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0]], bool)
MASKS = {"full": np.ones((N, T), bool), "ragged": RAGGED, "empty": np.zeros((N, T), bool)}


def attention_oracle(query, key, value, where):
    """Eq. 1 by definition: float64, one query at a time, masked keys deleted."""
    out = np.zeros(query.shape)
    for n, i, h in np.ndindex(query.shape[:3]):
        keep = where[n]
        if keep.any():
            scores = np.exp(np.float64(key[n, keep, h]) @ query[n, i, h] / key.shape[-1] ** 0.5)
            out[n, i, h] = scores @ value[n, keep, h] / scores.sum()
    return out


@pytest.mark.parametrize("mask", MASKS)
def test_attention_matches_the_oracle(mask):
    where = MASKS[mask]
    query, key, value = np.random.default_rng(1).normal(size=(3, N, T, HEADS, 5)).astype("f")
    hidden = np.where(where[:, :, None, None], key, 1e9)  # large, and of no consequence
    got = masked_attention(query, hidden, value, where=where[:, None])
    want = attention_oracle(query, key, value, where)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", MASKS)
def test_attention_gradients_match_finite_differences(mask):
    where = MASKS[mask]
    inputs = np.random.default_rng(1).normal(size=(3, N, T, HEADS, 5)).astype("f")
    weights, *steps = np.random.default_rng(2).normal(size=(4, N, T, HEADS, 5))

    def loss(*inputs):
        return jnp.sum(masked_attention(*inputs, where=where[:, None]) * weights.astype("f"))

    grads = jax.grad(loss, (0, 1, 2))(*inputs)
    h = 1e-5
    for i, (grad, step) in enumerate(zip(grads, steps, strict=True)):
        ends = []
        for sign in (1, -1):
            moved = [np.float64(x) for x in inputs]
            moved[i] = moved[i] + sign * h * step
            ends.append((attention_oracle(*moved, where) * weights).sum())
        want = (ends[0] - ends[1]) / (2 * h)
        np.testing.assert_allclose((np.float64(grad) * step).sum(), want, rtol=1e-4, atol=1e-5)
        if i:
            np.testing.assert_array_equal(np.asarray(grad)[~where], 0)


def test_heads_have_to_divide_the_features():
    with pytest.raises(ValueError, match="heads must divide width, got width=16 and heads=3"):
        MultiHeadAttention(heads=3).init(jax.random.key(0), X, X)


def stack(scan_layers=True, remat=False, dropout=0.0):
    return Transformer(
        depth=DEPTH,
        heads=HEADS,
        mlp_ratio=2.0,
        dropout=dropout,
        scan_layers=scan_layers,
        remat=remat,
    )


@functools.cache
def scanned_params():
    return nn.unbox(jax.jit(stack().init)(jax.random.key(0), X))["params"]


def unrolled(params):
    """The parameters of a scanned stack, as the unrolled one holds them."""
    layers = {
        f"layer_{i}": jax.tree.map(lambda x, i=i: x[i], params["layers"]) for i in range(DEPTH)
    }
    return layers | {"final_norm": params["final_norm"]}


@functools.cache
def outcome(scan_layers, remat):
    """Value and gradients, the latter as the unrolled stack holds them."""
    module = stack(scan_layers, remat)
    params = scanned_params() if scan_layers else unrolled(scanned_params())

    def loss(params, x):
        return jnp.sum(jnp.sin(module.apply({"params": params}, x, where=RAGGED)))

    value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, X)
    return value, (unrolled(grads[0]) if scan_layers else grads[0], grads[1])


@pytest.mark.parametrize("remat", [False, True], ids=["", "remat"])
@pytest.mark.parametrize("scan_layers", [False, True], ids=["unrolled", "scanned"])
def test_scan_and_remat_change_nothing(scan_layers, remat):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, outcome(scan_layers, remat), outcome(False, False))


@pytest.mark.parametrize("scan_layers", [False, True], ids=["unrolled", "scanned"])
def test_remat_recomputes_the_blocks(scan_layers):
    def forward_and_backward(remat):
        module = stack(scan_layers, remat)
        params = scanned_params() if scan_layers else unrolled(scanned_params())
        return str(
            jax.make_jaxpr(jax.grad(lambda p: jnp.sum(module.apply({"params": p}, X))))(params)
        )

    assert "remat" in forward_and_backward(True)
    assert "remat" not in forward_and_backward(False)


def test_scanned_layers_start_out_different():
    for leaf in jax.tree.leaves(scanned_params()["layers"]):
        assert leaf.shape[0] == DEPTH
    query = scanned_params()["layers"]["attention"]["query"]
    assert np.abs(query[0] - query[1]).max() > 0.01


@functools.partial(jax.jit, static_argnames="causal")
def transform(x, where=None, causal=False):
    return stack().apply({"params": scanned_params()}, x, where=where, causal=causal)


@pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
def test_masked_tokens_change_no_valid_one_even_as_nan(causal):
    got = transform(np.where(RAGGED[:, :, None], X, np.nan), RAGGED, causal=causal)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[0], transform(X, causal=causal)[0], rtol=1e-4, atol=1e-5)
    for i in (1, 2):  # of two valid tokens each
        alone = transform(X[i : i + 1, RAGGED[i]], causal=causal)[0]
        np.testing.assert_allclose(got[i][RAGGED[i]], alone, rtol=1e-4, atol=1e-5)


def test_causal_means_that_the_future_is_not_seen():
    changed = X.copy()
    changed[:, 2] = changed[:, 2, ::-1]
    for causal in (True, False):
        move = np.abs(transform(X, causal=causal) - transform(changed, causal=causal)).max((0, 2))
        np.testing.assert_array_equal(move > 1e-4, [not causal, not causal, True, True])


def test_a_row_without_a_valid_token_has_finite_gradients():
    def loss(params, x):
        out = stack().apply({"params": params}, x, where=np.zeros((N, T), bool))
        return jnp.sum(out * out[::-1])

    value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(scanned_params(), X * np.nan)
    assert np.isfinite(value)
    assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))
    np.testing.assert_array_equal(grads[1], 0)


@pytest.mark.parametrize("scan_layers", [False, True], ids=["unrolled", "scanned"])
def test_dropout_follows_its_key_while_training(scan_layers):
    module = stack(scan_layers, dropout=0.5)
    params = scanned_params() if scan_layers else unrolled(scanned_params())

    @jax.jit
    def train(key):
        return module.apply({"params": params}, X, train=True, rngs={"dropout": key})

    a, again, b = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - b).max() > 0.1


def test_dropout_is_no_part_of_the_program_otherwise():
    programs = [
        str(jax.make_jaxpr(stack(dropout=rate).apply)({"params": scanned_params()}, X))
        for rate in (0.0, 0.5)
    ]
    assert programs[0] == programs[1]
