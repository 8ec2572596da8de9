"""Checkpoints of a run: asynchronous, atomic, and explicit about what does not fit."""

import contextlib
import pathlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp


class Checkpoints:
    """The checkpoints in one folder: state and configuration together, the newest few kept.

    Args:
        directory: made if it does not exist.
        keep: how many of the newest checkpoints stay.
        writes: whether this object saves. One that only reads leaves alone what a run that is
            still going may be writing there.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int = 2, writes: bool = True) -> None:
        training = ocp.training
        self.directory = directory.resolve()
        self._orbax = training.Checkpointer(
            self.directory,
            save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=writes,
        )
        self._pending: Any = None

    @property
    def latest(self) -> int | None:
        """Number of updates in the newest complete checkpoint, None if there is none."""
        newest = self._orbax.latest
        return None if newest is None else newest.step

    def save(self, step: int, state: Any, config: Mapping[str, Any]) -> None:
        """Begin to write ``state``; returns once it is safe to change it.

        Raises:
            OSError: if this or the save before it could not be written, a full disk for
                example. Earlier checkpoints stay as they are.
        """
        self.wait()
        if step == self.latest:
            return
        try:
            self._pending = self._orbax.save_async(
                step, state, force=True, custom_metadata={"config": dict(config)}
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

    def _failed(self, error: Exception) -> OSError:
        kept = sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdecimal())
        return OSError(
            f"could not save a checkpoint in {self.directory}: {_first_line(error)}. Complete"
            f" checkpoints kept: {kept or 'none'}. Make room on the disk, then run the same"
            " command: it goes on from the newest one"
        )

    def restore(self, abstract: Any) -> Any:
        """The newest state.

        Args:
            abstract: its expected shapes, with shardings.

        Raises:
            FileNotFoundError: if there is no checkpoint.
            ValueError: if the checkpoint is of another architecture; lists what differs.
        """
        step = self.latest
        if step is None:
            raise FileNotFoundError(f"no checkpoint in {self.directory}")
        saved = self._orbax.metadata(step).metadata
        if differences := _differences(saved["params"], abstract.params):
            raise ValueError(
                f"the checkpoint of step {step} in {self.directory} is of another architecture:\n  "
                + "\n  ".join(differences)
                + "\nUse the configuration that it was trained with, or another --workdir"
            )
        if (saved["ema"] is None) != (abstract.ema is None):
            raise ValueError(
                f"the checkpoint of step {step} in {self.directory} was trained"
                f" {'without' if saved['ema'] is None else 'with'} a moving average of the"
                " parameters; set ema_decay as it was, or use another --workdir"
            )
        return self._orbax.load(step, abstract)

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


def _first_line(error: BaseException) -> str:
    """The message of the deepest cause: Orbax wraps the one that matters in others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _differences(saved: Any, expected: Any, *, most: int = 20) -> list[str]:
    """What differs between two trees of shapes, one line a parameter."""
    saved, expected = _shapes(saved), _shapes(expected)
    lines = [
        f"{name}: checkpoint {saved.get(name, 'has none')}, model {expected.get(name, 'has none')}"
        for name in sorted(saved.keys() | expected.keys())
        if saved.get(name) != expected.get(name)
    ]
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more"]
