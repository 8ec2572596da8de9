"""Bounds of a score matrix against their definitions, and on Gaussians of known information."""

import functools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from mmjax.information.lower_bounds import (
    donsker_varadhan_bound,
    info_nce_bound,
    jensen_shannon_bound,
    nwj_bound,
    nwj_of_log_ratio,
    smile,
)
from mmjax.information.scores import read_scores, same_condition
from mmjax.information.upper_bounds import leave_one_out_bound, nce_club

N, M = 5, 7
RNG = np.random.default_rng(0)
SCORES = 2 * RNG.normal(size=(N, M))
WEIGHTS = RNG.uniform(0.5, 1.5, N)
MASKS = {
    "full": np.ones(N, bool),
    "ragged": np.array([1, 0, 1, 1, 0], bool),
    "single": np.arange(N) == 2,
    "empty": np.zeros(N, bool),
    "pairs": RNG.random((N, M)) < 0.6,
    "no negatives": np.eye(N, M, dtype=bool),
}
MASKS["pairs"][[0, 1, 2], [0, 1, 2]] = [True, False, True]


# Of a row: its own score, those of its negatives; ``others`` are all rows' negatives.
def info_nce(own, negatives, others):
    return np.log(np.exp(own) / np.mean(np.exp([own, *negatives])))


def nwj(own, negatives, others):
    return own - np.mean(np.exp(negatives)) / math.e


def nwj_log_ratio(own, negatives, others):
    return 1 + own - np.mean(np.exp(negatives))


def donsker_varadhan(own, negatives, others):
    return own - np.log(np.mean([np.mean(np.exp(z)) for z in others]))


def jensen_shannon(own, negatives, others):
    """The generator of the divergence at a classifier's probabilities, not at its logits."""
    joint = 1 / (1 + np.exp(-own))
    marginals = 1 / (1 + np.exp(-np.array(negatives)))
    return math.log(2) + np.log(joint) / 2 + np.mean(np.log(1 - marginals)) / 2


def smile_at_1(own, negatives, others):
    clipped = [np.mean(np.clip(np.exp(z), math.exp(-1), math.e)) for z in others]
    return own - np.log(np.mean(clipped))


def leave_one_out(own, negatives, others):
    return own - np.log(np.mean(np.exp(negatives)))


def contrast(own, negatives, others):
    return own - np.mean(negatives)


BOUNDS = {
    "info_nce_bound": (info_nce_bound, info_nce),
    "nwj_bound": (nwj_bound, nwj),
    "nwj_of_log_ratio": (nwj_of_log_ratio, nwj_log_ratio),
    "donsker_varadhan_bound": (donsker_varadhan_bound, donsker_varadhan),
    "jensen_shannon_bound": (jensen_shannon_bound, jensen_shannon),
    "smile": (functools.partial(smile, clip=1.0), smile_at_1),
    "leave_one_out_bound": (leave_one_out_bound, leave_one_out),
    "nce_club": (nce_club, contrast),
}
every_bound = pytest.mark.parametrize("name", BOUNDS)


def problem(name, mask):
    """Scores and mask, square where the bound has no use for further columns."""
    scores, where = SCORES, MASKS[mask]
    if name == "leave_one_out_bound":
        scores = scores[:, :N]
        where = where[..., :N] if where.ndim == 2 else where
    return scores, where


def by_definition(name, scores, where):
    """One value per row, from lists of what is valid."""
    n, m = scores.shape
    if where.ndim == 1:
        where = where[:, None] & np.concatenate([where, np.ones(m - n, bool)])
    if name == "leave_one_out_bound":  # a row of the definition is a column of the matrix
        scores, where = scores.T, where.T
    negatives = {
        i: [scores[i, j] for j in range(m) if j != i and where[i, j]]
        for i in range(n)
        if where[i, i]
    }
    usable = {i: z for i, z in negatives.items() if z}
    definition = BOUNDS[name][1]
    return np.array(
        [
            definition(scores[i, i], usable[i], list(usable.values())) if i in usable else 0.0
            for i in range(n)
        ]
    )


