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
seeds = st.integers(0, 2**31 - 1)
drawn = jax.jit(lambda seed: random_architectures(SPACE, MANY, key=jax.random.key(seed)))
changed = jax.jit(lambda a, seed: mutate(a, SPACE, key=jax.random.key(seed)))


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
@given(seeds)
def test_architectures_are_drawn_evenly(seed):
    for gene, choices in zip(np.asarray(flatten(drawn(seed))).T, CHOICES, strict=True):
        evenly(gene, choices)


@settings(max_examples=10, deadline=None)
@given(seeds, seeds)
def test_a_mutation_changes_one_gene_to_any_other_value(seed, other):
    parents = drawn(seed)
    before, after = (np.asarray(flatten(a)) for a in (parents, changed(parents, other)))
    moved = before != after
    assert (moved.sum(axis=1) == 1).all()
    assert (after >= 0).all()
    assert (after < CHOICES).all()
    free = np.flatnonzero(CHOICES > 1)
    evenly(np.searchsorted(free, moved.argmax(axis=1)), len(free))
    steps = (after - before)[:, free[0]] % CHOICES[free[0]]
    evenly(steps[steps > 0] - 1, CHOICES[free[0]] - 1)


def test_flattening_can_be_undone():
    population = drawn(0)
    jax.tree.map(np.testing.assert_array_equal, unflatten(SPACE, flatten(population)), population)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_fittest_wins_as_often_as_it_is_drawn(size):
    fitness = jnp.array([0.1, jnp.nan, 0.9, -jnp.inf, 0.3])
    won = np.asarray(tournament(fitness, count=MANY, size=size, key=jax.random.key(0)))
    expected = size / 5
    deviation = np.sqrt(MANY * expected * (1 - expected))
    assert abs(np.sum(won == 2) - MANY * expected) <= 5 * deviation
    assert np.sum(won == 1) <= (size == 1) * MANY  # NaN needs to be alone


def matches(architectures, key, *, target):
    """Fitness without training: the genes that are as wanted."""
    return jnp.sum(flatten(architectures) == target[None], axis=1).astype(jnp.float32)


TARGET = flatten(random_architectures(SPACE, 1, key=jax.random.key(7)))[0]
search = functools.partial(evolve, space=SPACE, population=16)


def test_evolution_finds_what_chance_does_not():
    evaluate = functools.partial(matches, target=TARGET)
    found = search(evaluate, generations=20, key=jax.random.key(0))
    count = 16 * 21
    by_chance = matches(
        random_architectures(SPACE, count, key=jax.random.key(1)), None, target=TARGET
    )
    assert found.fitness.max() == len(CHOICES)
    assert by_chance.max() < len(CHOICES)
    np.testing.assert_array_equal(flatten(jax.tree.map(lambda x: x[None], found.best()))[0], TARGET)


def test_a_search_is_a_function_of_its_key():
    evaluate = functools.partial(matches, target=TARGET)
    a, again, b = (search(evaluate, generations=3, key=jax.random.key(s)) for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, a, again)
    assert (flatten(a.architectures) != flatten(b.architectures)).any()


def test_a_history_tells_who_came_of_whom():
    def evaluate(architectures, key):  # noise, and every third training diverges
        fitness = jax.random.normal(key, (16,))
        return jnp.where(jnp.arange(16) % 3 == 0, jnp.nan, fitness)

    found = search(evaluate, generations=4, size=2, key=jax.random.key(0))
    genes, fitness = np.asarray(flatten(found.architectures)), np.asarray(found.fitness)
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
    best = flatten(jax.tree.map(lambda x: x[None], found.best()))[0]
    np.testing.assert_array_equal(best, genes[np.nanargmax(fitness)])


def test_a_search_of_nothing_but_failures_ends():
    found = search(lambda a, key: jnp.full(16, jnp.nan), generations=1, key=jax.random.key(0))
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
    ],
)
def test_a_space_without_anything_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Space(*fields)
