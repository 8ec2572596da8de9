"""Modalities as they come in, and which examples have them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked

Arrays = dict[str, jax.Array]


class Factors(NamedTuple):
    """Two embeddings of each modality.

    Attributes:
        shared: rows of what the modality has in common with others.
        unique: rows of what it alone has.
    """

    shared: Mapping[str, Float[jax.Array, "n _"]]
    unique: Mapping[str, Float[jax.Array, "n _"]]

    @property
    def dtype(self) -> np.dtype:
        """Dtype in which sums over the embeddings run."""
        return accumulation_dtype(*self.shared.values(), *self.unique.values())


def read_modalities(
    inputs: Mapping[str, Array],
    where: Mapping[str, Array] | None,
    *,
    at_least: int = 1,
) -> tuple[Arrays, Arrays]:
    """Put modalities in the order of their names, with 0 for what is missing of them.

    Args:
        inputs: arrays ``[n, ..., d]`` by the name of the modality.
        where: masks ``[n, ...]`` of what is there; all of it if None.
        at_least: how many modalities there have to be.

    Returns:
        The arrays and the masks, each sorted by name: their order says nothing.

    Raises:
        jaxtyping.TypeCheckError: if a mask does not fit its modality.
        ValueError: for names that differ, too few modalities, or different numbers of examples.

    >>> arrays, masks = read_modalities({"b": jnp.ones((2, 3)), "a": jnp.ones((2, 1))}, None)
    >>> list(arrays), masks["b"].tolist()
    (['a', 'b'], [True, True])
    """
    if len(inputs) < at_least:
        got = ", ".join(sorted(inputs)) or "none"
        raise ValueError(f"inputs must hold {at_least} modalities or more, got {got}")
    if where is not None:
        check_names("inputs", inputs, "where", where)
    masks = {
        name: _mask(inputs[name], None if where is None else where[name]) for name in sorted(inputs)
    }
    examples = {name: len(mask) for name, mask in masks.items()}
    if len(set(examples.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in examples.items())
        raise ValueError(
            f"inputs must have the same number of examples for every modality, got {told}; where an"
            " example lacks a modality, fill its row with zeros and mark it False in where"
        )
    return {name: _blanked(inputs[name], mask) for name, mask in masks.items()}, masks


def embed_each(
    encoders: Mapping[str, Callable[..., jax.Array]],
    arrays: Mapping[str, jax.Array],
    masks: Mapping[str, jax.Array],
) -> Arrays:
    """Run each modality through its encoder; rows of a missing modality are 0.

    Raises:
        ValueError: if there is not an encoder for each modality.

    >>> rows = {"text": jnp.ones((2, 3))}
    >>> embedded = embed_each({"text": jnp.negative}, rows, {"text": jnp.array([True, False])})
    >>> print(embedded["text"].sum())
    -3.0
    """
    check_names("inputs", arrays, "the encoders", encoders)
    return {
        name: jnp.where(masks[name][:, None], encoders[name](x), 0) for name, x in arrays.items()
    }


def check_names(
    what: str, given: Mapping[str, object], other: str, expected: Mapping[str, object]
) -> None:
    """Raise ValueError, with both lists, unless two mappings have the same names.

    >>> check_names("inputs", {"image": 0, "text": 0}, "where", {"image": 0})
    Traceback (most recent call last):
        ...
    ValueError: inputs and where must name the same modalities, got image, text and image
    """
    if set(given) != set(expected):
        ours, theirs = (", ".join(sorted(names)) or "none" for names in (given, expected))
        raise ValueError(
            f"{what} and {other} must name the same modalities, got {ours} and {theirs}"
        )


# What is annotated on a mapping is checked of one of its entries only; these check every one.
@checked
def _mask(x: Float[Array, "n *t _"], where: Bool[Array, "n *t"] | None) -> Bool[jax.Array, "n *t"]:
    return jnp.ones(x.shape[:-1], bool) if where is None else jnp.asarray(where)


@checked
def _blanked(x: Float[Array, "n *t d"], where: Bool[Array, "n *t"]) -> Float[jax.Array, "n *t d"]:
    # Zero before any layer: a mask applied to its result would let NaN gradients through.
    return jnp.where(where[..., None], x, 0)
