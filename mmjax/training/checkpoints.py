"""Checkpoints of a run: asynchronous, atomic, checked, and explicit about what does not fit."""

import contextlib
import dataclasses
import gc
import pathlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from mmjax.training.checksums import checksums
from mmjax.training.cluster import gather, together
from mmjax.training.description import DamagedCheckpoint, describe, described, first_line, quiet
from mmjax.training.differences import differences
from mmjax.training.keep import Keep

DAMAGED = "damaged-"  # what the name of a damaged checkpoint's folder then begins with


@dataclasses.dataclass(frozen=True)
class Restored:
    """What :meth:`Checkpoints.restore` returns.

    Attributes:
        step: the checkpoint that was read.
        state: its arrays.
        damaged: newer ones that were passed over, and what is wrong with each.
    """

    step: int
    state: Any
    damaged: Mapping[int, str]


@dataclasses.dataclass(frozen=True)
class _Preservation:
    """Which checkpoints stay, in the form that Orbax asks for."""

    stay: Callable[[Sequence[int]], set[int]]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = self.stay(steps)
        return [step in kept for step in steps]


class Checkpoints:
    """The checkpoints in one folder: state, configuration, metrics and checksums together.

    Args:
        directory: made if it does not exist.
        keep: which of them stay.
        writes: whether this object saves, and moves what is damaged out of the way. One that only
            reads leaves alone what a run that is still going may be writing there.

    Attributes:
        unfinished: saves that a killed process left half-written; they are removed.
    """

    def __init__(
        self, directory: pathlib.Path, *, keep: Keep | None = None, writes: bool = True
    ) -> None:
        self.directory, self._keep, self._writes = directory.resolve(), keep or Keep(), writes
        self.unfinished = sorted(
            path.name for path in directory.glob("*.orbax-checkpoint-tmp*") if writes
        )
        self._unreadable: dict[int, str] = {}
        try:
            self._orbax = self._open()
        except Exception:  # Orbax reads every description: which one is damaged?
            self._unreadable = self._find_unreadable()
            if not self._unreadable:
                raise
            self._orbax = self._open()
        self._metrics: dict[int, Mapping[str, float]] = {}  # of what may stay for being best
        self._pending: Any = None

    def _open(self) -> ocp.training.Checkpointer:
        training = ocp.training
        return training.Checkpointer(
            self.directory,
            save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=_Preservation(self._stay),
            cleanup_tmp_directories=self._writes,
        )

    def _find_unreadable(self) -> dict[int, str]:
        """Checkpoints whose descriptions Orbax cannot parse; they are set aside."""
        there = [int(path.name) for path in self.directory.iterdir() if path.name.isdecimal()]
        damaged = {}
        for step in there:
            try:
                self.description(step)
            except DamagedCheckpoint as error:
                damaged[step] = str(error)
        if damaged and not self._writes:
            raise DamagedCheckpoint(
                f"{self.directory}: the checkpoint of step {max(damaged)} is damaged:"
                f" {damaged[max(damaged)]}. The next run there sets it aside"
            )
        if len(damaged) == len(there):
            raise self._none_whole(damaged)
        self._rename(damaged)
        return damaged

    @property
    def steps(self) -> list[int]:
        """Numbers of updates of the complete checkpoints, ascending."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def description(self, step: int) -> Mapping[str, Any]:
        """What a checkpoint says of itself, see :func:`mmjax.training.description.described`."""
        return described(self.directory / str(step))

    @property
    def latest(self) -> int | None:
        """The newest of :attr:`steps`, None if there is none."""
        return max(self.steps, default=None)

    def save(
        self,
        step: int,
        state: Any,
        config: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Begin to write ``state``; returns once it is safe to change it.

        Args:
            step: number of updates made; a step that is there already is not written again.
            state: arrays.
            config: plain, as JSON holds it.
            metrics: of the evaluation after this step, if there was one.

        Raises:
            OSError: if this or the save before it could not be written, a full disk for
                example. Earlier checkpoints stay as they are.
            ValueError: if the best are kept by a metric that ``metrics`` do not have.
        """
        self.wait()
        if step in self.steps:
            return
        if metrics and self._keep.metric not in (None, *metrics):
            raise ValueError(
                f"checkpoint.best.metric {self._keep.metric!r} is none of what the evaluation"
                f" gives: {', '.join(metrics)}"
            )
        self._metrics[step] = dict(metrics or {})
        description = describe(state, config, self._metrics[step])
        try:
            self._pending = self._orbax.save_async(
                step,
                state,
                force=True,
                custom_metadata=description,
            )
        except Exception as error:
            raise self._failed(error) from error

    def wait(self) -> None:
        """Wait until the last save is on disk; raises what :meth:`save` raises."""
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except Exception as error:
                raise self._failed(error) from error

    def _stay(self, steps: Sequence[int]) -> set[int]:
        """The steps, of all that there are, whose checkpoints stay."""
        if self._keep.metric is not None:
            for step in steps:
                if step not in self._metrics:  # saved by an earlier call
                    with contextlib.suppress(DamagedCheckpoint):
                        self._metrics[step] = self.description(step)["metrics"]
        return self._keep.stay({step: self._metrics.get(step, {}) for step in steps})

    def _failed(self, error: Exception) -> OSError:
        kept = sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdecimal())
        return OSError(
            f"could not save a checkpoint in {self.directory}: {first_line(error)}. Complete"
            f" checkpoints kept: {kept or 'none'}. Make room on the disk, then run the same"
            " command: it goes on from the newest one"
        )

    def restore(
        self, abstract: Any, *, steps: Sequence[int] | None = None, part: bool = False
    ) -> Restored:
        """The newest state that is whole.

        A checkpoint whose arrays do not have the checksums that they were saved with, or that
        cannot be read, is passed over for the one before. If this object writes, its folder is
        renamed to ``damaged-<step>``.

        Args:
            abstract: expected shapes and types, with shardings.
            steps: the checkpoints to choose from; all if not given.
            part: ``abstract`` names only some of the arrays.

        Raises:
            FileNotFoundError: if there is no checkpoint, or none of those.
            DamagedCheckpoint: if none is whole; says what is wrong with each.
            ValueError: if the checkpoint is of another architecture; lists what differs.
        """
        self.wait()
        candidates = [step for step in self.steps if steps is None or step in steps]
        if not candidates:
            which = "" if steps is None else f" of step {', '.join(map(str, steps))}"
            raise FileNotFoundError(
                f"no checkpoint{which} in {self.directory}; there are {self.steps or 'none'}"
            )
        damaged = dict(self._unreadable)
        for candidate in reversed(candidates):
            state, problem = self._load(candidate, abstract, part=part)
            if not problem:
                damaged = {number: what for number, what in damaged.items() if number > candidate}
                if self._writes and damaged.keys() & set(self.steps):
                    self._rename(damaged.keys() & set(self.steps))
                    self._orbax.reload()
                return Restored(candidate, state, damaged)
            damaged[candidate] = problem
        raise self._none_whole(damaged)

    def _none_whole(self, damaged: Mapping[int, str]) -> DamagedCheckpoint:
        return DamagedCheckpoint(
            f"no checkpoint in {self.directory} is whole:"
            + "".join(f"\n  step {number}: {problem}" for number, problem in damaged.items())
            + "\nUse a copy of the folder, or another --workdir to begin anew"
        )

    def verify(self, step: int) -> str:
        """What is wrong with a checkpoint, "" if it is whole.

        Its arrays are read on the first device of this process, one part of the state after the
        other, whatever they lay on when they were saved.
        """
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def abstract(saved: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(saved.shape, saved.dtype, sharding=device)

        try:
            with quiet():
                parts: Any = ocp.metadata(self.directory / str(step)).metadata
        except Exception as error:
            return f"its description cannot be read ({first_line(error)})"
        for name, part in parts.items():
            tree = {name: jax.tree.map(abstract, part, is_leaf=lambda x: hasattr(x, "shape"))}
            if problem := self._load(step, tree, part=True)[1]:
                return problem
        return ""

    def _load(self, step: int, abstract: Any, *, part: bool) -> tuple[Any, str]:
        """The arrays, or what is wrong with them, the same on every process."""
        state, problem, unfit = None, "", None
        try:
            said = self.description(step)["arrays"]
            unfit = differences(said, abstract, part=part)
            if unfit is None:
                context = ocp.Context()
                context.pytree.loading.partial_load = part
                with context, quiet():
                    state = self._orbax.load(step, abstract)
        except DamagedCheckpoint as error:
            problem = str(error)
        except Exception as error:
            problem = f"it cannot be read ({first_line(error)})"
        if problem:
            with quiet():
                gc.collect()
        if unfit is not None:
            raise ValueError(f"the checkpoint of step {step} in {self.directory} {unfit}")
        problems = [text for text in gather(problem) if text]
        if problems:
            return None, problems[0]
        changed = [name for name, found in checksums(state).items() if found != said[name][2]]
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            return None, f"the bits of {', '.join(changed[:3])}{more} were changed"
        return state, ""

    def _rename(self, damaged: Iterable[int]) -> None:
        """Set the folders of damaged checkpoints aside, so that their steps can be saved again."""
        with together():
            if jax.process_index() == 0:
                for step in damaged:
                    aside = self.directory / f"{DAMAGED}{step}"
                    shutil.rmtree(aside, ignore_errors=True)  # an older one of the same step
                    (self.directory / str(step)).rename(aside)

    def forget_after(self, step: int) -> None:
        """Remove the checkpoints of later steps: the run takes another way from ``step`` on."""
        self.wait()
        with together():
            if jax.process_index() == 0:
                for later in self.steps:
                    if later > step:
                        shutil.rmtree(self.directory / str(later))
        self._orbax.reload()

    def close(self) -> None:
        """Finish what is being written and release the folder; raises what :meth:`save` does."""
        try:
            self.wait()
        except OSError:
            with contextlib.suppress(Exception):  # Orbax raises the same again, less clearly.
                self._orbax.close()
            raise
        self._orbax.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:  # the error that ended the run is the one to show
            self.close()
        except Exception as second:
            error.add_note(f"and then: {second}")
