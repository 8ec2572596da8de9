"""What captions cost where it can be worked out by hand, what is refused, and the memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.losses.captioning import captioning_loss

# Two words, told apart by odds of 3 to 1.
LOGITS = np.log([[[3.0, 1.0], [1.0, 3.0]]]).astype(np.float32)
TOKENS = np.array([[0, 0]], np.int32)


def test_a_text_costs_the_mean_over_its_tokens():
    wanted = (np.log(4 / 3) + np.log(4)) / 2
    np.testing.assert_allclose(captioning_loss(LOGITS, TOKENS), [wanted], rtol=1e-6)


def test_padding_costs_nothing_whatever_it_holds():
    where = np.array([[True, False]])
    logits, tokens = np.where(where[..., None], LOGITS, np.nan), np.where(where, TOKENS, -100)
    rows = captioning_loss(logits, tokens, where_tokens=where)
    np.testing.assert_allclose(rows, [np.log(4 / 3)], rtol=1e-6)


def test_smoothing_asks_for_a_share_of_every_word():
    rows = captioning_loss(LOGITS[:, :1], TOKENS[:, :1], label_smoothing=0.5)
    np.testing.assert_allclose(rows, [0.75 * np.log(4 / 3) + 0.25 * np.log(4)], rtol=1e-6)


def test_a_word_that_is_ruled_out_costs_nothing_unless_it_is_named():
    logits = np.array([[[0.0, 0.0, -np.inf]]], np.float32)
    rows = captioning_loss(logits, np.zeros((1, 1), np.int32))
    gradient = jax.grad(lambda z: captioning_loss(z, np.zeros((1, 1), np.int32)).sum())(logits)
    np.testing.assert_allclose(rows, [np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(gradient, [[[-0.5, 0.5, 0]]], rtol=1e-6)


@pytest.mark.parametrize("token", [-1, 2])
def test_a_valid_token_that_is_no_word_cannot_be_overlooked(token):
    rows = captioning_loss(np.tile(LOGITS, (2, 1, 1)), np.array([[0, token], [0, 0]], np.int32))
    assert np.isnan(rows[0])
    assert np.isfinite(rows[1])


def test_texts_without_any_room_cost_nothing():
    rows = captioning_loss(np.zeros((2, 0, 5), np.float32), np.zeros((2, 0), np.int32))
    np.testing.assert_array_equal(rows, np.zeros(2))


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_every_chunk_size_gives_the_same(size):
    rng = np.random.default_rng(0)
    logits, tokens = rng.normal(size=(2, 4, 3)).astype(np.float32), rng.integers(3, size=(2, 4))

    def value(z, chunk_size):
        return captioning_loss(z, tokens, chunk_size=chunk_size).sum()

    run = jax.jit(jax.value_and_grad(value), static_argnums=1)
    (whole, whole_gradient), (got, gradient) = run(logits, None), run(logits, size)
    np.testing.assert_allclose(got, whole, rtol=1e-6)
    np.testing.assert_allclose(gradient, whole_gradient, rtol=1e-6, atol=1e-7)


def test_narrow_logits_are_never_wide_as_a_whole():
    n, t, v, chunk = 4, 64, 1024, 4
    logits = jax.ShapeDtypeStruct((n, t, v), jnp.bfloat16)
    tokens = jax.ShapeDtypeStruct((n, t), jnp.int32)

    def value(z, tokens):
        return captioning_loss(z, tokens, chunk_size=chunk).sum()

    run = jax.jit(jax.value_and_grad(value)).lower(logits, tokens).compile()
    # The gradient while it is made, a chunk or two of float32, and a few numbers a token.
    allowed = 2 * n * t * v + 3 * 4 * n * chunk * v + 64 * n * t
    assert run.memory_analysis().temp_size_in_bytes <= allowed < 4 * n * t * v


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 1\), got -0.1"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        captioning_loss(LOGITS, TOKENS, **options)


@pytest.mark.parametrize(
    "tokens", [TOKENS.astype(np.float32), TOKENS[:, :1], np.eye(2, dtype=np.int32)[None]]
)
def test_tokens_of_another_kind_or_shape_are_refused(tokens):
    with pytest.raises(TypeCheckError):
        captioning_loss(LOGITS, tokens)
