"""From a model's outputs and the masks of a batch to the training loss."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array
from mmjax.losses import clip_loss, siglip_loss
from mmjax.reduction import masked_mean


def _clip(x: Array, y: Array, outputs: Mapping[str, Any], where: Array) -> jax.Array:
    return clip_loss(x, y, logit_scale=outputs["logit_scale"], where=where)


def _siglip(x: Array, y: Array, outputs: Mapping[str, Any], where: Array) -> jax.Array:
    scale, bias = outputs["logit_scale"], outputs["logit_bias"]
    return siglip_loss(x, y, logit_scale=scale, logit_bias=bias, where=where)


LOSSES: dict[str, Callable[..., jax.Array]] = {"clip": _clip, "siglip": _siglip}


def contrastive_objective(
    outputs: Mapping[str, Any], where: Mapping[str, Bool[Array, "n"]], *, loss: str
) -> Float[jax.Array, ""]:
    """Mean over the pairs of modalities of the mean loss of the rows that have both.

    Args:
        outputs: of :class:`mmjax.models.TwoTower`.
        where: per modality, the rows whose value could be read.
        loss: a key of ``LOSSES``.

    Returns:
        The training loss in nats.
    """
    embeddings = outputs["embeddings"]
    pairs = list(itertools.combinations(embeddings, 2))
    total = jnp.float32(0)
    for a, b in pairs:
        both = where[a] & where[b]
        rows = LOSSES[loss](embeddings[a], embeddings[b], outputs, both)
        total += masked_mean(rows, both)
    return total / len(pairs)