@functools.cache
def compiled(name):
    def total(scores, where):
        rows = BOUNDS[name][0](scores, where=where)
        return jnp.sum(rows * WEIGHTS), rows

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def invalid_as(value, scores, where):
    """The same scores, but ``value`` wherever no valid pair is."""
    n, m = scores.shape
    if where.ndim == 1:
        where = where[:, None] & np.concatenate([where, np.ones(m - n, bool)])
    return np.where(where, scores, value)


@pytest.mark.parametrize("mask", MASKS)
@every_bound
def test_rows_and_gradients_are_those_of_the_definition(name, mask):
    scores, where = problem(name, mask)
    with jax.enable_x64(True), jax.debug_nans(True), jax.debug_infs(True):
        (_, rows), gradient = compiled(name)(invalid_as(1e30, scores, where), where)
    np.testing.assert_allclose(rows, by_definition(name, scores, where), rtol=1e-12, atol=1e-12)
    step = 1e-6
    for i, j in np.ndindex(scores.shape):
        change = np.zeros_like(scores)
        change[i, j] = step
        ends = (by_definition(name, scores + s * change, where) @ WEIGHTS for s in (1, -1))
        slope = np.subtract(*ends) / (2 * step)
        np.testing.assert_allclose(gradient[i, j], slope, rtol=1e-5, atol=1e-8)


@every_bound
def test_what_is_invalid_may_be_nan(name):
    scores, where = problem(name, "ragged")
    with jax.enable_x64(True):
        (_, rows), gradient = compiled(name)(invalid_as(np.nan, scores, where), where)
    np.testing.assert_allclose(rows, by_definition(name, scores, where), rtol=1e-12)
    assert np.all(np.isfinite(gradient))


@every_bound
def test_no_mask_is_all_rows_and_bfloat16_is_widened(name):
    scores, _ = problem(name, "full")
    function = jax.jit(BOUNDS[name][0])
    narrow = jnp.asarray(scores, jnp.bfloat16)
    rows = function(narrow)
    assert rows.dtype == jnp.float32
    wanted = by_definition(name, np.float64(narrow), MASKS["full"])
    np.testing.assert_allclose(rows, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["info_nce_bound", "donsker_varadhan_bound", "jensen_shannon_bound", "nce_club"]
)
def test_scores_of_any_size_overflow_nothing(name):
    scores = np.float32(1e4) * np.float32(SCORES)
    rows, slopes = jax.jit(jax.vmap(jax.value_and_grad(lambda s: BOUNDS[name][0](s).sum())))(
        np.stack([scores, -scores])
    )
    assert np.all(np.isfinite(rows))
    assert np.all(np.isfinite(slopes))


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    values=st.lists(st.floats(-50, 50, width=32), min_size=N * M, max_size=N * M),
    own=st.floats(0, 1000, width=32),
)
def test_info_nce_is_never_more_than_the_logarithm_of_the_columns(values, own):
    scores = np.reshape(np.float32(values), (N, M)) + own * np.eye(N, M, dtype=np.float32)
    assert np.all(run_info_nce(scores) <= math.log(M) + 1e-4)


run_info_nce = jax.jit(info_nce_bound)


@pytest.mark.parametrize("name", ["info_nce_bound", "donsker_varadhan_bound", "nce_club"])
def test_a_constant_added_to_all_scores_changes_nothing(name):
    function = jax.jit(BOUNDS[name][0])
    shifted = function(np.float32(SCORES + 3))
    np.testing.assert_allclose(function(np.float32(SCORES)), shifted, atol=1e-5)


CORRELATION, PAIRS, ROWS = 0.8, 2, 800
INFORMATION = -PAIRS / 2 * math.log(1 - CORRELATION**2)
JEFFREYS = PAIRS * CORRELATION**2 / (1 - CORRELATION**2)  # both divergences together


