"""The exact decomposition: gates, the definition, identities, gradients, and what is no input."""

import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.data.synthetic import GATES
from mmjax.information import broja
from mmjax.information.pid import PID

PARTS = ("redundancy", "unique_1", "unique_2", "synergy")
SHAPE = (12, 4, 3, 4)  # of every batch, for compiling takes longer than anything else here


@pytest.fixture(autouse=True)
def no_nan_on_the_way():
    with jax.debug_nans(True), jax.debug_infs(True):
        yield


def padded(tables):
    """Tables as one batch, with outcomes that never occur, and uniform tables up to its size."""
    batch = np.full(SHAPE, 1 / math.prod(SHAPE[1:]))
    for row, table in zip(batch, tables, strict=False):
        row[:] = 0
        row[tuple(map(slice, table.shape))] = table
    return batch


@functools.cache
def compiled(unit="nats"):
    return jax.jit(functools.partial(broja, unit=unit))


def decomposed(tables, *, wide=True, unit="nats"):
    """Decompositions of up to twelve tables, in float64 unless ``wide`` is False."""
    with jax.enable_x64(wide):
        parts = compiled(unit)(jnp.asarray(padded(tables), float))
    return PID(*(np.asarray(part)[: len(tables)] for part in parts))


@functools.cache
def compiled_slopes():
    return jax.jit(jax.vmap(jax.jacrev(lambda p: jnp.stack(broja(p)[:4]))))


def slopes(tables):
    """Gradients of each part, in float64."""
    with jax.enable_x64(True):
        return np.asarray(compiled_slopes()(jnp.asarray(padded(tables))))[: len(tables)]


def random_tables(seed, number=8):
    """Skewed probabilities, some of them 0."""
    rng = np.random.default_rng(seed)
    p = rng.exponential(size=(number, 3, 3, 2)) ** 3
    p *= rng.random(p.shape) < rng.uniform(0.3, 1, size=(number, 1, 1, 1))
    p[:, 0, 0, 0] += 0.01
    return p / p.sum(axis=(1, 2, 3), keepdims=True)


def conditional_entropy(p):
    """H(Y | X1, X2) in nats, of a table or of an array of tables."""
    total = p.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / total), 0)
    return -terms.sum(axis=(-3, -2, -1))


def information(p):
    """I(X; Y) in nats."""
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    return np.sum(p[p > 0] * np.log(p[p > 0] / independent[p > 0]))


def union_of_binary(p, points=41, rounds=14):
    """The definition: all q with these pairs are p plus a checkerboard for each y. Search them."""
    board = np.array([[1.0, -1.0], [-1.0, 1.0]])
    low = np.array([-min(p[0, 0, y], p[1, 1, y]) for y in (0, 1)])
    high = np.array([min(p[0, 1, y], p[1, 0, y]) for y in (0, 1)])
    span, centre = (high - low) / 2, (high + low) / 2
    for _ in range(rounds):
        axes = [np.linspace(-1, 1, points) * span[y] + centre[y] for y in (0, 1)]
        axes = [np.clip(axis, low[y], high[y]) for y, axis in enumerate(axes)]
        shifts = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        q = np.maximum(p + board[..., None] * shifts[:, :, None, None, :], 0)
        entropies = conditional_entropy(q)
        best = np.unravel_index(np.argmax(entropies), entropies.shape)
        centre, span = shifts[best], span / 5
    target = p.sum(axis=(0, 1))
    return -np.sum(target * np.log(target)) - entropies.max()


def test_gates_are_exact_in_either_unit():
    joints = [gate.joint for gate in GATES.values()]
    found, in_bits = decomposed(joints), decomposed(joints, unit="bits")
    wanted = [[getattr(gate.pid, name) for gate in GATES.values()] for name in PARTS]
    np.testing.assert_allclose(found[:4], wanted, atol=1e-9)
    np.testing.assert_allclose(in_bits[:4], np.array(wanted) / np.log(2), atol=1e-9)
    np.testing.assert_allclose(in_bits.gap * np.log(2), found.gap, rtol=1e-6)
    assert np.max(found.gap) < 2e-10
    assert np.max(found.infeasibility) < 1e-12


