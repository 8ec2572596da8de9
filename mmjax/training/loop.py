"""A whole pretraining run, from configuration to report: :func:`pretrain`."""

import collections
import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from mmjax.data.pipeline import Batch, training_batches
from mmjax.evaluation.report import ReportSet
from mmjax.training.bad_loss import BadLoss
from mmjax.training.checkpoints import DAMAGED, Checkpoints
from mmjax.training.cluster import agree, check_alike, gather, together
from mmjax.training.config import as_json, changes, load_config, save_config
from mmjax.training.initialize import initialize
from mmjax.training.journal import Journal, read_metrics
from mmjax.training.keep import Keep
from mmjax.training.mesh import global_rows
from mmjax.training.meter import Meter, build_meter
from mmjax.training.preemption import Notice, Preempted
from mmjax.training.results import Result, save_bad_batch, write_run_report
from mmjax.training.run import Run, build_run
from mmjax.training.state import TrainState
from mmjax.training.trace import Trace

Evaluation = Mapping[str, ReportSet]

IN_FLIGHT = 2  # steps that may be dispatched before the oldest one's loss is looked at


def pretrain(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    quiet: bool = False,
    peak_tflops: float | None = None,
) -> Result:
    """Train a two-tower model as ``config`` says, or go on where an earlier call stopped.

    The work folder gets ``config.json``, ``tokenizer.json``, ``metrics.jsonl`` (one object a
    step), ``timing.jsonl``, ``tensorboard/``, ``checkpoints/`` and ``report.html``. Where a run has
    several processes, all call this with the same configuration and one shared folder.

    Args:
        config: as the files in ``configs/`` return it.
        workdir: made if it does not exist; an interrupted run there is continued bit by bit.
        quiet: no progress line and no messages.
        peak_tflops: of a device, in 1e12 FLOP/s, for its utilization; None takes it from
            :data:`mmjax.training.accelerators.ACCELERATORS`, where the device is one of those.

    Returns:
        The final metrics and the path of the report.

    Raises:
        ValueError: if the configuration cannot work, or the checkpoint there does not fit it.
        BadLoss: at a loss that is not finite, or a spike, as ``bad_loss`` in the configuration
            says; checkpoints stay as they were and the batch is saved in the work folder.
        Preempted: after SIGTERM; the run has saved, and goes on with the next call.
        OSError: if a checkpoint cannot be written; earlier ones stay.
        ClusterError: if the processes were started differently, or another one failed.
    """
    workdir = pathlib.Path(workdir)
    check_alike(config, workdir)
    with together():
        keep = _keep(config)
        run = build_run(config, workdir)
    lead = jax.process_index() == 0
    report = workdir / "report.html"
    with Checkpoints(workdir / "checkpoints", keep=keep) as checkpoints, Notice() as notice:
        agree("the steps of the checkpoints", checkpoints.steps)
        start = checkpoints.latest or 0
        finished = start >= config.steps and report.exists()
        if not finished:
            meter = build_meter(run, peak_tflops=peak_tflops)
            shows = lead and not quiet
            _Training(run, checkpoints, notice, meter, shows=shows).advance(report)
    # Only the first process is sure to see what it wrote.
    last = gather(json.dumps(read_metrics(workdir)[-1]) if lead else "")[0]
    result = Result(workdir, max(start, config.steps), json.loads(last), report)
    if lead and not quiet:
        print(result.closing_words(finished_before=finished))
    return result


def _keep(config: ml_collections.ConfigDict) -> Keep:
    """Which checkpoints stay, as the configuration says."""
    rules, best = config.checkpoint, config.checkpoint.best
    if min(rules.keep, best.keep) < 1:
        raise ValueError(
            f"checkpoint.keep and checkpoint.best.keep must be at least 1, got {rules.keep} and"
            f" {best.keep}"
        )
    return Keep(
        latest=rules.keep,
        every=rules.keep_every,
        best=best.keep,
        metric=best.metric,
        highest=best.highest,
        scheduled=lambda step: _due(config, step)[1],
    )


