"""What can be read from embeddings: a label by a line, factors by an estimate of information."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special

from mmjax.arrays import Array
from mmjax.fission import SeparableCritic
from mmjax.information.lower_bounds import jensen_shannon_bound

Rows = dict[str, jax.Array]
Loss = Callable[[Any, Rows, jax.Array], jax.Array]


def train(
    loss: Loss,
    params: Any,
    data: Rows,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    batch_size: int,
    seed: int,
) -> Any:
    """Minimise ``loss(params, batch, key)``.

    Args:
        loss: a scalar.
        params: to start from.
        data: arrays with one row per example.
        optimizer: of all parameters.
        steps: how many batches, drawn without replacement until an epoch is over.
        batch_size: examples of a batch, or all if there are fewer.
        seed: of the order of the examples, and of the keys.

    Returns:
        The parameters.
    """
    count = len(next(iter(data.values())))
    size = min(batch_size, count)
    in_epoch = count // size
    rng = np.random.default_rng(seed)

    @jax.jit
    def run(carry: Any, data: Rows, order: jax.Array, key: jax.Array) -> Any:
        def step(carry: Any, drawn: Any) -> tuple[Any, None]:
            params, state = carry
            rows, key = drawn
            batch = jax.tree.map(lambda x: x[rows], data)
            updates, state = optimizer.update(jax.grad(loss)(params, batch, key), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, carry, (order, jax.random.split(key, len(order))))[0]

    carry = params, optimizer.init(params)
    for first in range(0, steps, in_epoch):
        order = rng.permutation(count)[: in_epoch * size].reshape(in_epoch, size)
        key = jax.random.fold_in(jax.random.key(seed), first)
        carry = run(carry, data, jnp.asarray(order[: steps - first]), key)
    return carry[0]


def probe(
    rows: Sequence[Mapping[str, Array]], labels: Sequence[Array], *, ridge: float = 1.0
) -> float:
    """Accuracy on the second part of a logistic regression on all embeddings of the first.

    Newton steps in float64, halved where they would go uphill, down to the minimum: embeddings are
    close to collinear.

    Args:
        rows: embeddings of each modality, of the part to fit and of the part to judge by.
        labels: of both, 0 or 1.
        ridge: half of it times the squared weights is added to the sum of the costs; 1 is
            scikit-learn's default, as in FactorCL's released probe.

    Raises:
        RuntimeError: if the minimum is not found.
    """
    x, test = (np.concatenate([np.float64(z) for z in part.values()], axis=1) for part in rows)
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, test = (np.pad((z - mean) / spread, ((0, 0), (0, 1)), constant_values=1) for z in (x, test))
    y, penalty = np.asarray(labels[0]), np.append(np.full(len(mean), ridge), 0)

    def cost(weights: np.ndarray) -> float:
        margins = x @ weights
        return np.sum(np.logaddexp(0, margins) - y * margins) + np.sum(penalty * weights**2) / 2

    weights = np.zeros(len(penalty))
    for _ in range(100):
        chance = scipy.special.expit(x @ weights)
        slope = x.T @ (chance - y) + penalty * weights
        curvature = (x * (chance * (1 - chance))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        while cost(weights - step) > cost(weights):
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-6:
            return float(np.mean((test @ weights >= 0) == (np.asarray(labels[1]) == 1)))
    raise RuntimeError(f"probe found no minimum in 100 steps; the last was {np.abs(step).max()}")


def information(
    z: list[jax.Array], w: list[jax.Array], *, hidden: tuple[int, ...], steps: int, seed: int
) -> jax.Array:
    """Estimate I(Z; w) as Table 1 does: the mean log-ratio that a classifier of pairs gives.

    Args:
        z: embeddings ``[k, n, d]`` of k kinds, for training and, unlike the paper's, held out.
        w: factors ``[n, e]``, likewise.
        hidden: units of the hidden layers of both sides of the classifier.
        steps: of 256 examples each.
        seed: of parameters and batches.

    Returns:
        k estimates, in nats.
    """
    critic = SeparableCritic(hidden)
    each: Any = jax.vmap(critic.apply, in_axes=(0, 0, None))
    spread = [
        (jnp.mean(x, axis=-2)[..., None, :], jnp.std(x, axis=-2)[..., None, :] + 1e-6)
        for x in (z[0], w[0])
    ]
    z, w = ([(x - m) / s for x in both] for both, (m, s) in zip((z, w), spread, strict=True))

    def loss(params: Any, batch: Rows, key: jax.Array) -> jax.Array:
        scores = each(params, jnp.swapaxes(batch["z"], 0, 1), batch["w"])
        return -jnp.sum(jnp.mean(jax.vmap(jensen_shannon_bound)(scores), axis=1))

    keys = jax.random.split(jax.random.key(seed), len(z[0]))
    params = jax.jit(jax.vmap(lambda k: nn.unbox(critic.init(k, z[0][0, :2], w[0][:2]))))(keys)
    data = {"z": jnp.swapaxes(z[0], 0, 1), "w": w[0]}
    optimizer = optax.adam(1e-3)
    params = train(loss, params, data, optimizer, steps=steps, batch_size=256, seed=seed)
    own = jax.jit(lambda z, w: jnp.diagonal(each(params, z, w), axis1=1, axis2=2))
    parts = [own(z[1][:, i : i + 256], w[1][i : i + 256]) for i in range(0, len(w[1]), 256)]
    return jnp.mean(jnp.concatenate(parts, axis=1), axis=1)
