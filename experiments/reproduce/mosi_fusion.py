"""Every fusion operator on CMU-MOSI, beside logistic regression and what was published.

Two cores, about 10 minutes::

    MMJAX_DATA=... nice python -m experiments.reproduce.mosi_fusion
    MMJAX_DATA=... python -m experiments.reproduce.mosi_fusion --operators=additive,tensor

The sign of the sentiment of 2,199 utterances from features of what is said (text, 100), how it
sounds (audio, 73) and what is seen (video, 100), those of Poria et al. 2017. One protocol for all
operators: a dense layer of each modality, the operator, a linear classifier; AdamW; 10 seeds, which
train at once under ``vmap``. A fifth of the modalities of the training examples is masked, at
random: deleting a factor from a product may turn its sign, and an operator that multiplies learns
only by such examples not to let that happen. Each seed holds out its own fifth of the training
videos, and keeps the parameters with the lowest cross-entropy there. Then come the test videos,
with all modalities and with each of them masked.

Text and video features were fitted with the labels of all 62 training videos, so that held-out
training videos look easier than the 31 test videos are: what is selected there is selected badly,
for every operator alike.
"""

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments.reproduce.reading import probe
from mmjax import fusion

CHOSEN = flags.DEFINE_list("operators", None, "operators to train, all if not set")
SEEDS = flags.DEFINE_integer("seeds", 10, "of each, trained at once", lower_bound=2)
LOOKS = flags.DEFINE_integer("looks", 40, "at the held-out videos", lower_bound=1)
UPDATES = flags.DEFINE_integer("updates", 25, "between two looks", lower_bound=1)

MODALITIES = ("audio", "text", "video")
WIDTH, HEADS = 32, 4
BATCH, LEARNING_RATE, WEIGHT_DECAY, DROPOUT, MISSING = 128, 1e-3, 1e-2, 0.3, 0.2

RIDGES = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)  # of the logistic regression, to choose from

# bc-LSTM, Poria et al. 2017: accuracy in per cent on the same 31 videos. It sees each utterance
# among those around it, as none of ours does.
PUBLISHED = {"all": 80.3, "text": 78.1, "audio": 60.3, "video": 55.8}


class OfOneToken(nn.Module):
    """An operator on sequences, given each row as a sequence of one token."""

    operator: nn.Module

    def __call__(self, inputs: Mapping[str, jax.Array], *, where: Any = None) -> jax.Array:
        """Fuse rows; the latents of a resampler are averaged."""
        x, where = jax.tree.map(lambda x: x[:, None], (inputs, where))
        fused = self.operator(x, where=where)
        return fused if fused.ndim == 2 else jnp.mean(fused, axis=1)


def _transformer(build: Callable[..., nn.Module], **options: Any) -> Callable[[], nn.Module]:
    return lambda: OfOneToken(build(WIDTH, HEADS, mlp_ratio=2.0, dropout=0.0, **options))


#: What makes each operator. Those on rows come first, then those on tokens.
OPERATORS: Mapping[str, Callable[[], nn.Module]] = {
    "additive": lambda: fusion.Additive(WIDTH),
    "concatenation": lambda: fusion.Concatenation(WIDTH),
    "late_mean": lambda: fusion.LateFusion(2, rule="mean"),
    "late_max": lambda: fusion.LateFusion(2, rule="max"),
    "late_product": lambda: fusion.LateFusion(2, rule="product"),
    "multiplicative": lambda: fusion.Multiplicative(WIDTH),
    "bilinear": lambda: fusion.Bilinear(WIDTH),
    "mlb": lambda: fusion.MLB(WIDTH),
    "mutan": lambda: fusion.MUTAN(WIDTH),
    "tensor": lambda: fusion.TensorFusion(WIDTH),
    "low_rank": lambda: fusion.LowRankFusion(WIDTH),
    "polynomial": lambda: fusion.Polynomial(WIDTH),
    "gated": lambda: fusion.Gated(WIDTH),
    "film": lambda: fusion.FiLM(WIDTH, content="text"),
    "nl_gate": lambda: fusion.NLGate(WIDTH, content="text"),
    "attention": lambda: fusion.ModalityAttention(WIDTH),
    "cross_modal": _transformer(fusion.CrossModalTransformer, depth=1, self_depth=1),
    "bottleneck": _transformer(fusion.BottleneckFusion, depth=2, fusion_depth=0),
    "resampler": _transformer(fusion.LatentResampler, latents=4),
    "early": _transformer(fusion.DepthFusion, depth=2, fusion_depth=0),
    "intermediate": _transformer(fusion.DepthFusion, depth=2, fusion_depth=1),
    "progressive": _transformer(fusion.DepthFusion, depth=2, fusion_depth=1, rounds=2),
}


