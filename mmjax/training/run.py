"""A configuration turned into the objects of a run."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.data.augmentation import Augmentation
from mmjax.data.preparation import Preparation
from mmjax.data.records import Source, all_texts
from mmjax.data.skipped import Skipped
from mmjax.data.sources import load_source
from mmjax.data.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from mmjax.evaluation.embed import Embedded, embed_source
from mmjax.evaluation.report import ReportSet
from mmjax.evaluation.retrieval import retrieval_metrics
from mmjax.evaluation.zero_shot import class_embeddings, zero_shot_accuracy
from mmjax.training.config import load_config
from mmjax.training.design import Design, build_design, checked_mesh
from mmjax.training.mesh import replicated_rows, row_shards, vmap_rows

TOKENIZER = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Run(Design):
    """A design with its data. Made by :func:`build_run`.

    Attributes:
        workdir: where the run's files are.
        source: loads a split of the data set, once.
        prepare: records to examples.
    """

    workdir: pathlib.Path
    source: Callable[[str], Source]
    prepare: Preparation

    @functools.cached_property
    def _embed(self) -> Any:
        whole = NamedSharding(self.mesh, PartitionSpec())

        def embed(params: Any, inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            def row(one: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
                rows = jax.tree.map(lambda x: x[None], one)
                outputs: Any = self.model.apply({"params": params}, rows)
                return jax.tree.map(lambda x: x[0], outputs["embeddings"])

            return vmap_rows(row, self.mesh)(inputs)

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
        rows = row_shards(self.mesh)
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
    checked_mesh(config)  # before any data is looked at
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
        arrays={name: tuple(shape) for name, shape in data.arrays.items()},
        distinct=data.distinct,
        skipped=Skipped(data.max_unreadable_share),
    )
    design = build_design(config, vocab_size=tokenizer.vocab_size)
    return Run(
        **{field.name: getattr(design, field.name) for field in dataclasses.fields(Design)},
        workdir=workdir,
        source=source,
        prepare=prepare,
    )


def _tokenizer(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, train: Source
) -> Tokenizer:
    """The tokenizer in the folder; trained and put there if there is none.

    A text tower that is taken from another run comes with the tokenizer of that run.
    """
    path, wanted, other = workdir / TOKENIZER, config.data.text, config.initialize_from
    takes_text = any(part.partition("/")[0] == "text" for part in other.parts)
    if takes_text and other.workdir is not None and not path.exists():
        path = pathlib.Path(other.workdir, TOKENIZER)
        if not path.exists():
            raise FileNotFoundError(f"initialize_from.workdir: there is no {path}")
    if path.exists():
        if (path.parent / "config.json").exists():
            had = load_config(path.parent / "config.json").data.text
            if (had.tokenizer, had.vocab_size) != (wanted.tokenizer, wanted.vocab_size):
                raise ValueError(
                    f"{path} is a {had.tokenizer} tokenizer of vocab_size {had.vocab_size}, and the"
                    f" configuration wants {wanted.tokenizer} of {wanted.vocab_size}; use another"
                    " --workdir"
                )
        tokenizer = load_tokenizer(path)
    else:  # Every process trains the same one; the first keeps it.
        texts = itertools.islice(all_texts(train), wanted.training_texts)
        tokenizer = train_tokenizer(wanted.tokenizer, texts, vocab_size=wanted.vocab_size)
    if jax.process_index() == 0 and not (workdir / TOKENIZER).exists():
        workdir.mkdir(parents=True, exist_ok=True)
        tokenizer.save(workdir / TOKENIZER)
    return tokenizer


def _tuples(options: ml_collections.ConfigDict) -> dict[str, Any]:
    """Keyword arguments; what JSON made a list is a tuple again."""
    return {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in options.items()}
