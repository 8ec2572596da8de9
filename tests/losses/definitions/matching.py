"""The matching loss, by definition."""

import numpy as np
from definitions.case import Case, N

from mmjax.losses.matching import matching_loss

RNG = np.random.default_rng(12)
LABELS = np.arange(N) % 3 == 0


def definition(logits, labels):
    if logits.ndim == 1:
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    log_p = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    return -log_p[np.arange(len(labels)), labels.astype(int)]


CASES = {
    "matching_loss": Case(
        matching_loss, definition, {"logits": RNG.normal(size=(N, 2)), "labels": LABELS}
    ),
    "matching_loss/log-odds": Case(
        matching_loss, definition, {"logits": RNG.normal(size=N), "labels": LABELS}
    ),
    "matching_loss/loud": Case(
        matching_loss, definition, {"logits": 1e4 * RNG.normal(size=(N, 2)), "labels": LABELS}
    ),
}
