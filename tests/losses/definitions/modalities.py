"""Any number of modalities: the mean over the pairs that a row has."""

import itertools

import numpy as np
from definitions.case import Case, N, unit_rows

from mmjax.losses import clip_loss, info_nce, pairwise

RNG = np.random.default_rng(41)
HAVE = {
    f"have_{name}": RNG.random(N) < share for name, share in {"x": 0.9, "y": 0.7, "z": 0.6}.items()
}
ROWS = {name: unit_rows(seed) for seed, name in enumerate("xyz", start=42)}


def _of_three(loss):
    """The loss over the modalities x, y and z, of which a row has those that it says it has."""

    def function(x, y, z, have_x, have_y, have_z, *, where=None, **options):
        have = {"x": have_x, "y": have_y, "z": have_z}
        if where is not None:
            have = {name: mask & where for name, mask in have.items()}
        return pairwise(
            lambda a, b, where: loss(a, b, where=where, **options), {"x": x, "y": y, "z": z}, have
        )

    return function


def _cross_entropy(logits):
    return np.logaddexp.reduce(logits, axis=1) - np.diag(logits)


def _definition(loss):
    """Pair by pair, over the rows that have both and no others."""

    def definition(x, y, z, have_x, have_y, have_z, **options):
        views, have = (x, y, z), (have_x, have_y, have_z)
        total, count = np.zeros(len(x)), np.zeros(len(x))
        for a, b in itertools.combinations(range(3), 2):
            both = have[a] & have[b]
            if both.any():
                total[both] += loss(views[a][both], views[b][both], **options)
            count += both
        return np.divide(total, count, out=np.zeros(len(x)), where=count > 0)

    return definition


def _clip(x, y, logit_scale):
    logits = logit_scale * (x @ y.T)
    return (_cross_entropy(logits) + _cross_entropy(logits.T)) / 2


def _info_nce(x, y, temperature):
    return _cross_entropy(x @ y.T / temperature)


CASES = {
    "pairwise": Case(
        function=_of_three(clip_loss),
        definition=_definition(_clip),
        rows=ROWS | HAVE,
        scalars={"logit_scale": 7.0},
        extreme={"logit_scale": 1e4},
        streamed=True,
    ),
    "pairwise/info_nce": Case(  # of one direction: the order of the modalities counts
        function=_of_three(info_nce),
        definition=_definition(_info_nce),
        rows=ROWS | HAVE,
        scalars={"temperature": 0.2},
        extreme={"temperature": 1e-4},
        streamed=True,
    ),
}
