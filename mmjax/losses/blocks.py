"""How the columns of all shards pass by the rows of one: gathered or in a ring, in blocks."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int

from mmjax.arrays import AxisName

# Blocks bound the memory of a batch of any size, for one more product in the backward pass: a tenth
# of the time at most where it was measured (the README has the table), whatever the size of a block
# from 256 on. A batch that is a single block keeps its scores: there is nothing to gain.
CHUNK_SIZE = 1024

# visit(state, columns, passengers, first, fresh) -> state, passengers: see Layout.sweep
Visit = Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the columns are, and how many of them are looked at together.

    Attributes:
        axis_name: mesh axis or axes that shard the columns.
        chunk_size: columns of a block; None for all that a shard holds at a time.
        ring: whether the shards hand their columns round instead of gathering all of them.
    """

    axis_name: AxisName | None
    chunk_size: int | None
    ring: bool

    def __post_init__(self):
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ValueError(
                f"chunk_size must be at least 1, got {self.chunk_size}; None is one single block"
            )
        if self.ring and self.axis_name is None:
            raise ValueError("ring=True needs the axis_name of the shards that form the ring")

    @property
    def shards(self) -> int:
        """How many shards the columns lie on."""
        return 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)

    @property
    def shard(self) -> Int[jax.Array, ""]:
        """Which of them this one is."""
        return jnp.int32(0) if self.axis_name is None else jax.lax.axis_index(self.axis_name)

    def divides(self, width: int) -> bool:
        """Whether the columns of all shards, ``width`` on each, come in more than one block."""
        return self.ring or (self.chunk_size or math.inf) < width * self.shards

    def sweep(
        self, visit: Visit, state: Any, columns: Any, passengers: Any, home: Callable[[Any], Any]
    ) -> tuple[Any, Any]:
        """Let all columns of all shards pass by, once each.

        Args:
            visit: ``visit(state, columns, passengers, first, fresh) -> state, passengers`` sees a
                block of columns with their passengers; ``first`` is the global number of the first
                and ``fresh`` says which were not seen before (None: all of them).
            state: what the rows gather.
            columns: arrays with one entry for each column of this shard, read only.
            passengers: likewise, what the columns gather from the rows of all shards; at first,
                what they are before any row was seen.
            home: sums what the shards hold for all columns, ``[m, ...]``, and gives each shard its
                own, ``[n, ...]``. Not called in a ring: there the passengers travel themselves.

        Returns:
            The state, and the passengers of this shard's own columns.
        """
        if self.ring:
            return self._ring(visit, state, columns, passengers)
        if self.axis_name is None:
            return self._blocks(visit, state, columns, passengers, jnp.int32(0))
        columns = jax.lax.all_gather(columns, self.axis_name, tiled=True)
        passengers = jax.tree.map(
            lambda z: jnp.tile(z, (self.shards,) + (1,) * (z.ndim - 1)), passengers
        )
        state, passengers = self._blocks(visit, state, columns, passengers, jnp.int32(0))
        return state, home(passengers)

    def own_sums(self, passengers: Any) -> Any:
        """Add up over the shards what each holds for all columns; each keeps its own columns."""
        return jax.lax.psum_scatter(passengers, self.axis_name, tiled=True)

    def own_part(self, passengers: jax.Array) -> jax.Array:
        """Give each shard its own columns of what all of them hold alike for all columns."""
        width = len(passengers) // self.shards
        return jax.lax.dynamic_slice_in_dim(passengers, self.shard * width, width)

    def _ring(self, visit: Visit, state: Any, columns: Any, passengers: Any) -> tuple[Any, Any]:
        shards = self.shards
        width = len(jax.tree.leaves(columns)[0])
        onwards = [(i, (i + 1) % shards) for i in range(shards)]

        def step(carry, hops):
            state, columns, passengers = carry
            first = (self.shard - hops) % shards * width
            state, passengers = self._blocks(visit, state, columns, passengers, first)
            # After the last step everything is at home again.
            columns, passengers = jax.lax.ppermute((columns, passengers), self.axis_name, onwards)
            return (state, columns, passengers), None

        hops = jnp.arange(shards, dtype=jnp.int32)
        (state, _, passengers), _ = jax.lax.scan(step, (state, columns, passengers), hops)
        return state, passengers

    def _blocks(
        self, visit: Visit, state: Any, columns: Any, passengers: Any, first: Int[jax.Array, ""]
    ) -> tuple[Any, Any]:
        width = len(jax.tree.leaves(columns)[0])
        size = width if self.chunk_size is None else min(self.chunk_size, width)
        if size == width:
            return visit(state, columns, passengers, first, None)

        def step(carry, begin):
            state, passengers = carry
            # The last block reaches back to stay whole; what it sees again does not count again.
            start = jnp.minimum(begin, width - size)
            fresh = (
                None if width % size == 0 else jnp.arange(size, dtype=jnp.int32) >= begin - start
            )
            here, aboard = jax.tree.map(
                lambda z: jax.lax.dynamic_slice_in_dim(z, start, size), (columns, passengers)
            )
            state, aboard = visit(state, here, aboard, first + start, fresh)
            put = jax.lax.dynamic_update_slice_in_dim
            passengers = jax.tree.map(lambda z, new: put(z, new, start, 0), passengers, aboard)
            return (state, passengers), None

        begins = jnp.arange(0, width, size, dtype=jnp.int32)
        (state, passengers), _ = jax.lax.scan(step, (state, passengers), begins)
        return state, passengers
