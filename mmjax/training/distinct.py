"""Rows of a batch that show the same thing are no negatives of each other: one of them stays."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from mmjax.arrays import Array, checked


@checked
def first_of_each(group: Int[Array, "n"], valid: Bool[Array, "n"]) -> Bool[jax.Array, "n"]:
    """Mark one row of each group: its first valid one, or its first if none is.

    It is a sort of ``n`` numbers, not a comparison of all pairs, and of the whole batch: what stays
    depends neither on the devices nor on the processes.

    Args:
        group: equal for rows that show the same thing.
        valid: rows that can be learned from.

    Returns:
        True for the rows that stay.

    >>> print(first_of_each(jnp.array([7, 5, 7, 5]), jnp.array([True, False, True, True])))
    [ True False False  True]
    """
    group, valid = jnp.asarray(group), jnp.asarray(valid)
    order = jnp.lexsort((~valid, group))  # by group, the valid ones first, else as they were
    ordered = group[order]
    first = jnp.concatenate([jnp.ones_like(valid[:1]), ordered[1:] != ordered[:-1]])
    return jnp.zeros_like(valid).at[order].set(first)


def without_duplicates(
    batch: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """Mask out the rows of a batch whose group an earlier row has.

    Such a row is then neither query nor negative, for every loss alike.

    Args:
        batch: ``inputs``, ``where`` and, if the run tells records apart, ``group``.

    Returns:
        The batch without ``group``, and for the metrics ``duplicates``: the rows that could have
        been learned from, with two modalities at least. A batch without ``group`` as it is, and
        nothing.
    """
    if "group" not in batch:
        return dict(batch), {}
    where = batch["where"]
    valid = sum(x.astype(jnp.int32) for x in where.values()) >= 2
    stays = first_of_each(batch["group"], valid)
    left = {name: x & stays for name, x in where.items()}
    duplicates = jnp.sum(valid & ~stays)
    return {"inputs": batch["inputs"], "where": left}, {"duplicates": duplicates}
