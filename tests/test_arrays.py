"""Scalars that can be seen to be wrong are refused; sums run in float32 or wider."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError

from mmjax.arrays import Array, Scalar, accumulation_dtype, as_scalar, checked


@checked
def double(x: Float[Array, "n"], scale: Scalar = 2) -> Float[jax.Array, "n"]:
    return jnp.asarray(x) * as_scalar("scale", scale, dtype=jnp.float32, positive=True)


@pytest.mark.parametrize(
    "scale",
    [2, 2.0, np.float32(2), np.array(2.0), jnp.array(2.0), jnp.array(2.0, jnp.bfloat16)],
    ids=["int", "float", "numpy-number", "numpy", "jax", "bfloat16"],
)
def test_every_kind_of_scalar_is_welcome_traced_or_not(scale):
    x = np.ones(3, np.float32)
    for f in (double, jax.jit(double)):
        np.testing.assert_array_equal(f(x, scale), [2.0, 2.0, 2.0])


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), np.float32(-2)])
def test_a_number_that_is_visibly_wrong_is_refused_while_tracing(scale):
    with pytest.raises(ValueError, match=f"scale must be positive and finite, got {scale}"):
        jax.eval_shape(lambda x: double(x, scale), jnp.ones(3))


def test_a_finite_number_may_be_negative_unless_it_has_to_be_positive():
    assert as_scalar("bias", -10.0, dtype=jnp.float32) == -10
    with pytest.raises(ValueError, match="bias must be finite, got -inf"):
        as_scalar("bias", -np.inf, dtype=jnp.float32)


@pytest.mark.parametrize("wrong", [jnp.ones((2, 2)), np.ones(2, int)], ids=["shape", "dtype"])
def test_a_wrong_array_is_refused(wrong):
    with pytest.raises(TypeCheckError, match="'x'"):
        double(wrong)


def test_sums_are_never_narrower_than_float32():
    half, single, wide = (np.ones(1, t) for t in (jnp.bfloat16, np.float32, np.float64))
    assert accumulation_dtype(half) == np.float32
    assert accumulation_dtype(half, single) == np.float32
    assert accumulation_dtype(single, wide) == np.float32  # JAX itself would narrow the second
    with jax.enable_x64(True):
        assert accumulation_dtype(single, wide) == np.float64
