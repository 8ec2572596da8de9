"""Peers of the softmax and sigmoid objectives."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from parity.case import ROWS, D, N, Parity, of_units, unit

from experiments.benchmarks.peers import (
    PEERS,
    TORCHMULTIMODAL,
    info_nce_pytorch,
    peer_module,
    torchmultimodal_clip,
)
from mmjax import losses

K = 5  # negatives
# How much each key is a positive of each query: rows that sum to 1.
TARGETS = np.random.default_rng(0).dirichlet(np.ones(N), N)
BANK = np.random.default_rng(1).normal(size=(4 * N, D))
TEACHER = np.random.default_rng(2).normal(size=(2, N, D))

TEMPERATURE = {"temperature": 0.3}
SCALE = {"logit_scale": 5.0}
SCALE_AND_BIAS = {"logit_scale": 5.0, "logit_bias": -4.0}

# The peers that are timed too; their traps stand beside them there.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "clip_loss": {"scalars": SCALE},
    "siglip_loss": {"scalars": SCALE_AND_BIAS},
    "info_nce": {"scalars": TEMPERATURE},
    "nt_xent": {"scalars": TEMPERATURE},
    "supervised_contrastive": {
        "scalars": TEMPERATURE,
        "rows": (ROWS,),
        "constants": {"labels": np.arange(N) // 4},
    },
}
TIMED = {
    f"{loss}/{name}": Parity(
        of_units(getattr(losses, loss)) if peer.normalizes else getattr(losses, loss),
        peer.function,
        peer.module,
        framework=peer.framework,
        **ARGUMENTS[loss],
    )
    for loss, peers in PEERS.items()
    for name, peer in peers.items()
    if not peer.cuda
}


def torch_cross_entropy(query, key, *, temperature, targets=None, label_smoothing=0.0):
    torch = peer_module("torch")
    targets = torch.arange(len(query)) if targets is None else targets
    return torch.nn.functional.cross_entropy(
        query @ key.T / temperature, targets, label_smoothing=label_smoothing
    )


def torch_sigmoid(x, y, *, logit_scale, logit_bias, targets):
    logits = logit_scale * x @ y.T + logit_bias
    function = peer_module("torch").nn.functional.binary_cross_entropy_with_logits
    return function(logits, targets, reduction="sum") / len(x)


def against_negatives_only(query, key, negatives, *, temperature):
    # Theirs drops the other keys as soon as negatives are given; ours adds negatives to them.
    return losses.info_nce(
        *map(unit, (query, key)),
        temperature=temperature,
        negatives=unit(negatives),
        weights=jnp.eye(len(query)),
    )


def against_bank(query, key, *, temperature, bank):
    return losses.info_nce(
        *map(unit, (query, key)), temperature=temperature, negatives=bank, weights=jnp.eye(N)
    )


def lightly_moco(query, key, *, temperature, bank):
    # A bank is filled at random, read as it was before the keys are put into it, and float32.
    module = peer_module("lightly.loss.ntx_ent_loss")
    loss = module.NTXentLoss(temperature=temperature, memory_bank_size=tuple(bank.shape))
    loss.memory_bank.bank = bank.clone()
    return loss(query, key)


def lightly_decoupled(x, y, *, temperature):
    return peer_module("lightly.loss.dcl_loss").DCLLoss(temperature=temperature)(x, y)


def distillation(x, y, *, logit_scale, teacher):
    return losses.contrastive_distillation(
        x, y, *teacher, logit_scale=logit_scale, teacher_logit_scale=3.0
    )


def open_clip_distillation(x, y, *, logit_scale, teacher):
    # Theirs is a cross-entropy: the entropy of the teacher, a constant, lies between it and ours.
    loss = peer_module("open_clip.loss").DistillClipLoss()
    _, distilled = loss(x, y, logit_scale, *teacher, 3.0)
    _, entropy = loss(*teacher, 3.0, *teacher, 3.0)
    return distilled - entropy


CASES = {
    **TIMED,
    "info_nce, targets/torch": Parity(
        losses.info_nce,
        torch_cross_entropy,
        "torch",
        scalars=TEMPERATURE,
        constants={"targets": TARGETS},
    ),
    "info_nce, label smoothing/torch": Parity(
        losses.info_nce,
        torch_cross_entropy,
        "torch",
        scalars=TEMPERATURE,
        constants={"label_smoothing": 0.1},
    ),
    "clip_loss, label smoothing/TorchMultimodal": Parity(
        losses.clip_loss,
        torchmultimodal_clip,
        TORCHMULTIMODAL,
        scalars=SCALE,
        constants={"label_smoothing": 0.1},
    ),
    "siglip_loss, targets/torch": Parity(
        losses.siglip_loss,
        torch_sigmoid,
        "torch",
        scalars=SCALE_AND_BIAS,
        constants={"targets": TARGETS},
    ),
    "info_nce, negatives for all/info-nce-pytorch": Parity(
        against_negatives_only,
        info_nce_pytorch,
        "info_nce",
        rows=(ROWS, ROWS, (K, D)),
        scalars=TEMPERATURE,
    ),
    "info_nce, negatives for each/info-nce-pytorch": Parity(
        against_negatives_only,
        info_nce_pytorch,
        "info_nce",
        rows=(ROWS, ROWS, (N, K, D)),
        scalars=TEMPERATURE,
    ),
    "info_nce, queue/lightly": Parity(
        against_bank,
        lightly_moco,
        "lightly.loss.ntx_ent_loss",
        scalars=TEMPERATURE,
        constants={"bank": BANK},
    ),
    "decoupled_contrastive/lightly": Parity(
        of_units(losses.decoupled_contrastive),
        lightly_decoupled,
        "lightly.loss.dcl_loss",
        scalars=TEMPERATURE,
    ),
    "contrastive_distillation/open_clip": Parity(
        distillation,
        open_clip_distillation,
        "open_clip.loss",
        scalars=SCALE,
        constants={"teacher": TEACHER},
    ),
}