class Classifier(nn.Module):
    """A dense layer of each modality, the operator, and a linear classifier.

    Late fusion gives classes itself, and has no classifier behind it.
    """

    operator: str

    @nn.compact
    def __call__(
        self, inputs: Mapping[str, jax.Array], *, where: Any = None, train: bool = False
    ) -> jax.Array:
        """Give logits of the two classes."""
        drop = nn.Dropout(DROPOUT, deterministic=not train)
        rows = {m: drop(nn.gelu(nn.Dense(WIDTH, name=m)(x))) for m, x in sorted(inputs.items())}
        fused = OPERATORS[self.operator]()(rows, where=where)
        return fused if self.operator.startswith("late") else nn.Dense(2, name="classes")(fused)


@dataclasses.dataclass(frozen=True)
class Utterances:
    """Features of each modality, standardised, the sign, and the video that each is from."""

    features: Mapping[str, np.ndarray]
    labels: np.ndarray
    videos: np.ndarray

    def of(self, modalities: tuple[str, ...]) -> "Utterances":
        """Keep some modalities."""
        return dataclasses.replace(self, features={m: self.features[m] for m in modalities})

    def at(self, rows: np.ndarray) -> "Utterances":
        """Keep the utterances where ``rows`` is True."""
        features = {m: x[rows] for m, x in self.features.items()}
        return Utterances(features, self.labels[rows], self.videos[rows])


def read(path: pathlib.Path) -> tuple[Utterances, Utterances]:
    """Read training and test utterances of the split of Poria et al. 2017."""
    with np.load(path) as file:
        split, labels = file["bc_split"], file["label"].astype(np.int32)
        videos = np.array([name.rpartition("_")[0] for name in file["ids"]])
        train, features = split == "train", {}
        for name in MODALITIES:
            x = file[name].astype(np.float64)
            x = (x - x[train].mean(axis=0)) / np.maximum(x[train].std(axis=0), 1e-6)
            features[name] = x.astype(np.float32)
    data = Utterances(features, labels, videos)
    return data.at(train), data.at(split == "test")


