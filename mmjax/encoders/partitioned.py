"""Parameters that carry the logical names of their axes, and the layers made of them.

A sharding rule maps a name to a mesh axis: "embed", "mlp", "heads", "kv" (the features of a head),
"vocab", "layers" (of a scanned stack), "conv_in" and "conv_out"; None is never sharded. Without a
mesh the names do nothing, and ``flax.linen.unbox`` takes them off.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mmjax.arrays import Array

Axes = tuple[str | None, ...]


def named(init: Callable[..., jax.Array], axes: Axes) -> Callable[..., Any]:
    """Let what ``init`` makes carry the names ``axes``, one per dimension."""
    return nn.with_logical_partitioning(init, axes)


def parameter(
    module: nn.Module,
    name: str,
    init: Callable[..., jax.Array],
    shape: tuple[int, ...],
    axes: Axes,
) -> jax.Array:
    """Declare a float32 parameter of ``module`` with named axes, and give its value."""
    value = module.param(name, named(init, axes), shape, jnp.float32)
    return jnp.asarray(nn.unbox(value))


def dense(features: int, *, axes: Axes, dtype: DTypeLike, name: str) -> nn.Dense:
    """Build a dense layer with a bias; ``axes`` names the kernel's (in, out)."""
    return nn.Dense(
        features,
        kernel_init=named(nn.initializers.xavier_uniform(), axes),
        bias_init=named(nn.initializers.zeros, axes[1:]),
        dtype=dtype,
        name=name,
    )


def layer_norm(x: Array, *, name: str) -> jax.Array:
    """Normalise over the last axis, "embed", in float32; the result has the dtype of ``x``."""
    norm = nn.LayerNorm(
        epsilon=1e-6,
        scale_init=named(nn.initializers.ones, ("embed",)),
        bias_init=named(nn.initializers.zeros, ("embed",)),
        name=name,
    )
    # Flax would mix the dtypes of input and statistics, which strict promotion refuses.
    return jnp.asarray(norm(x.astype(jnp.float32))).astype(x.dtype)
