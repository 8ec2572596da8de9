import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.encoders import TextTransformer
from mmjax.training.collectives import received_bytes
from mmjax.training.dry_run import HASTILY
from mmjax.training.mesh import (
    BATCH,
    check_batch_size,
    global_rows,
    make_mesh,
    replicated_rows,
    row_shards,
    state_shardings,
    vmap_rows,
)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({"data": -1}, (8, 1, 1)),
        ({"data": 2, "fsdp": -1, "tensor": 2}, (2, 2, 2)),
        ({"data": 1, "fsdp": 8}, (1, 8, 1)),
    ],
)
def test_the_mesh_covers_all_devices(sizes, shape):
    assert make_mesh(sizes).devices.shape == shape


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 3}, "does not cover the 8 devices"),
        ({"data": -1, "fsdp": -1}, "does not cover"),
        ({"data": -1, "fsdp": 16}, "does not cover"),
        ({"rows": 8}, "unknown mesh axes"),
    ],
)
def test_a_mesh_that_cannot_be_is_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(sizes)


def test_a_batch_that_the_devices_do_not_divide_says_what_would_do():
    mesh = make_mesh({"data": 4, "tensor": 2})
    check_batch_size(12, mesh)
    with pytest.raises(ValueError, match=r"batch_size 10 is not divisible by the 4.*use 8 or 12"):
        check_batch_size(10, mesh)


def test_parameters_lie_where_the_rules_say_and_odd_sizes_stay_whole():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})

    boxed = jax.eval_shape(
        lambda: (
            {
                name: nn.LogicallyPartitioned(jnp.zeros(shape), ("embed", "mlp"))
                for name, shape in (("even", (4, 6)), ("odd", (4, 5)))
            }
            | {"plain": jnp.zeros(3)}
        )
    )
    shardings = state_shardings(boxed, mesh)
    assert shardings["even"].spec == P("fsdp", "tensor")
    assert shardings["odd"].spec == P("fsdp", None)
    assert shardings["plain"].is_fully_replicated


@pytest.mark.parametrize("place", [global_rows, replicated_rows])
def test_rows_lie_over_data_and_fsdp(place):
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    rows = np.arange(24).reshape(8, 3)
    placed = place({"x": rows}, mesh)["x"]
    np.testing.assert_array_equal(placed, rows)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 3)}


TOWER = TextTransformer(vocab_size=64, max_length=8, width=64, depth=2, heads=2, remat=True)


def gradient(mesh, by_row):
    """Of the tower's parameters, its rows mapped by ``vmap_rows`` or left to XLA."""

    def cost(params, x):
        if by_row:
            rows = vmap_rows(lambda row: TOWER.apply(params, row[None])[0], mesh)(x)
        else:
            rows = TOWER.apply(params, x)
        return jnp.mean(rows[:, ::2] ** 2)

    return jax.jit(jax.grad(cost))


def received(mesh, rows, by_row):
    """Bytes that a device receives for that gradient."""
    x = jax.ShapeDtypeStruct((rows, 8), jnp.int32, sharding=NamedSharding(mesh, BATCH))
    boxed = jax.eval_shape(TOWER.init, jax.random.key(0), x)
    params = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
        nn.unbox(boxed),
        state_shardings(boxed, mesh),
    )
    program = gradient(mesh, by_row).lower(params, x).compile(HASTILY)
    return sum(received_bytes(program.as_text()).values())


def test_with_fsdp_parameters_travel_and_rows_do_not():
    """What a device receives does not depend on the number of rows."""
    mesh = make_mesh({"data": 1, "fsdp": 8})
    assert row_shards(mesh) == 8
    few, many = (received(mesh, rows, by_row=True) for rows in (64, 512))
    assert few == pytest.approx(many, rel=0.01)
    assert received(mesh, 512, by_row=False) > 2 * many  # what it is there against
