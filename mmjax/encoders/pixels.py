"""From stored pixels to the numbers a network sees."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, UInt8

from mmjax.arrays import Array, checked


@checked
def scale_pixels(
    images: UInt8[Array, "n h w c"] | Float[Array, "n h w c"], *, dtype: DTypeLike = jnp.float32
) -> Float[jax.Array, "n h w c"]:
    r"""Map bytes to :math:`[-1, 1]`, and take floats for what they are.

    .. math:: y = x / 127.5 - 1

    It runs on the device: bytes are a quarter of the traffic from the host.

    Args:
        images: uint8 in 0 to 255, or floats that somebody has already scaled.
        dtype: dtype of the result; the arithmetic is float32.

    Returns:
        The pixels, dimensionless.

    Raises:
        jaxtyping.TypeCheckError: if the images are neither uint8 nor floating point, or not rank 4.

    >>> scale_pixels(jnp.array([0, 255], jnp.uint8).reshape(1, 1, 2, 1)).ravel().tolist()
    [-1.0, 1.0]
    """
    if images.dtype == jnp.uint8:
        images = jnp.asarray(images).astype(jnp.float32) / 127.5 - 1
    return jnp.asarray(images).astype(dtype)
