"""What a checkpoint holds against what a run expects."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.training.checksums import tree_names

_MOST = 20  # lines


def differences(
    saved: Mapping[str, Sequence[Any]], abstract: Any, *, part: bool = False
) -> str | None:
    """Why a checkpoint does not fit, None if it does.

    Args:
        saved: by path, what the checkpoint has: shape, type and more.
        abstract: the expected tree of shapes and types.
        part: what else the checkpoint has does not matter.

    Returns:
        The end of a sentence that begins with the checkpoint, one line a parameter, and a remedy.
    """
    has = {name: (tuple(shape), dtype) for name, (shape, dtype, *_) in saved.items()}
    wants = {name: (tuple(x.shape), str(x.dtype)) for name, x in tree_names(abstract).items()}
    if part:
        has = {name: what for name, what in has.items() if name in wants}
    averaged, wanted = ({n.partition("/")[0] for n in names} >= {"ema"} for names in (has, wants))
    if averaged != wanted and not part:
        return (
            f"was trained {'with' if averaged else 'without'} a moving average of the parameters;"
            " set ema_decay as it was, or use another --workdir"
        )
    names = sorted(name for name in has.keys() | wants.keys() if has.get(name) != wants.get(name))
    # The optimizer and the moving average mirror the parameters: they would say it again.
    names = [name for name in names if name.startswith("params/")] or names
    if not names:
        return None
    lines = [
        f"{name.removeprefix('params/')}: checkpoint {_told(has.get(name))},"
        f" model {_told(wants.get(name))}"
        for name in names
    ]
    if len(lines) > _MOST:
        lines = [*lines[:_MOST], f"and {len(lines) - _MOST} more"]
    return (
        "is of another architecture:\n  "
        + "\n  ".join(lines)
        + "\nUse the configuration that it was trained with, or another --workdir"
    )


def _told(what: tuple[tuple[int, ...], str] | None) -> str:
    if what is None:
        return "has none"
    shape, dtype = what
    return str(shape) if dtype == "float32" else f"{shape} {dtype}"
