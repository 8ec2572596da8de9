"""A configuration turned into the objects of a run."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.data.augmentation import Augmentation
from mmjax.data.preparation import Preparation, Skipped
from mmjax.data.records import Source, all_texts
from mmjax.data.sources import load_source
from mmjax.data.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from mmjax.evaluation.embed import Embedded, embed_source
from mmjax.evaluation.report import ReportSet
from mmjax.evaluation.retrieval import retrieval_metrics
from mmjax.evaluation.zero_shot import class_embeddings, zero_shot_accuracy
from mmjax.models import build_two_tower
from mmjax.training.config import load_config
from mmjax.training.gradient_cache import check_micro_batches
from mmjax.training.mesh import check_batch_size, make_mesh, replicated_rows
from mmjax.training.objective import LOSSES, contrastive_objective
from mmjax.training.optimizer import build_optimizer, learning_rate_schedule
from mmjax.training.state import TrainState, abstract_state
from mmjax.training.step import Step, make_train_step

TOKENIZER = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a configuration says, as objects. Made by :func:`build_run`.

    Attributes:
        config: the configuration.
        workdir: where the run's files are.
        source: loads a split of the data set, once.
        mesh: the devices.
        model: the two-tower module.
        prepare: records to examples.
        optimizer: the transformation of a step.
        schedule: learning rate by update.
        abstract: shapes and shardings of the state.
        make_state: makes the state of step 0.
    """

    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    source: Callable[[str], Source]
    mesh: Mesh
    model: nn.Module
    prepare: Preparation
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    abstract: TrainState
    make_state: Callable[[], TrainState]

    def train_step(self) -> Step:
        """The compiled update of this run, see :func:`mmjax.training.step.make_train_step`."""
        return make_train_step(
            self.model,
            self.optimizer,
            self.schedule,
            objective=functools.partial(
                contrastive_objective,
                loss=self.config.loss,
                mesh=self.mesh,
                chunk_size=self.config.loss_chunk_size,
                ring=self.config.loss_ring,
            ),
            micro_batches=self.config.micro_batches,
            ema_decay=self.config.ema_decay,
            shardings=jax.tree.map(lambda x: x.sharding, self.abstract),
        )

    @functools.cached_property
    def _embed(self) -> Any:
        whole = NamedSharding(self.mesh, PartitionSpec())

        def embed(params: Any, inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            outputs: Any = self.model.apply({"params": params}, inputs)
            return outputs["embeddings"]

        return jax.jit(embed, out_shardings=whole)

    def encode(self, params: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Unit-norm embeddings of prepared inputs.

        Args:
            params: the model's parameters.
            inputs: per modality, rows as :class:`mmjax.data.preparation.Preparation` makes them.
                Rows that the devices do not divide are filled up and cut off again.

        Returns:
            Per modality, float32 [n, d].
        """
        rows = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        out = {}
        for name, x in inputs.items():
            filled = np.pad(x, [(0, -len(x) % rows)] + [(0, 0)] * (x.ndim - 1))
            embedded = self._embed(params, replicated_rows({name: filled}, self.mesh))
            out[name] = np.asarray(embedded[name])[: len(x)]
        return out

    def embed(self, params: Any, source: Source) -> Embedded:
        """Embeddings of every image and every text of ``source``."""
        return embed_source(
            functools.partial(self.encode, params),
            source,
            self.prepare,
            modalities=tuple(self.model.towers),
            batch_size=self.config.evaluation.batch_size,
            threads=self.config.data.threads,
        )

    def evaluate(self, params: Any) -> dict[str, ReportSet]:
        """Retrieval, and zero-shot classification where the configuration has classes.

        Returns:
            Per configured set its embeddings and metrics. Where ``evaluation.relatives`` is set,
            ``related/...`` are the metrics of the queries that have a near-duplicate (a record of
            the same group) in the training set, and ``unrelated/...`` those of the others.
        """
        return {name: self._evaluate(params, name) for name in self.config.evaluation.sets}

    def _evaluate(self, params: Any, name: str) -> ReportSet:
        source = self.source(name)
        embedded = self.embed(params, source)
        metrics = retrieval_metrics(embedded)
        note = ""
        if self.config.evaluation.relatives:
            related = np.array(
                [source[int(i)].get("group") in self._train_groups for i in embedded.positions]
            )
            note = (
                f"{related.mean():.1%} of these records have a near-duplicate (a record of the"
                " same group) among the training records."
            )
            if related.any() and not related.all():
                for part, queries in (("related", related), ("unrelated", ~related)):
                    found = retrieval_metrics(embedded, queries=queries)
                    metrics |= {f"{part}/{key}": value for key, value in found.items()}
        if self.config.evaluation.zero_shot.classes:
            metrics |= self._zero_shot(params, embedded)
        return ReportSet(source=source, embedded=embedded, metrics=metrics, note=note)

    @functools.cached_property
    def _train_groups(self) -> frozenset[str | None]:
        train = self.source(self.config.data.train)
        return frozenset(train[i].get("group") for i in range(len(train))) - {None}

    def _zero_shot(self, params: Any, embedded: Embedded) -> dict[str, float]:
        options = self.config.evaluation.zero_shot
        rows = class_embeddings(
            lambda texts: self.encode(params, {"text": self.prepare.texts(texts)})["text"],
            tuple(options.classes),
            tuple(options.templates),
        )
        return zero_shot_accuracy(embedded, tuple(options.classes), np.asarray(rows))

    def describe(self) -> str:
        """One line that says what is trained, on what."""
        return "; ".join(f"{name}: {value}" for name, value in self.summary().items())

    def summary(self) -> dict[str, str]:
        """What is trained and on what, by name."""
        count = sum(x.size for x in jax.tree.leaves(self.abstract.params))
        towers = {name: t.encoder for name, t in self.config.model.towers.items()}
        device = jax.devices()[0]
        records = len(self.source(self.config.data.train))
        return {
            "data": f"{self.config.data.source}, {records} records",
            "towers": ", ".join(f"{name} {encoder}" for name, encoder in towers.items()),
            "parameters": f"{count:,}",
            "loss": self.config.loss,
            "devices": f"{jax.device_count()} x {device.device_kind}",
        }


def build_run(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> Run:
    """Turn a configuration into objects; trains the tokenizer if the folder has none.

    Args:
        config: as the files in ``configs/`` return it.
        workdir: made if it does not exist.

    Returns:
        The run, with no parameters yet.

    Raises:
        ValueError: if the configuration cannot work; says which field and what would.
    """
    workdir = pathlib.Path(workdir)
    if config.steps < 1:
        raise ValueError(f"steps must be at least 1, got {config.steps}")
    if config.loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {config.loss!r}")
    mesh = make_mesh(config.mesh.to_dict())
    check_batch_size(config.batch_size, mesh)
    check_micro_batches(config.micro_batches, config.batch_size, mesh)
    if config.loss_chunk_size < 1:
        raise ValueError(f"loss_chunk_size must be at least 1, got {config.loss_chunk_size}")
    data = config.data
    source = functools.cache(lambda split: load_source(data.source, split, **data.options))
    tokenizer = _tokenizer(config, workdir, source(data.train))
    prepare = Preparation(
        tokenizer=tokenizer,
        image_size=data.image.size,
        channels=data.image.channels,
        text_length=data.text.length,
        augmentation=Augmentation(**_tuples(data.image.augmentation)),
        word_dropout=data.text.word_dropout,
        skipped=Skipped(data.max_unreadable_share),
    )
    model = build_two_tower(
        config.model.to_dict(), batch_size=config.batch_size, vocab_size=tokenizer.vocab_size
    )
    optimizer = build_optimizer(config.optimizer, steps=config.steps)
    size, channels = data.image.size, data.image.channels
    inputs = {
        "image": jax.ShapeDtypeStruct((1, size, size, channels), jnp.uint8),
        "text": jax.ShapeDtypeStruct((1, data.text.length), jnp.int32),
    }
    if set(model.towers) != set(inputs):
        raise ValueError(f"a run trains the towers image and text, got {', '.join(model.towers)}")
    abstract, make_state = abstract_state(
        model,
        inputs,
        optimizer,
        ema=config.ema_decay is not None,
        seed=config.seed,
        mesh=mesh,
    )
    return Run(
        config=config,
        workdir=workdir,
        source=source,
        mesh=mesh,
        model=model,
        prepare=prepare,
        optimizer=optimizer,
        schedule=learning_rate_schedule(config.optimizer, steps=config.steps),
        abstract=abstract,
        make_state=make_state,
    )


def _tokenizer(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, train: Source
) -> Tokenizer:
    """The tokenizer in the folder; trained and put there if there is none."""
    path, wanted = workdir / TOKENIZER, config.data.text
    if path.exists():
        if (workdir / "config.json").exists():
            had = load_config(workdir / "config.json").data.text
            if (had.tokenizer, had.vocab_size) != (wanted.tokenizer, wanted.vocab_size):
                raise ValueError(
                    f"{path} is a {had.tokenizer} tokenizer of vocab_size {had.vocab_size}, and the"
                    f" configuration wants {wanted.tokenizer} of {wanted.vocab_size}; use another"
                    " --workdir"
                )
        return load_tokenizer(path)
    workdir.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(wanted.tokenizer, all_texts(train), vocab_size=wanted.vocab_size)
    if jax.process_index() == 0:  # Every process trains the same one; the first keeps it.
        tokenizer.save(path)
    return tokenizer


def _tuples(options: ml_collections.ConfigDict) -> dict[str, Any]:
    """Keyword arguments; what JSON made a list is a tuple again."""
    return {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in options.items()}
