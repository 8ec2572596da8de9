import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.fusion.search import (
    LAYERS,
    OPERATORS,
    Architecture,
    Space,
    evolve,
    flatten,
    mutate,
    random_architectures,
    tournament,
    unflatten,
)

SPACE = Space(("image", "text"), depth=2, cells=3)
CHOICES = np.concatenate([x.ravel() for x in SPACE.choices()])
MANY = 3000
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same arithmetic
seeds = st.integers(0, 2**31 - 1)


def genes_of(architectures):
    """One row per architecture, in NumPy: no small operation is compiled."""
    return np.concatenate([np.reshape(x, (len(x), -1)) for x in architectures], axis=1)


def genes_of_one(architecture):
    return genes_of(jax.tree.map(lambda x: np.asarray(x)[None], architecture))[0]


@functools.partial(jax.jit, compiler_options=QUICK)
def parents_and_children(seed, other):
    parents = random_architectures(SPACE, MANY, key=jax.random.key(seed))
    return parents, mutate(parents, SPACE, key=jax.random.key(other))


def evenly(values, choices):
    """Every value as often as the others, within five standard deviations."""
    counts = np.bincount(values, minlength=choices)
    share = 1 / choices
    assert len(counts) == choices
    deviation = np.sqrt(len(values) * share * (1 - share))
    assert np.abs(counts - len(values) * share).max() <= 5 * deviation


def test_choices_are_those_that_the_docstrings_tell():
    choices = SPACE.choices()
    assert choices.layers.tolist() == [[len(LAYERS)] * 2] * 2
    assert choices.points.tolist() == [[4, 4]] * 3  # after 0, 1 or 2 layers, or not at all
    assert choices.operators.tolist() == [len(OPERATORS)] * 3
    assert choices.earlier.tolist() == [1, 2, 3]  # none; cell 0 or none; cell 0, cell 1 or none


@settings(max_examples=10, deadline=None)
@given(seeds, seeds)
def test_architectures_are_drawn_evenly(seed, other):
    parents, _ = parents_and_children(seed, other)
    for gene, choices in zip(genes_of(parents).T, CHOICES, strict=True):
        evenly(gene, choices)


@settings(max_examples=10, deadline=None)
@given(seeds, seeds)
def test_a_mutation_changes_one_gene_to_any_other_value(seed, other):
    before, after = map(genes_of, parents_and_children(seed, other))
    moved = before != after
    assert (moved.sum(axis=1) == 1).all()
    assert (after >= 0).all()
    assert (after < CHOICES).all()
    free = np.flatnonzero(CHOICES > 1)
    evenly(np.searchsorted(free, moved.argmax(axis=1)), len(free))
    steps = (after - before)[:, free[0]] % CHOICES[free[0]]
    evenly(steps[steps > 0] - 1, CHOICES[free[0]] - 1)


def test_flattening_can_be_undone():
    population, _ = parents_and_children(0, 1)
    genes = jax.jit(flatten)(population)
    np.testing.assert_array_equal(genes, genes_of(population))
    again = jax.jit(functools.partial(unflatten, SPACE))(genes)
    jax.tree.map(np.testing.assert_array_equal, again, population)


@functools.cache
def winners():
    """Of tournaments of each size, in one program."""
    fitness = jnp.array([0.1, jnp.nan, 0.9, -jnp.inf, 0.3])

    def held(key):
        return {size: tournament(fitness, count=MANY, size=size, key=key) for size in (1, 2, 5)}

    return jax.jit(held, compiler_options=QUICK)(jax.random.key(0))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_fittest_wins_as_often_as_it_is_drawn(size):
    won = np.asarray(winners()[size])
    expected = size / 5
    deviation = np.sqrt(MANY * expected * (1 - expected))
    assert abs(np.sum(won == 2) - MANY * expected) <= 5 * deviation
    assert size == 1 or not np.any(won == 1)  # NaN needs to be alone


def matches(architectures, key, *, target):
    """Fitness without training: the genes that are as wanted."""
    return np.sum(genes_of(architectures) == target, axis=1, dtype=np.float32)


