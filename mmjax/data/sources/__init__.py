"""Data sets by name: each is a function of a split and options that returns a source."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from mmjax.data.records import Source
from mmjax.data.sources.flickr8k import load_flickr8k
from mmjax.data.sources.folder import load_folder
from mmjax.data.sources.icons import load_icons

SOURCES: dict[str, Callable[..., Source]] = {
    "flickr8k": load_flickr8k,
    "folder": load_folder,
    "icons": load_icons,
}


def load_source(name: str, split: str, **options: Any) -> Source:
    """Load one split of a data set.

    Args:
        name: a key of ``SOURCES``.
        split: which part; the data set says which there are.
        options: keyword arguments of that function.

    Raises:
        ValueError: if there is no such data set, split or option, listing those there are.

    >>> load_source("icon", "train")
    Traceback (most recent call last):
    ...
    ValueError: no data set is called 'icon'; there are flickr8k, folder, icons: meant 'icons'?
    """
    if name not in SOURCES:
        raise ValueError(f"no data set is called {name!r}; {_known(name, SOURCES)}")
    valid = [option for option in inspect.signature(SOURCES[name]).parameters if option != "split"]
    for option in options:
        if option not in valid:
            raise ValueError(f"{name} has no option {option!r}; {_known(option, valid)}")
    return SOURCES[name](split, **options)


def _known(wrong: str, right: Any) -> str:
    close = difflib.get_close_matches(wrong, list(right), n=1)
    meant = f": meant {close[0]!r}?" if close else ""
    return f"there are {', '.join(sorted(right))}{meant}"
