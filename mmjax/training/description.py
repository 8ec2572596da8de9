"""What a checkpoint says of itself: configuration, metrics, and the checksums of its arrays."""

import contextlib
import hashlib
import json
import logging
import pathlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from orbax.checkpoint import v1 as ocp

from mmjax.training.checksums import checksums, tree_names


class DamagedCheckpoint(ValueError):
    """A checkpoint is not what was saved."""


def describe(state: Any, config: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    """The description that is saved with a state, as JSON holds it.

    Args:
        state: arrays.
        config: plain.
        metrics: of the evaluation, if there was one.

    Returns:
        ``config``, ``metrics``, ``arrays`` (by path the shape, type and checksum of each), and
        ``digest``, which says whether all this is as it was.
    """
    sums = checksums(state)
    arrays = {
        name: [list(leaf.shape), str(leaf.dtype), sums[name]]
        for name, leaf in tree_names(state).items()
    }
    said = {"config": dict(config), "metrics": dict(metrics), "arrays": arrays}
    return said | {"digest": _digest(said)}


def described(path: pathlib.Path) -> Mapping[str, Any]:
    """The description of the checkpoint at ``path``, less its digest.

    Raises:
        DamagedCheckpoint: if it cannot be read, or was changed.
    """
    try:
        with quiet():
            said = dict(ocp.metadata(path).custom_metadata or {})
        digest = said.pop("digest")
    except Exception as error:
        problem = f"its description cannot be read ({first_line(error)})"
        raise DamagedCheckpoint(problem) from error
    if digest != _digest(said):
        raise DamagedCheckpoint("its description was changed")
    return said


def _digest(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A file that cannot be read makes Orbax's tasks log hundreds of lines; we say it in one.

    Those of them that nobody waited for tell it again when they are collected.
    """
    tasks, hook = logging.getLogger("asyncio"), sys.unraisablehook
    level = tasks.level
    tasks.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        tasks.setLevel(level)
        sys.unraisablehook = hook


def first_line(error: BaseException) -> str:
    """The message of the deepest cause: Orbax wraps the one that matters in others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]
