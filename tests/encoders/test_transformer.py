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


@pytest.fixture(scope="module")
def params(fill):
    return fill(stack(), X)["params"]


def unrolled(params):
    """The parameters of a scanned stack, as the unrolled one holds them."""
    layers = {
        f"layer_{i}": jax.tree.map(lambda x, i=i: x[i], params["layers"]) for i in range(DEPTH)
    }
    return layers | {"final_norm": params["final_norm"]}


@pytest.fixture(scope="module")
def outcome(params):
    """Value and gradients; those of the parameters as the unrolled stack holds them."""

    @functools.cache
    def compiled(scan_layers, remat):
        module = stack(scan_layers, remat)

        def loss(params, x, where):
            return jnp.sum(jnp.sin(module.apply({"params": params}, x, where=where)))

        return jax.jit(jax.value_and_grad(loss, (0, 1)))

    def outcome(scan_layers, remat, x=X, where=RAGGED):
        run = compiled(scan_layers, remat)
        value, (grads, slope) = run(params if scan_layers else unrolled(params), x, where)
        return value, unrolled(grads) if scan_layers else grads, slope

    return outcome


@pytest.mark.parametrize(
    ("scan_layers", "remat"), [(True, False), (True, True), (False, True)], ids=str
)
def test_scan_and_remat_change_nothing(scan_layers, remat, outcome):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, outcome(scan_layers, remat), outcome(False, False))


@pytest.mark.parametrize("scan_layers", [False, True], ids=["unrolled", "scanned"])
def test_a_row_without_a_valid_token_has_finite_gradients(scan_layers, outcome):
    value, grads, slope = outcome(scan_layers, False, X * np.nan, np.zeros((N, T), bool))
    assert np.isfinite(value)
    assert all(np.isfinite(grad).all() for grad in jax.tree.leaves(grads))
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("scan_layers", [False, True], ids=["unrolled", "scanned"])
def test_remat_recomputes_the_blocks(scan_layers, params):
    def program(remat):
        module = stack(scan_layers, remat)
        gradient = jax.grad(lambda params: jnp.sum(module.apply({"params": params}, X)))
        return str(jax.make_jaxpr(gradient)(params if scan_layers else unrolled(params)))

    assert "remat" in program(True)
    assert "remat" not in program(False)


def test_scanned_layers_start_out_different():
    params = nn.unbox(jax.jit(stack().init)(jax.random.key(0), X))["params"]
    for leaf in jax.tree.leaves(params["layers"]):
        assert leaf.shape[0] == DEPTH
    query = params["layers"]["attention"]["query"]
    assert np.abs(query[0] - query[1]).max() > 0.01


@functools.partial(jax.jit, static_argnames="causal")
def transform(params, x, where, *, causal):
    return stack().apply({"params": params}, x, where=where, causal=causal)


@pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
def test_masked_tokens_change_no_valid_one_even_as_nan(causal, params):
    junk = np.where(RAGGED[:, :, None], X, np.nan)
    got = np.asarray(transform(params, junk, RAGGED, causal=causal))
    assert np.isfinite(got).all()
    # The two ragged rows, of two valid tokens each, with the others deleted.
    short = X[1:][RAGGED[1:]].reshape(2, 2, WIDTH)
    alone = transform(params, short, np.ones((2, 2), bool), causal=causal)
    kept = got[1:][RAGGED[1:]].reshape(2, 2, WIDTH)
    np.testing.assert_allclose(kept, alone, rtol=1e-4, atol=1e-5)


def test_causal_means_that_the_future_is_not_seen(params):
    changed = X.copy()
    changed[:, 2] = changed[:, 2, ::-1]
    for causal in (True, False):
        before, after = (transform(params, x, MASKS["full"], causal=causal) for x in (X, changed))
        moved = np.abs(before - after).max((0, 2)) > 1e-4
        np.testing.assert_array_equal(moved, [not causal, not causal, True, True])


def test_no_mask_is_the_full_mask(params):
    plain = jax.jit(stack().apply)({"params": params}, X)
    full = transform(params, X, MASKS["full"], causal=False)
    np.testing.assert_allclose(plain, full, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scan_layers", [False, True], ids=["unrolled", "scanned"])
def test_dropout_follows_its_key_while_training(scan_layers, params):
    module = stack(scan_layers, dropout=0.5)

    @jax.jit
    def train(params, key):
        return module.apply({"params": params}, X, train=True, rngs={"dropout": key})

    given = params if scan_layers else unrolled(params)
    a, again, b = (train(given, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - b).max() > 0.1


def test_dropout_is_no_part_of_the_program_otherwise(params):
    plain, dropping = (
        str(jax.make_jaxpr(stack(dropout=rate).apply)({"params": params}, X)) for rate in (0.0, 0.5)
    )
    assert plain == dropping
