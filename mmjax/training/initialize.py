"""Parameters taken over from another run, for fine-tuning: a tower, or any other part."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.training.checkpoints import Checkpoints
from mmjax.training.checksums import tree_names
from mmjax.training.state import TrainState


def initialize(state: TrainState, config: Mapping[str, Any]) -> tuple[TrainState, list[str]]:
    """Replace parts of new parameters by those of another run's newest checkpoint.

    Where that run kept a moving average of its parameters, it is the average that is taken.

    Args:
        state: just made; its optimizer starts afresh.
        config: ``workdir`` of the other run, None to take nothing, and ``parts``: paths of
            parameters, ``("image", "text/transformer")``.

    Returns:
        The state, and lines that say what was taken and what was not.

    Raises:
        FileNotFoundError: if the other run has no checkpoint.
        ValueError: if a part is unknown here or there, or has other shapes there.
    """
    if config["workdir"] is None:
        return state, []
    taken = _chosen(state.params, config["parts"])
    folder = pathlib.Path(config["workdir"], "checkpoints")
    if not folder.is_dir():
        raise FileNotFoundError(f"initialize_from.workdir: {config['workdir']} has no checkpoints")
    with Checkpoints(folder, writes=False) as checkpoints:
        if checkpoints.latest is None:
            raise FileNotFoundError(f"initialize_from.workdir: no checkpoint in {folder}")
        saved = checkpoints.description(checkpoints.latest)["arrays"]
        kind = "ema" if any(name.startswith("ema/") for name in saved) else "params"
        restored = checkpoints.restore({kind: _abstract(taken)}, part=True)
    params = _merged(state.params, restored.state[kind])
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    others = sorted(tree_names(state.params).keys() - tree_names(taken).keys())
    told = [f"taken from {config['workdir']}, step {restored.step}:"]
    told += [f"  {part}: {_size(_chosen(state.params, [part]))}" for part in config["parts"]]
    told += ["made anew:", *(f"  {name}" for name in _tops(others))]
    return dataclasses.replace(state, params=params, ema=ema), told


def _chosen(params: Any, parts: Sequence[str]) -> Any:
    """The subtree of all arrays under ``parts``."""
    names = tree_names(params)
    unknown = [p for p in parts if not any(n == p or n.startswith(f"{p}/") for n in names)]
    if unknown or not parts:
        raise ValueError(
            f"initialize_from.parts {list(parts)}: the model has no {unknown or 'part named'};"
            f" its parts are {', '.join(sorted(params))}, and what is below them"
        )

    def pruned(tree: Any, path: str) -> Any:
        if any(path == part or path.startswith(f"{part}/") for part in parts):
            return tree
        if not isinstance(tree, Mapping):
            return None
        below = {k: pruned(v, f"{path}/{k}" if path else k) for k, v in tree.items()}
        return {k: v for k, v in below.items() if v is not None} or None

    return pruned(params, "")


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _merged(tree: Any, new: Any) -> Any:
    """``tree`` with the leaves of the subtree ``new``."""
    if not isinstance(new, Mapping):
        return new
    return {k: _merged(v, new[k]) if k in new else v for k, v in tree.items()}


def _tops(names: Sequence[str]) -> list[str]:
    return sorted({name.partition("/")[0] for name in names})


def _size(tree: Any) -> str:
    leaves = jax.tree.leaves(tree)
    return f"{sum(x.size for x in leaves):,} parameters in {len(leaves)} arrays"