TARGET = np.arange(len(CHOICES)) % CHOICES
search = functools.partial(evolve, space=SPACE, population=16)


def test_evolution_finds_what_chance_does_not():
    evaluate = functools.partial(matches, target=TARGET)
    found = search(evaluate, generations=20, key=jax.random.key(0))
    count = 16 * 21
    by_chance = matches(
        jax.tree.map(lambda x: x[:count], parents_and_children(1, 1)[0]), None, target=TARGET
    )
    assert found.fitness.max() == len(CHOICES)
    assert by_chance.max() < len(CHOICES)
    np.testing.assert_array_equal(genes_of_one(found.best()), TARGET)


def test_a_search_is_a_function_of_its_key():
    evaluate = functools.partial(matches, target=TARGET)
    a, again, b = (search(evaluate, generations=3, key=jax.random.key(s)) for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, a, again)
    assert (genes_of(a.architectures) != genes_of(b.architectures)).any()


def test_a_fitness_may_be_a_count():
    def count(architectures, key):
        return matches(architectures, key, target=TARGET).astype(int)

    counted = search(count, generations=3, key=jax.random.key(0))
    found = search(functools.partial(matches, target=TARGET), generations=3, key=jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, counted, found)


def test_a_history_tells_who_came_of_whom():
    noise = np.random.default_rng(0)

    def evaluate(architectures, key):  # every third training diverges
        return np.where(np.arange(16) % 3 == 0, np.nan, noise.normal(size=16)).astype(np.float32)

    found = search(evaluate, generations=4, key=jax.random.key(0))
    genes, fitness = genes_of(found.architectures), np.asarray(found.fitness)
    parents = np.asarray(found.parents)
    assert len(genes) == len(fitness) == len(parents) == 16 * 5
    assert (parents[:16] == -1).all()
    assert ((genes[16:] != genes[parents[16:]]).sum(axis=1) == 1).all()
    for start in range(16, len(genes), 16):
        pool = np.sort(fitness[:start][~np.isnan(fitness[:start])])[::-1][:16]
        of = fitness[parents[start : start + 16]]
        assert (parents[start : start + 16] < start).all()
        assert (np.isnan(of) | (of >= pool[-1])).all()
        assert len(set(parents[start : start + 16])) > 1
    np.testing.assert_array_equal(genes_of_one(found.best()), genes[np.nanargmax(fitness)])


def test_a_search_of_nothing_but_failures_ends():
    found = search(
        lambda a, key: np.full(16, np.nan, np.float32), generations=1, key=jax.random.key(0)
    )
    assert np.isnan(found.fitness).all()
    assert isinstance(found.best(), Architecture)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 17}, "1 <= size <= population"),
        ({"size": 0}, "1 <= size <= population"),
        ({"generations": -1}, "generations >= 0"),
    ],
)
def test_a_search_that_cannot_be_is_refused(options, message):
    options = {"generations": 1, "size": 3} | options
    with pytest.raises(ValueError, match=message):
        search(lambda a, key: jnp.zeros(16), key=jax.random.key(0), **options)


def test_a_fitness_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"evaluate must give 16 numbers, got shape \(\)"):
        search(lambda a, key: jnp.zeros(()), generations=1, key=jax.random.key(0))


@pytest.mark.parametrize("size", [0, 3])
def test_a_tournament_needs_candidates(size):
    with pytest.raises(ValueError, match=f"size must be between 1 and 2 candidates, got {size}"):
        tournament(jnp.zeros(2), count=1, size=size, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (((), 1, 1), "modalities must be one or more names"),
        ((("a", "a"), 1, 1), "modalities must be one or more names"),
        ((("a",), 0, 1), "depth must be at least 1, got 0"),
        ((("a",), 1, 0), "cells must be at least 1, got 0"),
        (("ab", 1, 1), "modalities must be a tuple of names, got 'ab'"),
        ((["a", "b"], 1, 1), r"modalities must be a tuple of names, got \['a', 'b'\]"),
    ],
)
def test_a_space_without_anything_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Space(*fields)
