"""From a configuration to a trained model: one function, :func:`pretrain`."""

from mmjax.training.bad_loss import BadLoss
from mmjax.training.cluster import ClusterError, join_cluster
from mmjax.training.loop import pretrain
from mmjax.training.preemption import PREEMPTED_EXIT, Preempted
from mmjax.training.results import Result
from mmjax.training.run import Run, build_run
from mmjax.training.trained import Trained, load_run

__all__ = [
    "PREEMPTED_EXIT",
    "BadLoss",
    "ClusterError",
    "Preempted",
    "Result",
    "Run",
    "Trained",
    "build_run",
    "join_cluster",
    "load_run",
    "pretrain",
]
