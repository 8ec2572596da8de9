"""The triplet loss, by definition: every triplet written out."""

import numpy as np
from definitions.case import Case, N, unit_rows

from mmjax.losses.triplet import triplet_margin

DISTANCES = {
    "cosine": lambda a, c: 1 - a @ c.T,
    "euclidean": lambda a, c: np.linalg.norm(a[:, None] - c[None], axis=-1),
    "squared": lambda a, c: np.sum((a[:, None] - c[None]) ** 2, axis=-1),
}


def definition(anchor, candidate=None, *, margin, mining, distance, labels=None):
    themselves = candidate is None
    candidate = anchor if themselves else candidate
    label = np.arange(len(anchor)) if labels is None else labels
    rows = np.zeros(len(anchor))
    for i, d in enumerate(DISTANCES[distance](anchor, candidate)):
        alike = label == label[i]
        itself = themselves & (np.arange(len(d)) == i)
        positives, negatives = d[alike & ~itself], d[~alike]
        if len(positives) and len(negatives):
            rows[i] = mined(positives[:, None], negatives[None], margin, mining)
    return rows


def mined(positives, negatives, margin, mining):
    hinges = np.maximum(0, margin + positives - negatives)
    if mining == "hard":
        return hinges.max()
    if mining == "semi-hard":
        return np.where(negatives > positives, hinges, 0).max(axis=1).mean()
    return hinges.mean()


LABELS = np.random.default_rng(14).integers(4, size=N).astype(np.int32)
OTHERS = {"anchor": unit_rows(15), "candidate": unit_rows(16)}
LABELLED = {**OTHERS, "labels": LABELS}
THEMSELVES = {"anchor": unit_rows(15), "labels": LABELS}
LONG = {name: 1.5 * rows for name, rows in OTHERS.items()}


def case(rows, mining, distance):
    return Case(
        triplet_margin,
        definition,
        rows,
        scalars={"margin": 0.4},
        extreme={"margin": 1e4},
        options={"mining": mining, "distance": distance},
    )


CASES = {
    "triplet_margin": case(OTHERS, "hard", "cosine"),
    "triplet_margin/partners, semi-hard, squared": case(LONG, "semi-hard", "squared"),
    "triplet_margin/partners, all, euclidean": case(LONG, "all", "euclidean"),
    "triplet_margin/themselves, hard, euclidean": case(THEMSELVES, "hard", "euclidean"),
    "triplet_margin/themselves, semi-hard, squared": case(THEMSELVES, "semi-hard", "squared"),
    "triplet_margin/labelled, all, cosine": case(LABELLED, "all", "cosine"),
}
