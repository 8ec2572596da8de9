r"""FactorCL on factors that are known: linear probe and Table 1, ours beside the paper's.

On two cores within 20 minutes; then the probe alone, of encoders as they start; then critics and
estimators of the published size, for an accelerator::

    nice python -m experiments.reproduce.factorcl
    nice python -m experiments.reproduce.factorcl --table=False --epochs=0
    python -m experiments.reproduce.factorcl --critic=concatenated --critic_hidden=512,512 \
        --table_hidden=512,512 --table_steps=7500

Data and recipe are those of the released experiment (Liang et al. 2023, arXiv:2306.05268): 30,000
examples with 10 shared and 6 + 6 unique factors of variance 1/2, mixed by U(0, 1) into 100
features; encoders with 3 x 512 hidden units, batches of 256, Adam at 1e-4, 10 epochs (SimCLR: 20),
a logistic probe. Departures: separable critics unless asked for, critics of upper bounds that learn
faster than the encoders, weighted upper bounds, and those of :class:`mmjax.fission.FactorCL`.
"""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments.reproduce.reading import Rows, information, probe, train
from mmjax.data.synthetic import shared_and_unique_factors
from mmjax.fission import ConcatenatedCritic, FactorCL, Perceptron, SeparableCritic, factorcl_loss
from mmjax.losses import nt_xent
from mmjax.losses.samples import unit_length

EXAMPLES = flags.DEFINE_integer("examples", 30_000, "a fifth of them for testing", lower_bound=10)
EPOCHS = flags.DEFINE_integer(
    "epochs", 10, "of FactorCL, SimCLR has twice as many; 0: encoders as they start", lower_bound=0
)
BATCH = flags.DEFINE_integer("batch_size", 256, "examples of a batch", lower_bound=2)
HIDDEN = flags.DEFINE_list("hidden", ["512", "512", "512"], "units of the encoders' layers")
CRITIC = flags.DEFINE_enum("critic", "separable", ["separable", "concatenated"], "kind of critic")
CRITIC_HIDDEN = flags.DEFINE_list("critic_hidden", ["256"], "units of its hidden layers")
RATE = flags.DEFINE_float("learning_rate", 1e-4, "of the encoders, and of critics that they follow")
CRITIC_RATE = flags.DEFINE_float("critic_learning_rate", 1e-3, "of the critics of upper bounds")
WEIGHTS = flags.DEFINE_list("weights", ["0.1", "1"], "of the upper bounds: with labels, without")
METHODS = flags.DEFINE_list("methods", ["SUP", "SSL", "SimCLR"], "what to train")
TABLE = flags.DEFINE_boolean("table", True, "estimate Table 1")
TABLE_HIDDEN = flags.DEFINE_list("table_hidden", ["256"], "units of the layers of its estimators")
TABLE_STEPS = flags.DEFINE_integer("table_steps", 1500, "steps of its estimators", lower_bound=1)
REPEATS = flags.DEFINE_integer(
    "repeats", 1, "each with data and parameters of its own", lower_bound=1
)

FEATURES = 128  # of every embedding
NAMES = ("x1", "x2")
PROBE = {"SUP": 0.986, "SSL": 0.972, "SimCLR": 0.956}
# I(Z; w1), I(Z; w2), I(Z; ws) in nats; of which FactorCL the paper does not say.
PAPER = {
    "Z_U1": (7.83, 0.06, 9.47),
    "Z_U2": (0.03, 7.17, 9.89),
    "Z_S1": (6.25, 0.05, 10.13),
    "Z_S2": (0.04, 5.79, 9.40),
    "Z_1": (4.45, 0.16, 12.61),  # SimCLR
    "Z_2": (0.17, 3.92, 12.06),
}
Embed = Callable[[Rows], Rows]


