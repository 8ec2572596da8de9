"""Peers of the objectives that need no negatives: agreement, generation, matching."""

import numpy as np
from parity.case import N, Parity

from experiments.benchmarks.peers import PML, peer_module
from mmjax import losses
from mmjax.reduction import masked_mean

T, V = 7, 9  # tokens or patches, vocabulary or values of a patch
LENGTHS = np.random.default_rng(0).integers(1, T + 1, N)
TOKENS = np.random.default_rng(1).integers(1, V, (N, T)) * (np.arange(T) < LENGTHS[:, None])
# As many hidden patches in each row: theirs is a mean over all hidden patches of a batch.
HIDDEN = np.random.default_rng(2).permuted(np.tile(np.arange(T) < 3, (N, 1)), axis=1)
MATCHES = np.random.default_rng(3).random(N) < 0.5

LOUD = 1e3


def lightly_vicreg(x, y):
    return peer_module("lightly.loss.vicreg_loss").VICRegLoss()(x, y)


def pml_vicreg(x, y):
    return peer_module(PML).VICRegLoss()(x, ref_emb=y)


def lightly_barlow_twins(x, y):
    # Its batch norm adds 1e-5 to every variance, which drowns in rows that are a thousand times as
    # loud; Barlow Twins itself does not depend on the scale.
    return peer_module("lightly.loss.barlow_twins_loss").BarlowTwinsLoss()(LOUD * x, LOUD * y)


def lightly_cosine(x, y):
    module = peer_module("lightly.loss.negative_cosine_similarity")
    return 1 + module.NegativeCosineSimilarity()(x, y)


def torch_mean_square(x, y):
    return peer_module("torch").nn.functional.mse_loss(x, y)


def captioning(logits, *, tokens):
    """Ours, every token weighing the same."""
    told = tokens != 0
    length = told.sum(axis=1).astype(logits.dtype)
    rows = losses.captioning_loss(logits, tokens, where_tokens=told)
    return masked_mean(rows * length) / masked_mean(length)


def open_clip_captioning(logits, *, tokens):
    # A mean over all tokens of the batch but the padding, so that long texts weigh more.
    loss = peer_module("open_clip.loss").CoCaLoss(1.0, 0.0, pad_id=0)
    return loss(None, None, logits, tokens, None)[1]


def torchmultimodal_reconstruction(prediction, target, *, masked, normalize_target):
    module = peer_module("torchmultimodal.modules.losses.reconstruction_loss")
    return module.ReconstructionLoss(normalize_target)(prediction, target, masked)


def torch_matching(logits, *, labels):
    return peer_module("torch").nn.functional.cross_entropy(logits, labels.long())


def reconstruction(normalize_target):
    return Parity(
        losses.masked_reconstruction,
        torchmultimodal_reconstruction,
        "torchmultimodal.modules.losses.reconstruction_loss",
        rows=((N, T, V), (N, T, V)),
        constants={"masked": HIDDEN, "normalize_target": normalize_target},
    )


CASES = {
    "vicreg/lightly": Parity(losses.vicreg, lightly_vicreg, "lightly.loss.vicreg_loss"),
    "vicreg/pytorch-metric-learning": Parity(losses.vicreg, pml_vicreg, PML),
    "barlow_twins/lightly": Parity(
        losses.barlow_twins, lightly_barlow_twins, "lightly.loss.barlow_twins_loss"
    ),
    "cosine_alignment/lightly": Parity(
        losses.cosine_alignment, lightly_cosine, "lightly.loss.negative_cosine_similarity"
    ),
    "mean_squared_alignment/torch": Parity(
        losses.mean_squared_alignment, torch_mean_square, "torch"
    ),
    "captioning_loss/open_clip": Parity(
        captioning,
        open_clip_captioning,
        "open_clip.loss",
        rows=((N, T, V),),
        constants={"tokens": TOKENS},
    ),
    "masked_reconstruction/TorchMultimodal": reconstruction(False),
    "masked_reconstruction, normalised/TorchMultimodal": reconstruction(True),
    "matching_loss/torch": Parity(
        losses.matching_loss,
        torch_matching,
        "torch",
        rows=((N, 2),),
        constants={"labels": MATCHES},
    ),
}
