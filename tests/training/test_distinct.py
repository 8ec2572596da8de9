import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.training.distinct import first_of_each, without_duplicates
from mmjax.training.mesh import global_rows, make_mesh

ROWS = 8


def expected(group, valid):
    """From the definition: the first valid row of each group, or its first."""
    stays = []
    for g in dict.fromkeys(group):
        rows = [i for i in range(len(group)) if group[i] == g]
        stays.append(([i for i in rows if valid[i]] or rows)[0])
    return np.isin(np.arange(len(group)), stays)


def rows_of(kind):
    return st.lists(kind, min_size=ROWS, max_size=ROWS)


@settings(deadline=None, max_examples=50)
@given(rows_of(st.sampled_from([-(2**31), -1, 0, 5, 2**31 - 1])), rows_of(st.booleans()))
def test_one_row_of_each_group_stays(group, valid):
    found = first_of_each(np.array(group, np.int32), np.array(valid))
    np.testing.assert_array_equal(found, expected(group, valid))


def batch(group):
    rng = np.random.default_rng(0)
    where = {name: rng.random(ROWS) < 0.8 for name in ("image", "text", "audio")}
    return {"inputs": {"text": np.zeros((ROWS, 1))}, "where": where, "group": group}


def test_a_masked_row_has_no_modality_left_and_the_others_are_as_they_were():
    given = batch(np.array([1, 2, 1, 3, 2, 1, 4, 5], np.int32))
    left, metrics = without_duplicates(given)
    where = given["where"]
    valid = np.stack(list(where.values())).sum(0) >= 2
    stays = expected(given["group"].tolist(), valid.tolist())
    for name, x in where.items():
        np.testing.assert_array_equal(left["where"][name], x & stays)
    assert int(metrics["duplicates"]) == (valid & ~stays).sum() > 0
    assert "group" not in left


def test_a_batch_without_groups_stays_what_it_is():
    given = batch(None)
    del given["group"]
    assert without_duplicates(given) == (given, {})


@pytest.mark.parametrize("sizes", [{"data": 8}, {"data": 2, "fsdp": 4}], ids=str)
def test_devices_change_nothing(sizes):
    given = batch(np.array([1, 2, 1, 3, 2, 1, 4, 5], np.int32))
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1} | sizes)
    sharded, metrics = jax.jit(without_duplicates)(global_rows(given, mesh))
    left, alone = without_duplicates(jax.tree.map(jnp.asarray, given))
    for name in left["where"]:
        np.testing.assert_array_equal(sharded["where"][name], left["where"][name])
    assert int(metrics["duplicates"]) == int(alone["duplicates"])
