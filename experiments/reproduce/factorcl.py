r"""FactorCL on factors that are known: linear probe and Table 1, ours beside the paper's.

On two cores about 20 minutes; then the probe alone; then critics and estimators of the published
size, for an accelerator::

    nice python -m experiments.reproduce.factorcl
    nice python -m experiments.reproduce.factorcl --table=False
    python -m experiments.reproduce.factorcl --critic=concatenated --critic_hidden=512,512 \
        --table_hidden=512,512 --table_steps=7500

Data and recipe are those of the released experiment (Liang et al. 2023, arXiv:2306.05268): 30,000
examples with 10 shared and 6 + 6 unique factors of variance 1/2, mixed by U(0, 1) into 100
features; encoders with 3 x 512 hidden units, batches of 256, Adam at 1e-4, 10 epochs (SimCLR: 20),
a logistic probe. Departures: separable critics unless asked for, critics of upper bounds that learn
faster than the encoders, weighted upper bounds, and those of :class:`mmjax.fission.FactorCL`.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from mmjax.data.synthetic import shared_and_unique_factors
from mmjax.fission import ConcatenatedCritic, FactorCL, Perceptron, SeparableCritic, factorcl_loss
from mmjax.information.lower_bounds import jensen_shannon_bound
from mmjax.losses import nt_xent
from mmjax.losses.samples import unit_length

ROWS = flags.DEFINE_integer("rows", 30_000, "examples, a fifth of them for testing", lower_bound=10)
EPOCHS = flags.DEFINE_integer("epochs", 10, "of FactorCL; SimCLR has twice as many", lower_bound=1)
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
SEED = flags.DEFINE_integer("seed", 0, "of data, parameters and batches")

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
Rows = dict[str, jax.Array]
Loss = Callable[[Any, Rows, jax.Array], jax.Array]


def train(
    loss: Loss, params: Any, data: Rows, optimizer: optax.GradientTransformation, steps: int
) -> Any:
    """Minimise ``loss(params, batch, key)``.

    Args:
        loss: a scalar.
        params: to start from.
        data: arrays with one row per example.
        optimizer: of all parameters.
        steps: how many batches, drawn without replacement until an epoch is over.

    Returns:
        The parameters.
    """
    count = len(next(iter(data.values())))
    size = min(BATCH.value, count)
    in_epoch = count // size
    rng = np.random.default_rng(SEED.value)

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
        key = jax.random.fold_in(jax.random.key(SEED.value), first)
        carry = run(carry, data, jnp.asarray(order[: steps - first]), key)
    return carry[0]


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


def train_factorcl(data: Rows, *, supervised: bool) -> Callable[[Rows], Rows]:
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
    key = jax.random.key(SEED.value)
    params = nn.unbox(jax.jit(lambda: bounds(model.init, key, few, key))())

    def role(path: Any, _: Any) -> str:
        held = ("shared_given", "unique_from")  # the critics of the upper bounds
        return "critic" if path[1].key.startswith(held) else "encoder"

    rates = {"encoder": optax.adam(RATE.value), "critic": optax.adam(CRITIC_RATE.value)}
    optimizer = optax.multi_transform(rates, jax.tree_util.tree_map_with_path(role, params))
    params = train(loss, params, data, optimizer, _steps(data, EPOCHS.value))

    def embed(rows: Rows) -> Rows:
        factors: Any = model.apply(params, {name: rows[name] for name in NAMES})
        named = {f"Z_U{name[1:]}": z for name, z in factors.unique.items()}
        return named | {f"Z_S{name[1:]}": z for name, z in factors.shared.items()}

    return jax.jit(embed)


def train_simclr(data: Rows) -> Callable[[Rows], Rows]:
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

    keys = jax.random.split(jax.random.key(SEED.value), 4)
    params = {name: encoder.init(keys[i], data[name][:2]) for i, name in enumerate(NAMES)}
    one = jnp.ones((2, FEATURES))
    params |= {f"project {name}": projector.init(keys[2 + i], one) for i, name in enumerate(NAMES)}
    steps = _steps(data, 2 * EPOCHS.value)
    params = train(loss, nn.unbox(params), data, optax.adam(RATE.value), steps)
    return jax.jit(lambda rows: {f"Z_{name[1:]}": embed(params, name, rows) for name in NAMES})


def probe(rows: list[Rows], labels: list[jax.Array]) -> float:
    """Accuracy on the second part of a logistic regression on all embeddings of the first."""
    x, test = (jnp.concatenate(list(part.values()), axis=1) for part in rows)
    mean, spread = jnp.mean(x, axis=0)[None], jnp.std(x, axis=0)[None] + 1e-6
    x, test = (x - mean) / spread, (test - mean) / spread
    signs = 2.0 * labels[0] - 1

    def cost(weights: jax.Array) -> jax.Array:
        margins = signs * (x @ weights[:-1] + weights[-1])
        # The released probe has scikit-learn's default penalty.
        return jnp.mean(jax.nn.softplus(-margins)) + jnp.sum(weights[:-1] ** 2) / (2 * len(x))

    @jax.jit
    def fitted() -> jax.Array:
        optimizer = optax.lbfgs()

        def step(_: int, carry: Any) -> Any:
            weights, state = carry
            value, gradient = optax.value_and_grad_from_state(cost)(weights, state=state)
            updates, state = optimizer.update(
                gradient, state, weights, value=value, grad=gradient, value_fn=cost
            )
            return optax.apply_updates(weights, updates), state

        start = jnp.zeros(x.shape[1] + 1)
        return jax.lax.fori_loop(0, 200, step, (start, optimizer.init(start)))[0]

    weights = fitted()
    return float(jnp.mean((test @ weights[:-1] + weights[-1] >= 0) == (labels[1] == 1)))


def information(z: list[jax.Array], w: list[jax.Array]) -> jax.Array:
    """Estimate I(Z; w) as Table 1 does: the mean log-ratio that a classifier of pairs gives.

    Args:
        z: embeddings ``[k, n, d]`` of k kinds, for training and, unlike the paper's, held out.
        w: factors ``[n, e]``, likewise.

    Returns:
        k estimates, in nats.
    """
    critic = SeparableCritic(hidden=_widths(TABLE_HIDDEN), features=FEATURES)
    each: Any = jax.vmap(critic.apply, in_axes=(0, 0, None))
    spread = [
        (jnp.mean(x, axis=-2)[..., None, :], jnp.std(x, axis=-2)[..., None, :] + 1e-6)
        for x in (z[0], w[0])
    ]
    z, w = ([(x - m) / s for x in both] for both, (m, s) in zip((z, w), spread, strict=True))

    def loss(params: Any, batch: Rows, key: jax.Array) -> jax.Array:
        scores = each(params, jnp.swapaxes(batch["z"], 0, 1), batch["w"])
        return -jnp.sum(jnp.mean(jax.vmap(jensen_shannon_bound)(scores), axis=1))

    keys = jax.random.split(jax.random.key(SEED.value), len(z[0]))
    params = jax.jit(jax.vmap(lambda k: nn.unbox(critic.init(k, z[0][0, :2], w[0][:2]))))(keys)
    data = {"z": jnp.swapaxes(z[0], 0, 1), "w": w[0]}
    params = train(loss, params, data, optax.adam(1e-3), TABLE_STEPS.value)
    own = jax.jit(lambda z, w: jnp.diagonal(each(params, z, w), axis1=1, axis2=2))
    parts = [own(z[1][:, i : i + 256], w[1][i : i + 256]) for i in range(0, len(w[1]), 256)]
    return jnp.mean(jnp.concatenate(parts, axis=1), axis=1)


def print_table(embedded: list[Rows], factors: list[Rows]) -> None:
    """Print Table 1, a row for every kind of embedding."""
    print("\nTable 1: I(Z; w1), I(Z; w2) and I(Z; ws) in nats; the paper's in brackets")
    stacked = [jnp.stack(list(part.values())) for part in embedded]
    columns = [
        information(stacked, [part[factor] for part in factors]) for factor in (*NAMES, "shared")
    ]
    for i, name in enumerate(embedded[0]):
        published = PAPER[name.split()[1]]
        cells = [f"{c[i]:8.2f} ({p:5.2f})" for c, p in zip(columns, published, strict=True)]
        print(f"{name:12}" + "".join(cells), flush=True)


def _widths(flag: flags.FlagHolder) -> tuple[int, ...]:
    return tuple(int(width) for width in flag.value)


def _steps(data: Rows, epochs: int) -> int:
    return max(epochs * (len(data["y"]) // BATCH.value), 1)


def main(_: list[str]) -> None:
    """Do what the flags say."""
    made = shared_and_unique_factors(ROWS.value, seed=SEED.value)
    everything = {name: jnp.asarray(x) for name, x in {**made.modalities, **made.labels}.items()}
    factors = {name: jnp.asarray(x) for name, x in made.factors.items()}
    parts = slice(0, ROWS.value * 4 // 5), slice(ROWS.value * 4 // 5, None)
    data, factor_parts = (
        [jax.tree.map(lambda x, part=part: x[part], rows) for part in parts]
        for rows in (everything, factors)
    )
    trainers: dict[str, Callable[[Rows], Callable[[Rows], Rows]]] = {
        "SUP": functools.partial(train_factorcl, supervised=True),
        "SSL": functools.partial(train_factorcl, supervised=False),
        "SimCLR": train_simclr,
    }
    print(f"Linear probe: accuracy on {len(data[1]['y']):,} examples held out")
    print(f"{'':8}{'ours':>8}{'paper':>8}{'minutes':>10}", flush=True)
    embedded: list[Rows] = [{}, {}]
    for method in METHODS.value:
        start = time.perf_counter()
        embed = trainers[method](data[0])
        rows = [embed(part) for part in data]
        score = probe(rows, [part["y"] for part in data])
        minutes = (time.perf_counter() - start) / 60
        print(f"{method:8}{score:8.3f}{PROBE[method]:8.3f}{minutes:10.1f}", flush=True)
        for everyone, some in zip(embedded, rows, strict=True):
            everyone |= {f"{method} {name}": z for name, z in some.items()}
    if TABLE.value:
        print_table(embedded, factor_parts)


if __name__ == "__main__":
    app.run(main)
