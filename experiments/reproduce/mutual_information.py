"""Bounds of mutual information where it is known, ours beside the published ones.

Two tables in about ... minutes on two cores; a part of one, with more seeds::

    nice python -m experiments.reproduce.mutual_information
    python -m experiments.reproduce.mutual_information --estimators=CLUB --features= --seeds=2

The first is the benchmark of CLUB (Cheng et al. 2020, arXiv:2006.12013, sec. 4.1, and its released
notebook): 20 pairs of correlated Gaussians, batches of 64, 15 hidden units, Adam at 5e-3, 4,000
steps at each level that begin where the level before ended, and the mean of the last 500 estimates,
each made on a batch that no step has seen. The peer's figures are of its released code, run once.
CLUB lies *below* the information at low levels: its model, with 7 hidden units, fits badly.

The second is a conditional information (Mukherjee et al. 2019, arXiv:1906.01824, model I, of 2.3076
nats): all but one feature of what is given are distractors. FactorCL (Liang et al. 2023,
arXiv:2306.05268) reports the ranges that stand beside it, and not what data they are of: negatives
are drawn here from the same condition, and its upper bound, read off the same critic, would be 100
nats for the best one.
"""

import functools
import itertools
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags, logging

from mmjax.information.critics import Layer, concatenated_scores
from mmjax.information.gaussian import correlation_of_information
from mmjax.information.log_ratio import club, gaussian_log_density
from mmjax.information.lower_bounds import donsker_varadhan_bound, info_nce_bound, nwj_bound
from mmjax.information.upper_bounds import nce_club

PAIRS, BATCH, HIDDEN, RATE = 20, 64, 15, 5e-3
LEVELS = (2.0, 4.0, 6.0, 8.0, 10.0)  # nats
PEER = {
    "NWJ": (0.49, 0.88, 1.24, 1.53, 1.80),
    "MINE": (0.51, 0.99, 1.49, 1.92, 2.42),
    "InfoNCE": (0.90, 1.68, 2.35, 2.85, 3.25),
    "CLUB": (1.45, 3.42, 5.87, 8.73, 12.29),
}
NOISE = 0.1  # of the conditional information
CONDITIONS, DRAWS, CONDITIONAL_HIDDEN = 8, 64, 64  # values of z in a batch, and pairs of each
CONDITIONAL = {"NCE": "2.18 to 2.30", "NCE-CLUB": "2.79 to 3.70"}

ESTIMATORS = flags.DEFINE_list("estimators", list(PEER), "of the first table")
FEATURES = flags.DEFINE_list(
    "features", ["1", "20", "50", "100"], "of what is given; none: no table"
)
SEEDS = flags.DEFINE_integer(
    "seeds", 8, "trained at once; the tables have their means", lower_bound=1
)
STEPS = flags.DEFINE_integer("steps", 4000, "of each level", lower_bound=1)
LAST = flags.DEFINE_integer("last", 500, "steps whose estimates are averaged", lower_bound=1)

Parameters = Any
# parameters, x, y, key -> what is minimised, and the estimate
Objective = Callable[
    [Parameters, jax.Array, jax.Array, jax.Array], tuple[jax.Array, dict[str, jax.Array]]
]


class Estimator(NamedTuple):
    """How parameters begin, and what is done with them."""

    init: Callable[[jax.Array], Parameters]
    objective: Objective


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


