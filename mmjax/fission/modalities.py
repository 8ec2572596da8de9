"""What modules of this room do with named modalities: embed each twice, fuse all, draw of each."""

import inspect
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as AnyArray
from jaxtyping import Float, Key

from mmjax.arrays import accumulation_dtype
from mmjax.modalities import check_names

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


def fuse(
    fusion: nn.Module,
    arrays: Mapping[str, jax.Array],
    masks: Mapping[str, jax.Array],
    *,
    train: bool,
) -> jax.Array:
    """Run a fusion module; ``train`` reaches one that takes it, which has dropout then."""
    takes = "train" in inspect.signature(fusion.__call__).parameters
    return fusion(arrays, where=masks, **({"train": train} if takes else {}))


def key_of(key: Key[AnyArray, ""], name: str) -> Key[AnyArray, ""]:
    """Give a modality a random key of its own, which does not depend on what others there are."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
