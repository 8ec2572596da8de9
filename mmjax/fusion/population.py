"""Training of many candidates at once, under ``vmap``."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import Float


def train_population(
    init: Callable[[jax.Array, Any], Any],
    loss: Callable[[Any, Any, jax.Array], jax.Array],
    candidates: Any,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    key: jax.Array,
) -> tuple[Any, Float[jax.Array, "p {steps}"]]:
    """Train p candidates from scratch, as one program that trains one of them would.

    Args:
        init: given a key and a candidate, gives its parameters.
        loss: given parameters, the candidate and a key, from which it may draw a batch, gives a
            scalar.
        candidates: what tells them apart, such as architectures: arrays whose first axis is p.
        optimizer: from optax.
        steps: updates of each, at least 1.
        key: random key; each candidate gets a key of its own.

    Returns:
        The parameters of each candidate after the last update, and its losses before each. Compile
        what calls this: every call by itself is traced anew.

    Raises:
        ValueError: if ``steps`` is below 1.

    Source: no paper; one candidate after the other gives the same.

    >>> import jax.numpy as jnp
    >>> targets = jnp.array([1.0, 2.0])
    >>> params, losses = train_population(
    ...     lambda key, target: jnp.zeros(()),
    ...     lambda x, target, key: (x - target) ** 2,
    ...     targets,
    ...     optimizer=optax.sgd(0.5),
    ...     steps=2,
    ...     key=jax.random.key(0),
    ... )
    >>> params.tolist(), losses.tolist()
    ([1.0, 2.0], [[1.0, 0.0], [4.0, 0.0]])
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")

    def train(candidate: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        first, rest = jax.random.split(key)
        params = init(first, candidate)

        def update(state: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
            params, memory = state
            value, slope = jax.value_and_grad(loss)(params, candidate, key)
            change, memory = optimizer.update(slope, memory, params)
            return (optax.apply_updates(params, change), memory), value

        state = (params, optimizer.init(params))
        (params, _), values = jax.lax.scan(update, state, jax.random.split(rest, steps))
        return params, values

    count = len(jax.tree.leaves(candidates)[0])
    return jax.vmap(train)(candidates, jax.random.split(key, count))
