"""Information: estimates, bounds, closed forms, and what two sources say of a target.

Pure functions of arrays, in nats unless ``unit="bits"``. Each says which side of the truth it is
on: a bound of a critic's scores, the estimate of a density, the exact value of a distribution.
"""

from mmjax.information.aligned import aligned_joint
from mmjax.information.batch_pid import BatchPID, batch_pid, batch_pid_loss, fit_batch_pid
from mmjax.information.broja import broja
from mmjax.information.codes import joint_probabilities, k_means, principal_components
from mmjax.information.couplings import (
    EntropyBound,
    coupling_entropy_bound,
    greedy_coupling,
    largest_entropy,
)
from mmjax.information.critics import bilinear_scores, concatenated_scores, separable_scores
from mmjax.information.decompose import Knowledge, Parts, decompose
from mmjax.information.discrete import (
    co_information,
    conditional_mutual_information,
    entropy,
    mutual_information,
    total_correlation,
)
from mmjax.information.gaussian import (
    correlation_of_information,
    gaussian_entropy,
    gaussian_kl,
    gaussian_mutual_information,
    information_of_correlation,
)
from mmjax.information.gaussian_pid import gaussian_pid
from mmjax.information.knife import Knife, knife_init, knife_log_density
from mmjax.information.least_squares import (
    DensityRatio,
    density_ratio,
    density_ratio_cost,
    fit_density_ratio,
)
from mmjax.information.log_ratio import (
    categorical_log_density,
    club,
    club_categorical,
    gaussian_log_density,
    gaussian_scores,
)
from mmjax.information.lower_bounds import (
    donsker_varadhan_bound,
    info_nce_bound,
    jensen_shannon_bound,
    nwj_bound,
    nwj_of_log_ratio,
    smile,
)
from mmjax.information.moving_partition import MovingPartition, mine, no_partition
from mmjax.information.nearest_neighbours import ksg
from mmjax.information.perceptrons import Networks, init_batch_pid
from mmjax.information.pid import PID
from mmjax.information.sample_wise import (
    SampleInteraction,
    non_negative_means,
    pointwise_information,
    sample_wise_interaction,
)
from mmjax.information.scores import same_condition
from mmjax.information.synergy_bounds import SynergyBounds, synergy_bounds
from mmjax.information.upper_bounds import leave_one_out_bound, nce_club

__all__ = [
    "PID",
    "BatchPID",
    "DensityRatio",
    "EntropyBound",
    "Knife",
    "Knowledge",
    "MovingPartition",
    "Networks",
    "Parts",
    "SampleInteraction",
    "SynergyBounds",
    "aligned_joint",
    "batch_pid",
    "batch_pid_loss",
    "bilinear_scores",
    "broja",
    "categorical_log_density",
    "club",
    "club_categorical",
    "co_information",
    "concatenated_scores",
    "conditional_mutual_information",
    "correlation_of_information",
    "coupling_entropy_bound",
    "decompose",
    "density_ratio",
    "density_ratio_cost",
    "donsker_varadhan_bound",
    "entropy",
    "fit_batch_pid",
    "fit_density_ratio",
    "gaussian_entropy",
    "gaussian_kl",
    "gaussian_log_density",
    "gaussian_mutual_information",
    "gaussian_pid",
    "gaussian_scores",
    "greedy_coupling",
    "info_nce_bound",
    "information_of_correlation",
    "init_batch_pid",
    "jensen_shannon_bound",
    "joint_probabilities",
    "k_means",
    "knife_init",
    "knife_log_density",
    "ksg",
    "largest_entropy",
    "leave_one_out_bound",
    "mine",
    "mutual_information",
    "nce_club",
    "no_partition",
    "non_negative_means",
    "nwj_bound",
    "nwj_of_log_ratio",
    "pointwise_information",
    "principal_components",
    "same_condition",
    "sample_wise_interaction",
    "separable_scores",
    "smile",
    "synergy_bounds",
    "total_correlation",
]