def test_binary_tables_are_decomposed_as_the_definition_says():
    p = np.random.default_rng(0).exponential(size=(6, 2, 2, 2)) ** 2
    p[1, 0, 0, 0] = p[1, 1, 1, 0] = p[2, 0, 1, 1] = p[3, 0, :, 0] = 0
    p /= p.sum(axis=(1, 2, 3), keepdims=True)
    found = np.stack(decomposed(p)[:4], axis=1)
    for parts, table in zip(found, p, strict=True):
        union = union_of_binary(table)
        first, second = information(table.sum(axis=1)), information(table.sum(axis=0))
        both = information(table.reshape(4, 2))
        wanted = [first + second - union, union - second, union - first, both - union]
        np.testing.assert_allclose(parts, wanted, atol=1e-8)


@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=10, deadline=None)
def test_parts_add_up_are_not_negative_and_know_no_order(wide, seed):
    p = random_tables(seed)
    found, swapped = (decomposed(x, wide=wide) for x in (p, p.transpose(0, 2, 1, 3)))
    rounding = 1e-9 if wide else 2e-6
    sums = {
        "first": (found.redundancy + found.unique_1, [information(t.sum(axis=1)) for t in p]),
        "second": (found.redundancy + found.unique_2, [information(t.sum(axis=0)) for t in p]),
        "both": (sum(found[:4]), [information(t.reshape(9, 2)) for t in p]),
        "swapped": (found.unique_1, swapped.unique_2),
    }
    for name, (one, other) in sums.items():
        np.testing.assert_allclose(one, other, atol=rounding, err_msg=name)
    assert min(part.min() for part in found[:4]) > -rounding
    assert found.gap.max() < 2e-10
    assert found.infeasibility.max() < (1e-9 if wide else 1e-6)


def test_a_certificate_is_what_it_says():
    """No q is better by more than the gap: not even far better ones that were looked for."""
    rng = np.random.default_rng(3)
    p = random_tables(5, number=1)
    found = decomposed(p)
    target = p[0].sum(axis=(0, 1))
    largest = -np.sum(target * np.log(target)) - (
        found.redundancy[0] + found.unique_1[0] + found.unique_2[0]
    )
    board = np.array([[1.0, -1.0], [-1.0, 1.0]])
    for _ in range(300):
        q = p[0].copy()
        for _ in range(6):
            rows, columns = (np.sort(rng.choice(3, 2, replace=False)) for _ in "12")
            block = np.ix_(rows, columns, [rng.integers(2)])
            change = board[..., None] * rng.normal() * 0.1
            if np.all(q[block] + change >= 0):
                q[block] += change
        assert conditional_entropy(q) <= largest + found.gap[0] + 1e-12


def test_gradients_are_finite_differences():
    rng, step = np.random.default_rng(1), 1e-4
    p = rng.uniform(0.5, 1.5, size=SHAPE)
    p /= p.sum(axis=(1, 2, 3), keepdims=True)
    change = p * rng.normal(size=SHAPE)  # also of the sum: the slope is that of p / p.sum()
    ahead, behind = (np.stack(decomposed(p + h * change)[:4], axis=1) for h in (step, -step))
    found = np.sum(slopes(p) * change[:, None], axis=(2, 3, 4))
    np.testing.assert_allclose(found, (ahead - behind) / (2 * step), atol=5e-6)


def test_gradients_are_right_at_probabilities_that_the_certificate_does_not_see():
    """Of a source beside one that says nothing: p log p / (p(x1) p(y)) of p / p.sum()."""
    tiny = np.array([1e-4, 1e-8, 1e-10, 1e-12, 1e-15, 1e-20, 1e-40, 1e-80])
    tables = [np.array([[t, 0.3], [0.4, 0.1], [0.1, 0.1]])[:, None] for t in tiny]
    tables = [p / p.sum() for p in tables]
    ratios = [np.log(p / p.sum(axis=0) / p.sum(axis=(1, 2), keepdims=True)) for p in tables]
    wanted = [r - np.sum(p * r) for p, r in zip(tables, ratios, strict=True)]
    np.testing.assert_allclose(slopes(tables)[:, 1, :3, :1, :2], wanted, atol=1e-8)


