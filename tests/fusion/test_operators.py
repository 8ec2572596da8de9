"""What the contract does not see: the papers' own forms, limits, and parameters that misfit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.fusion import (
    Bilinear,
    FiLM,
    Gated,
    NLGate,
    additive_fusion,
    bilinear_fusion,
    concatenate,
    film_fusion,
    gated_fusion,
    low_rank_fusion,
    multiplicative_fusion,
    nl_gate_fusion,
    non_local_gate,
    outer_product,
    polynomial_fusion,
    tensor_fusion,
)

RNG = np.random.default_rng(0)
SIZES = {"a": 2, "b": 3}
X = {m: np.float32(RNG.normal(size=(4, d))) for m, d in SIZES.items()}
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)


def kernels(*shape, sizes=SIZES):
    return {m: np.float32(RNG.normal(size=(d, *shape))) for m, d in sizes.items()}


def test_low_rank_is_the_tensor_whose_core_is_a_sum_of_outer_products():
    factors = kernels(5, 6, sizes={m: d + 1 for m, d in SIZES.items()})
    core = np.einsum("irk,jrk->ijk", factors["a"], factors["b"])
    close(low_rank_fusion(X, factors), tensor_fusion(X, core))


def test_tensor_of_three_is_every_product_by_hand():
    x = X | {"c": np.float32(RNG.normal(size=(4, 1)))}
    core = np.float32(RNG.normal(size=(3, 4, 2, 5)))
    ones = {m: np.concatenate([np.ones((4, 1)), rows], axis=1) for m, rows in x.items()}
    wanted = np.einsum("ni,nj,nl,ijlk->nk", ones["a"], ones["b"], ones["c"], core)
    close(tensor_fusion(x, core), wanted)
    assert outer_product(x).shape == (4, 3, 4, 2)


def test_concatenation_and_a_linear_map_are_the_additive_fusion():
    parts, bias = kernels(5), np.float32(RNG.normal(size=5))
    beside = concatenate(dict(reversed(X.items()))) @ np.concatenate([parts["a"], parts["b"]])
    close(additive_fusion(X, parts, bias), beside + bias[None])


def test_gated_in_one_direction_is_that_of_the_paper():
    value, gate = kernels(5)["a"], kernels(5)["b"]
    bias = np.float32(RNG.normal(size=5))
    wanted = X["a"] @ value / (1 + np.exp(-(X["b"] @ gate + bias[None])))
    close(gated_fusion(X, {"a": value}, {"b": gate}, {"b": bias}), wanted)


def test_non_local_gate_is_not_scaled_and_leaves_out_masked_keys():
    query, key, value = np.float32(RNG.normal(size=(3, 1, 3, 16)))
    where = np.array([[True, True, False]])
    weights = np.exp(query[0] @ key[0, :2].T)
    wanted = query[0] + weights @ value[0, :2] / weights.sum(axis=1, keepdims=True)
    close(non_local_gate(query, key, value, where=where)[0], wanted)
    close(non_local_gate(query, key, value, where=np.zeros((1, 3), bool)), query)


def test_keys_of_different_numbers_of_tokens_share_one_softmax():
    x = X | {"c": np.float32(RNG.normal(size=(4, 1)))}
    sizes = {"b": 3, "c": 1}
    query = np.float32(RNG.normal(size=(2, 2, 4)))
    key, value = (
        {m: np.float32(RNG.normal(size=(d, d, 4))) for m, d in sizes.items()} for _ in range(2)
    )
    fused = nl_gate_fusion(x, query, key, value, content="a")
    tokens = [
        np.concatenate([np.einsum("nd,dtk->ntk", x[m], part[m]) for m in sizes], axis=1)
        for part in (key, value)
    ]
    close(fused.reshape(4, 2, 4), non_local_gate(np.einsum("nd,dqk->nqk", X["a"], query), *tokens))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_polynomial_holds_at_zero_and_far_from_it(order):
    """The slope of the root is infinite at 0, and the power of a large number overflows."""
    weights, constant = kernels(1, 2), np.zeros((1, 2), np.float32)
    x = {m: rows * np.float32([[0], [1e-12], [1], [1e12]]) for m, rows in X.items()}

    def fuse(x):
        return polynomial_fusion(x, weights, constant, order=order)

    with jax.debug_nans(True), jax.debug_infs(True):
        fused, slope = fuse(x), jax.grad(lambda x: fuse(x).sum())(x)
    assert not np.any(fused[0])
    assert not any(np.any(rows[0]) for rows in slope.values())
    lengths = np.linalg.norm(np.asarray(fused)[1:], axis=1)
    close(lengths, np.ones(3))


@pytest.mark.parametrize("order", [3, 10])
def test_a_high_order_loses_no_small_feature(order):
    """Of one power per feature and no constant, the root gives the features back."""
    x = {"a": np.array([[1, 3e-5]], np.float32)}
    each = {"a": np.eye(2, dtype=np.float32)[:, None]}

    def second(x):
        fused = polynomial_fusion(x, each, np.zeros((1, 2), np.float32), order=order)
        return fused[0, 1], fused

    slope, fused = jax.grad(second, has_aux=True)(x)
    close(fused, [[1, 3e-5]], atol=0)
    close(slope["a"], [[-3e-5, 1]], atol=0)


def test_an_order_below_one_is_refused():
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        polynomial_fusion(X, kernels(1, 2), np.zeros((1, 2)), order=0)


def test_one_modality_makes_no_pair():
    """Deleting the last but one is no more than masking it, then."""
    alone, bias, parts = {"a": X["a"]}, np.float32(RNG.normal(size=5)), kernels(5)
    pair = {("a", "b"): kernels(3, 5)["a"]}
    masked = {"where": {"a": np.ones(4, bool), "b": np.zeros(4, bool)}}
    np.testing.assert_array_equal(bilinear_fusion(alone, {}, bias), np.tile(bias, (4, 1)))
    close(bilinear_fusion(X, pair, bias, **masked), np.tile(bias, (4, 1)))
    linear = alone["a"] @ parts["a"] + bias[None]
    close(multiplicative_fusion(alone, {}, {"a": parts["a"]}, bias), linear)
    close(multiplicative_fusion(X, pair, parts, bias, **masked), linear)


def test_pairs_in_another_order_are_refused():
    with pytest.raises(ValueError, match=r"of the pairs \('a', 'b'\), got \('b', 'a'\)"):
        bilinear_fusion(X, {("b", "a"): np.ones((3, 2, 5))}, np.zeros(5))


def test_a_core_of_other_axes_is_refused():
    with pytest.raises(ValueError, match=r"core must have the axes \(3, 4\) .* got \(2, 3, 5\)"):
        tensor_fusion(X, np.ones((2, 3, 5)))


def test_pairs_that_would_be_called_alike_are_refused():
    x = dict.fromkeys(["a", "a_and_b", "b_and_c", "c"], X["a"])
    with pytest.raises(ValueError, match=r"got \('a', 'b_and_c'\) and \('a_and_b', 'c'\); rename"):
        jax.eval_shape(Bilinear(3).init, jax.random.key(0), x)


@pytest.mark.parametrize("module", [Gated(3, content="b"), FiLM(3, content=("b",))])
def test_content_of_the_wrong_kind_is_refused(module):
    """A name where several may stand, and several where one has to."""
    with pytest.raises(ValueError, match=r"content must be the name of a modality .* got \W*b"):
        jax.eval_shape(module.init, jax.random.key(0), X)


def test_content_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="content must be among a, b, got c"):
        film_fusion(X, np.ones((2, 5)), {}, {}, np.zeros(5), content="c")


def test_tokens_that_do_not_divide_the_features_are_refused_at_once():
    with pytest.raises(
        ValueError, match="tokens must divide features, got tokens=4 and features=6"
    ):
        NLGate(features=6, content="a")


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_kernel_that_is_too_narrow_is_refused_whichever_it_is(which):
    """Broadcasting would let it pass."""
    narrow = kernels(5)
    narrow[which] = narrow[which][:, :1]
    with pytest.raises(TypeCheckError):
        additive_fusion(X, narrow, np.zeros(5, np.float32))


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_kernel_of_other_features_is_refused_whichever_it_is(which):
    wrong = kernels(5)
    wrong[which] = wrong[which][1:]
    with pytest.raises(TypeCheckError):
        additive_fusion(X, wrong, np.zeros(5, np.float32))


def test_parameters_of_other_modalities_are_refused():
    with pytest.raises(ValueError, match=r"inputs and factors must name .* got a, b and a, c"):
        low_rank_fusion(X, {"a": jnp.ones((3, 1, 5)), "c": jnp.ones((4, 1, 5))})
