"""The decomposition in batches: marginals, masks, and the exact one where that is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.data.synthetic import logic_gate
from mmjax.information import (
    aligned_joint,
    batch_pid,
    batch_pid_loss,
    broja,
    fit_batch_pid,
    init_batch_pid,
)

RNG = np.random.default_rng(0)
N, M, CLASSES = 6, 5, 3


@pytest.fixture
def promoting():
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers
        yield


def problem(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(N, M, CLASSES)).astype(np.float32)
    rows, columns = (rng.dirichlet(np.ones(CLASSES), size=size) for size in (N, M))
    return scores, np.log(rows).astype(np.float32), np.log(columns).astype(np.float32)


def marginals(log_rows, log_columns):
    """What rows and columns of the joint have to sum to, by the definition."""
    rows, columns = (np.exp(np.float64(x)) / len(x) for x in (log_rows, log_columns))
    classes = (rows.sum(axis=0) + columns.sum(axis=0)) / 2
    return rows * classes / rows.sum(axis=0), columns * classes / columns.sum(axis=0)


def test_the_joint_has_its_marginals_and_keeps_the_odds_of_the_scores():
    scores, rows, columns = problem(0)
    joint, error = aligned_joint(scores, rows, columns, iterations=200)
    joint = np.asarray(joint, np.float64)
    wanted = marginals(rows, columns)
    np.testing.assert_allclose(joint.sum(axis=1), wanted[0], atol=1e-6)
    np.testing.assert_allclose(joint.sum(axis=0), wanted[1], atol=1e-6)
    assert error < 1e-5
    # Rescaling rows and columns changes no odds ratio.
    odds = np.log(joint[:-1, :-1] * joint[1:, 1:] / (joint[:-1, 1:] * joint[1:, :-1]))
    given = scores[:-1, :-1] + scores[1:, 1:] - scores[:-1, 1:] - scores[1:, :-1]
    np.testing.assert_allclose(odds, given, atol=1e-4)


def test_the_error_is_that_of_the_columns_and_is_told_where_it_is_large():
    scores, rows, columns = problem(1)
    joint, error = aligned_joint(10 * scores, rows, columns, iterations=1)
    wanted = np.abs(np.asarray(joint).sum(axis=0) - marginals(rows, columns)[1]).sum()
    assert error == pytest.approx(wanted, rel=1e-4)
    assert error > 1e-3


@pytest.mark.parametrize("kept", [[0, 2, 3], []], ids=["some", "none"])
def test_what_is_invalid_is_as_if_it_were_not_there(kept):
    scores, rows, columns = problem(2)
    where = np.isin(np.arange(N), kept)
    scores[~where], rows[~where] = np.nan, np.nan

    def total(scores, rows):
        joint, _ = aligned_joint(scores, rows, columns, where_1=where)
        return jnp.sum(joint**2), joint

    (_, joint), slopes = jax.value_and_grad(total, (0, 1), has_aux=True)(scores, rows)
    assert not np.any(np.asarray(joint)[~where])
    assert all(np.all(np.isfinite(slope)) and not np.any(slope[~where]) for slope in slopes)
    if kept:
        deleted, _ = aligned_joint(scores[where], rows[where], columns)
        np.testing.assert_allclose(joint[where], deleted, rtol=1e-5)


def test_a_class_without_probability_has_none_in_the_joint():
    scores, rows, columns = problem(3)
    kept = [p[:, :2] - np.log(np.exp(p[:, :2]).sum(axis=1, keepdims=True)) for p in (rows, columns)]
    kept[0][0] = [0, -np.inf]  # and a row that is certain
    given = [np.pad(p, ((0, 0), (0, 1)), constant_values=-np.inf) for p in kept]
    joint, error = aligned_joint(scores, *given, iterations=200)
    assert not np.any(joint[..., 2])
    for axis, wanted in zip((1, 0), marginals(*kept), strict=True):
        np.testing.assert_allclose(np.sum(joint, axis=axis)[:, :2], wanted, atol=1e-6)
    assert error < 1e-5


def test_logits_are_no_posteriors():
    scores, rows, columns = problem(0)
    where = np.arange(N) > 0
    rows[0] = 7  # is not looked at
    with pytest.raises(
        ValueError, match=r"log_posterior_2 must sum to one, got 7\.38.*log_softmax"
    ):
        aligned_joint(scores, rows, columns + 2, where_1=where)


def test_iterations_have_to_be_positive():
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        aligned_joint(*problem(0), iterations=0)


def information(joint):
    """I(first axes; last axis)."""
    joint = joint.reshape(-1, joint.shape[-1])
    independent = jnp.sum(joint, axis=1, keepdims=True) * jnp.sum(joint, axis=0, keepdims=True)
    ratio = jnp.where(joint > 0, joint / jnp.where(joint > 0, independent, 1), 1)
    return jnp.sum(joint * jnp.log(ratio))


@pytest.mark.usefixtures("promoting")
def test_scores_that_are_descended_reach_the_exact_union_information():
    """With the exact posteriors of discrete sources, uniform so that each code is a row."""
    p = np.random.default_rng(4).exponential(size=(4, 4, 2))
    for _ in range(200):  # uniform sources, as a batch has them
        p /= 4 * p.sum(axis=(1, 2), keepdims=True)
        p /= 4 * p.sum(axis=(0, 2), keepdims=True)
    exact = broja(p.astype(np.float32) / p.sum().astype(np.float32))
    union = float(exact.redundancy + exact.unique_1 + exact.unique_2)
    posteriors = [jnp.asarray(np.log(4 * p.sum(axis=axis)), jnp.float32) for axis in (1, 0)]
    optimizer = optax.adam(0.1)

    def cost(scores):
        return information(aligned_joint(scores, *posteriors, iterations=30)[0])

    def step(state, _):
        scores, memory = state
        value, slope = jax.value_and_grad(cost)(scores)
        updates, memory = optimizer.update(slope, memory)
        return (scores + updates, memory), value

    scores = jnp.zeros((4, 4, 2))
    run = jax.jit(lambda state: jax.lax.scan(step, state, length=600))
    _, values = run((scores, optimizer.init(scores)))
    assert np.min(values) > union - 1e-5  # any such joint says at least as much
    assert values[-1] == pytest.approx(union, abs=2e-3)


@functools.cache
def networks():
    return init_batch_pid(jax.random.key(0), sizes=(3, 2), classes=2, hidden=4, features=2)


def rows(seed, n=6):
    rng = np.random.default_rng(seed)
    x1, x2 = (rng.normal(size=(n, d)).astype(np.float32) for d in (3, 2))
    return x1, x2, rng.integers(2, size=n)


def test_an_invalid_row_counts_nowhere_in_the_estimate_or_the_loss():
    x1, x2, labels = rows(0)
    where = np.array([True, True, False, True, True, False])
    masked = [np.where(where[:, None], x, np.nan) for x in (x1, x2)]
    found = batch_pid(networks(), *masked, where=where)
    deleted = batch_pid(networks(), x1[where], x2[where])
    np.testing.assert_allclose(found, deleted, atol=1e-5)

    def loss(networks, x1, x2):
        return batch_pid_loss(networks, x1, x2, labels, where=where)

    value, slopes = jax.value_and_grad(loss, (0, 1, 2))(networks(), *masked)
    wanted = batch_pid_loss(networks(), x1[where], x2[where], labels[where])
    assert value == pytest.approx(float(wanted), abs=1e-5)
    assert all(np.all(np.isfinite(slope)) for slope in jax.tree.leaves(slopes))
    assert not any(np.any(np.asarray(slope)[~where]) for slope in slopes[1:])


def test_without_a_valid_row_there_is_nothing():
    x1, x2, labels = rows(1)
    nothing = np.zeros(6, bool)
    assert not np.any(np.asarray(batch_pid(networks(), x1, x2, where=nothing)))
    assert batch_pid_loss(networks(), x1, x2, labels, where=nothing) == 0


def test_every_network_has_a_gradient_and_only_its_own():
    """The classifiers learn from their labels alone; the joint may not make them wrong."""
    x1, x2, labels = rows(2)

    def union(networks):
        parts = batch_pid(networks, x1, x2)
        return parts.redundancy + parts.unique_1 + parts.unique_2

    whole = jax.grad(batch_pid_loss)(networks(), x1, x2, labels)
    for layers in whole:
        assert all(np.any(slope) for slope in jax.tree.leaves(layers))
    of_union = jax.grad(union)(networks())
    assert not any(np.any(slope) for slope in jax.tree.leaves(of_union[:3]))


@pytest.mark.usefixtures("promoting")
@pytest.mark.parametrize("gate", ["xor", "redundant", "unique_1"])
def test_trained_on_a_gate_it_finds_what_the_gate_does(gate):
    data = logic_gate(gate, 512, seed=0)
    x1, x2 = (2 * data.modalities[name] - 1 for name in ("x1", "x2"))
    start = init_batch_pid(jax.random.key(1), sizes=(2, 2), classes=2, hidden=16, features=4)
    trained, losses = fit_batch_pid(
        start, x1, x2, data.labels["y"],
        key=jax.random.key(2), optimizer=optax.adam(1e-2), steps=400, batch_size=64,
    )  # fmt: skip
    assert np.mean(losses[-20:]) < losses[0]
    found = batch_pid(trained, x1[:256], x2[:256], unit="bits")
    truth = np.array([getattr(data.pid["y"], name) for name in found._fields[:4]]) / np.log(2)
    np.testing.assert_allclose(found[:4], truth, atol=0.1)
    assert found.infeasibility < 0.02


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="must be positive, got"):
        init_batch_pid(jax.random.key(0), sizes=(3, 0), classes=2)
    x1, x2, labels = rows(3)
    with pytest.raises(ValueError, match="steps and batch_size must be positive, got 0 and 256"):
        fit_batch_pid(
            networks(), x1, x2, labels, key=jax.random.key(0), optimizer=optax.sgd(1.0), steps=0
        )
    fit = functools.partial(
        fit_batch_pid, networks(), key=jax.random.key(0), optimizer=optax.sgd(1.0), steps=1
    )
    with pytest.raises(
        ValueError, match="classes from 0 to 1, got 2: init_batch_pid says how many"
    ):
        fit(x1, x2, np.where(np.arange(6) == 3, 2, labels))
    with pytest.raises(ValueError, match="there must be a row to train on, got none"):
        fit(x1[:0], x2[:0], labels[:0])
    with pytest.raises(ValueError, match="for 3 and 2 features, the rows have 2 and 3"):
        fit(x2, x1, labels)
    with pytest.raises(ValueError, match="unit must be 'nats' or 'bits'"):
        batch_pid(networks(), x1, x2, unit="bans")