def _due(config: ml_collections.ConfigDict, step: int) -> tuple[bool, bool]:
    """Whether the run evaluates and saves after ``step`` updates; 0 means only at the end."""
    last = step == config.steps
    every = (config.evaluation.every, config.checkpoint.every)
    evaluates, saves = (last or (n > 0 and step % n == 0) for n in every)
    # The best can only be kept if it was saved.
    return evaluates, saves or (evaluates and config.checkpoint.best.metric is not None)


def _record_config(run: Run) -> list[str]:
    """Write ``config.json``; returns what changed against the one that was there."""
    path = run.workdir / "config.json"
    old = as_json(load_config(path)) if path.exists() else as_json(run.config)
    if jax.process_index() == 0:
        save_config(path, run.config)
    return changes(old, as_json(run.config))


class _RollBack(Exception):
    """The run shall go on from its last scheduled checkpoint, with the batches after ``batch``."""

    def __init__(self, message: str, batch: int) -> None:
        super().__init__(message)
        self.batch = batch


class _Training:
    """One call's way from the newest checkpoint, or from nothing, to the report."""

    def __init__(
        self, run: Run, checkpoints: Checkpoints, notice: Notice, meter: Meter, *, shows: bool
    ) -> None:
        self._run, self._config, self._shows = run, run.config, shows
        self._checkpoints, self._notice, self._meter = checkpoints, notice, meter
        self._update = run.train_step()
        self._rollbacks = 0  # since the last scheduled checkpoint

    def advance(self, report: pathlib.Path) -> None:
        """Train, evaluate and report."""
        run, lead = self._run, jax.process_index() == 0
        news = [run.describe()]
        news += [f"removed a half-written {name}" for name in self._checkpoints.unfinished]
        batch: int | None = None
        while True:
            state, told = self._starting_point(batch)
            with Journal(
                run.workdir,
                step=int(state.step),
                steps=self._config.steps,
                batch_size=self._config.batch_size,
                meter=self._meter,
                writes=lead,
                shows=self._shows,
            ) as journal:
                for line in [*news, *told]:
                    journal.say(line)
                try:
                    state, evaluation = self._train(state, journal)
                    break
                except _RollBack as wanted:
                    batch, news = wanted.batch, [str(wanted)]
                    self._rollbacks += 1
                    # What came after it, saved on a notice to leave, is on the way not taken.
                    self._checkpoints.forget_after(self._scheduled())
        self._checkpoints.wait()  # what is reported as trained is on disk
        evaluation = evaluation or run.evaluate(state.eval_params)  # collective: every process
        if lead:
            write_run_report(run, int(state.step), evaluation, report)

    def _scheduled(self) -> int:
        """The newest checkpoint of a scheduled step; 0 if there is none yet."""
        steps = self._checkpoints.steps
        return max((step for step in steps if _due(self._config, step)[1]), default=0)

    def _starting_point(self, batch: int | None) -> tuple[TrainState, list[str]]:
        """The newest state, or a new one, and what is to be told; ``batch`` is used next."""
        run = self._run
        told: list[str] = []
        if self._checkpoints.latest is None:
            state = run.make_state()
            state, told = initialize(state, self._config.initialize_from)
            _record_config(run)
        else:
            restored = self._checkpoints.restore(run.abstract)
            state = restored.state
            for step, problem in restored.damaged.items():
                told.append(f"the checkpoint of step {step} is damaged: {problem};")
                told.append(f"  it is now {self._checkpoints.directory / f'{DAMAGED}{step}'}")
            told.append(f"going on from the checkpoint of step {restored.step}")
            told += [f"  changed since then: {line}" for line in _record_config(run)]
        if batch is not None:
            place, number = state.batch.sharding, np.int32(batch)
            moved = jax.make_array_from_callback((), place, lambda _: number)
            state = dataclasses.replace(state, batch=moved)
        return state, told

    def _train(self, state: TrainState, journal: Journal) -> tuple[TrainState, Evaluation]:
        """The updates that are left, each with its line, evaluation and checkpoint."""
        run, config = self._run, self._config
        batches = training_batches(
            run.source(config.data.train),
            run.prepare,
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=int(state.batch),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=config.data.threads,
        )
        trace = Trace(config.profile_steps, run.workdir / "profile")
        with contextlib.closing(batches), trace:  # its threads end with the run
            trained = self._steps(state, batches, journal, trace)
        if run.prepare.skipped.reasons:
            journal.say(run.prepare.skipped.summary())
        return trained

    def _steps(
        self, state: TrainState, batches: Iterator[Batch], journal: Journal, trace: Trace
    ) -> tuple[TrainState, Evaluation]:
        """The loop itself."""
        config = self._config
        in_flight: collections.deque[tuple[int, Any, Batch]] = collections.deque()
        evaluation: Evaluation = {}
        for step in range(int(state.step) + 1, config.steps + 1):
            trace.begin(step)
            begin = time.perf_counter()
            batch = next(batches)
            journal.waited(time.perf_counter() - begin)
            rows = {name: x for name, x in batch.items() if name != "index"}
            state, metrics = self._update(state, global_rows(rows, self._run.mesh))
            in_flight.append((step, metrics, batch))
            trace.end(step, metrics)
            evaluates, saves = _due(config, step)
            leaves = self._notice.came() and step < config.steps
            rests = evaluates or saves or leaves
            while len(in_flight) > (1 if rests else IN_FLIGHT):
                journal.write(in_flight[0][0], self._settle(*in_flight.popleft(), journal))
            if not rests:
                continue
            # A step's metrics are on disk before its checkpoint is.
            scalars = self._settle(*in_flight.popleft(), journal)
            found: dict[str, float] = {}
            if evaluates:
                with journal.paused():
                    evaluation = self._run.evaluate(state.eval_params)
                for name, result in evaluation.items():
                    found |= {f"eval/{name}/{key}": x for key, x in result.metrics.items()}
            journal.write(step, scalars | found)
            if saves or leaves:
                self._checkpoints.save(step, state, as_json(config), found)
                self._rollbacks = 0 if saves else self._rollbacks
            if leaves:
                self._checkpoints.wait()
                raise Preempted(
                    f"told to leave: saved after step {step}; the same command goes on from there"
                )
        return state, evaluation

    def _settle(
        self, step: int, metrics: Mapping[str, Any], batch: Batch, journal: Journal
    ) -> dict[str, float]:
        """Wait for a step; its scalars, unless its loss is bad and the run cannot go on."""
        scalars = {name: float(value) for name, value in jax.device_get(metrics).items()}
        in_a_row, used = int(scalars.pop("bad_in_a_row")), int(scalars.pop("batch"))
        if in_a_row:
            self._react(step, scalars, batch, journal, in_a_row=in_a_row, used=used)
        return scalars

    def _react(
        self,
        step: int,
        scalars: Mapping[str, float],
        batch: Batch,
        journal: Journal,
        *,
        in_a_row: int,
        used: int,
    ) -> None:
        """To a bad loss, as the configuration says; never silently."""
        rule = self._config.bad_loss
        what = f"step {step}: loss {scalars['loss']}, gradient norm {scalars['grad_norm']}"
        if rule.policy == "skip" and in_a_row <= rule.limit:
            journal.say(f"{what}. Update skipped, {scalars['skipped']:.0f} so far")
            return
        good = self._scheduled()
        if rule.policy == "rollback" and self._rollbacks < rule.limit:
            passed = f"{used - good} batches are passed over so far"
            raise _RollBack(f"{what}. Rolled back to step {good}; {passed}", used)
        path = save_bad_batch(self._run, step, batch)
        tried = {
            "stop": "",
            "skip": f" after {in_a_row - 1} updates skipped in a row",
            "rollback": f" after {self._rollbacks} rollbacks since step {good}",
        }[rule.policy]
        last = f"the checkpoint of step {good} is good" if good else "there is no checkpoint yet"
        raise BadLoss(
            f"{what}. Stopped{tried}; {last}. The batch is in {path}. A lower learning rate, a"
            " longer warm-up or float32 compute are the usual remedies"
        )
