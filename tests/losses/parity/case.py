"""What a comparison with another library has to know."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

N, D = 16, 6
ROWS = (N, D)


@dataclasses.dataclass(frozen=True)
class Parity:
    """One of our losses and the same of a peer, called alike: rows, then the rest by name.

    Attributes:
        ours: gives one value per row, or one in all.
        theirs: gives one value in all.
        module: what has to be importable.
        rows: shapes of the positional arguments, normally distributed; differentiated.
        scalars: differentiated.
        constants: in NumPy where they are arrays, and not differentiated.
        framework: whose arrays the peer takes.
    """

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    module: str
    rows: tuple[tuple[int, ...], ...] = (ROWS, ROWS)
    scalars: Mapping[str, float] = dataclasses.field(default_factory=dict)
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    framework: str = "torch"


def unit(x):
    """Rows of length 1; rows of zeros stay."""
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(length > 0, length, 1)


def of_units(loss):
    """Our loss of rows as they come, for a peer that normalises them itself."""
    return lambda *rows, **options: loss(*map(unit, rows), **options)
