"""The memory of a loss and of its gradient, as XLA plans it: compiled, never run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from mmjax.losses import clip_loss, info_nce, nt_xent, siglip_loss, supervised_contrastive
from mmjax.reduction import masked_mean

MIB = 2**20
N, D, K, CHUNK = 32_768, 512, 4_096, 1_024
ROWS = jax.ShapeDtypeStruct((N, D), jnp.bfloat16)
MASK = jax.ShapeDtypeStruct((N,), jnp.bool_)
PAIRS = jax.ShapeDtypeStruct((N, N), jnp.bool_)
NEGATIVES = jax.ShapeDtypeStruct((K, D), jnp.bfloat16)
SCALES = {
    info_nce: ("temperature",),
    clip_loss: ("logit_scale",),
    siglip_loss: ("logit_scale", "logit_bias"),
    nt_xent: ("temperature",),
    supervised_contrastive: ("temperature",),
}
LOSSES = {
    "info_nce": (info_nce, {"query": ROWS, "key": ROWS}),
    "info_nce, mask, targets, negatives": (
        info_nce,
        {"query": ROWS, "key": ROWS, "where": MASK, "targets": PAIRS, "negatives": NEGATIVES},
    ),
    "clip_loss": (clip_loss, {"x": ROWS, "y": ROWS}),
    "clip_loss, mask, targets": (
        clip_loss,
        {"x": ROWS, "y": ROWS, "where": MASK, "targets": PAIRS},
    ),
    "siglip_loss": (siglip_loss, {"x": ROWS, "y": ROWS}),
    "siglip_loss, mask, targets": (
        siglip_loss,
        {"x": ROWS, "y": ROWS, "where": MASK, "targets": PAIRS},
    ),
    "nt_xent": (nt_xent, {"x": ROWS, "y": ROWS}),
    "supervised_contrastive, labels": (
        supervised_contrastive,
        {"x": ROWS, "labels": jax.ShapeDtypeStruct((N,), jnp.int32)},
    ),
    "supervised_contrastive, positives": (
        supervised_contrastive,
        {"x": ROWS, "positives": PAIRS},
    ),
}


def temporary(loss, arrays, devices, **options):
    """MiB on each device, for the value and the gradients of all rows and scalars."""
    axis_name = "data" if devices > 1 else None
    floats = {k: v for k, v in arrays.items() if v.dtype == jnp.bfloat16 or v.dtype == jnp.float32}
    fixed = {k: v for k, v in arrays.items() if k not in floats}
    scalars = dict.fromkeys(SCALES[loss], jax.ShapeDtypeStruct((), jnp.float32))

    def cost(floats, scalars, fixed):
        rows = loss(**floats, **scalars, **fixed, axis_name=axis_name, **options)
        return masked_mean(rows, fixed.get("where"), axis_name)

    run = jax.value_and_grad(cost, (0, 1))
    if axis_name:
        data = P(axis_name)
        mesh = Mesh(np.array(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))
        out = (P(), (data, P()))
        run = jax.shard_map(run, mesh=mesh, in_specs=(data, P(), data), out_specs=out)
    analysis = jax.jit(run).lower(floats, scalars, fixed).compile().memory_analysis()
    return analysis.temp_size_in_bytes / MIB


@pytest.mark.parametrize(("devices", "limit"), [(1, 800), (8, 300)])
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_32768_fits(name, devices, limit):
    loss, arrays = LOSSES[name]
    assert temporary(loss, arrays, devices, chunk_size=CHUNK) <= limit


@pytest.mark.parametrize("loss", ["info_nce", "clip_loss", "siglip_loss"])
def test_the_default_is_bounded(loss):
    assert temporary(*LOSSES[loss], 1) <= 800


def test_without_blocks_it_would_not():
    assert temporary(*LOSSES["clip_loss"], 1, chunk_size=None) > 8_000


@functools.cache
def siglip(devices, **options):
    rows = jax.ShapeDtypeStruct((1_024 * devices, 64), jnp.float32)
    return temporary(siglip_loss, {"x": rows, "y": rows}, devices, **options)


def test_siglip_in_blocks_and_in_a_ring_needs_little():
    assert siglip(8, chunk_size=1_024) <= 15
    assert siglip(8, ring=True) <= 15


def test_in_a_ring_memory_does_not_grow_with_the_number_of_devices():
    assert siglip(8, ring=True) <= 1.02 * siglip(2, ring=True)
    assert siglip(8, chunk_size=None) > 3 * siglip(2, chunk_size=None)
