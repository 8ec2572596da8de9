"""Nearest-neighbour information by brute force, and as other packages have it."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma

from mmjax.information.nearest_neighbours import ksg

RNG = np.random.default_rng(0)
N = 40
X = RNG.normal(size=(N, 2))
Y = X[:, :1] + RNG.normal(size=(N, 1))
MASKS = {
    "full": np.ones(N, bool),
    "ragged": RNG.random(N) < 0.7,
    "too few": np.arange(N) < 3,
    "empty": np.zeros(N, bool),
}


def definition(x, y, where, *, k, estimator):
    """Sorts all distances of each row in turn."""
    rows, (number,) = np.zeros(len(x)), np.nonzero(where)
    if len(number) <= k:
        return rows
    for i in number:
        others = [j for j in number if j != i]
        dx = np.array([np.abs(x[i] - x[j]).max() for j in others])
        dy = np.array([np.abs(y[i] - y[j]).max() for j in others])
        both = np.maximum(dx, dy)
        nearest = np.argsort(both, kind="stable")[:k]
        radius = both[nearest[-1]]
        if radius == 0:
            counts = [1 + np.sum(z == 0) for z in (both, dx, dy)]
            rows[i] = digamma(counts[0]) - digamma(counts[1]) - digamma(counts[2])
        elif estimator == 1:
            rows[i] = digamma(k) - sum(digamma(1 + np.sum(z < radius)) for z in (dx, dy))
        else:
            inside = [np.sum(z <= z[nearest].max()) for z in (dx, dy)]
            rows[i] = digamma(k) - 1 / k - sum(digamma(count) for count in inside)
        rows[i] += digamma(len(number))
    return rows


@functools.cache
def compiled(k, estimator, chunk_size):
    options = {"neighbours": k, "estimator": estimator, "chunk_size": chunk_size}
    return jax.jit(lambda x, y, where: ksg(x, y, where=where, **options))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("k", "estimator", "chunk_size"), [(3, 1, 256), (4, 2, 17)])
def test_rows_are_those_of_brute_force(mask, k, estimator, chunk_size):
    where = MASKS[mask]
    hidden = [np.float32(np.where(where[:, None], z, np.nan)) for z in (X, Y)]
    found = compiled(k, estimator, chunk_size)(*hidden, where)
    wanted = definition(np.float32(X), np.float32(Y), where, k=k, estimator=estimator)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("k", "estimator", "chunk_size"), [(3, 1, 256), (4, 2, 17)])
def test_repeated_values_are_counted_and_not_fallen_over(k, estimator, chunk_size):
    """A mixture: half of the rows hold one of three values, the others never the same twice."""
    values = np.float32(RNG.integers(0, 3, (N, 1)))
    x = np.where(np.arange(N)[:, None] % 2, values, np.float32(X[:, :1]))
    y = np.where(np.arange(N)[:, None] % 2, np.float32(values > 0), np.float32(Y))
    with jax.debug_nans(True), jax.debug_infs(True):
        found = compiled(k, estimator, chunk_size)(np.repeat(x, 2, axis=1), y, MASKS["full"])
    wanted = definition(x, y, MASKS["full"], k=k, estimator=estimator)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_labels_have_nearly_the_information_of_their_counts():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 3, (300, 1))
    y = np.where(rng.random((300, 1)) < 0.8, x, rng.integers(0, 3, (300, 1)))
    joint = np.histogram2d(x[:, 0], y[:, 0], bins=3)[0] / 300
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    wanted = (joint * np.log(joint / product)).sum()
    found = jax.jit(ksg)(np.float32(x), np.float32(y)).mean()
    assert found == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize("estimator", [1, 2])
def test_gaussians_have_nearly_the_information_of_their_correlation(estimator):
    rng = np.random.default_rng(2)
    x, noise = np.float32(rng.normal(size=(2, 600, 1)))
    y = np.float32(0.9) * x + np.float32(math.sqrt(1 - 0.81)) * noise
    run = jax.jit(lambda x, y: ksg(x, y, estimator=estimator, unit="bits"))
    rows = np.float64(run(x, y))
    wanted = -math.log2(1 - 0.81) / 2
    assert rows.mean() == pytest.approx(wanted, abs=4 * rows.std() / math.sqrt(600))
    assert run(noise, x).mean() == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize(("k", "estimator", "chunk_size"), [(3, 1, 256), (4, 2, 17)])
@pytest.mark.parametrize("ties", [False, True])
def test_a_constant_says_nothing_exactly(ties, k, estimator, chunk_size):
    constant = np.full((N, 1), 3.0, np.float32)
    run = compiled(k, estimator, chunk_size)
    rounded = np.round if ties else np.asarray
    for x, y in ((np.repeat(constant, 2, axis=1), rounded(Y)), (rounded(X), constant)):
        rows = run(np.float32(x), np.float32(y), MASKS["ragged"])
        np.testing.assert_array_equal(rows, np.zeros(N))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_a_valid_row_that_is_not_finite_makes_all_unknown(side, wrong):
    rows = [np.float32(X), np.float32(Y)]
    rows[side][np.argmax(MASKS["ragged"]), 0] = wrong
    found = compiled(3, 1, 256)(*rows, MASKS["ragged"])
    np.testing.assert_array_equal(found, np.where(MASKS["ragged"], np.nan, 0))


def test_it_is_a_constant_for_gradients():
    run = compiled(3, 1, 256)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(run(x, np.float32(Y), MASKS["full"]))))
    gradient = slope(np.float32(X))
    np.testing.assert_array_equal(gradient, np.zeros_like(X))


@pytest.mark.parametrize("k", [2, 5])
def test_the_first_estimator_agrees_with_scikit_learn(k):
    selection = pytest.importorskip("sklearn.feature_selection")
    x, y = (z / z.std(ddof=0) for z in (X[:, 0], Y[:, 0]))
    wanted = selection.mutual_info_regression(x[:, None], y, n_neighbors=k, random_state=0)[0]
    found = ksg(np.float32(x[:, None]), np.float32(y[:, None]), neighbours=k).mean()
    assert found == pytest.approx(wanted, abs=1e-4)


def test_the_first_estimator_agrees_with_infomeasure():
    """Its second one has a single radius for both sides and counts the row itself: not eq. 9."""
    infomeasure = pytest.importorskip("infomeasure")
    wanted = infomeasure.mutual_information(
        X, Y, approach="ksg", k=4, ksg_id=1, noise_level=0, minkowski_p=math.inf
    )
    found = ksg(np.float32(X), np.float32(Y), neighbours=4).mean()
    assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbours": 0}, "between 1 and 39, one less than the rows; got 0"),
        ({"neighbours": 40}, "got 40"),
        ({"estimator": 3}, "estimator must be 1 or 2, got 3"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"unit": "dits"}, "unit must be 'nats' or 'bits', got 'dits'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ksg(np.float32(X), np.float32(Y), **options)


def test_a_single_sample_is_refused():
    with pytest.raises(ValueError, match="neighbours must be between 1 and 0"):
        ksg(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