def augment(x: jax.Array, key: jax.Array) -> jax.Array:
    """Change each row in one of four ways: halves swapped, noise, a tenth set to 0, not at all."""
    kind, noise, order = jax.random.split(key, 3)
    n, d = x.shape
    ranks = jnp.argsort(jax.random.uniform(order, x.shape), axis=1)
    changed = (
        jnp.roll(x, d // 2, axis=1),
        x + 0.01 * jax.random.normal(noise, x.shape),
        jnp.where(ranks < d // 10, 0, x),
        x,
    )
    return jnp.stack(changed)[jax.random.randint(kind, (n,), 0, 4), jnp.arange(n)]


def train_factorcl(data: Rows, *, supervised: bool, seed: int) -> Embed:
    """Train FactorCL; the result embeds rows."""
    kind = {"separable": SeparableCritic, "concatenated": ConcatenatedCritic}[CRITIC.value]
    encoder = functools.partial(Perceptron, _widths(HIDDEN), FEATURES)
    model = FactorCL(
        shared={name: encoder() for name in NAMES},
        unique={name: encoder() for name in NAMES},
        critic=functools.partial(kind, hidden=_widths(CRITIC_HIDDEN)),
    )
    weight = float(WEIGHTS.value[0 if supervised else 1])

    def bounds(run: Any, first: Any, batch: Rows, key: jax.Array) -> Any:
        views = {name: batch[name] for name in NAMES}
        if supervised:
            return run(first, views, batch["y"], classes=2, method="supervised")
        keys = jax.random.split(key, len(NAMES))
        again = {name: augment(views[name], k) for name, k in zip(NAMES, keys, strict=True)}
        return run(first, views, again, method="self_supervised")

    def loss(params: Any, batch: Rows, key: jax.Array) -> jax.Array:
        return jnp.mean(factorcl_loss(bounds(model.apply, params, batch, key), weight=weight))

    few = jax.tree.map(lambda x: x[:4], data)
    key = jax.random.key(seed)
    params = nn.unbox(jax.jit(lambda: bounds(model.init, key, few, key))())

    def role(path: Any, _: Any) -> str:
        held = ("shared_given", "unique_from")  # the critics of the upper bounds
        return "critic" if path[1].key.startswith(held) else "encoder"

    rates = {"encoder": optax.adam(RATE.value), "critic": optax.adam(CRITIC_RATE.value)}
    optimizer = optax.multi_transform(rates, jax.tree_util.tree_map_with_path(role, params))
    steps = _steps(data, EPOCHS.value)
    params = train(loss, params, data, optimizer, steps=steps, batch_size=BATCH.value, seed=seed)

    def embed(rows: Rows) -> Rows:
        factors: Any = model.apply(params, {name: rows[name] for name in NAMES})
        named = {f"Z_U{name[1:]}": z for name, z in factors.unique.items()}
        return named | {f"Z_S{name[1:]}": z for name, z in factors.shared.items()}

    return jax.jit(embed)


def train_simclr(data: Rows, *, seed: int) -> Embed:
    """Train an encoder and a projector of each modality to agree; the result embeds rows."""
    encoder, projector = (
        Perceptron(widths, FEATURES) for widths in (_widths(HIDDEN), (FEATURES, FEATURES))
    )

    embed_rows: Any = encoder.apply
    project: Any = projector.apply

    def embed(params: Any, name: str, rows: Rows) -> jax.Array:
        return embed_rows(params[name], rows[name])

    def loss(params: Any, batch: Rows, key: jax.Array) -> jax.Array:
        x, y = (
            unit_length(project(params[f"project {name}"], embed(params, name, batch)))
            for name in NAMES
        )
        return jnp.mean(nt_xent(x, y, temperature=0.07))

    keys = jax.random.split(jax.random.key(seed), 4)
    params = {name: encoder.init(keys[i], data[name][:2]) for i, name in enumerate(NAMES)}
    one = jnp.ones((2, FEATURES))
    params |= {f"project {name}": projector.init(keys[2 + i], one) for i, name in enumerate(NAMES)}
    steps = _steps(data, 2 * EPOCHS.value)
    optimizer = optax.adam(RATE.value)
    params = train(
        loss, nn.unbox(params), data, optimizer, steps=steps, batch_size=BATCH.value, seed=seed
    )
    return jax.jit(lambda rows: {f"Z_{name[1:]}": embed(params, name, rows) for name in NAMES})


def table(embedded: list[Rows], factors: list[Rows], *, seed: int) -> np.ndarray:
    """Estimate what every kind of embedding knows of w1, w2 and ws, in nats, ``[kinds, 3]``."""
    stacked = [jnp.stack(list(part.values())) for part in embedded]
    columns = [
        information(
            stacked,
            [part[factor] for part in factors],
            hidden=_widths(TABLE_HIDDEN),
            steps=TABLE_STEPS.value,
            seed=seed,
        )
        for factor in (*NAMES, "shared")
    ]
    return np.stack(columns, axis=1)


def _widths(flag: flags.FlagHolder) -> tuple[int, ...]:
    return tuple(int(width) for width in flag.value)


def _steps(data: Rows, epochs: int) -> int:
    return epochs * max(len(data["y"]) // BATCH.value, 1)


def run(seed: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Train and probe every method once, and estimate the table of its embeddings."""
    made = shared_and_unique_factors(EXAMPLES.value, seed=seed)
    parts = slice(0, EXAMPLES.value * 4 // 5), slice(EXAMPLES.value * 4 // 5, None)
    data, factors = (
        [{name: jnp.asarray(x[part]) for name, x in rows.items()} for part in parts]
        for rows in ({**made.modalities, **made.labels}, made.factors)
    )
    trainers: dict[str, Callable[..., Embed]] = {
        "SUP": functools.partial(train_factorcl, supervised=True),
        "SSL": functools.partial(train_factorcl, supervised=False),
        "SimCLR": train_simclr,
    }
    scores = {}
    embedded: list[Rows] = [{}, {}]
    for method in METHODS.value:
        start = time.perf_counter()
        embed = trainers[method](data[0], seed=seed)
        rows = [embed(part) for part in data]
        scores[method] = probe(rows, [part["y"] for part in data])
        minutes = (time.perf_counter() - start) / 60
        print(f"run {seed}: {method} {scores[method]:.4f} in {minutes:.1f} minutes", flush=True)
        for everything, some in zip(embedded, rows, strict=True):
            everything |= {f"{method} {name}": z for name, z in some.items()}
    if not TABLE.value:
        return scores, {}
    estimates = table(embedded, factors, seed=seed)
    return scores, dict(zip(embedded[0], estimates, strict=True))


def main(_: list[str]) -> None:
    """Do what the flags say, and print means over the runs."""
    if not METHODS.value or not set(METHODS.value) <= set(PROBE):
        sys.exit(f"error: --methods are of {', '.join(PROBE)}; got {', '.join(METHODS.value)}")
    scores, tables = zip(*[run(seed) for seed in range(REPEATS.value)], strict=True)
    print(f"\nLinear probe: accuracy, mean and standard deviation of {REPEATS.value} runs")
    print(f"{'':8}{'ours':>16}{'paper':>8}")
    for method in METHODS.value:
        own = [score[method] for score in scores]
        cell = f"{np.mean(own):.3f} +- {np.std(own):.3f}"
        print(f"{method:8}{cell:>16}{PROBE[method]:8.3f}")
    if TABLE.value:
        print("\nTable 1: I(Z; w1), I(Z; w2) and I(Z; ws) in nats; the paper's in brackets")
        for name in tables[0]:
            mean = np.mean([estimates[name] for estimates in tables], axis=0)
            published = PAPER[name.split()[1]]
            cells = [f"{c:8.2f} ({p:5.2f})" for c, p in zip(mean, published, strict=True)]
            print(f"{name:12}" + "".join(cells))


if __name__ == "__main__":
    app.run(main)
