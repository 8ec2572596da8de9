"""Configurations: read from a file, checked by name and type, kept as JSON beside the run."""

import difflib
import importlib.util
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from mmjax.atomic import replacing


def read_config(path: str | pathlib.Path) -> ml_collections.ConfigDict:
    """What ``get_config()`` of the Python file ``path`` returns, locked.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no Python file, or has no ``get_config``.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} has no function get_config()")
    return module.get_config().lock()


def field_names(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields, branches included."""
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            yield from field_names(value, f"{prefix}{name}.")


def unknown_field(config: Mapping[str, Any], name: str) -> str | None:
    """A message if ``name`` (dotted) is no field of ``config``, else None."""
    names = list(field_names(config))
    if name in names:
        return None
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(names)}"
    return f"the configuration has no field {name!r}; {hint}"


def save_config(path: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Write ``config`` as indented JSON."""
    with replacing(path) as file:
        file.write((json.dumps(as_json(config), indent=2) + "\n").encode())


def as_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """``config`` as JSON holds it: plain dictionaries, lists for tuples."""
    return json.loads(config.to_json())


def load_config(path: pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration that :func:`save_config` wrote."""
    return ml_collections.ConfigDict(json.loads(path.read_text())).lock()


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The fields in which two plain configurations differ, ``name: old -> new``."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += changes(a, b, f"{prefix}{name}.")
        elif a != b:
            lines.append(f"{prefix}{name}: {a} -> {b}")
    return lines
