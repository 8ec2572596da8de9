"""The captioning loss, by definition."""

import numpy as np
from definitions.case import Case, N

from mmjax.losses.captioning import captioning_loss

TIME, WORDS = 3, 5
RNG = np.random.default_rng(11)
LENGTHS = np.arange(N) % (TIME + 1)  # some texts are empty
SPOKEN = np.arange(TIME) < LENGTHS[:, None]
ROWS = {
    "logits": RNG.normal(size=(N, TIME, WORDS)),
    "tokens": np.where(SPOKEN, RNG.integers(WORDS, size=(N, TIME)), -1).astype(np.int32),
    "where_tokens": SPOKEN,
}
LOUD = {**ROWS, "logits": 1e4 * ROWS["logits"]}


def definition(logits, tokens, *, where_tokens, label_smoothing=0.0, chunk_size=None):
    rows = np.zeros(len(logits))
    for i, spoken in enumerate(where_tokens):
        costs = []
        for t in np.flatnonzero(spoken):
            log_p = logits[i, t] - np.logaddexp.reduce(logits[i, t])
            target = (1 - label_smoothing) * np.eye(WORDS)[tokens[i, t]] + label_smoothing / WORDS
            costs.append(-(target * log_p).sum())
        rows[i] = np.mean(costs) if costs else 0
    return rows


CASES = {
    "captioning_loss": Case(captioning_loss, definition, ROWS),
    "captioning_loss/smoothed": Case(
        captioning_loss, definition, ROWS, options={"label_smoothing": 0.3}
    ),
    "captioning_loss/in chunks, the last one shorter": Case(
        captioning_loss, definition, ROWS, options={"label_smoothing": 0.3, "chunk_size": 2}
    ),
    "captioning_loss/loud": Case(captioning_loss, definition, LOUD),
}
