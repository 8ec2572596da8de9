"""From a model's outputs and the masks of a batch to the training loss."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Bool, Float

from mmjax.arrays import Array
from mmjax.losses import clip_loss, has_pair, pairwise, siglip_loss
from mmjax.reduction import masked_mean
from mmjax.training.mesh import BATCH

Loss = Callable[..., jax.Array]


def _clip(outputs: Mapping[str, Any]) -> Loss:
    return functools.partial(clip_loss, logit_scale=outputs["logit_scale"])


def _siglip(outputs: Mapping[str, Any]) -> Loss:
    scale, bias = outputs["logit_scale"], outputs["logit_bias"]
    return functools.partial(siglip_loss, logit_scale=scale, logit_bias=bias)


# By the name that a configuration gives it, a loss of two modalities with its scalars bound.
LOSSES: dict[str, Callable[[Mapping[str, Any]], Loss]] = {"clip": _clip, "siglip": _siglip}


def contrastive_objective(
    outputs: Mapping[str, Any],
    where: Mapping[str, Bool[Array, "n"]],
    *,
    loss: str,
    mesh: Mesh,
    chunk_size: int | None = None,
    ring: bool = False,
) -> Float[jax.Array, ""]:
    """Mean loss of the rows that have at least two modalities.

    Args:
        outputs: of :class:`mmjax.models.TwoTower`.
        where: per modality, the rows whose value could be read.
        loss: a key of ``LOSSES``.
        mesh: the devices. Each scores its own rows against those of all, so that the memory of the
            loss on a device is known: XLA's own partitioning would gather more, and more often.
        chunk_size: rows that are scored together; see :func:`mmjax.losses.info_nce`.
        ring: hand rows round instead of gathering them; see :func:`mmjax.losses.info_nce`.

    Returns:
        The training loss in nats; that of a row is the mean over the pairs of modalities that it
        has, see :func:`mmjax.losses.pairwise`.
    """
    (axes,) = BATCH

    def local(outputs: Mapping[str, Any], where: Mapping[str, Array]) -> jax.Array:
        cost = functools.partial(
            LOSSES[loss](outputs), axis_name=axes, chunk_size=chunk_size, ring=ring
        )
        return masked_mean(pairwise(cost, outputs["embeddings"], where), has_pair(where), axes)

    whole = PartitionSpec()
    specs = {"embeddings": BATCH, "logit_scale": whole, "logit_bias": whole}
    sharded = jax.shard_map(local, mesh=mesh, in_specs=(specs, BATCH), out_specs=whole)
    return sharded(dict(outputs), dict(where))
