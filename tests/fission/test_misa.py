"""MISA against its definition: moments, overlaps and squared errors of deleted rows."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fission import MISA, SharedAndPrivate, misa_losses

RNG = np.random.default_rng(0)
N, NAMES = 7, ("audio", "text", "video")
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same arithmetic
FACTORS = SharedAndPrivate(
    *[{name: RNG.uniform(size=(N, 3)) for name in NAMES} for _ in SharedAndPrivate._fields]
)
FULL = {name: np.ones(N, bool) for name in NAMES}
RAGGED = {
    "audio": np.array([1, 1, 0, 1, 0, 1, 0], bool),
    "text": np.array([1, 0, 1, 1, 0, 1, 1], bool),
    "video": np.array([0, 1, 1, 1, 0, 1, 1], bool),
}
GONE = RAGGED | {"video": np.zeros(N, bool)}  # as if there were two modalities only


def moments_apart(x, y):
    total = np.linalg.norm(x.mean(axis=0) - y.mean(axis=0))
    for k in range(2, 6):
        central = [((z - z.mean(axis=0)) ** k).mean(axis=0) for z in (x, y)]
        total += np.linalg.norm(central[0] - central[1])
    return total


def overlap(x, y):
    x, y = (z - z.mean(axis=0) for z in (x, y))
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return np.linalg.norm(x.T @ y / len(x)) ** 2


def definition(factors, where):
    names = [m for m in NAMES if where[m].any()]
    pairs = list(itertools.combinations(names, 2))
    shared, private, target, again = factors
    similarity = np.mean(
        [moments_apart(shared[a][where[a]], shared[b][where[b]]) for a, b in pairs]
    )
    difference = sum(overlap(shared[m][where[m]], private[m][where[m]]) for m in names)
    for a, b in pairs:
        both = where[a] & where[b]
        difference += overlap(private[a][both], private[b][both])
    errors = np.zeros(N)
    for i in range(N):
        mine = [((again[m][i] - target[m][i]) ** 2).mean() for m in NAMES if where[m][i]]
        errors[i] = np.mean(mine) if mine else 0
    return similarity, difference, errors


@functools.cache
def compiled():
    def loss(factors, where):
        terms = misa_losses(factors, where=where)
        return terms.similarity + terms.difference + jnp.sum(terms.reconstruction), terms

    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)


@pytest.mark.parametrize("where", [FULL, RAGGED, GONE], ids=["full", "ragged", "gone"])
def test_is_its_definition_whatever_stands_in_place_of_a_missing_modality(where):
    rows = jax.tree.map(np.float32, FACTORS)
    holed = SharedAndPrivate(
        *[
            {m: np.where(where[m][:, None], x, np.nan).astype(np.float32) for m, x in part.items()}
            for part in rows
        ]
    )
    (_, found), gradients = compiled()(holed, where)
    for term, wanted in zip(found, definition(FACTORS, where), strict=True):
        np.testing.assert_allclose(term, wanted, rtol=2e-4, atol=1e-6)
    for part in gradients:
        for name, gradient in part.items():
            assert np.isfinite(gradient).all()
            assert not gradient[~where[name]].any()
            assert gradient[where[name]].any() == where[name].any()
    rng, h = np.random.default_rng(1), 1e-6
    step = jax.tree.map(lambda x: rng.normal(size=x.shape), FACTORS)
    ends = []
    for end in (h, -h):
        moved = jax.tree.map(lambda x, s, end=end: x + end * s, FACTORS, step)
        similarity, difference, errors = definition(moved, where)
        ends.append(similarity + difference + errors.sum())
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, s: (g * s).sum(), gradients, step)))
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-3)


def test_nothing_there_costs_nothing():
    nobody = {name: np.zeros(N, bool) for name in NAMES}
    holes = jax.tree.map(lambda x: np.full(x.shape, np.nan, np.float32), FACTORS)
    (value, _), gradients = compiled()(holes, nobody)
    assert value == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_a_single_modality_is_like_itself():
    one = SharedAndPrivate(*[{"text": np.float32(part["text"])} for part in FACTORS])
    terms = misa_losses(one)
    assert terms.similarity == 0
    wanted = overlap(FACTORS.shared["text"], FACTORS.private["text"])
    np.testing.assert_allclose(terms.difference, wanted, rtol=1e-4)


def test_names_that_differ_are_refused():
    broken = FACTORS._replace(private={"text": FACTORS.private["text"]})
    with pytest.raises(ValueError, match="private and shared must name the same modalities"):
        misa_losses(broken)
    with pytest.raises(ValueError, match="inputs and where must name the same modalities"):
        misa_losses(FACTORS, where={"text": FULL["text"]})


def test_the_module_learns_with_every_parameter_and_sees_no_missing_row(fill):
    inputs = {
        name: RNG.normal(size=(N, width)).astype(np.float32)
        for name, width in zip(NAMES, (5, 3, 4), strict=True)
    }
    holed = {m: np.where(RAGGED[m][:, None], x, np.nan) for m, x in inputs.items()}
    module = MISA(3)
    variables = fill(module, inputs)

    def loss(variables, inputs):
        factors = module.apply(variables, inputs, where=RAGGED)
        terms = misa_losses(factors, where=RAGGED)
        return terms.similarity + terms.difference + jnp.sum(terms.reconstruction), factors

    run = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)
    gradients, factors = run(variables, inputs)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
    jax.tree.map(np.testing.assert_array_equal, run(variables, holed), (gradients, factors))
    for part in (factors.shared, factors.private):
        assert all(x.min() >= 0 and x.max() <= 1 for x in part.values())
    params = variables["params"]
    both = np.asarray(factors.shared["text"] + factors.private["text"])
    again = both @ params["decoder"]["kernel_0"] + params["decoder"]["bias_0"]
    np.testing.assert_allclose(factors.reconstruction["text"], again, rtol=1e-5, atol=1e-6)
