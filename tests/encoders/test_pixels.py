import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.encoders.pixels import scale_pixels


def test_bytes_fill_minus_one_to_one():
    bytes_ = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    want = np.arange(256, dtype=np.float64).reshape(1, 16, 16, 1) / 127.5 - 1
    got = scale_pixels(bytes_)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert scale_pixels(bytes_, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_floats_are_taken_for_what_they_are():
    floats = np.linspace(-3, 3, 12, dtype=np.float32).reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(scale_pixels(floats), floats)


def test_other_integers_are_refused():
    with pytest.raises(TypeCheckError):
        scale_pixels(np.zeros((1, 2, 2, 3), np.int32))
