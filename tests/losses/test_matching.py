"""What matching costs, and which negatives are drawn how often."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import TypeCheckError

from mmjax.losses import matching
from mmjax.losses.matching import hard_negative_indices, matching_loss

N, SCALE = 8, 2.0
X, Y = np.random.default_rng(0).normal(size=(2, N, 3)).astype(np.float32) / 2
WHERE = np.array([1, 1, 0, 1, 1, 0, 1, 1], bool)


def test_odds_cost_their_logarithm():
    match = np.array([True, False])
    wanted = np.log([4 / 3, 4])  # three to one for a match
    np.testing.assert_allclose(matching_loss(np.log([3.0, 3.0]), match), wanted, rtol=1e-6)
    columns = np.tile(np.log([0.5, 1.5]), (2, 1))
    np.testing.assert_allclose(matching_loss(columns, match), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((2, 3)), np.ones(2, bool)),
        (np.zeros(2), np.ones(2)),
        (np.zeros(2), np.ones(3, bool)),
    ],
    ids=["three-columns", "float-labels", "rows"],
)
def test_logits_and_labels_of_another_kind_or_shape_are_refused(logits, labels):
    with pytest.raises(TypeCheckError):
        matching_loss(logits, labels)


def draw_each(keys, x, y, where):
    one = functools.partial(hard_negative_indices, x, y, logit_scale=SCALE, where=where)
    return jax.vmap(lambda key: one(key=key))(keys)


draw_two = jax.jit(draw_each)  # compiled once for all tests
KEYS = jax.random.key_data(jax.random.split(jax.random.key(0), 2))


def shares(where):
    """The definition: softmax over valid rows but the own partner, all others deleted."""
    odds = np.exp(SCALE * np.float64(X) @ np.float64(Y).T) * where * ~np.eye(N, dtype=bool)
    return odds / odds.sum(axis=1, keepdims=True)


def test_negatives_are_drawn_as_often_as_they_are_likely(monkeypatch):
    monkeypatch.setattr(matching, "_BLOCK", 3)  # which leaves a last block of two
    times = 4000
    keys = jax.random.split(jax.random.key(1), times)
    found = np.asarray(jax.jit(draw_each)(keys, np.where(WHERE[:, None], X, np.nan), Y, WHERE))
    assert np.all(found[:, ~WHERE] == np.flatnonzero(~WHERE))
    counts = np.stack([np.bincount(column, minlength=N) for column in found.T])[WHERE]
    wanted = shares(WHERE)[WHERE]
    assert not np.any(counts[wanted == 0])
    spread = np.sqrt(wanted * (1 - wanted) / times)
    assert np.all(np.abs(counts / times - wanted) <= 4.5 * spread)


@pytest.mark.parametrize(("shards", "kind"), [(2, "rbg"), (8, "raw")])
def test_the_same_key_draws_the_same_on_any_number_of_shards(shards, kind):
    key = jax.random.PRNGKey(3) if kind == "raw" else jax.random.key(3, impl=kind)
    mesh = Mesh(np.array(jax.devices()[:shards]), ("data",), axis_types=(AxisType.Auto,))

    def local(x, y, where):
        return hard_negative_indices(
            x, y, logit_scale=SCALE, key=key, where=where, axis_name="data"
        )

    sharded = jax.shard_map(local, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    alone = hard_negative_indices(X, Y, logit_scale=SCALE, key=key, where=WHERE)
    np.testing.assert_array_equal(jax.jit(sharded)(X, Y, WHERE), alone)


def test_every_row_and_every_key_draws_for_itself():
    same = np.ones((N, 3), np.float32)
    found = np.asarray(draw_two(KEYS, same, same, np.ones(N, bool)))
    assert np.any(found[0] != found[1])
    assert len({tuple(np.delete(np.arange(N), own)).index(j) for own, j in enumerate(found[0])}) > 1


@pytest.mark.parametrize("valid", [0, 1])
def test_without_a_negative_a_row_gets_its_own_index(valid):
    found = draw_two(KEYS, X, Y, np.arange(N) < valid)
    np.testing.assert_array_equal(found, np.tile(np.arange(N), (2, 1)))


def test_an_extreme_scale_finds_the_hardest():
    found = hard_negative_indices(X, Y, logit_scale=1e6, key=jax.random.key(0))
    np.testing.assert_array_equal(found, np.argmax(X @ Y.T - 100 * np.eye(N), axis=1))


def test_no_array_of_all_scores_is_held():
    n, d = 8192, 8
    rows = jax.ShapeDtypeStruct((n, d), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    run = jax.jit(lambda x, y, key: hard_negative_indices(x, y, logit_scale=1.0, key=key))
    temporary = run.lower(rows, rows, key).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 4 * n * n


@pytest.mark.parametrize("scale", [0, -1.0, float("nan")])
def test_a_scale_that_cannot_be_is_refused(scale):
    with pytest.raises(ValueError, match="logit_scale must be positive and finite"):
        hard_negative_indices(X, Y, logit_scale=scale, key=jax.random.key(0))
