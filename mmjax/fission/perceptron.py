"""The small network that heads, critics and decoders are."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array, accumulation_dtype, checked

Layer = tuple[jax.Array, jax.Array]  # kernel and bias


class Perceptron(nn.Module):
    """Hidden layers with a ReLU after each, then a linear one; float32, or wider if the rows are.

    Attributes:
        hidden: features of each hidden layer; empty for a linear map.
        features: features of the result.

    >>> rows, _ = Perceptron((8,), 3).init_with_output(jax.random.key(0), jnp.ones((2, 5)))
    >>> rows.shape
    (2, 3)
    """

    hidden: tuple[int, ...]
    features: int

    @nn.compact
    @checked
    def __call__(
        self, x: Float[Array, "n d"], *, frozen: bool = False
    ) -> Float[jax.Array, "n {self.features}"]:
        """Transform rows of features; ``frozen`` parameters receive no gradient."""
        widths = (*self.hidden, self.features)
        dtype = accumulation_dtype(x)
        x = jnp.asarray(x).astype(dtype)
        for i, (kernel, bias) in enumerate(declare_layers(self, x.shape[1], widths, frozen)):
            x = (nn.relu(x) if i else x) @ kernel.astype(dtype) + bias.astype(dtype)[None]
        return x


def declare_layers(
    module: nn.Module, inputs: int, widths: Sequence[int], frozen: bool
) -> list[Layer]:
    """Declare ``kernel_i`` and ``bias_i`` for layers of ``widths`` features in ``module``.

    Args:
        module: that owns them.
        inputs: features that the first layer sees.
        widths: features of each layer.
        frozen: let no gradient reach them.

    Returns:
        Kernels and biases, float32. Hidden features are called "mlp", what comes in and goes out
        "embed"; no axis name stands twice in a kernel.
    """
    layers = []
    for i, width in enumerate(widths):
        out = "embed" if i == len(widths) - 1 else "mlp"
        into = "embed" if i == 0 else "mlp"
        axes = (into if into != out else None, out)
        kernel = _parameter(
            module, f"kernel_{i}", nn.initializers.lecun_normal(), (inputs, width), axes
        )
        bias = _parameter(module, f"bias_{i}", nn.initializers.zeros, (width,), axes[1:])
        layers.append((kernel, bias))
        inputs = width
    return jax.lax.stop_gradient(layers) if frozen else layers


def _parameter(
    module: nn.Module,
    name: str,
    init: Callable[..., Any],
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
) -> jax.Array:
    named = nn.with_logical_partitioning(init, axes)
    return jnp.asarray(nn.unbox(module.param(name, named, shape, jnp.float32)))
