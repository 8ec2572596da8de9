"""Modalities by name, as they come in: sorted, and 0 where an example lacks one."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, checked

Rows: TypeAlias = Mapping[str, Float[Array, "n _"]]  # per modality, one row per example
Masks: TypeAlias = Mapping[str, Bool[Array, "n"]]  # per modality, the examples that have it


def read_modalities(
    inputs: Mapping[str, Array],
    where: Mapping[str, Array] | None = None,
    *,
    at_least: int = 1,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Put modalities in the order of their names, with 0 for what is missing of them.

    Args:
        inputs: arrays ``[n, ..., d]`` by the name of the modality, each with sizes of its own but
            for n.
        where: masks ``[n, ...]`` of what is there; all of it if None.
        at_least: how many modalities there have to be.

    Returns:
        The arrays and the masks, each sorted by name: their order says nothing.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype of one modality.
        ValueError: for names that differ, too few modalities, or different numbers of examples.

    >>> arrays, masks = read_modalities({"b": jnp.ones((2, 3)), "a": jnp.ones((2, 1))})
    >>> list(arrays), masks["b"].tolist()
    (['a', 'b'], [True, True])
    """
    if len(inputs) < at_least:
        got = ", ".join(sorted(inputs)) or "none"
        count = "at least one modality" if at_least == 1 else f"{at_least} modalities or more"
        raise ValueError(f"inputs must hold {count}, got {got}")
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


def check_names(what: str, given: Iterable[str], other: str, expected: Iterable[str]) -> None:
    """Raise ValueError, with both lists, unless two mappings have the same names.

    >>> check_names("inputs", ["image", "text"], "where", ["image"])
    Traceback (most recent call last):
        ...
    ValueError: inputs and where must name the same modalities, got image, text and image
    """
    if set(given) != set(expected):
        ours, theirs = (", ".join(sorted(names)) or "none" for names in (given, expected))
        raise ValueError(
            f"{what} and {other} must name the same modalities, got {ours} and {theirs}"
        )


def name_pairs(pairs: Iterable[tuple[str, str]], between: str) -> dict[tuple[str, str], str]:
    """Join the two names of each pair, or raise ValueError if two pairs would be called alike.

    >>> name_pairs([("image", "sound"), ("image", "text")], "_")
    {('image', 'sound'): 'image_sound', ('image', 'text'): 'image_text'}
    """
    named: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        other = named.setdefault(between.join(pair), pair)
        if other != pair:
            raise ValueError(
                f"pairs of modalities must differ when joined by {between!r}, got {other} and"
                f" {pair}; rename a modality"
            )
    return {pair: name for name, pair in named.items()}


# What is annotated on a mapping is checked of one of its entries only; these check every one.
@checked
def _mask(x: Float[Array, "n *t _"], where: Bool[Array, "n *t"] | None) -> Bool[jax.Array, "n *t"]:
    return jnp.ones(x.shape[:-1], bool) if where is None else jnp.asarray(where)


@checked
def _blanked(x: Float[Array, "n *t d"], where: Bool[Array, "n *t"]) -> Float[jax.Array, "n *t d"]:
    # Zero before any layer: a mask applied to its result would let NaN gradients through.
    return jnp.where(where[..., None], x, 0)
