"""The exact decomposition: gates, the definition, identities, gradients, and what is no input."""

import functools

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


@pytest.fixture(autouse=True)
def no_nan_on_the_way():
    with jax.debug_nans(True), jax.debug_infs(True):
        yield


@functools.cache
def compiled(wide=True):
    """Decompositions of a batch, in float64 unless ``wide`` is False."""
    function = jax.jit(broja)

    def run(p):
        with jax.enable_x64(wide):
            return PID(*map(np.asarray, function(jnp.asarray(p))))

    return run


def tables(seed, number=8):
    """Random probabilities, skewed, some of them 0."""
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


def test_gates_are_exact():
    """Padded with outcomes that never occur, which change nothing."""
    padded = np.zeros((len(GATES), 4, 2, 4))
    for table, gate in zip(padded, GATES.values(), strict=True):
        n, m, classes = gate.joint.shape
        table[:n, :m, :classes] = gate.joint
    found = compiled()(padded)
    for i, gate in enumerate(GATES.values()):
        wanted = [getattr(gate.pid, name) for name in PARTS]
        np.testing.assert_allclose([part[i] for part in found[:4]], wanted, atol=1e-9)
    assert np.max(found.gap) < 2e-10
    assert np.max(found.infeasibility) < 1e-12


def test_binary_tables_are_decomposed_as_the_definition_says():
    p = np.random.default_rng(0).exponential(size=(6, 2, 2, 2)) ** 2
    p[1, 0, 0, 0] = p[1, 1, 1, 0] = p[2, 0, 1, 1] = p[3, 0, :, 0] = 0
    p /= p.sum(axis=(1, 2, 3), keepdims=True)
    found = compiled()(p)
    for i, table in enumerate(p):
        union = union_of_binary(table)
        first, second = information(table.sum(axis=1)), information(table.sum(axis=0))
        both = information(table.reshape(4, 2))
        wanted = [first + second - union, union - second, union - first, both - union]
        np.testing.assert_allclose([part[i] for part in found[:4]], wanted, atol=1e-8)


@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=10, deadline=None)
def test_parts_add_up_are_not_negative_and_know_no_order(wide, seed):
    p = tables(seed)
    found, swapped = (compiled(wide)(x) for x in (p, p.transpose(0, 2, 1, 3)))
    rounding = 1e-9 if wide else 2e-6
    sums = {
        "first": (found.redundancy + found.unique_1, [information(t.sum(axis=1)) for t in p]),
        "second": (found.redundancy + found.unique_2, [information(t.sum(axis=0)) for t in p]),
        "both": (sum(found[:4]), [information(t.reshape(9, 2)) for t in p]),
        "swapped": (found.unique_1, swapped.unique_2),
    }
    for one, other in sums.values():
        np.testing.assert_allclose(one, other, atol=rounding)
    assert min(part.min() for part in found[:4]) > -rounding
    assert found.gap.max() < 2e-10
    assert found.infeasibility.max() < 1e-9 if wide else 1e-6


def test_a_certificate_is_what_it_says():
    """No q is better by more than the gap: not even far better ones that were looked for."""
    rng = np.random.default_rng(3)
    p = tables(5, number=1)
    found = compiled()(p)
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


@pytest.mark.parametrize("name", PARTS)
def test_gradients_are_finite_differences_along_the_simplex(name):
    with jax.enable_x64(True):
        p = np.random.default_rng(1).uniform(0.5, 1.5, size=(3, 2, 2))
        p = jnp.asarray(p / p.sum())
        part = jax.jit(lambda p: getattr(broja(p), name))
        slope, step = jax.grad(part)(p), 1e-5
        assert jnp.sum(slope * p) == pytest.approx(0, abs=1e-9)  # of p / p.sum()
        for i in np.ndindex(p.shape):
            difference = (part(p.at[i].add(step)) - part(p.at[i].add(-step))) / (2 * step)
            assert slope[i] == pytest.approx(float(difference), abs=2e-6)


def test_what_is_impossible_has_no_gradient_and_the_rest_has_a_finite_one():
    gates = jnp.asarray(
        np.stack([GATES[g].joint for g in ("and", "xor", "redundant")]), jnp.float32
    )
    total = jax.jit(jax.grad(lambda p: jnp.sum(jnp.stack(broja(p)[:2]))))
    slope = total(gates)
    assert np.all(np.isfinite(slope))
    assert not np.any(np.asarray(slope)[np.asarray(gates) == 0])


def test_gradients_under_vmap_are_those_of_each():
    p = jnp.asarray(tables(2, number=3), jnp.float32) + 0.01
    synergy = jax.grad(lambda p: jnp.sum(broja(p).synergy))
    together = jax.jit(synergy)(p)
    each = jax.jit(jax.vmap(synergy))(p)
    np.testing.assert_allclose(together, each, atol=1e-5)


def test_a_second_derivative_is_refused():
    p = jnp.full((2, 2, 2), 1 / 8)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        jax.hessian(lambda p: broja(p).redundancy)(p)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 2), (2, 2, 1)])
def test_single_outcomes_say_nothing(shape):
    p = np.random.default_rng(0).uniform(size=shape)
    parts = broja((p / p.sum()).astype(np.float32))
    second = information((p / p.sum()).sum(axis=0))
    np.testing.assert_allclose(parts[:4], [0, 0, second, 0], atol=1e-6)


def test_probabilities_as_small_as_they_come_do_no_harm():
    p = tables(7, number=4) + np.array([0, 1e-12, 1e-100, 1e-300])[:, None, None, None]
    found = compiled()(p / p.sum(axis=(1, 2, 3), keepdims=True))
    assert found.gap.max() < 2e-10
    assert found.infeasibility.max() < 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: 2 * p, "must sum to one, got 2.0"),
        (lambda p: p - 0.2, "must not be negative, got -0.075"),
        (lambda p: p * np.nan, "must not be negative, got nan"),
        (lambda p: 0 * p, "must sum to one, got 0.0"),
    ],
    ids=["twice", "negative", "nan", "nothing"],
)
def test_what_is_no_distribution_is_refused_and_told_inside_jit(change, message):
    p = change(np.full((2, 2, 2), 1 / 8, np.float32))
    with pytest.raises(ValueError, match=message):
        broja(p)
    with jax.debug_nans(False), jax.debug_infs(False):
        found = jax.jit(broja)(p)
    assert np.all(np.isfinite(found[:5]))
    assert found.infeasibility > 0.5
    assert np.isinf(found.infeasibility) == np.isnan(p).any()


def test_other_wrong_arguments_are_refused():
    p = np.full((2, 2, 2), 1 / 8, np.float32)
    with pytest.raises(ValueError, match="unit must be 'nats' or 'bits', got 'bit'"):
        broja(p, unit="bit")
    with pytest.raises(ValueError, match="an outcome on each of its last three axes"):
        broja(np.zeros((2, 0, 2), np.float32))
    with pytest.raises(TypeCheckError, match="'p'"):
        broja(p[0])


def test_bits_are_nats_over_log_2():
    p = tables(4, number=2).astype(np.float32)
    nats, bits = broja(p), broja(p, unit="bits")
    np.testing.assert_allclose(np.log(2) * np.stack(bits[:5]), np.stack(nats[:5]), rtol=1e-6)
    np.testing.assert_array_equal(bits.infeasibility, nats.infeasibility)
