"""Parameters of a fusion module: float32, with names for their axes so that they can be sharded."""

import math
from collections.abc import Callable, Iterable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.arrays import Array


def make_kernel(module: nn.Module, name: str, *shape: int, contracted: int = 1) -> jax.Array:
    """Declare a kernel of ``module`` that leaves the variance of what it is given as it is.

    Args:
        module: that owns it.
        name: of the parameter.
        *shape: the features that are contracted first, the fused features last.
        contracted: how many of the first axes are contracted.

    Returns:
        The kernel; its last axis is called "embed".

    Raises:
        ValueError: for a size below 1, of which nothing could be learned.
    """
    _check_sizes(name, shape)
    spread = math.prod(shape[:contracted]) ** -0.5
    return _parameter(module, name, shape, nn.initializers.normal(spread))


def make_kernels(
    module: nn.Module, name: str, inputs: Mapping[str, Array], *shape: int
) -> dict[str, jax.Array]:
    """Declare ``name_MODALITY``, a kernel from its features to ``shape``, for each modality."""
    # Sorted, because the order in which parameters are declared decides what they start as.
    return {
        modality: make_kernel(module, f"{name}_{modality}", inputs[modality].shape[-1], *shape)
        for modality in sorted(inputs)
    }


def make_bias(module: nn.Module, name: str, *shape: int) -> jax.Array:
    """Declare a bias of ``module``, 0 at first; its last axis is called "embed"."""
    _check_sizes(name, shape)
    return _parameter(module, name, shape, nn.initializers.zeros)


def make_biases(
    module: nn.Module, name: str, modalities: Iterable[str], *shape: int
) -> dict[str, jax.Array]:
    """Declare ``name_MODALITY``, a bias, for each modality."""
    return {
        modality: make_bias(module, f"{name}_{modality}", *shape) for modality in sorted(modalities)
    }


def _check_sizes(name: str, shape: tuple[int, ...]) -> None:
    if min(shape) < 1:
        raise ValueError(f"{name} must have sizes of at least 1, got {shape}")


def _parameter(
    module: nn.Module, name: str, shape: tuple[int, ...], init: Callable[..., jax.Array]
) -> jax.Array:
    axes = (*(None,) * (len(shape) - 1), "embed")
    named = nn.with_logical_partitioning(init, axes)
    return jnp.asarray(module.param(name, named, shape, jnp.float32))
