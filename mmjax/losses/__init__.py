"""Objectives: arrays in, one value per row out; :func:`mmjax.reduction.masked_mean` reduces them.

Every loss takes ``where`` (True = valid row), and every one whose rows meet each other takes
``axis_name`` (rows sharded over that mesh axis).
"""

from mmjax.losses.agreement import cosine_alignment, kernel_alignment, mean_squared_alignment
from mmjax.losses.bandwidth import median_bandwidth
from mmjax.losses.captioning import captioning_loss
from mmjax.losses.contrastive import clip_loss, info_nce
from mmjax.losses.dependence import cka, hsic, orthogonality
from mmjax.losses.discrepancy import cmd, mmd
from mmjax.losses.distillation import contrastive_distillation
from mmjax.losses.hard_negatives import debiased_info_nce, hard_negative_info_nce, hn_nce
from mmjax.losses.kernels import Kernel, linear_kernel, polynomial_kernel, rbf_kernel
from mmjax.losses.matching import hard_negative_indices, matching_loss
from mmjax.losses.modalities import has_pair, pairwise
from mmjax.losses.queue import Queue, empty_queue, enqueue
from mmjax.losses.reconstruction import masked_reconstruction
from mmjax.losses.redundancy import barlow_twins, vicreg
from mmjax.losses.sigmoid import siglip_bias_init, siglip_loss
from mmjax.losses.triplet import triplet_margin
from mmjax.losses.views import decoupled_contrastive, nt_xent, supervised_contrastive

__all__ = [
    "Kernel",
    "Queue",
    "barlow_twins",
    "captioning_loss",
    "cka",
    "clip_loss",
    "cmd",
    "contrastive_distillation",
    "cosine_alignment",
    "debiased_info_nce",
    "decoupled_contrastive",
    "empty_queue",
    "enqueue",
    "hard_negative_indices",
    "hard_negative_info_nce",
    "has_pair",
    "hn_nce",
    "hsic",
    "info_nce",
    "kernel_alignment",
    "linear_kernel",
    "masked_reconstruction",
    "matching_loss",
    "mean_squared_alignment",
    "median_bandwidth",
    "mmd",
    "nt_xent",
    "orthogonality",
    "pairwise",
    "polynomial_kernel",
    "rbf_kernel",
    "siglip_bias_init",
    "siglip_loss",
    "supervised_contrastive",
    "triplet_margin",
    "vicreg",
]
