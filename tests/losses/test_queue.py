"""What a queue remembers, alone and in shards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import TypeCheckError

from mmjax.losses.queue import empty_queue, enqueue


def rows(*values):
    return jnp.array(values, jnp.float32)[:, None]


def held(queue):
    """The valid rows, from the oldest to the newest, of a queue of one shard."""
    order = np.roll(np.arange(len(queue.rows)), -int(queue.position[0]))
    return [float(queue.rows[place, 0]) for place in order if queue.valid[place]]


def test_the_oldest_go_first():
    queue, seen = empty_queue(3, features=1), []
    for batch in (rows(1, 2), rows(3), rows(4, 5), rows(6)):
        queue = enqueue(queue, batch)
        seen.append(held(queue))
    assert seen == [[1, 2], [1, 2, 3], [3, 4, 5], [4, 5, 6]]


@pytest.mark.parametrize("places", [1, 2, 3, 4, 5, 7])
def test_any_batch_fits_any_queue_as_deletion_says(places):
    rng, queue, remembered = np.random.default_rng(places), empty_queue(places, features=1), []
    put = jax.jit(enqueue)
    for _ in range(6):
        values, where = rng.normal(size=3), rng.random(3) < 0.6
        queue = put(queue, rows(*np.where(where, values, np.nan)), where)
        remembered = [*remembered, *np.float32(values[where])][-places:]
        np.testing.assert_array_equal(held(queue), remembered)
        assert not np.any(np.isnan(queue.rows))


def test_more_rows_than_places_leave_the_last():
    queue = enqueue(empty_queue(2, features=1), rows(1, 2, 3, 4, 5))
    assert held(queue) == [4, 5]
    assert held(enqueue(queue, rows(6))) == [5, 6]


def test_rows_are_kept_in_the_dtype_of_the_queue_and_without_a_gradient():
    queue = empty_queue(4, features=1, dtype=jnp.bfloat16)
    assert enqueue(queue, rows(1)).rows.dtype == jnp.bfloat16
    gradient = jax.grad(lambda x: enqueue(empty_queue(4, features=1), x).rows.sum())(rows(1, 2))
    assert not np.any(gradient)


def test_every_shard_keeps_its_own_rows():
    shards, places, batch = 4, 8, 8
    mesh = Mesh(np.array(jax.devices()[:shards]), ("data",), axis_types=(AxisType.Auto,))
    put = functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(P("data"), P("data"), P("data")), out_specs=P("data")
    )(enqueue)
    queue = empty_queue(places, features=1, shards=shards)
    parts = [empty_queue(places // shards, features=1) for _ in range(shards)]
    rng = np.random.default_rng(0)
    for _ in range(4):
        values, where = rng.normal(size=(batch, 1)).astype(np.float32), rng.random(batch) < 0.5
        queue = jax.jit(put)(queue, values, where)
        pieces = (np.split(z, shards) for z in (values, where))
        parts = [enqueue(q, x, w) for q, x, w in zip(parts, *pieces, strict=True)]
    whole = jax.tree.map(lambda *z: np.concatenate(z), *parts)
    jax.tree.map(np.testing.assert_array_equal, tuple(queue), tuple(whole))
    assert len(set(queue.position.tolist())) > 1  # shards moved on by unequally much


@pytest.mark.parametrize(
    ("size", "features", "shards", "message"),
    [
        (0, 4, 1, "size and features must be at least 1, got 0 and 4"),
        (4, 0, 1, "size and features must be at least 1, got 4 and 0"),
        (6, 4, 4, "shards must divide size, got 4 shards for 6 places"),
        (6, 4, 0, "shards must divide size, got 0 shards for 6 places"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(size, features, shards, message):
    with pytest.raises(ValueError, match=message):
        empty_queue(size, features, shards=shards)


@pytest.mark.parametrize(
    ("queue", "where"),
    [
        (empty_queue(4, features=2), None),
        (empty_queue(4, features=1, shards=2), None),
        (empty_queue(4, features=1), np.ones(3, bool)),
    ],
    ids=["features", "shards", "mask"],
)
def test_rows_that_do_not_go_with_the_queue_are_refused(queue, where):
    with pytest.raises(TypeCheckError):
        enqueue(queue, rows(1, 2), where)
