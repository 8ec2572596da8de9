"""Tables laid out by antidiagonal hold what they held before."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.alignment.antidiagonals import skew, table_of, unskew
from mmjax.alignment.arithmetic import far

CELLS = np.arange(2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5)


@pytest.mark.parametrize("cells", [CELLS, CELLS.transpose(0, 2, 1), CELLS[:, :1], CELLS[:, :, :1]])
def test_every_cell_is_where_its_antidiagonal_has_it(cells):
    n, t, s = cells.shape
    diagonals = np.asarray(skew(jnp.asarray(cells), -1.0))
    assert diagonals.shape == (t + s - 1, n, t)
    for k, row, i in np.ndindex(diagonals.shape):
        j = k - i
        assert diagonals[k, row, i] == (cells[row, i, j] if 0 <= j < s else -1)
    np.testing.assert_array_equal(unskew(jnp.asarray(diagonals)), cells)


def test_forbidden_cells_are_far_and_the_rest_is_as_it_was():
    cost = CELLS.copy()
    cost[0, 0, 0], cost[1, 2, 4] = np.inf, np.nan
    lengths = np.array([3, 2]), np.array([5, 3])
    found = np.asarray(unskew(table_of(cost, lengths, 2).diagonals))
    for row, i, j in np.ndindex(cost.shape):
        inside = i < lengths[0][row] and j < lengths[1][row] and abs(i - j) <= 2
        allowed = inside and np.isfinite(cost[row, i, j])
        assert found[row, i, j] == (cost[row, i, j] if allowed else far(np.dtype(np.float32)))


def test_nan_within_the_lengths_stays():
    cost = CELLS.copy()
    cost[1, 2, 4] = np.nan
    assert np.isnan(np.asarray(unskew(table_of(cost, None, None).diagonals))[1, 2, 4])
