"""Fission: representations taken apart into what modalities share and what each alone has.

Objectives are pure functions of embeddings and scores; a module above them owns encoders, heads and
critics, and gives the embeddings of the factors.
"""

from mmjax.fission.comm import CoMM, Projections, comm_loss
from mmjax.fission.critics import BilinearCritic, ConcatenatedCritic, SeparableCritic
from mmjax.fission.disentangled import (
    DisentangledSSL,
    UniqueLosses,
    disentangled_shared_loss,
    disentangled_unique_losses,
)
from mmjax.fission.factor_information import Bounds, shared_information, unique_information
from mmjax.fission.factorcl import FactorBounds, FactorCL, factorcl_loss
from mmjax.fission.mfm import MFM, Generation, MFMLosses, mfm_losses
from mmjax.fission.misa import MISA, MISALosses, SharedAndPrivate, misa_losses
from mmjax.fission.modalities import Factors
from mmjax.fission.perceptron import Perceptron
from mmjax.fission.von_mises_fisher import mean_resultant_length, sample_vmf, vmf_kl

__all__ = [
    "MFM",
    "MISA",
    "BilinearCritic",
    "Bounds",
    "CoMM",
    "ConcatenatedCritic",
    "DisentangledSSL",
    "FactorBounds",
    "FactorCL",
    "Factors",
    "Generation",
    "MFMLosses",
    "MISALosses",
    "Perceptron",
    "Projections",
    "SeparableCritic",
    "SharedAndPrivate",
    "UniqueLosses",
    "comm_loss",
    "disentangled_shared_loss",
    "disentangled_unique_losses",
    "factorcl_loss",
    "mean_resultant_length",
    "mfm_losses",
    "misa_losses",
    "sample_vmf",
    "shared_information",
    "unique_information",
    "vmf_kl",
]
