"""A whole pretraining run, from configuration to report: :func:`pretrain`."""

import collections
import contextlib
import dataclasses
import math
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from mmjax.atomic import replacing
from mmjax.data.pipeline import Batch, training_batches
from mmjax.evaluation.report import ReportSet, write_report
from mmjax.training.checkpoints import Checkpoints
from mmjax.training.config import as_json, changes, load_config, save_config
from mmjax.training.journal import TIMING, Journal, read_metrics
from mmjax.training.mesh import global_rows
from mmjax.training.run import Run, build_run
from mmjax.training.state import TrainState
from mmjax.training.step import Step

Evaluation = Mapping[str, ReportSet]

IN_FLIGHT = 2  # steps that may be dispatched before the oldest one's loss is looked at


class NonFiniteLoss(FloatingPointError):
    """The loss or its gradient is no number; the message says where the batch was saved."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What :func:`pretrain` returns: where things are, and the last step's scalars."""

    workdir: pathlib.Path
    step: int
    metrics: Mapping[str, float]
    report: pathlib.Path


def pretrain(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, *, quiet: bool = False
) -> Result:
    """Train a two-tower model as ``config`` says, or go on where an earlier call stopped.

    The work folder gets ``config.json``, ``tokenizer.json``, ``metrics.jsonl`` (one object a
    step), ``timing.jsonl``, ``tensorboard/``, ``checkpoints/`` and ``report.html``.

    Args:
        config: as the files in ``configs/`` return it.
        workdir: made if it does not exist; an interrupted run there is continued bit by bit.
        quiet: no progress line and no messages.

    Returns:
        The final metrics and the path of the report.

    Raises:
        ValueError: if the configuration cannot work, or the checkpoint there does not fit it.
        NonFiniteLoss: at the first loss or gradient that is not finite; checkpoints stay as
            they were and the batch is saved in the work folder.
        OSError: if a checkpoint cannot be written; earlier ones stay.
    """
    workdir = pathlib.Path(workdir)
    run = build_run(config, workdir)
    lead = jax.process_index() == 0
    report = workdir / "report.html"
    with Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep) as checkpoints:
        start = checkpoints.latest or 0
        finished = start >= config.steps and report.exists()
        if not finished:
            _advance(run, start, checkpoints, report, lead=lead, quiet=quiet)
    result = Result(workdir, max(start, config.steps), read_metrics(workdir)[-1], report)
    if lead and not quiet:
        print(_closing_words(result, finished_before=finished))
    return result


def _advance(
    run: Run, start: int, checkpoints: Checkpoints, report: pathlib.Path, *, lead: bool, quiet: bool
) -> None:
    """From the newest checkpoint, or from nothing, to the report."""
    config = run.config
    state = run.make_state() if start == 0 else checkpoints.restore(run.abstract)
    changed = _record_config(run, lead=lead)
    with Journal(
        run.workdir,
        step=start,
        steps=config.steps,
        batch_size=config.batch_size,
        writes=lead,
        shows=lead and not quiet,
    ) as journal:
        journal.say(run.describe())
        if start:
            journal.say(f"going on from the checkpoint of step {start}")
            for line in changed:
                journal.say(f"  changed since then: {line}")
        state, evaluation = _train(run, state, start, checkpoints, journal)
        if run.prepare.skipped.reasons:
            journal.say(run.prepare.skipped.summary())
    checkpoints.wait()  # what is reported as trained is on disk
    evaluation = evaluation or run.evaluate(state.eval_params)  # collective: every process
    if lead:
        _report(run, state, evaluation, report)


def _record_config(run: Run, *, lead: bool) -> list[str]:
    """Write ``config.json``; returns what changed against the one that was there."""
    path = run.workdir / "config.json"
    old = as_json(load_config(path)) if path.exists() else as_json(run.config)
    if lead:
        save_config(path, run.config)
    return changes(old, as_json(run.config))


def _closing_words(result: Result, *, finished_before: bool) -> str:
    """What the run ends with."""
    already = " already: nothing was done" if finished_before else ""
    lines = [f"finished at step {result.step}{already}; raise --config.steps to go on"]
    for name, value in result.metrics.items():
        if name.startswith("eval/") and name.count("/") == 2 and name.endswith("@1"):
            lines.append(f"  {name} {value:.1%}")
    return "\n".join([*lines, f"report: {result.report}"])


