"""Small perceptrons that begin as in the peers' framework, and how the tables train them."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax.information.critics import Layer, concatenated_scores

Parameters = Any
# parameters, x, y, key -> what is minimised, and the estimate
Objective = Callable[
    [Parameters, jax.Array, jax.Array, jax.Array], tuple[jax.Array, dict[str, jax.Array]]
]


def perceptron(key: jax.Array, sizes: tuple[int, ...]) -> list[Layer]:
    """Layers as the peers' framework begins them: uniform, within the root of 1 / inputs."""
    layers: list[Layer] = []
    for inputs, outputs in itertools.pairwise(sizes):
        key, kernel, bias = jax.random.split(key, 3)
        bound = inputs**-0.5
        layers.append(
            (
                jax.random.uniform(kernel, (inputs, outputs), minval=-bound, maxval=bound),
                jax.random.uniform(bias, (outputs,), minval=-bound, maxval=bound),
            )
        )
    return layers


def apply(layers: list[Layer], x: jax.Array) -> jax.Array:
    """A perceptron with rectified units."""
    for kernel, bias in layers[:-1]:
        x = jax.nn.relu(x @ kernel + bias[None])
    return x @ layers[-1][0] + layers[-1][1][None]


def scores(layers: list[Layer], x: jax.Array, y: jax.Array) -> jax.Array:
    """Score all pairs of a batch, small enough to be held at once."""
    return concatenated_scores(x, y, layers, chunk_size=len(x))


def gaussian(parameters: Parameters, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and log-variance of CLUB's model; the variance is not below 1 / e."""
    return apply(parameters[0], x), jnp.tanh(apply(parameters[1], x))


def conditional_model(key: jax.Array, sizes: tuple[int, ...]) -> tuple[list[Layer], list[Layer]]:
    """Parameters of CLUB's model: a perceptron each for mean and log-variance."""
    first, second = jax.random.split(key)
    return perceptron(first, sizes), perceptron(second, sizes)


def train(
    objective: Objective,
    draw: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    rate: optax.ScalarOrSchedule,
    carry: tuple[Parameters, optax.OptState],
    key: jax.Array,
    *,
    steps: int,
    last: int,
) -> tuple[tuple[Parameters, optax.OptState], dict[str, jax.Array]]:
    """Train on fresh batches; the mean estimates of the last steps."""
    optimizer = optax.adam(rate)

    def step(carry, key):
        parameters, state = carry
        data, extra = jax.random.split(key)
        slope = jax.grad(objective, has_aux=True)
        gradient, estimates = slope(parameters, *draw(data), extra)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(parameters, updates), state), estimates

    carry, estimates = jax.lax.scan(step, carry, jax.random.split(key, steps))
    return carry, {name: values[-last:].mean() for name, values in estimates.items()}