@pytest.fixture(scope="module")
def gaussians():
    """log p(y | x) and log p(y) of every pair of two correlated Gaussians."""
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(2, ROWS, PAIRS))
    y = CORRELATION * x + math.sqrt(1 - CORRELATION**2) * noise
    variance = 1 - CORRELATION**2
    residual = y[None] - CORRELATION * x[:, None]
    conditional = -np.sum(residual**2 / variance + math.log(2 * math.pi * variance), -1) / 2
    marginal = -np.sum(y**2 + math.log(2 * math.pi), -1) / 2
    return np.float32(conditional), np.float32(conditional - marginal)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("info_nce_bound", INFORMATION),
        ("nwj_of_log_ratio", INFORMATION),
        ("donsker_varadhan_bound", INFORMATION),
        ("leave_one_out_bound", INFORMATION),
        ("nce_club", JEFFREYS),
    ],
)
def test_the_true_density_ratio_gives_the_information(gaussians, name, wanted):
    """With this many rows each is within its own sampling error of its limit."""
    conditional, ratio = gaussians
    scores = conditional if name == "leave_one_out_bound" else ratio
    rows = np.float64(jax.jit(BOUNDS[name][0])(scores))
    assert rows.mean() == pytest.approx(wanted, abs=4 * rows.std() / math.sqrt(ROWS))


def test_each_bound_is_on_its_side_of_the_information(gaussians):
    """For a critic that is not the best one: half of the ratio; with few rows, for the others."""
    _, ratio = gaussians
    few = np.stack([ratio[i : i + 8, i : i + 8] for i in range(0, ROWS - 8, 8)])

    @jax.jit
    def means(ratio, few):
        lower = (info_nce_bound, donsker_varadhan_bound, nwj_of_log_ratio)
        upper = jax.vmap(leave_one_out_bound)(few), nce_club(ratio)
        return [jnp.mean(bound(ratio / 2)) for bound in lower], [jnp.mean(rows) for rows in upper]

    lower, upper = means(ratio, few)
    assert max(lower) < INFORMATION - 0.05
    assert min(upper) > INFORMATION + 0.05


def test_smile_without_clipping_is_donsker_varadhan_and_with_it_exceeds(gaussians):
    _, ratio = gaussians
    run = jax.jit(smile)
    plain = jax.jit(donsker_varadhan_bound)(ratio)
    np.testing.assert_allclose(run(ratio, clip=1e4), plain, rtol=1e-5)
    # The same rows, so that the difference is that of the partitions: a tenth, with this clip.
    assert np.mean(run(ratio, clip=0.5)) > np.mean(plain) + 0.05


def test_negatives_of_the_same_condition_bound_the_conditional_information():
    """Y is X's sign or its opposite, as the condition says: nothing is known without it."""
    rng = np.random.default_rng(2)
    x, condition = rng.integers(0, 2, (2, 400))
    y = x ^ condition
    scores = np.float32(20.0 * ((x[:, None] ^ y[None]) == condition[:, None]))
    pairs = same_condition(condition)
    run = jax.jit(info_nce_bound)
    conditional = run(scores, where=pairs).mean()
    assert conditional == pytest.approx(math.log(2), abs=0.02)
    alone = np.float32(20.0 * (x[:, None] == y[None]))
    assert run(alone).mean() < 0.01


def test_same_condition_leaves_out_what_is_invalid():
    condition, where = np.array([3, 5, 3, 3]), np.array([True, True, False, True])
    wanted = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]], bool)
    np.testing.assert_array_equal(same_condition(condition, where=where), wanted)


@every_bound
def test_fewer_columns_than_rows_are_refused(name):
    error = TypeCheckError if name == "leave_one_out_bound" else ValueError
    with pytest.raises(error):
        BOUNDS[name][0](np.zeros((3, 2), np.float32))


def test_the_message_says_what_is_wrong_with_the_matrix():
    with pytest.raises(ValueError, match=r"a column for each row.* got 3 rows and 2 columns"):
        read_scores(jnp.zeros((3, 2)), None)


@pytest.mark.parametrize("clip", [0.0, -1.0, math.inf])
def test_a_clip_that_is_not_positive_is_refused(clip):
    with pytest.raises(ValueError, match="clip must be positive"):
        smile(np.eye(2, dtype=np.float32), clip=clip)
