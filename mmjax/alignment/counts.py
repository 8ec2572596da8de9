"""Whole numbers that callers give, Python's and NumPy's alike."""

from typing import TypeAlias

import numpy as np

Count: TypeAlias = int | np.integer


def as_count(name: str, value: Count) -> int:
    """Turn a number of times into Python's integer, which has no dtype to clash with.

    Args:
        name: what the message calls it.
        value: at least 1.

    Returns:
        The same number.

    Raises:
        ValueError: if it is below 1.

    Source: no paper.

    >>> as_count("iterations", np.int64(3))
    3
    """
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)
