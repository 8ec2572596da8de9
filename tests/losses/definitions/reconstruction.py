"""The masked reconstruction loss, by definition."""

import numpy as np
from definitions.case import Case, D, N

from mmjax.losses.reconstruction import masked_reconstruction

PATCHES = 3
RNG = np.random.default_rng(13)
ROWS = {
    "prediction": RNG.normal(size=(N, PATCHES, D)),
    "target": RNG.normal(loc=2, size=(N, PATCHES, D)),
    "masked": (np.arange(N)[:, None] + np.arange(PATCHES)) % 4 < np.arange(N)[:, None] % 3,
}


def definition(prediction, target, *, masked, normalize_target=False):
    rows = np.zeros(len(prediction))
    for i, hidden in enumerate(masked):
        wanted = target[i, hidden]
        if normalize_target:
            spread = np.var(wanted, axis=-1, keepdims=True, ddof=1)
            wanted = (wanted - wanted.mean(axis=-1, keepdims=True)) / np.sqrt(spread + 1e-6)
        rows[i] = np.mean((prediction[i, hidden] - wanted) ** 2) if hidden.any() else 0
    return rows


CASES = {
    "masked_reconstruction": Case(masked_reconstruction, definition, ROWS),
    "masked_reconstruction/normalized": Case(
        masked_reconstruction, definition, ROWS, options={"normalize_target": True}
    ),
}