def test_what_is_impossible_has_no_gradient_and_the_rest_has_a_finite_one():
    gates = padded([gate.joint for gate in GATES.values()])
    found = slopes(gates)
    assert np.all(np.isfinite(found))
    assert not np.any(np.where(gates[:, None] == 0, found, 0))
    of_synergy = dict(zip(GATES, found[:, 3], strict=False))
    # Of p / p.sum(): an outcome that has no part in the synergy thins it out.
    for name, outcome in {"and": (0, 0, 0), "or": (1, 1, 1)}.items():
        wanted = -GATES[name].pid.synergy
        assert of_synergy[name][outcome] == pytest.approx(wanted, abs=1e-8)
    np.testing.assert_allclose(of_synergy["xor"], 0, atol=1e-8)  # of outcomes that are all alike


def test_gradients_under_vmap_are_those_of_the_batch():
    p = padded(random_tables(2))
    with jax.enable_x64(True):
        together = jax.jit(jax.grad(lambda p: jnp.sum(broja(p).synergy)))(jnp.asarray(p))
    np.testing.assert_allclose(together, slopes(p)[:, 3], atol=1e-7)


def test_a_second_derivative_is_refused():
    p = jnp.full((2, 2, 2), 1 / 8)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        jax.hessian(lambda p: broja(p).redundancy)(p)


def test_supports_that_are_nearly_empty_are_ordinary():
    """One outcome of each variable, of the target, of a source; and a single cell."""
    pair = np.random.default_rng(0).dirichlet(np.ones(4)).reshape(2, 2)
    tables = [np.ones((1, 1, 1)), pair[:, :, None], pair[None], pair[:, None]]
    said = information(pair)
    wanted = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, said, 0], [0, said, 0, 0]]
    np.testing.assert_allclose(np.stack(decomposed(tables)[:4], axis=1), wanted, atol=1e-9)
    alone = broja(pair[None].astype(np.float32))  # an axis of one outcome, instead of zeros
    np.testing.assert_allclose(alone[:4], wanted[2], atol=1e-6)


def test_probabilities_as_small_as_they_come_do_no_harm():
    p = random_tables(7, number=12)
    wanted = decomposed(p)
    added = np.repeat([1e-30, 1e-100, 1e-200, 1e-300], 3)
    found = decomposed(p + added[:, None, None, None])
    np.testing.assert_allclose(found[:4], wanted[:4], atol=1e-9)
    assert found.gap.max() < 2e-10
    assert found.infeasibility.max() < 1e-8


def test_of_no_table_there_are_no_parts():
    parts = broja(np.zeros((0, 2, 2, 2), np.float32))
    assert all(part.shape == (0,) for part in parts)


EVEN = np.full((2, 2, 2), 1 / 8, np.float32)
WRONG = {
    "twice": (2 * EVEN, "must sum to one, got 2.0"),
    "negative": (EVEN - np.float32(0.2), "must not be negative, got -0.075"),
    "nan": (EVEN * np.float32(np.nan), "must not be negative, got nan"),
    "nothing": (0 * EVEN, "must sum to one, got 0.0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_distribution_is_refused(name):
    p, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        broja(p)


def test_what_is_no_distribution_is_told_inside_jit():
    with jax.debug_nans(False), jax.debug_infs(False):
        found = decomposed([p for p, _ in WRONG.values()], wide=False)
    assert np.all(np.isfinite(np.stack(found[:5])))
    assert np.all(found.infeasibility > 0.5)
    np.testing.assert_array_equal(np.isinf(found.infeasibility), [name == "nan" for name in WRONG])


def test_other_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="unit must be 'nats' or 'bits', got 'bit'"):
        broja(EVEN, unit="bit")
    with pytest.raises(ValueError, match="an outcome on each of its last three axes"):
        broja(np.zeros((2, 0, 2), np.float32))
    with pytest.raises(TypeCheckError, match="'p'"):
        broja(EVEN[0])
