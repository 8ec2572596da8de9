"""A search for where modalities meet and how: architectures as integers, evolved by tournaments.

>>> space = Space(("image", "text"), depth=2, cells=2)
>>> wanted = random_architectures(space, 1, key=jax.random.key(1))
>>> def alike(architectures, key):  # of a candidate: the share of its genes that are wanted
...     genes, target = flatten(architectures), flatten(wanted)
...     return jnp.mean(genes == target, axis=1)
>>> found = evolve(alike, space, key=jax.random.key(0), population=16, generations=20)
>>> bool(found.fitness.max() > found.fitness[:16].max())
True
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mmjax.arrays import Array, checked

#: What a layer of a modality may be, and how a cell may combine what it reads.
LAYERS = ("skip", "dense", "gated")
OPERATORS = ("sum", "product", "maximum", "attention")


class Architecture(NamedTuple):
    """One candidate, or with a leading axis on each field, a population of them.

    Attributes:
        layers: ``[m, l]``, of each modality (in the order of their names) the kind of each layer,
            a place in :data:`LAYERS`.
        points: ``[c, m]``, for each cell and modality, after how many layers the cell reads it: 0
            is early fusion, l late fusion, and l + 1 means that it does not.
        operators: ``[c]``, how each cell combines what it reads, a place in :data:`OPERATORS`.
        earlier: ``[c]``, which earlier cell each cell reads too; its own number means none.
    """

    layers: Int[Array, "*p m l"]
    points: Int[Array, "*p c m"]
    operators: Int[Array, "*p c"]
    earlier: Int[Array, "*p c"]


@dataclasses.dataclass(frozen=True)
class Space:
    """What is searched: the mixtures of fusion points and operators of a :class:`Supernet`.

    Attributes:
        modalities: their names.
        depth: l, layers that each modality has at most.
        cells: c, places where modalities may meet.

    Raises:
        ValueError: without a modality, a layer or a cell, if a name comes twice, or if the names
            are no tuple.

    Source: Xu et al. 2021, arXiv:2102.02340, sec. 3: architectures of the modalities and of their
    fusion (early, hybrid and late) in one search. Its blocks are those of the Evolved Transformer;
    ours are the few in :data:`LAYERS` and :data:`OPERATORS`.

    >>> Space(("image", "text"), depth=2, cells=1).choices().points
    array([[4, 4]])
    """

    modalities: tuple[str, ...]
    depth: int
    cells: int

    def __post_init__(self):
        if not isinstance(self.modalities, tuple):  # a string would pass for its letters
            raise ValueError(f"modalities must be a tuple of names, got {self.modalities!r}")
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"modalities must be one or more names, got {self.modalities}")
        for name, value in {"depth": self.depth, "cells": self.cells}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    def choices(self) -> Architecture:
        """Number of choices for each gene; each is an integer from 0 to below that."""
        m, own = len(self.modalities), np.arange(self.cells)
        return Architecture(
            layers=np.full((m, self.depth), len(LAYERS)),
            points=np.full((self.cells, m), self.depth + 2),
            operators=np.full(self.cells, len(OPERATORS)),
            earlier=own + 1,
        )


class History(NamedTuple):
    """Every candidate of a search, in the order in which they were made, in NumPy arrays.

    Attributes:
        architectures: of e candidates.
        fitness: of each; that of a candidate whose training diverged may be NaN.
        parents: the number of each one's parent, -1 in the first generation.
    """

    architectures: Architecture
    fitness: Float[np.ndarray, "e"]
    parents: Int[np.ndarray, "e"]

    def best(self) -> Architecture:
        """The fittest candidate; NaN is never it, unless there is nothing else."""
        return candidate(self.architectures, self.fittest(1)[0])

    def fittest(self, count: int) -> Int[np.ndarray, "{count}"]:
        """Numbers of the ``count`` fittest candidates, best first; of equals the later ones."""
        # The later ones, so that a change that costs nothing may lead on. NumPy sorts NaN last.
        return (len(self.fitness) - 1 - np.argsort(-self.fitness[::-1], kind="stable"))[:count]


@checked
def flatten(architectures: Architecture) -> Int[jax.Array, "p g"]:
    """Put the g genes of each of p architectures into one row."""
    count = len(architectures.operators)
    return jnp.concatenate([jnp.reshape(x, (count, -1)) for x in architectures], axis=1)


@checked
def unflatten(space: Space, genes: Int[Array, "p g"]) -> Architecture:
    """Undo :func:`flatten`."""
    shapes = [choices.shape for choices in space.choices()]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = jnp.split(jnp.asarray(genes), ends, axis=1)
    return Architecture(*(x.reshape(-1, *shape) for x, shape in zip(parts, shapes, strict=True)))


def candidate(architectures: Architecture, number: int | Array) -> Architecture:
    """Take one out of a population, or several by their numbers."""
    return jax.tree.map(lambda x: x[number], architectures)


def random_architectures(space: Space, count: int, *, key: jax.Array) -> Architecture:
    """Draw ``count`` architectures, each gene evenly from its choices.

    >>> drawn = random_architectures(Space(("a", "b"), depth=2, cells=3), 5, key=jax.random.key(0))
    >>> drawn.points.shape, drawn.earlier[:, 0].tolist()
    ((5, 3, 2), [0, 0, 0, 0, 0])
    """
    choices = _choices(space)
    return unflatten(space, jax.random.randint(key, (count, len(choices)), 0, choices[None]))


def mutate(architectures: Architecture, space: Space, *, key: jax.Array) -> Architecture:
    """Change one gene of each architecture, drawn evenly from those that have a choice.

    Args:
        architectures: p of them.
        space: that they are from.
        key: random key.

    Returns:
        p architectures; the gene takes each of its other values with the same probability.

    Source: So et al. 2019, arXiv:1901.11117, sec. 3, from which Xu et al. 2021, arXiv:2102.02340,
    sec. 3, take their evolution; one gene instead of each with some probability.

    >>> space = Space(("a", "b"), depth=2, cells=3)
    >>> parents = random_architectures(space, 4, key=jax.random.key(0))
    >>> children = mutate(parents, space, key=jax.random.key(1))
    >>> jnp.sum(flatten(parents) != flatten(children), axis=1).tolist()
    [1, 1, 1, 1]
    """
    genes, choices = flatten(architectures), _choices(space)
    where, which = jax.random.split(key)
    place = jax.random.choice(where, np.flatnonzero(choices > 1), (len(genes), 1))
    limit = jnp.asarray(choices)[place]
    step = jax.random.randint(which, place.shape, 1, limit)
    moved = (jnp.take_along_axis(genes, place, axis=1) + step) % limit
    return unflatten(space, jnp.put_along_axis(genes, place, moved, axis=1, inplace=False))


@checked
def tournament(
    fitness: Float[Array, "e"], *, count: int, size: int, key: jax.Array
) -> Int[jax.Array, "{count}"]:
    """Hold ``count`` tournaments among ``size`` candidates each, drawn without replacement.

    Args:
        fitness: of each candidate; NaN loses to everything.
        count: number of tournaments.
        size: candidates in each, from 1 (a draw by lot) to e (the fittest always wins).
        key: random key.

    Returns:
        The number of the winner of each.

    Raises:
        ValueError: if ``size`` is not between 1 and e.

    Source: Real et al. 2019, arXiv:1802.01548, sec. 3 (Goldberg and Deb 1991).

    >>> fitness = jnp.array([0.1, jnp.nan, 0.3])
    >>> tournament(fitness, count=2, size=3, key=jax.random.key(0)).tolist()
    [2, 2]
    """
    if not 1 <= size <= len(fitness):
        raise ValueError(f"size must be between 1 and {len(fitness)} candidates, got {size}")
    # argmax would take NaN: it gets a rank below all others, -inf included.
    lowest = jnp.finfo(fitness.dtype).min
    rank = jnp.where(jnp.isnan(fitness), -jnp.inf, jnp.maximum(fitness, lowest))

    def winner(key: jax.Array) -> jax.Array:
        drawn = jax.random.permutation(key, len(fitness))[:size]
        return drawn[jnp.argmax(rank[drawn])]

    return jax.vmap(winner)(jax.random.split(key, count))


def evolve(
    evaluate: Callable[[Architecture, jax.Array], Array],
    space: Space,
    *,
    population: int,
    generations: int,
    size: int = 3,
    key: jax.Array,
) -> History:
    """Search by evolution: tournaments choose the parents, and each child differs in one gene.

    The pool in which tournaments are held is the ``population`` fittest candidates so far.

    Args:
        evaluate: called once a generation with ``population`` architectures and a key; gives the
            fitness of each, higher is better. Give it compiled; it can train all of them at once
            by :func:`mmjax.fusion.population.train_population`.
        space: to search in.
        population: candidates that are made, and trained at once, in each generation.
        generations: how many come after the first, which is random.
        size: candidates in a tournament, at most ``population``.
        key: random key; the same key and fitnesses give the same search.

    Returns:
        All ``population * (1 + generations)`` candidates. Choose the final one by data that no
        fitness has seen: the fittest of many is so by luck too.

    Raises:
        ValueError: for a ``population`` or ``size`` below 1, a ``size`` above ``population``,
            negative ``generations``, or an ``evaluate`` that does not give one number for each.

    Source: Xu et al. 2021, arXiv:2102.02340, sec. 3 (tournament selection). There one child is born
    at a time and a tournament also decides who dies; here a generation is born at a time, so that
    it trains under ``vmap``, and the least fit die.
    """
    if not 1 <= size <= population or generations < 0:
        raise ValueError(
            "expected 1 <= size <= population and generations >= 0, got"
            f" {size=}, {population=} and {generations=}"
        )
    drawing, judging, rest = jax.random.split(key, 3)
    born = _drawn(space, population, key=drawing)
    history = _judged(evaluate, born, np.full(population, -1), judging)
    for key in jax.random.split(rest, generations):
        breeding, judging = jax.random.split(key)
        pool = history.fittest(population)
        of_pool = candidate(history.architectures, pool), history.fitness[pool]
        won, born = _bred(*of_pool, space=space, size=size, key=breeding)
        added = _judged(evaluate, born, pool[np.asarray(won)], judging)
        history = jax.tree.map(lambda old, new: np.concatenate([old, new]), history, added)
    return history


# Compiled, for a generation is dozens of small operations, which would compile one by one.
@functools.partial(jax.jit, static_argnames=("space", "count"))
def _drawn(space: Space, count: int, *, key: jax.Array) -> Architecture:
    """Give the first generation."""
    return random_architectures(space, count, key=key)


@functools.partial(jax.jit, static_argnames=("space", "size"))
def _bred(
    pool: Architecture, fitness: jax.Array, *, space: Space, size: int, key: jax.Array
) -> tuple[jax.Array, Architecture]:
    """Give who won each of as many tournaments as there are candidates, and the children."""
    choosing, changing = jax.random.split(key)
    won = tournament(fitness, count=len(fitness), size=size, key=choosing)
    return won, mutate(candidate(pool, won), space, key=changing)


def _judged(evaluate: Callable, born: Architecture, parents: np.ndarray, key: jax.Array) -> History:
    """Give a generation with its fitness; a history grows on the host, where no shape compiles."""
    fitness = np.asarray(evaluate(born, key))
    if not jnp.issubdtype(fitness.dtype, jnp.floating):
        fitness = fitness.astype(np.float32)  # a count is as good, but NaN has to have a place
    if fitness.shape != parents.shape:
        raise ValueError(f"evaluate must give {len(parents)} numbers, got shape {fitness.shape}")
    return History(jax.tree.map(np.asarray, born), fitness, parents)


def _choices(space: Space) -> np.ndarray:
    return np.concatenate([x.ravel() for x in space.choices()]).astype(np.int32)
