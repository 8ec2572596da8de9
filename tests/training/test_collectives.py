"""Bytes read from compiled programs whose traffic is known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from mmjax.training.collectives import received_bytes
from mmjax.training.mesh import make_mesh

KIB = jnp.zeros((8, 256), jnp.float32)  # one KiB on each of eight devices


def received(function, *, axes=("data", "fsdp"), sizes=None):
    mesh = make_mesh(sizes or {"data": 4, "fsdp": 2})
    run = jax.shard_map(function, mesh=mesh, in_specs=P(axes), out_specs=P(axes), check_vma=False)
    return received_bytes(jax.jit(run).lower(KIB).compile().as_text())


def gather(x):
    return jnp.sum(jax.lax.all_gather(x, ("data", "fsdp"), tiled=True) ** 2, 0, keepdims=True)


def rounds(x):
    def step(x, _):
        return jax.lax.ppermute(x + 1, "data", [(i, (i + 1) % 4) for i in range(4)]), None

    return jax.lax.scan(step, x, length=5)[0]


def parts(x):
    return jnp.tile(jax.lax.psum_scatter(x, "data", scatter_dimension=1, tiled=True), (1, 4))


@pytest.mark.parametrize(
    ("function", "kind", "expected"),
    [
        (gather, "all-gather", 7 * 1024),
        (lambda x: jax.lax.psum(x, "fsdp"), "all-reduce", 2 * 1024 / 2),
        (lambda x: jax.lax.psum(x, ("data", "fsdp")), "all-reduce", 2 * 1024 * 7 / 8),
        (parts, "reduce-scatter", 1024 * 3 / 4),
        (rounds, "collective-permute", 5 * 1024),
    ],
)
def test_bytes_are_those_of_a_ring(function, kind, expected):
    assert received(function) == {kind: expected}


def test_devices_that_keep_to_themselves_receive_nothing():
    assert received(lambda x: x * 2) == {}


def test_a_loop_whose_length_nobody_knows_is_named():
    def until(x):
        return jax.lax.while_loop(
            lambda x: jnp.sum(x) < 100, lambda x: jax.lax.psum(x + 1, "data"), x
        )

    with pytest.raises(ValueError, match="loop of unknown length"):
        received(until)


def test_another_text_is_refused():
    with pytest.raises(ValueError, match="no HLO program"):
        received_bytes("module @jit_f {}")
