"""The contrastive family of two modalities, from its definitions."""

import numpy as np
from definitions.case import Case, D, K, N, unit_rows

from mmjax.losses import clip_loss, info_nce, siglip_loss

X, Y = unit_rows(0), unit_rows(1)
RNG = np.random.default_rng(2)
SOFT = RNG.uniform(0, 1, (N, N)) * (RNG.uniform(size=(N, N)) < 0.3)
SEVERAL = (RNG.uniform(size=(N, N)) < 0.2) | np.eye(N, dtype=bool)
WEIGHTS = RNG.uniform(0.5, 2, (N, N)) * (RNG.uniform(size=(N, N)) < 0.8)
OWN_NEGATIVES = unit_rows(3, N * 3).reshape(N, 3, D)
OWN_NEGATIVES_WHERE = RNG.uniform(size=(N, 3)) < 0.7


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def smoothed(targets, share, width):
    """Rows that sum to one, a share of which lies evenly on all ``width`` columns."""
    total = targets.sum(axis=1, keepdims=True)
    return (1 - share) * targets / np.where(total > 0, total, 1) + share / width * (total > 0)


def cross_entropy(logits, targets=None, label_smoothing=0.0):
    targets = np.eye(len(logits)) if targets is None else targets.astype(float)
    targets = smoothed(targets, label_smoothing, logits.shape[1])
    return -(targets * log_softmax(logits)).sum(axis=1)


def info_nce_definition(query, key, temperature, targets=None, label_smoothing=0.0):
    return cross_entropy(query @ key.T / temperature, targets, label_smoothing)


def with_negatives(query, key, temperature, negatives, negatives_where=True, label_smoothing=0.0):
    rows = []
    shared = negatives.ndim == 2
    for i, q in enumerate(query):
        mine = negatives if shared else negatives[i]
        usable = np.broadcast_to(negatives_where if shared else negatives_where[i], len(mine))
        columns = np.concatenate([key, mine[usable]])
        target = (np.arange(len(columns)) == i)[None]
        rows.append(cross_entropy((columns @ q / temperature)[None], target, label_smoothing)[0])
    return np.array(rows)


def weighted(query, key, temperature, weights):
    logits = query @ key.T / temperature
    peak = logits.max(axis=1, where=weights > 0, initial=-np.inf)
    total = (weights * np.exp(np.where(weights > 0, logits - peak[:, None], 0))).sum(axis=1)
    return np.log(total) + peak - np.diag(logits)


def row_weighted(query, key, temperature, weights):
    return info_nce_definition(query, key, temperature) * weights


def clip_definition(x, y, logit_scale, targets=None, label_smoothing=0.0):
    logits = logit_scale * (x @ y.T)
    back = None if targets is None else targets.T
    there = cross_entropy(logits, targets, label_smoothing)
    return (there + cross_entropy(logits.T, back, label_smoothing)) / 2


def siglip_definition(x, y, logit_scale, logit_bias, targets=None):
    targets = np.eye(len(x)) if targets is None else targets.astype(float)
    logits = logit_scale * (x @ y.T) + logit_bias
    cost = targets * np.logaddexp(0, -logits) + (1 - targets) * np.logaddexp(0, logits)
    return cost.sum(axis=1)


def distillation_definition(x, y, teacher_x, teacher_y, logit_scale, teacher_logit_scale):
    rows = np.zeros(len(x))
    sides = (x, y, teacher_x, teacher_y), (y, x, teacher_y, teacher_x)
    for a, b, teacher_a, teacher_b in sides:
        teacher = log_softmax(teacher_logit_scale * teacher_a @ teacher_b.T)
        student = log_softmax(logit_scale * a @ b.T)
        rows += (np.exp(teacher) * (teacher - student)).sum(axis=1) / 2
    return rows


QUERY = {"query": X, "key": Y}
PAIR = {"x": X, "y": Y}
WARM = {"scalars": {"temperature": 0.5}, "extreme": {"temperature": 1e-4}, "streamed": True}
SHARP = {"scalars": {"logit_scale": 3.0}, "extreme": {"logit_scale": 1e4}, "streamed": True}
SIGMOID = {
    "scalars": {"logit_scale": 3.0, "logit_bias": -1.5},
    "extreme": {"logit_scale": 1e4, "logit_bias": -1e3},
    "streamed": True,
}

CASES = {
    "info_nce": Case(info_nce, info_nce_definition, QUERY, **WARM),
    "info_nce/negatives": Case(
        info_nce, with_negatives, QUERY, others={"negatives": unit_rows(4, K)}, **WARM
    ),
    "info_nce/own-negatives": Case(
        info_nce,
        with_negatives,
        {**QUERY, "negatives": OWN_NEGATIVES, "negatives_where": OWN_NEGATIVES_WHERE},
        options={"label_smoothing": 0.1},
        **WARM,
    ),
    "info_nce/soft-targets": Case(
        info_nce,
        info_nce_definition,
        QUERY,
        pairs={"targets": SOFT},
        options={"label_smoothing": 0.2},
        **WARM,
    ),
    "info_nce/pair-weights": Case(info_nce, weighted, QUERY, pairs={"weights": WEIGHTS}, **WARM),
    "info_nce/row-weights": Case(
        info_nce,
        row_weighted,
        {**QUERY, "weights": RNG.integers(0, 3, N) * 0.5},
        constant=("weights",),
        **WARM,
    ),
    "clip_loss": Case(clip_loss, clip_definition, PAIR, **SHARP),
    "clip_loss/several-positives": Case(
        clip_loss,
        clip_definition,
        PAIR,
        pairs={"targets": SEVERAL},
        options={"label_smoothing": 0.1},
        **SHARP,
    ),
    "siglip_loss": Case(siglip_loss, siglip_definition, PAIR, **SIGMOID),
    "siglip_loss/soft-targets": Case(
        siglip_loss, siglip_definition, PAIR, pairs={"targets": SOFT}, **SIGMOID
    ),
}
