"""Peers of the triplet objectives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from parity.case import ROWS, N, Parity, of_units

from experiments.benchmarks.peers import PML, peer_module
from mmjax import losses

MARGIN = {"cosine": 0.3, "euclidean": 1.0, "squared": 4.0}
PARTNERS = np.arange(N)
CLASSES = np.arange(N) // 4


def pml_triplets(mining, distance, anchor, candidate=None, *, labels):
    """Means over anchors; theirs are over triplets, and leave some out unless told not to."""
    distances = peer_module("pytorch_metric_learning.distances")
    between = {
        "cosine": distances.CosineSimilarity,
        "euclidean": functools.partial(distances.LpDistance, normalize_embeddings=False),
        "squared": functools.partial(distances.LpDistance, normalize_embeddings=False, power=2),
    }[distance]()
    references = {} if candidate is None else {"ref_emb": candidate, "ref_labels": labels.clone()}
    # The default reducer leaves out every triplet that costs nothing.
    reducers = peer_module("pytorch_metric_learning.reducers")
    options = {"margin": MARGIN[distance], "distance": between}
    if mining == "all":  # as many triplets for each anchor
        loss = peer_module(PML).TripletMarginLoss(reducer=reducers.MeanReducer(), **options)
        return loss(anchor, labels, **references)
    # An anchor without a semi-hard negative has no triplet: it costs 0 here and counts.
    miners = peer_module("pytorch_metric_learning.miners")
    mine = miners.BatchEasyHardMiner("hard", mining.replace("-", ""), distance=between)
    loss = peer_module(PML).TripletMarginLoss(reducer=reducers.SumReducer(), **options)
    return loss(anchor, labels, mine(anchor, labels, **references), **references) / len(anchor)


def optax_hard_triplets(anchor, positive, *, margin):
    """Negatives are given, here the closest of the others; 1e-6 is under the root if not told."""
    squares = jnp.sum((anchor[:, None] - positive[None]) ** 2, axis=-1)
    others = jnp.where(jnp.eye(len(anchor), dtype=bool), jnp.inf, squares)
    negative = positive[jnp.argmin(others, axis=1)]
    with jax.numpy_dtype_promotion("standard"):
        loss = peer_module("optax").losses.triplet_margin_loss
        return jnp.mean(loss(anchor, positive, negative, margin=margin, eps=0.0))


def pairs(mining, distance):
    """Candidates are partners."""

    def ours(x, y, *, labels):
        del labels  # every row is its own class: the same as none
        return loss(x, y, margin=MARGIN[distance], mining=mining, distance=distance)

    loss = of_units(losses.triplet_margin) if distance == "cosine" else losses.triplet_margin
    theirs = functools.partial(pml_triplets, mining, distance)
    return Parity(ours, theirs, PML, constants={"labels": PARTNERS})


def classes(mining, distance):
    """Candidates are the other rows, in four classes."""

    def ours(x, *, labels):
        options = {"margin": MARGIN[distance], "mining": mining, "distance": distance}
        return loss(x, labels=labels, **options)

    loss = of_units(losses.triplet_margin) if distance == "cosine" else losses.triplet_margin
    theirs = functools.partial(pml_triplets, mining, distance)
    return Parity(ours, theirs, PML, rows=(ROWS,), constants={"labels": CLASSES})


CASES = {
    **{
        f"triplet_margin, {mining} {distance} {kind.__name__}/pytorch-metric-learning": kind(
            mining, distance
        )
        for kind, mining, distance in (
            (pairs, "hard", "cosine"),
            (pairs, "hard", "euclidean"),
            (pairs, "semi-hard", "cosine"),
            (pairs, "semi-hard", "squared"),
            (pairs, "all", "cosine"),
            (classes, "hard", "euclidean"),
            (classes, "all", "squared"),
            (classes, "all", "cosine"),
        )
    },
    "triplet_margin, hard euclidean pairs/optax": Parity(
        functools.partial(losses.triplet_margin, mining="hard", distance="euclidean"),
        optax_hard_triplets,
        "optax",
        scalars={"margin": 1.0},
        framework="jax",
    ),
}
