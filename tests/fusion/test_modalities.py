import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.fusion.modalities import Modalities, linear, plus_bias, total

X = {"text": np.ones((2, 3), np.float32), "image": np.ones((2, 5, 4), np.float32)}


def test_rows_and_sequences_stand_in_the_order_of_their_names():
    where = {"image": np.array([[True] * 5, [False] * 5]), "text": np.array([False, False])}
    modalities = Modalities.of(X, where)
    assert [name for name, _, _ in modalities] == ["image", "text"]
    np.testing.assert_array_equal(modalities.arrays["image"].sum(axis=(1, 2)), [20, 0])
    np.testing.assert_array_equal(modalities.there, [True, False])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_one_dtype_is_kept(dtype):
    assert Modalities.of({name: jnp.asarray(x, dtype) for name, x in X.items()}).dtype == dtype


@pytest.mark.parametrize("other", [jnp.float16, jnp.float32])
def test_different_dtypes_meet_in_float32(other):
    mixed = {"a": jnp.ones((2, 1), jnp.bfloat16), "b": jnp.ones((2, 1), other)}
    modalities = Modalities.of(mixed)
    assert {x.dtype for _, x, _ in modalities} == {jnp.dtype("float32")}


def test_a_missing_factor_is_left_out_of_a_product_but_the_initial_one_is_not():
    where = {"a": np.array([True, False]), "b": np.array([False, False])}
    modalities = Modalities.of({"a": np.ones((2, 1)), "b": np.ones((2, 1))}, where)
    factors = {"a": jnp.full((2, 1), 3.0), "b": jnp.full((2, 1), 5.0)}
    np.testing.assert_array_equal(modalities.product(factors), [[3], [1]])
    scaled = modalities.product(factors, initial=jnp.full((2, 1), 7.0))
    np.testing.assert_array_equal(scaled, [[21], [7]])


def test_what_would_be_broadcast_is_refused():
    narrow, wide = jnp.ones((2, 1)), jnp.ones((2, 3))
    with pytest.raises(TypeCheckError):
        total([wide, narrow])
    with pytest.raises(TypeCheckError):
        Modalities.of({"a": wide, "b": wide}).product({"a": wide, "b": narrow})
    with pytest.raises(TypeCheckError):
        plus_bias(wide, np.ones(1, np.float32))


def test_sums_of_bfloat16_are_float32():
    """A sum of 257 ones in bfloat16 would be 256."""
    found = linear(jnp.ones((1, 257), jnp.bfloat16), np.ones((257, 1), np.float32))
    assert found.dtype == jnp.float32
    assert found.item() == 257


def test_float64_rows_stay_what_they_are():
    with jax.enable_x64(True):
        x = Modalities.of({"a": np.array([[1 + 1e-12]])}).arrays["a"]
        assert linear(x, np.ones((1, 1), np.float32)).item() == 1 + 1e-12
