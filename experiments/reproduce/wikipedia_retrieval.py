"""Cross-modal retrieval on Wikipedia: correlation and semantic matching, ours beside the paper's.

About a minute on two cores; ``MMJAX_DATA`` names the folder that holds ``wikipedia_crossmodal``::

    python -m experiments.reproduce.wikipedia_retrieval

An image (128-bin histogram of SIFT words) is given and texts (proportions of 10 LDA topics) are
ranked, and the other way round; what has the category of the query is right. All 693 pairs of the
test set are queries and candidates, as in Rasiwasia et al. 2010, ACM Multimedia, whose features,
split and measure (mean average precision) these are.

- Correlation matching: :func:`mmjax.alignment.cca`, then the normalised correlation of the
  components.
- Semantic matching: logistic regression from each modality to the categories, then the normalised
  correlation of the posteriors.

What there is to choose is chosen on a fifth of the training set: components and ridge by the mean
of both directions, the decay of each classifier's weights by its cross-entropy. Then all of the
training set is used. The paper does not say what it regularised.
"""

import csv
import functools
import itertools
import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from scipy.io import loadmat
from scipy.optimize import minimize

from mmjax.alignment import CCA, cca

RIDGES = flags.DEFINE_list("ridges", ["0", "1e-5", "1e-4", "1e-3", "1e-2"], "of the correlation")
DECAYS = flags.DEFINE_list(
    "decays", ["1e-5", "1e-4", "1e-3", "1e-2", "1e-1", "1"], "of the logistic weights"
)
SEED = flags.DEFINE_integer(
    "split_seed", 0, "of the part of the training set that choices are made on"
)

PAPER = {"correlation": (0.249, 0.196), "semantic": (0.225, 0.223)}
CATEGORIES = 10


class Pairs(NamedTuple):
    """Paired images and texts, and the category of each pair."""

    images: np.ndarray
    texts: np.ndarray
    categories: np.ndarray

    def take(self, rows: np.ndarray) -> "Pairs":
        """Some of the pairs."""
        return Pairs(*(z[rows] for z in self))


def read(folder: pathlib.Path) -> tuple[Pairs, Pairs]:
    """Training and test pairs; categories counted from 0.

    Args:
        folder: holds ``raw_features.mat`` and the lists of the two parts.

    Returns:
        Both parts, features in float64.

    Raises:
        FileNotFoundError: if one of the files is not there.
    """
    features = loadmat(folder / "raw_features.mat")
    parts = []
    for short, long in (("tr", "trainset"), ("te", "testset")):
        with (folder / f"{long}_txt_img_cat.list").open(newline="") as file:
            categories = [int(row[2]) - 1 for row in csv.reader(file, delimiter="\t")]
        parts.append(Pairs(features[f"I_{short}"], features[f"T_{short}"], np.array(categories)))
    return parts[0], parts[1]


def mean_average_precision(queries: np.ndarray, candidates: np.ndarray, same: np.ndarray) -> float:
    """Mean over the queries of the mean precision at each right candidate.

    Args:
        queries: one row each; ranked by normalised correlation, that is the cosine.
        candidates: one row each.
        same: which candidates are right for which query.

    Returns:
        A number in [0, 1].
    """
    unit = [
        z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        for z in (queries, candidates)
    ]
    right = np.take_along_axis(
        same, np.argsort(-unit[0] @ unit[1].T, axis=1, kind="stable"), axis=1
    )
    precision = np.cumsum(right, axis=1) / np.arange(1, right.shape[1] + 1)
    return float(np.mean(np.sum(precision * right, axis=1) / np.maximum(right.sum(axis=1), 1)))


def both_ways(images: np.ndarray, texts: np.ndarray, categories: np.ndarray) -> tuple[float, float]:
    """Precision from images to texts, and from texts to images."""
    same = categories[:, None] == categories[None]
    return mean_average_precision(images, texts, same), mean_average_precision(texts, images, same)


@functools.partial(jax.jit, static_argnames="components")
def fitted(images: jax.Array, texts: jax.Array, ridge: jax.Array, components: int) -> CCA:
    """Compiled :func:`mmjax.alignment.cca`."""
    return cca(images, texts, components=components, ridge=ridge)


def correlation(
    train: Pairs, test: Pairs, *, ridge: float, components: int
) -> tuple[np.ndarray, np.ndarray]:
    """Components of the test pairs, fitted to the training pairs."""
    found = fitted(train.images, train.texts, jnp.asarray(ridge), train.texts.shape[1])
    images, texts = found.x.project(test.images), found.y.project(test.texts)
    return np.asarray(images)[:, :components], np.asarray(texts)[:, :components]


