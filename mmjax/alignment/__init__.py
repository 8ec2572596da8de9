"""Alignment: one space for several modalities, one mass on another, sequences in step.

Pure functions of arrays. Correlation and rotation align spaces whose rows are paired; optimal
transport aligns points that are not; warping aligns sequences.
"""

from mmjax.alignment.cca import CCA, GCCA, cca, gcca
from mmjax.alignment.costs import squared_costs
from mmjax.alignment.ctw import CTW, ctw
from mmjax.alignment.deep_cca import dcca_loss, dgcca_loss
from mmjax.alignment.dtw import Warping, dtw
from mmjax.alignment.gromov import Matching, fused_gromov_wasserstein, gromov_wasserstein
from mmjax.alignment.procrustes import Procrustes, procrustes
from mmjax.alignment.sinkhorn import Transport, sinkhorn, sinkhorn_divergence
from mmjax.alignment.soft_dtw import soft_dtw, soft_dtw_divergence
from mmjax.alignment.tcca import TCCA, tcca
from mmjax.alignment.views import Projection

__all__ = [
    "CCA",
    "CTW",
    "GCCA",
    "TCCA",
    "Matching",
    "Procrustes",
    "Projection",
    "Transport",
    "Warping",
    "cca",
    "ctw",
    "dcca_loss",
    "dgcca_loss",
    "dtw",
    "fused_gromov_wasserstein",
    "gcca",
    "gromov_wasserstein",
    "procrustes",
    "sinkhorn",
    "sinkhorn_divergence",
    "soft_dtw",
    "soft_dtw_divergence",
    "squared_costs",
    "tcca",
]
