"""A memory of earlier keys: as many negatives as one likes, whatever the batch.

A queue is a value: :func:`enqueue` returns the next one. In a train step, with keys from a slowly
moving copy of the encoder,

>>> from mmjax.losses.contrastive import info_nce
>>> queue = empty_queue(6, features=4)
>>> for step in range(2):
...     query = key = jnp.eye(4)
...     rows = info_nce(
...         query, key, temperature=1.0, negatives=queue.rows, negatives_where=queue.valid
...     )
...     queue = enqueue(queue, key)
...     print(f"{rows.mean():.4f}")
0.7437
1.4368

The copy is moved by ``optax.incremental_update(params, copy, step_size=1 - momentum)``, which is
He et al. 2019, arXiv:1911.05722, eq. 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from mmjax.arrays import Array, checked


class Queue(NamedTuple):
    """The most recent rows, in a ring.

    Attributes:
        rows: the rows that are remembered, ``[k, d]``.
        valid: places that hold a row, ``[k]``; False at first.
        position: the place that is written next, int32. One number for each shard, ``[shards]``, so
            that the whole queue is sharded like rows are: shards with unequally many valid rows
            move on by unequally much.
    """

    rows: jax.Array
    valid: jax.Array
    position: jax.Array


def empty_queue(
    size: int, features: int, dtype: DTypeLike = jnp.float32, *, shards: int = 1
) -> Queue:
    r"""Make a queue that remembers nothing yet.

    Args:
        size: places :math:`k`, over all shards.
        features: features of a row, :math:`d`.
        dtype: in which rows are kept; bfloat16 halves the memory.
        shards: in how many parts the queue is cut by the mesh axes that shard the rows; 1 for one
            device and for jit with automatic sharding.

    Returns:
        The queue: rows are 0 and not valid.

    Raises:
        ValueError: if there is no place or no feature, or if ``shards`` does not divide ``size``.

    Source: He et al. 2019, arXiv:1911.05722, sec. 3.2. The authors' queue starts with random rows
    that count as negatives; this one with places that do not count.

    >>> empty_queue(8, features=4, shards=2).position.shape
    (2,)
    """
    if size < 1 or features < 1:
        raise ValueError(f"size and features must be at least 1, got {size} and {features}")
    if shards < 1 or size % shards:
        raise ValueError(
            f"shards must divide size, got {shards} shards for {size} places: "
            f"each shard keeps equally many"
        )
    rows = jnp.zeros((size, features), dtype)
    return Queue(rows, jnp.zeros(size, bool), jnp.zeros(shards, jnp.int32))


@checked
def enqueue(
    queue: Queue, rows: Float[Array, "n d"], where: Bool[Array, "n"] | None = None
) -> Queue:
    r"""Put rows into the queue, in the places of the oldest.

    Under ``shard_map`` every shard has a part of the queue and puts its own rows there: give
    ``P(axis_name)`` as the specification of the whole queue, on the way in and on the way out, and
    make it with ``shards`` of :func:`empty_queue`. Nothing is communicated.

    Args:
        queue: on this shard, ``k`` places.
        rows: new rows, in order of age. Of more rows than places, the last stay.
        where: valid rows, all if None. The others, NaN or not, are passed over and take no place.

    Returns:
        The next queue. Rows are cast to its dtype, and carry no gradient.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype, also of what the queue holds.

    Source: He et al. 2019, arXiv:1911.05722, sec. 3.2 and algorithm 1; there the batch has to
    divide the queue, here it need not.

    >>> queue = enqueue(empty_queue(3, features=1), jnp.array([[1.0], [2.0]]))
    >>> print(enqueue(queue, jnp.array([[3.0], [4.0]])).rows.T)
    [[4. 2. 3.]]
    """
    valid = jnp.ones(len(rows), bool) if where is None else jnp.asarray(where)
    return Queue(*_written(*queue, jax.lax.stop_gradient(jnp.asarray(rows)), valid))


@checked
def _written(
    kept: Float[Array, "k d"],
    occupied: Bool[Array, "k"],
    position: Int[Array, "1"],
    rows: Float[jax.Array, "n d"],
    valid: Bool[jax.Array, "n"],
) -> tuple[Float[jax.Array, "k d"], Bool[jax.Array, "k"], Int[jax.Array, "1"]]:
    places = len(kept)
    kept, occupied, position = (jnp.asarray(z) for z in (kept, occupied, position))
    number = jnp.cumsum(valid, dtype=jnp.int32) - 1  # of each valid row among the valid ones
    count = jnp.sum(valid, dtype=jnp.int32)
    stays = valid & (number >= count - places)
    place = jnp.where(stays, (position + number) % places, places)  # no such place: dropped
    kept = kept.at[place].set(rows.astype(kept.dtype), mode="drop")
    occupied = occupied.at[place].set(True, mode="drop")
    return kept, occupied, (position + count) % places