@jax.jit
@jax.value_and_grad
def logistic_loss(weights: jax.Array, rows: jax.Array, labels: jax.Array, decay: jax.Array):
    """Mean cross-entropy of a linear classifier with an offset, and the decay of its weights."""
    matrix = weights.reshape(rows.shape[1] + 1, CATEGORIES)
    scores = jax.nn.log_softmax(rows @ matrix[:-1] + matrix[-1][None])
    picked = jnp.take_along_axis(scores, labels[:, None], axis=1)
    return decay * jnp.sum(matrix[:-1] ** 2) - jnp.mean(picked)


def posteriors(rows: np.ndarray, labels: np.ndarray, decay: float, test: np.ndarray) -> np.ndarray:
    """Probabilities of the categories for the rows of ``test``.

    Args:
        rows: to learn from; both are divided by the root of the mean square of these features.
        labels: categories of the rows.
        decay: of the weights.
        test: rows to classify.

    Returns:
        One row of probabilities each.
    """
    scale = np.sqrt(np.mean(rows**2, axis=0))
    rows, test = rows / scale, test / scale
    start = np.zeros((rows.shape[1] + 1) * CATEGORIES)
    fit = minimize(
        lambda w: jax.tree.map(np.asarray, logistic_loss(w, rows, labels, jnp.asarray(decay))),
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500},
    )
    matrix = fit.x.reshape(-1, CATEGORIES)
    return np.asarray(jax.nn.softmax(test @ matrix[:-1] + matrix[-1], axis=1))


def semantic(
    train: Pairs, test: Pairs, *, image_decay: float, text_decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """Posteriors of the test pairs, learned from the training pairs."""
    return (
        posteriors(train.images, train.categories, image_decay, test.images),
        posteriors(train.texts, train.categories, text_decay, test.texts),
    )


def best_correlation(train: Pairs, dev: Pairs, ridges: list[float]) -> dict[str, float | int]:
    """Ridge and number of components that retrieve best in both directions together."""
    options = [
        {"ridge": ridge, "components": components}
        for ridge, components in itertools.product(ridges, range(1, train.texts.shape[1] + 1))
    ]

    def precision(option):
        return np.mean(both_ways(*correlation(train, dev, **option), dev.categories))

    return max(options, key=precision)


def best_semantic(train: Pairs, dev: Pairs, decays: list[float]) -> dict[str, float]:
    """Decay of each classifier that gives the categories the highest likelihood."""

    def likelihood(rows, others, decay):
        shares = posteriors(rows, train.categories, decay, others)
        return np.mean(np.log(shares[np.arange(len(others)), dev.categories]))

    return {
        "image_decay": max(decays, key=lambda d: likelihood(train.images, dev.images, d)),
        "text_decay": max(decays, key=lambda d: likelihood(train.texts, dev.texts, d)),
    }


def reproduce(
    train: Pairs, test: Pairs, *, ridges: list[float], decays: list[float], seed: int
) -> dict[str, tuple[float, float]]:
    """Print both methods beside the paper's.

    Args:
        train: training pairs.
        test: test pairs.
        ridges: to choose from.
        decays: to choose from.
        seed: of the part that choices are made on.

    Returns:
        Per method, mean average precision from images to texts and from texts to images.
    """
    order = np.random.default_rng(seed).permutation(len(train.categories))
    dev, rest = train.take(order[: len(order) // 5]), train.take(order[len(order) // 5 :])
    print("| matching | image to text | paper | text to image | paper | chosen |")
    print("|---|--:|--:|--:|--:|---|")
    found = {}
    for name, method, choose, options in (
        ("correlation", correlation, best_correlation, ridges),
        ("semantic", semantic, best_semantic, decays),
    ):
        chosen = choose(rest, dev, options)
        ours = found[name] = both_ways(*method(train, test, **chosen), test.categories)
        cells = [f"{o:.3f} | {p:.3f}" for o, p in zip(ours, PAPER[name], strict=True)]
        told = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in chosen.items())
        print(f"| {name} | {' | '.join(cells)} | {told} |", flush=True)
    return found


def main(_: list[str]) -> None:
    """Read, match and print."""
    jax.config.update("jax_enable_x64", True)
    root = os.environ.get("MMJAX_DATA")
    folder = pathlib.Path(root or "") / "wikipedia_crossmodal"
    if root is None or not folder.is_dir():
        raise SystemExit("error: set MMJAX_DATA to the folder that holds wikipedia_crossmodal")
    train, test = read(folder)
    print(f"{len(train.categories):,} training pairs, {len(test.categories):,} test pairs\n")
    try:
        ridges, decays = ([float(z) for z in flag.value] for flag in (RIDGES, DECAYS))
    except ValueError as error:
        raise SystemExit(f"error: --ridges and --decays are lists of numbers: {error}") from error
    if not ridges or not decays:
        raise SystemExit("error: --ridges and --decays need a number each to choose from")
    reproduce(train, test, ridges=ridges, decays=decays, seed=SEED.value)


if __name__ == "__main__":
    app.run(main)
