"""Checksums of the arrays of a state, computed where the arrays are.

A checkpoint carries the checksums of what it was made from, so that a flipped bit is found
whatever flipped it: disk, network or the library in between. They do not depend on how an array
lies over devices, and cost one pass over the memory of each.
"""

from typing import Any

import jax
import jax.numpy as jnp


def tree_names(tree: Any) -> dict[str, Any]:
    """The leaves of ``tree`` by path, ``params/image/kernel``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def checksums(tree: Any) -> dict[str, int]:
    """A number per array that changes with any one of its elements.

    With :math:`b_i` the bits of element :math:`i` as an unsigned integer, in row-major order:

    .. math:: \\sum_i (2 i + 1)\\, b_i \\bmod 2^{32}

    A factor is odd, and so the sum differs whenever one 32-bit word differs, surely; when
    several do, it stays the same with a chance of :math:`2^{-32}`.

    Args:
        tree: arrays, possibly sharded over the devices of several processes.

    Returns:
        By path, in [0, 2^32).

    >>> checksums({"a": jnp.array([1, 0, 2], jnp.int32)})
    {'a': 11}
    """
    named = tree_names(tree)
    if not named:
        return {}
    return dict(zip(named, map(int, jax.device_get(_all_sums(list(named.values())))), strict=True))


@jax.jit
def _all_sums(arrays: list[jax.Array]) -> jax.Array:
    return jnp.stack([_sum(x) for x in arrays])


def _sum(x: jax.Array) -> jax.Array:
    bits = _words(x)
    # Indices from iotas, not by flattening: a sharded array stays where it is.
    index, stride = jnp.zeros(bits.shape, jnp.uint32), 1
    for axis in reversed(range(bits.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(stride)
        stride = stride * bits.shape[axis] % 2**32
    return jnp.sum((index * jnp.uint32(2) + jnp.uint32(1)) * bits, dtype=jnp.uint32)


def _words(x: jax.Array) -> jax.Array:
    """The bits of ``x`` as uint32; an element of 64 bits becomes two words on a last axis."""
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    words = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
    return jax.lax.bitcast_convert_type(x, words).astype(jnp.uint32)
