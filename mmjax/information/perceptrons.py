"""The networks of the decomposition in batches: perceptrons, and where their parameters begin."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import Array

Layers = Sequence[tuple[Float[Array, "d h"], Float[Array, "h"]]]  # kernel and bias of each


class Networks(NamedTuple):
    """Layers of five perceptrons: three classifiers, and two whose outputs are matched."""

    first: Layers
    second: Layers
    both: Layers
    align_first: Layers
    align_second: Layers


def init_batch_pid(
    key: jax.Array,
    *,
    sizes: tuple[int, int],
    classes: int,
    hidden: int = 64,
    features: int = 16,
) -> Networks:
    r"""Parameters of the five networks, one hidden layer each, :math:`W \sim N(0, 1 / d)`.

    Args:
        key: random key.
        sizes: features of the first and of the second source.
        classes: of the target.
        hidden: units of each hidden layer.
        features: of what is matched, for each class.

    Returns:
        The networks.

    Raises:
        ValueError: if a number is not positive.

    Source: Liang et al. 2023, arXiv:2302.12247, sec. 3.2; sizes are ours.

    >>> networks = init_batch_pid(jax.random.key(0), sizes=(3, 4), classes=2, hidden=8)
    >>> [kernel.shape for kernel, _ in networks.both]
    [(7, 8), (8, 2)]
    """
    if min(*sizes, classes, hidden, features) < 1:
        raise ValueError(
            "sizes, classes, hidden and features must be positive, got "
            f"{sizes}, {classes}, {hidden} and {features}"
        )
    first, second = sizes
    widths = [
        (first, classes),
        (second, classes),
        (first + second, classes),
        (first, classes * features),
        (second, classes * features),
    ]

    def layers(key: jax.Array, wide: int, out: int) -> Layers:
        shapes = [(wide, hidden), (hidden, out)]
        return [
            (jax.random.normal(k, shape) / shape[0] ** 0.5, jnp.zeros(shape[1]))
            for k, shape in zip(jax.random.split(key), shapes, strict=True)
        ]

    keys = jax.random.split(key, len(widths))
    return Networks(*(layers(k, *width) for k, width in zip(keys, widths, strict=True)))


def perceptron(rows: Float[jax.Array, "n d"], layers: Layers) -> Float[jax.Array, "n o"]:
    r"""Outputs of a perceptron, :math:`h \mapsto W^\top \max(h, 0) + b` from the second layer on.

    Args:
        rows: inputs.
        layers: kernel and bias of each layer.

    Returns:
        The outputs, in the dtype of ``rows``.

    Source: no paper; rectified linear units.

    >>> print(perceptron(jnp.ones((1, 2)), [(jnp.ones((2, 1)), jnp.zeros(1))]))
    [[2.]]
    """
    for i, (kernel, bias) in enumerate(layers):
        kernel, bias = (jnp.asarray(z).astype(rows.dtype) for z in (kernel, bias))
        rows = jax.nn.relu(rows) if i else rows
        rows = jnp.matmul(rows, kernel, precision=jax.lax.Precision.HIGHEST) + bias[None]
    return rows