def with_own(matrix: jax.Array, marginal: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The peer's sample of the marginals, which has joint pairs in it: further columns.

    Args:
        matrix: scores of all pairs.
        marginal: which of them stand for the product of marginals, on the diagonal too.

    Returns:
        Scores and mask for our bounds, whose own columns are partners and no negatives.
    """
    diagonal = jnp.eye(len(matrix), dtype=bool)
    return jnp.tile(matrix, (1, 2)), jnp.concatenate([diagonal, marginal], axis=1)


def nwj(layers, x, y, key):
    """The peer's form: the joint pairs are among those of the marginals."""
    matrix, where = with_own(scores(layers, x, y), jnp.ones((len(x), len(x)), bool))
    estimate = nwj_bound(matrix, where=where).mean()
    return -estimate, {"NWJ": estimate}


def mine(layers, x, y, key):
    """The peer's form: one draw from the marginals for each row, and the plain gradient."""
    draws = jax.random.randint(key, (len(x),), 0, len(x))
    marginal = draws[:, None] == jnp.arange(len(x))[None]
    matrix, where = with_own(scores(layers, x, y), marginal)
    estimate = donsker_varadhan_bound(matrix, where=where).mean()
    return -estimate, {"MINE": estimate}


def info_nce(layers, x, y, key):
    """The peer's form: a softplus after the last layer."""
    estimate = info_nce_bound(jax.nn.softplus(scores(layers, x, y))).mean()
    return -estimate, {"InfoNCE": estimate}


def club_of_peer(parameters, x, y, key):
    """The peer's form: the mean over the marginals has the joint pairs in it."""
    mean, log_variance = apply(parameters[0], x), jnp.tanh(apply(parameters[1], x))
    cost = -gaussian_log_density(mean, log_variance, y).mean()
    return cost, {"CLUB": club(mean, log_variance, y).mean() * (len(x) - 1) / len(x)}


def critic(key: jax.Array) -> list[Layer]:
    """Parameters of the critics of the first table."""
    return perceptron(key, (2 * PAIRS, HIDDEN, 1))


def conditional_model(key: jax.Array) -> tuple[list[Layer], list[Layer]]:
    """Parameters of CLUB's model: two perceptrons of half as many hidden units."""
    sizes = (PAIRS, HIDDEN // 2, PAIRS)
    first, second = jax.random.split(key)
    return perceptron(first, sizes), perceptron(second, sizes)


BENCHMARK = {
    "NWJ": Estimator(critic, nwj),
    "MINE": Estimator(critic, mine),
    "InfoNCE": Estimator(critic, info_nce),
    "CLUB": Estimator(conditional_model, club_of_peer),
}


def correlated(key: jax.Array, information: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A batch of pairs of Gaussians with this information, in nats."""
    rho = correlation_of_information(information, pairs=PAIRS)
    x, noise = jax.random.normal(key, (2, BATCH, PAIRS))
    return x, rho * x + jnp.sqrt(1 - rho**2) * noise


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


def benchmark(name: str, *, seeds: int, steps: int, last: int) -> np.ndarray:
    """Estimates of one estimator, ``[level, seed]``; each level goes on from the one before."""
    estimator = BENCHMARK[name]
    keys = jax.random.split(jax.random.key(0), seeds)
    parameters = jax.vmap(estimator.init)(keys)
    carry = parameters, jax.vmap(optax.adam(RATE).init)(parameters)

    @jax.jit
    def level(carry, keys, information):
        draw = functools.partial(correlated, information=information)
        return jax.vmap(
            lambda carry, key: train(
                estimator.objective, draw, RATE, carry, key, steps=steps, last=last
            )
        )(carry, keys)

    found = []
    for i, information in enumerate(LEVELS):
        fresh = jax.vmap(functools.partial(jax.random.fold_in, data=i + 1))(keys)
        carry, estimates = level(carry, fresh, jnp.asarray(information))
        found.append(np.asarray(estimates[name]))
    return np.stack(found)


def conditional(features: int, *, seeds: int, steps: int, last: int) -> dict[str, np.ndarray]:
    """Conditional InfoNCE, and its critic read as an upper bound, for each seed."""
    sizes = (1 + features + 1, CONDITIONAL_HIDDEN, CONDITIONAL_HIDDEN, 1)

    def draw(key):
        given, signal, noise = jax.random.split(key, 3)
        z = jax.random.uniform(given, (CONDITIONS, 1, features), minval=-0.5, maxval=0.5)
        x = jax.random.normal(signal, (CONDITIONS, DRAWS, 1))
        y = x + z[..., :1] + NOISE * jax.random.normal(noise, x.shape)
        return jnp.concatenate([x, jnp.tile(z, (1, DRAWS, 1))], axis=2), y

    def objective(layers, x, y, key):
        matrices = jax.vmap(functools.partial(scores, layers))(x, y)  # one for each condition
        estimates = {
            "NCE": jax.vmap(info_nce_bound)(matrices).mean(),
            "NCE-CLUB": jax.vmap(nce_club)(matrices).mean(),
        }
        return -estimates["NCE"], estimates

    rate = optax.cosine_decay_schedule(RATE, steps)
    keys = jax.random.split(jax.random.key(1), seeds)
    parameters = jax.vmap(lambda key: perceptron(key, sizes))(keys)
    carry = parameters, jax.vmap(optax.adam(rate).init)(parameters)
    run = jax.jit(
        jax.vmap(lambda c, key: train(objective, draw, rate, c, key, steps=steps, last=last))
    )
    fresh = jax.vmap(functools.partial(jax.random.fold_in, data=1))(keys)
    return {name: np.asarray(values) for name, values in run(carry, fresh)[1].items()}


def print_benchmark(names: list[str], **size: int) -> None:
    """The first table: mean and standard deviation over the seeds, and the peer's one run."""
    print("in nats, mean and deviation over the seeds; the peer's one run in brackets")
    print(f"{'information':12s}" + "".join(f"{level:>18.0f}" for level in LEVELS))
    for name in names:
        start = time.perf_counter()
        found = benchmark(name, **size)
        rows = list(zip(found.mean(axis=1), found.std(axis=1), PEER[name], strict=True))
        cells = "".join(f"{mean:7.2f} {std:.2f} ({peer:5.2f})" for mean, std, peer in rows)
        worst = max(abs(mean / peer - 1) for mean, _, peer in rows)
        seconds = time.perf_counter() - start
        print(f"{name:12s}{cells}   at most {worst:.1%} off, {seconds:.0f} s", flush=True)


def print_conditional(features: list[int], **size: int) -> None:
    """The second table: means over the seeds, and the paper's ranges."""
    truth = np.log1p(NOISE**-2) / 2
    print(f"\nconditional information, {truth:.4f} nats (the paper's is 2.32); features given")
    print(f"{'':12s}" + "".join(f"{d:>8d}" for d in features) + "   the paper's")
    results = [conditional(d, **size) for d in features]
    for name, paper in CONDITIONAL.items():
        row = "".join(f"{result[name].mean():8.2f}" for result in results)
        print(f"{name:12s}{row}   {paper}")


def main(_: list[str]) -> None:
    """Print both tables."""
    logging.set_verbosity(logging.WARNING)  # JAX tells which accelerators there are not
    size = {"seeds": SEEDS.value, "steps": STEPS.value, "last": LAST.value}
    unknown = set(ESTIMATORS.value) - set(BENCHMARK)
    if unknown:
        sys.exit(f"error: --estimators are of {', '.join(BENCHMARK)}; got {', '.join(unknown)}")
    print_benchmark(ESTIMATORS.value, **size)
    if any(FEATURES.value):
        print_conditional([int(d) for d in FEATURES.value if d], **size)


if __name__ == "__main__":
    app.run(main)
