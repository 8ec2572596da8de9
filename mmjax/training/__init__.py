"""From a configuration to a trained model: one function, :func:`pretrain`."""

from mmjax.training.loop import NonFiniteLoss, Result, pretrain
from mmjax.training.run import Run, build_run
from mmjax.training.trained import Trained, load_run

__all__ = ["NonFiniteLoss", "Result", "Run", "Trained", "build_run", "load_run", "pretrain"]