def _train(
    run: Run, state: TrainState, start: int, checkpoints: Checkpoints, journal: Journal
) -> tuple[TrainState, Evaluation]:
    """Updates ``start + 1`` to ``steps``, each with its line, evaluation and checkpoint."""
    config = run.config
    batches = training_batches(
        run.source(config.data.train),
        run.prepare,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads,
    )
    with contextlib.closing(batches):  # its threads end with the run
        return _steps(run, state, start, run.train_step(), batches, checkpoints, journal)


def _steps(
    run: Run,
    state: TrainState,
    start: int,
    update: Step,
    batches: Iterator[Batch],
    checkpoints: Checkpoints,
    journal: Journal,
) -> tuple[TrainState, Evaluation]:
    """The loop itself."""
    config = run.config
    in_flight: collections.deque[tuple[int, Any, Batch]] = collections.deque()
    evaluation: Evaluation = {}

    def settle() -> dict[str, float]:
        """Wait for the oldest step; its scalars, if they are finite."""
        step, metrics, batch = in_flight.popleft()
        scalars = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not (math.isfinite(scalars["loss"]) and math.isfinite(scalars["grad_norm"])):
            raise NonFiniteLoss(_save_batch(run, step, batch, scalars, checkpoints.latest))
        return scalars

    for step in range(start + 1, config.steps + 1):
        begin = time.perf_counter()
        batch = next(batches)
        journal.waited(time.perf_counter() - begin)
        state, metrics = update(
            state, global_rows({k: batch[k] for k in ("inputs", "where")}, run.mesh)
        )
        in_flight.append((step, metrics, batch))
        evaluates, saves = _due(config, step)
        while len(in_flight) > (1 if evaluates or saves else IN_FLIGHT):
            journal.write(in_flight[0][0], settle())
        if evaluates or saves:  # A step's metrics are on disk before its checkpoint is.
            scalars = settle()
            if evaluates:
                with journal.paused():
                    evaluation = run.evaluate(state.eval_params)
                for name, result in evaluation.items():
                    scalars |= {f"eval/{name}/{key}": x for key, x in result.metrics.items()}
            journal.write(step, scalars)
        if saves:
            checkpoints.save(step, state, as_json(config))
    return state, evaluation


def _due(config: ml_collections.ConfigDict, step: int) -> tuple[bool, bool]:
    """Whether the run evaluates and saves after ``step`` updates; 0 means only at the end."""
    last = step == config.steps
    every = (config.evaluation.every, config.checkpoint.every)
    evaluates, saves = (last or (n > 0 and step % n == 0) for n in every)
    return evaluates, saves


def _save_batch(
    run: Run, step: int, batch: Batch, scalars: Mapping[str, float], kept: int | None
) -> str:
    """Save the batch of a step that went wrong; returns the message."""
    path = run.workdir / f"non_finite_batch_step_{step}_process_{jax.process_index()}.npz"
    arrays = {
        f"{kind}/{name}": x for kind in ("inputs", "where") for name, x in batch[kind].items()
    }
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, index=batch["index"], **arrays)
    last = (
        "there is no checkpoint yet" if kept is None else f"the checkpoint of step {kept} is good"
    )
    return (
        f"step {step}: loss {scalars['loss']}, gradient norm {scalars['grad_norm']}. Stopped;"
        f" {last}. The batch is in {path}. A lower learning rate, a longer warm-up or float32"
        " compute are the usual remedies"
    )


def _report(run: Run, state: TrainState, evaluation: Evaluation, path: pathlib.Path) -> None:
    """Write ``report.html`` from what is in the work folder."""
    history, timing = read_metrics(run.workdir), read_metrics(run.workdir, name=TIMING)
    rates = [line["samples_per_second"] for line in timing]
    summary = run.summary() | {
        "steps": f"{int(state.step)} of {run.config.batch_size} pairs",
        "training time": f"{sum(line['seconds'] for line in timing):.0f} s",
        "samples per second (median)": f"{np.median(rates):.0f}" if rates else "too short to say",
    }
    write_report(
        path,
        title=run.config.name,
        summary=summary,
        history=history,
        sets=evaluation,
        skipped=run.prepare.skipped.reasons,
        configuration=as_json(run.config),
    )
