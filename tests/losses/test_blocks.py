"""Every column passes by every row exactly once, whatever the layout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definitions.contexts import DATA, mesh

from mmjax.losses.blocks import Layout

SHARDS = 8


def swept(layout, columns):
    """Sum of the columns that the rows saw, and for each column how many rows saw it."""

    def visit(seen, columns, passengers, first, fresh):
        number = first + jnp.arange(len(columns), dtype=jnp.int32)
        counted = jnp.ones(len(columns), bool) if fresh is None else fresh
        seen += jnp.zeros_like(seen).at[number].add(jnp.where(counted, columns, 0))
        return seen, passengers + jnp.where(counted, 1, 0)

    total = len(columns) * layout.shards
    start = jnp.tile(jnp.zeros_like(columns), layout.shards)
    assert start.shape == (total,)
    return layout.sweep(visit, start, columns, jnp.zeros_like(columns), layout.own_sums)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 7, 8, None])
def test_on_one_device(chunk_size):
    columns = jnp.arange(1.0, 8.0)
    seen, passengers = swept(Layout(None, chunk_size, ring=False), columns)
    np.testing.assert_array_equal(seen, columns)
    np.testing.assert_array_equal(passengers, np.ones(7))


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 23, None])
def test_on_eight(chunk_size, ring):
    columns = jnp.arange(1.0, 3 * SHARDS + 1)
    sweep = functools.partial(swept, Layout("data", chunk_size, ring))
    run = jax.shard_map(sweep, mesh=mesh(data=SHARDS), in_specs=DATA, out_specs=(DATA, DATA))
    seen, passengers = jax.jit(run)(columns)
    # Each shard saw all columns in the places of their global numbers, and every column came home.
    np.testing.assert_array_equal(seen.reshape(SHARDS, -1), np.tile(columns, (SHARDS, 1)))
    np.testing.assert_array_equal(passengers, np.full(3 * SHARDS, SHARDS))


@pytest.mark.parametrize(
    ("layout", "width", "divides"),
    [
        (Layout(None, None, False), 10**6, False),
        (Layout(None, 1024, False), 1024, False),
        (Layout(None, 1024, False), 1025, True),
    ],
)
def test_scores_are_kept_where_one_block_holds_them(layout, width, divides):
    assert layout.divides(width) == divides
