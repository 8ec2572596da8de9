"""The second table of ``mutual_information``: a conditional information that is known."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.reproduce.perceptrons import conditional_model, gaussian, perceptron, scores, train
from mmjax.information.log_ratio import gaussian_log_density, gaussian_scores
from mmjax.information.lower_bounds import info_nce_bound
from mmjax.information.upper_bounds import nce_club

RATE = 5e-3
NOISE = 0.1  # deviation of y, given x and z
CONDITIONS, DRAWS, CONDITIONAL_HIDDEN = 32, 256, 64  # values of z in a batch, and of y for each
CONDITIONAL = {"NCE": "2.18 to 2.30", "CLUB": "2.79 to 3.70", "NCE-CLUB": "none"}


def conditional_bounds(parameters, x, y, key):
    """Conditional InfoNCE and CLUB, and InfoNCE's critic read as an upper bound.

    Each x, ``[n, 1 + d]`` with its z, has to tell its own y from others of the same z: the first
    one of ``[n, k, 1]``.
    """
    critic, model = parameters
    matrices = jax.vmap(functools.partial(scores, critic))(x[:, None], y)  # 1 x k each
    mean, log_variance = gaussian(model, x)
    densities = jax.vmap(gaussian_scores)(mean[:, None], log_variance[:, None], y)
    estimates = {
        "NCE": jax.vmap(info_nce_bound)(matrices).mean(),
        "CLUB": jax.vmap(nce_club)(densities).mean(),
        "NCE-CLUB": jax.vmap(nce_club)(matrices).mean(),
    }
    likelihood = gaussian_log_density(mean, log_variance, y[:, 0]).mean()
    return -estimates["NCE"] - likelihood, estimates


def conditional(features: int, *, seeds: int, steps: int, last: int) -> dict[str, np.ndarray]:
    """The bounds of a conditional information, for each seed."""

    def init(key):
        first, second = jax.random.split(key)
        width = CONDITIONAL_HIDDEN
        critic = perceptron(first, (1 + features + 1, width, 1))
        return critic, conditional_model(second, (1 + features, width // 2, 1))

    def draw(key):
        given, signal, noise = jax.random.split(key, 3)
        z = jax.random.uniform(given, (CONDITIONS, features), minval=-0.5, maxval=0.5)
        x = jax.random.normal(signal, (CONDITIONS, DRAWS))
        y = x + z[:, :1] + NOISE * jax.random.normal(noise, x.shape)
        return jnp.concatenate([x[:, :1], z], axis=1), y[..., None]

    rate = optax.cosine_decay_schedule(RATE, steps)
    keys = jax.random.split(jax.random.key(1), seeds)
    parameters = jax.vmap(init)(keys)
    carry = parameters, jax.vmap(optax.adam(rate).init)(parameters)
    run = functools.partial(train, conditional_bounds, draw, rate, steps=steps, last=last)
    fresh = jax.vmap(functools.partial(jax.random.fold_in, data=1))(keys)
    _, estimates = jax.jit(jax.vmap(run))(carry, fresh)
    return {name: np.asarray(values) for name, values in estimates.items()}


def print_conditional(features: list[int], **size: int) -> None:
    """The second table: means over the seeds, and the paper's ranges."""
    truth = np.log1p(NOISE**-2) / 2
    start = time.perf_counter()
    results = [conditional(d, **size) for d in features]
    seconds = time.perf_counter() - start
    print(f"\nconditional information, {truth:.4f} nats (the paper's is 2.32), {seconds:.0f} s")
    print(f"{'features of z':14s}" + "".join(f"{d:>8d}" for d in features) + "   the paper's")
    for name, paper in CONDITIONAL.items():
        row = "".join(f"{result[name].mean():8.2f}" for result in results)
        print(f"{name:14s}{row}   {paper}")
