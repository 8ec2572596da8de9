"""What the contract has to know of a loss: its definition, and what to call it with."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

N, D, K = 24, 4, 8  # rows, features, further negatives; every one a multiple of the shards
SHARDS = 8


@dataclasses.dataclass(frozen=True, eq=False)  # hashed as the object that it is
class Case:
    """A public loss as the contract calls it.

    Attributes:
        function: the loss.
        definition: the same in NumPy and float64, of valid rows only; called with the same
            keywords as ``function``, but for ``where``, ``axis_name``, ``chunk_size`` and ``ring``.
            Returns one value per row, or one in all.
        rows: array arguments with one entry per row. Those of floats are differentiated, and hold
            NaN wherever a row is invalid.
        scalars: differentiated arguments of shape ``()``, with usual values.
        extreme: values of ``scalars`` that overflow a careless implementation.
        pairs: array arguments of shape ``[n, n]``, constants: rows by the rows of all shards.
        others: differentiated array arguments that are sharded like rows but are none.
        options: constant keyword arguments.
        constant: those of ``rows`` whose gradient is 0 by definition.
        whole: whether the loss is one value for the batch instead of one per row.
        streamed: whether it takes ``chunk_size`` and ``ring``.
    """

    function: Callable[..., Any]
    definition: Callable[..., Any]
    rows: Mapping[str, np.ndarray]
    scalars: Mapping[str, float] = dataclasses.field(default_factory=dict)
    extreme: Mapping[str, float] | None = None
    pairs: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    others: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    constant: tuple[str, ...] = ()
    whole: bool = False
    streamed: bool = False


def unit_rows(seed: int, n: int = N, d: int = D) -> np.ndarray:
    """Seeded rows of length 1, float64."""
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