def held_out(videos: np.ndarray, seeds: int) -> np.ndarray:
    """For each seed, the utterances ``[s, n]`` of a fifth of the videos, drawn anew."""
    names = np.unique(videos)
    drawn = (
        np.random.default_rng(seed).permutation(names)[: max(len(names) // 5, 1)]
        for seed in range(seeds)
    )
    return np.stack([np.isin(videos, some) for some in drawn])


def fit(model: Classifier, data: Utterances, dev: np.ndarray, *, looks: int, updates: int) -> Any:
    """Train once for each row of ``dev``; give the parameters that did best there."""
    features, labels = data.features, jnp.asarray(data.labels)
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def costs(params: Any, x: Mapping[str, Any], y: jax.Array, **options: Any) -> jax.Array:
        logits = model.apply({"params": params}, x, **options)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    def run(key: jax.Array, dev: jax.Array) -> Any:
        first, rest = jax.random.split(key)
        shares = jnp.where(dev, 0.0, 1 / jnp.sum(~dev, dtype=jnp.float32))
        params = nn.unbox(model.init(first, features)["params"])

        def update(state: Any, key: jax.Array) -> tuple[Any, None]:
            params, memory = state
            choosing, hiding, dropping = jax.random.split(key, 3)
            rows = jax.random.choice(choosing, len(labels), (BATCH,), p=shares)
            x = jax.tree.map(lambda x: jnp.asarray(x)[rows], features)
            have = jax.random.bernoulli(hiding, 1 - MISSING, (len(x), BATCH))
            where = dict(zip(x, have, strict=True)) if len(x) > 1 else None

            def loss(params: Any) -> jax.Array:
                options = {"where": where, "train": True, "rngs": {"dropout": dropping}}
                return jnp.mean(costs(params, x, labels[rows], **options))

            change, memory = optimizer.update(jax.grad(loss)(params), memory, params)
            return (optax.apply_updates(params, change), memory), None

        def look(carry: Any, key: jax.Array) -> tuple[Any, None]:
            state, best, lowest = carry
            state, _ = jax.lax.scan(update, state, jax.random.split(key, updates))
            cost = jnp.mean(costs(state[0], features, labels), where=dev)
            keep = functools.partial(jnp.where, cost < lowest)
            return (state, jax.tree.map(keep, state[0], best), jnp.minimum(cost, lowest)), None

        start = ((params, optimizer.init(params)), params, jnp.inf)
        (_, best, _), _ = jax.lax.scan(look, start, jax.random.split(rest, looks))
        return best

    keys = jax.random.split(jax.random.key(0), len(dev))
    return jax.jit(jax.vmap(run))(keys, dev)


def predictions(
    model: Classifier, params: Any, data: Utterances, missing: Sequence[str | None]
) -> np.ndarray:
    """Classes ``[c, s, n]`` of the utterances, without each modality ``missing``, by each seed."""
    have = {m: np.array([m != gone for gone in missing]) for m in data.features}

    def classes(params: Any, have: Mapping[str, jax.Array]) -> jax.Array:
        where = {m: jnp.broadcast_to(there, data.labels.shape) for m, there in have.items()}
        logits = model.apply({"params": params}, data.features, where=where)
        return jnp.argmax(jnp.asarray(logits), axis=-1)

    of_each_seed = jax.vmap(classes, in_axes=(0, None))
    return np.asarray(jax.jit(jax.vmap(of_each_seed, in_axes=(None, 0)))(params, have))


def weighted_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """F1 of each class, averaged with the share of the utterances that are of it."""
    total = 0.0
    for c in np.unique(labels):
        hits = np.sum((predicted == c) & (labels == c))
        total += 2 * hits / (np.sum(predicted == c) + np.sum(labels == c)) * np.mean(labels == c)
    return float(total)


def measured(
    operator: str, parts: tuple[Utterances, Utterances], *, seeds: int, looks: int, updates: int
) -> dict[str, str]:
    """Train and test one operator: a row of the table, means and standard deviations over seeds."""
    began, model, (data, test) = time.monotonic(), Classifier(operator), parts
    params = fit(model, data, held_out(data.videos, seeds), looks=looks, updates=updates)
    row = {"parameters": f"{sum(x.size for x in jax.tree.leaves(params)) // seeds:,}"}
    missing = [None, *data.features] if len(data.features) > 1 else [None]
    found = predictions(model, params, test, missing)
    row["weighted F1"] = _spread([weighted_f1(p, test.labels) for p in found[0]])
    for gone, of_seeds in zip(missing, found, strict=True):
        column = "accuracy" if gone is None else f"without {gone}"
        row[column] = _spread([np.mean(p == test.labels) for p in of_seeds])
    row["seconds"] = f"{time.monotonic() - began:.0f}"
    return row


def logistic(parts: tuple[Utterances, Utterances], *, seeds: int) -> dict[str, str]:
    """A row of a logistic regression, whose ridge each seed chooses on its held-out videos."""
    data, test = parts
    shares = []
    for dev in held_out(data.videos, seeds):
        kept = data.at(~dev)
        ridge = max(RIDGES, key=functools.partial(_accuracy, kept, data.at(dev)))
        shares.append(_accuracy(kept, test, ridge))
    return {"accuracy": _spread(shares)}


def _accuracy(fitted: Utterances, judged: Utterances, ridge: float) -> float:
    features, labels = (fitted.features, judged.features), (fitted.labels, judged.labels)
    return probe(features, labels, ridge=ridge)


def _spread(shares: list[Any]) -> str:
    return f"{100 * np.mean(shares):.1f} ± {100 * np.std(shares, ddof=1):.1f}"


COLUMNS = (
    "parameters",
    "accuracy",
    "weighted F1",
    *(f"without {m}" for m in MODALITIES),
    "seconds",
)


def line(name: str, row: Mapping[str, str]) -> str:
    """One line of the table."""
    return f"| {name:28} | " + " | ".join(f"{row.get(c, ''):>13}" for c in COLUMNS) + " |"


def report(path: pathlib.Path, operators: list[str], **options: int) -> None:
    """Print the table, line by line as it comes."""
    if unknown := [name for name in operators if name not in OPERATORS]:
        raise ValueError(f"unknown operators {unknown}, expected among {', '.join(OPERATORS)}")
    parts = train, test = read(path)
    print(f"{len(train.labels):,} utterances to train on and {len(test.labels):,} to test on;")
    print(f"{options['seeds']} seeds, means and standard deviations in per cent\n")
    print(line("", {c: c for c in COLUMNS}))
    print("|" + "-" * 30 + "|" + ("-" * 14 + ":|") * len(COLUMNS))
    for name, share in PUBLISHED.items():
        print(line(f"bc-LSTM, {name}", {"accuracy": f"{share:.1f}"}))
    larger = 100 * np.max([np.mean(test.labels == c) for c in np.unique(test.labels)])
    print(line("larger class of the test set", {"accuracy": f"{larger:.1f}"}))
    for chosen in (MODALITIES, *((m,) for m in MODALITIES)):
        row = logistic((train.of(chosen), test.of(chosen)), seeds=options["seeds"])
        print(line(f"logistic, {' '.join(chosen)}", row), flush=True)
    for m in MODALITIES:
        alone = (train.of((m,)), test.of((m,)))
        print(line(f"ours, {m} alone", measured("additive", alone, **options)), flush=True)
    for name in operators:
        print(line(f"ours, {name}", measured(name, parts, **options)), flush=True)


def main(_: list[str]) -> None:
    """Do what the flags say."""
    root = os.environ.get("MMJAX_DATA")
    if root is None:
        raise SystemExit("error: set MMJAX_DATA to the folder that holds mosi_utterances")
    path = pathlib.Path(root) / "mosi_utterances" / "mosi_utterances.npz"
    operators = CHOSEN.value or list(OPERATORS)
    try:
        report(path, operators, seeds=SEEDS.value, looks=LOOKS.value, updates=UPDATES.value)
    except (ValueError, OSError) as error:  # what a user can mend
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    app.run(main)
