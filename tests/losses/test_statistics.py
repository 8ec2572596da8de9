"""What was folded block by block is what is folded at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.losses.blocks import Layout
from mmjax.losses.contrastive import merged
from mmjax.losses.pairs import Matrices, Pairs, Side
from mmjax.losses.scoring import Known, Plan, fold_scores
from mmjax.losses.statistics import Competition, HardCompetition, Judgement

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(30 * RNG.normal(size=(5, 12)), jnp.float32)
COUNTED = jnp.asarray(RNG.uniform(size=(5, 12)) < 0.5).at[0].set(False)
KINDS = [Competition(), Judgement(), HardCompetition(0.5)]


def pairs(columns):
    target = jnp.arange(12)[None] == 2 * jnp.arange(5)[:, None]
    return Pairs(COUNTED[:, columns], (COUNTED & target)[:, columns], None)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_in_blocks_as_at_once(kind):
    start = kind.start(LOGITS[:, 0])
    at_once = kind.fold(start, LOGITS, pairs(slice(None)), axis=1)
    in_blocks = start
    for block in (slice(0, 1), slice(1, 8), slice(8, 12)):
        in_blocks = kind.fold(in_blocks, LOGITS[:, block], pairs(block), axis=1)
    for got, wanted in zip(kind.finish(in_blocks), kind.finish(at_once), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_along_columns_as_along_the_rows_of_the_transpose(kind):
    whole = pairs(slice(None))
    turned = Pairs(whole.counted.T, whole.target.T, None)
    down = kind.fold(kind.start(LOGITS[0]), LOGITS, whole, axis=0)
    across = kind.fold(kind.start(LOGITS[0]), LOGITS.T, turned, axis=1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-5), down, across)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_the_slope_is_the_derivative_of_what_was_folded(kind):
    found = kind.finish(kind.fold(kind.start(LOGITS[:, 0]), LOGITS, pairs(slice(None)), axis=1))
    change = jax.tree.map(
        lambda z: jnp.asarray(np.random.default_rng(1).normal(size=z.shape), z.dtype), found
    )

    def folded(logits):
        state = kind.fold(kind.start(LOGITS[:, 0]), logits, pairs(slice(None)), axis=1)
        return kind.finish(state)

    _, pull_back = jax.vjp(folded, LOGITS)
    (wanted,) = pull_back(change)
    got = kind.slope(found, change, LOGITS, pairs(slice(None)), axis=1)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_merged_statistics_are_those_of_all():
    kind = Competition()

    def of(block):
        return kind.finish(kind.fold(kind.start(LOGITS[:, 0]), LOGITS[:, block], pairs(block), 1))

    both = merged(of(slice(0, 5)), of(slice(5, 12)))
    for got, wanted in zip(both, of(slice(None)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_judgement_of_columns_too(chunk_size):
    """No public loss asks for it, but a plan may say it."""
    x, y = jnp.asarray(RNG.normal(size=(2, 5, 3)), jnp.float32)
    side = Side(jnp.ones(5, bool), jnp.arange(5))
    plan = Plan(Judgement(), Layout(None, chunk_size, False), False, columns_too=True)
    known = Known(side, side, Matrices())
    rows, columns = fold_scores(plan, x, y, known, scale=jnp.float32(2))
    turned, _ = fold_scores(plan, y, x, known, scale=jnp.float32(2))
    np.testing.assert_allclose(rows.cost.sum(), columns.cost.sum(), rtol=1e-5)
    np.testing.assert_allclose(columns.cost, turned.cost, rtol=1e-5)
