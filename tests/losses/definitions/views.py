"""Contrastive losses of one space and those that reweigh negatives, from their definitions."""

import numpy as np
from definitions.case import Case, N, unit_rows
from definitions.contrastive import (
    PAIR,
    QUERY,
    SHARP,
    WARM,
    X,
    distillation_definition,
)

from mmjax.losses import (
    contrastive_distillation,
    debiased_info_nce,
    decoupled_contrastive,
    hard_negative_info_nce,
    hn_nce,
    nt_xent,
    supervised_contrastive,
)

RNG = np.random.default_rng(5)
LABELS = RNG.integers(-2, 4, N)
POSITIVES = RNG.uniform(size=(N, N)) < 0.2  # the diagonal is in it at times, and must not count


def log_sum(logits):
    return np.logaddexp.reduce(logits) if len(logits) else 0.0


def nt_xent_definition(x, y, temperature, decoupled=False):
    views, n, rows = np.concatenate([x, y]), len(x), np.zeros(len(x))
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        left_out = {i, partner} if decoupled else {i}
        others = [j for j in range(2 * n) if j not in left_out]
        if others:
            cost = log_sum(views[others] @ views[i] / temperature)
            rows[i % n] += (cost - views[partner] @ views[i] / temperature) / 2
    return rows


def decoupled_definition(x, y, temperature):
    return nt_xent_definition(x, y, temperature, decoupled=True)


def supervised_definition(x, temperature, labels=None, positives=None):
    positives = labels[:, None] == labels[None] if positives is None else positives
    rows = np.zeros(len(x))
    for i, row in enumerate(x):
        others = [j for j in range(len(x)) if j != i]
        mine = [j for j in others if positives[i, j]]
        if mine:
            partition = log_sum(x[others] @ row / temperature)
            rows[i] = partition - np.mean(x[mine] @ row / temperature)
    return rows


def hard_definition(query, key, temperature, hardness=0.0, prior=0.0):
    logits = query @ key.T / temperature
    rows = np.zeros(len(query))
    for i, row in enumerate(logits):
        others, own = np.delete(row, i), row[i]
        peak = max(row.max(), -1 / temperature)
        e = np.exp(others - peak)
        importance = np.exp(hardness * (others - others.max()))
        mean = (importance * e).sum() / importance.sum()
        corrected = (mean - prior * np.exp(own - peak)) / (1 - prior)
        negative = len(others) * max(corrected, np.exp(-1 / temperature - peak))
        rows[i] = np.log(np.exp(own - peak) + negative) + peak - own
    return rows


def hn_nce_definition(x, y, logit_scale, hardness, positive_weight):
    logits = logit_scale * x @ y.T
    rows = np.zeros(len(x))
    for direction in (logits, logits.T):
        for i, row in enumerate(direction):
            others, own, peak = np.delete(row, i), row[i], row.max()
            importance = np.exp(hardness * (others - others.max()))
            weights = len(others) * importance / importance.sum()
            total = positive_weight * np.exp(own - peak) + (weights * np.exp(others - peak)).sum()
            rows[i] += (np.log(total) + peak - own) / 2
    return rows


TEACHER = {"teacher_x": unit_rows(6, d=3), "teacher_y": unit_rows(7, d=3)}

CASES = {
    "nt_xent": Case(nt_xent, nt_xent_definition, PAIR, **WARM),
    "decoupled_contrastive": Case(decoupled_contrastive, decoupled_definition, PAIR, **WARM),
    "supervised_contrastive": Case(
        supervised_contrastive, supervised_definition, {"x": X, "labels": LABELS}, **WARM
    ),
    "supervised_contrastive/positives": Case(
        supervised_contrastive,
        supervised_definition,
        {"x": X},
        pairs={"positives": POSITIVES},
        **WARM,
    ),
    "debiased_info_nce": Case(
        debiased_info_nce, hard_definition, QUERY, options={"prior": 0.05}, **WARM
    ),
    "hard_negative_info_nce": Case(
        hard_negative_info_nce,
        hard_definition,
        QUERY,
        options={"hardness": 0.5, "prior": 0.02},
        **WARM,
    ),
    "hn_nce": Case(
        hn_nce, hn_nce_definition, PAIR, options={"hardness": 0.5, "positive_weight": 0.7}, **SHARP
    ),
    "contrastive_distillation": Case(
        contrastive_distillation,
        distillation_definition,
        {**PAIR, **TEACHER},
        scalars={"logit_scale": 3.0},
        extreme={"logit_scale": 1e4},
        options={"teacher_logit_scale": 2.0},
        constant=("teacher_x", "teacher_y"),
        streamed=True,
    ),
}
