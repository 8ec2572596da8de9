"""Data sets by name: each is a function of a split and options that returns a source."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mmjax.data.records import Source
from mmjax.data.sources.array_record import load_array_record
from mmjax.data.sources.flickr8k import load_flickr8k
from mmjax.data.sources.folder import load_folder
from mmjax.data.sources.huggingface import load_huggingface
from mmjax.data.sources.icons import load_icons
from mmjax.data.sources.mixture import Mixture
from mmjax.data.sources.parquet import load_parquet
from mmjax.data.sources.tfds import load_tfds
from mmjax.data.sources.webdataset import load_webdataset

_PART = ("source", "options", "weight", "split")


def load_source(name: str, split: str, **options: Any) -> Source:
    """Load one split of a data set.

    Args:
        name: a key of ``SOURCES``.
        split: which part; the data set says which there are.
        options: keyword arguments of that function.

    Raises:
        ValueError: if there is no such data set, split or option, listing those there are.

    >>> load_source("icon", "train")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: no data set is called 'icon'; there are ...: meant 'icons'?
    """
    if name not in SOURCES:
        raise ValueError(f"no data set is called {name!r}; {_known(name, SOURCES)}")
    parameters = inspect.signature(SOURCES[name]).parameters.values()
    valid = [parameter.name for parameter in parameters if parameter.name != "split"]
    for option in options:
        if option not in valid:
            raise ValueError(f"{name} has no option {option!r}; {_known(option, valid)}")
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in ("split", *options):
            raise ValueError(f"{name} needs the option {parameter.name!r}")
    return SOURCES[name](split, **{option: _plain(value) for option, value in options.items()})


def load_mixture(split: str, *, sources: Mapping[str, Mapping[str, Any]]) -> Mixture:
    """Load one split of several data sets as one.

    Args:
        split: of each of them.
        sources: by a name that begins the ids of its records: ``source`` and ``options`` as in
            :func:`load_source`; ``weight``, its share of what is seen, for all or for none; and
            ``split``, where it has another name for it.

    Returns:
        The mixture, in the order of the names; without weights each has the share of its size.

    Raises:
        ValueError: if a data set cannot be loaded so, naming which, or the weights do not fit.
    """
    loaded, weights = {}, {}
    for name in sorted(sources.keys()):  # the order of a mapping must not change what is seen
        part = sources[name]
        for key in part:
            if key not in _PART:
                raise ValueError(f"{name!r} of the mixture has {key!r}; {_known(key, _PART)}")
        try:
            loaded[name] = load_source(
                part.get("source", ""), part.get("split", split), **part.get("options", {})
            )
        except ValueError as error:
            raise ValueError(f"{name!r} of the mixture: {error}") from error
        if part.get("weight") is not None:
            weights[name] = part["weight"]
    return Mixture(loaded, weights or None)


SOURCES: dict[str, Callable[..., Source]] = {
    "array_record": load_array_record,
    "flickr8k": load_flickr8k,
    "folder": load_folder,
    "huggingface": load_huggingface,
    "icons": load_icons,
    "mixture": load_mixture,
    "parquet": load_parquet,
    "tfds": load_tfds,
    "webdataset": load_webdataset,
}


def _plain(option: Any) -> Any:
    """Return mappings of any kind, such as a ConfigDict, as dictionaries."""
    if hasattr(option, "keys"):
        return {key: _plain(option[key]) for key in option.keys()}  # noqa: SIM118 (no iterator)
    return option


def _known(wrong: str, right: Any) -> str:
    close = difflib.get_close_matches(wrong, list(right), n=1)
    meant = f": meant {close[0]!r}?" if close else ""
    return f"there are {', '.join(sorted(right))}{meant}"
