"""A run opened again: its newest parameters, ready to embed."""

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.records import Source
from mmjax.evaluation.embed import Embedded
from mmjax.evaluation.report import ReportSet
from mmjax.training.checkpoints import Checkpoints
from mmjax.training.config import load_config
from mmjax.training.run import TOKENIZER, Run, build_run


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run with the parameters of one of its checkpoints. Made by :func:`load_run`."""

    run: Run
    params: Any
    step: int

    def encode(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Embeddings of prepared inputs, see :meth:`Run.encode`."""
        return self.run.encode(self.params, inputs)

    def embed(self, source: Source) -> Embedded:
        """Embeddings of every image and every text of ``source``."""
        return self.run.embed(self.params, source)

    def evaluate(self) -> dict[str, ReportSet]:
        """Embeddings and metrics of the configured sets, see :meth:`Run.evaluate`."""
        return self.run.evaluate(self.params)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm float32 [n, d], one row a text."""
        return self.encode({"text": self.run.prepare.texts(texts)})["text"]

    def embed_images(self, images: Sequence[Any]) -> np.ndarray:
        """Unit-norm float32 [n, d], one row an image (bytes, path or uint8 [h, w, c])."""
        pixels = np.stack([self.run.prepare.image(image) for image in images])
        return self.encode({"image": pixels})["image"]


def load_run(workdir: str | pathlib.Path, *, step: int | None = None) -> Trained:
    """Open a checkpoint of a run: the moving average of its parameters where it has one.

    Args:
        workdir: the work folder of :func:`mmjax.training.pretrain`.
        step: which checkpoint; the newest that is whole if not given. If newer ones are damaged,
            a warning names them.

    Returns:
        The run and its parameters.

    Raises:
        FileNotFoundError: if the folder holds no run, or no such checkpoint.
        DamagedCheckpoint: if the checkpoint is damaged, or all are.
    """
    workdir = pathlib.Path(workdir)
    for name in ("config.json", TOKENIZER):
        if not (workdir / name).exists():
            raise FileNotFoundError(f"{workdir} holds no run: it has no {name}")
    run = build_run(load_config(workdir / "config.json"), workdir)
    part = (
        {"params": run.abstract.params} if run.abstract.ema is None else {"ema": run.abstract.ema}
    )
    with Checkpoints(workdir / "checkpoints", writes=False) as checkpoints:
        restored = checkpoints.restore(part, steps=None if step is None else [step], part=True)
    for damaged, problem in restored.damaged.items():
        warnings.warn(f"the checkpoint of step {damaged} is damaged: {problem}", stacklevel=2)
    (params,) = restored.state.values()
    return Trained(run, params, restored.step)
