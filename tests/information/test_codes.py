"""Codes of rows: how often they occur together, directions that vary the most, clusters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.information import joint_probabilities, k_means, principal_components

RNG = np.random.default_rng(0)


def test_frequencies_are_counted_of_valid_rows_with_a_known_code():
    codes = RNG.integers(-1, 4, size=(3, 200))  # -1 and 3 are no codes
    codes[0, ::50] = 2**32 + 1  # nor is what 32 bits would wrap to 1
    where = RNG.random(200) < 0.7
    sizes = (3, 2, 3)
    counts = np.zeros(sizes)
    for row in codes[:, where].T:
        if all(0 <= code < size for code, size in zip(row, sizes, strict=True)):
            counts[tuple(row)] += 1
    found = joint_probabilities(*codes, sizes=sizes, where=where)
    np.testing.assert_allclose(found, counts / counts.sum(), rtol=1e-6)
    assert not np.any(joint_probabilities(*codes, sizes=sizes, where=np.zeros(200, bool)))
    narrow = codes.astype(np.uint8)  # -1 is 255, 2 ** 32 + 1 is 1
    narrow[0, ::50] = 3
    np.testing.assert_array_equal(joint_probabilities(*narrow, sizes=sizes, where=where), found)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"one for each of 2 variables, got \(3,\)"):
        joint_probabilities(*[np.zeros(4, int)] * 2, sizes=(3,))
    with pytest.raises(ValueError, match="sizes must be positive"):
        joint_probabilities(np.zeros(4, int), sizes=(0,))
    with pytest.raises(TypeCheckError, match="n=4"):
        joint_probabilities(np.zeros(4, int), np.zeros(4, int), np.zeros(3, int), sizes=(1, 1, 1))


def test_principal_components_are_those_of_a_singular_value_decomposition():
    x = RNG.normal(size=(30, 5)) @ np.diag([5.0, 3.0, 1.0, 0.2, 0.1]) + 7
    centred = x - x.mean(axis=0)
    _, _, directions = np.linalg.svd(centred)
    wanted = centred @ directions[:2].T
    for scale in (1, 1e20):  # whose square float32 does not hold
        found = np.asarray(principal_components((x * scale).astype(np.float32), 2)) / scale
        signs = np.sign((found * wanted).sum(axis=0))
        np.testing.assert_allclose(found * signs, wanted, atol=2e-4)


def test_components_that_are_missing_are_zeros():
    x = RNG.normal(size=(6, 2)).astype(np.float32)
    found = principal_components(x, 3)
    assert found.shape == (6, 3)
    assert not np.any(found[:, 2])
    with pytest.raises(ValueError, match="k must be at least 1"):
        principal_components(x, 0)


@pytest.mark.parametrize(("offset", "unit"), [(0.0, 1.0), (1e5, 1.0), (0.0, 1e20)])
def test_clusters_that_are_far_apart_are_found(offset, unit):
    truth = RNG.integers(4, size=120)
    centres = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    x = (centres[truth] + RNG.normal(size=(120, 2)) * 0.5 + offset).astype(np.float32)
    x *= np.float32(unit)
    codes, found = k_means(x, clusters=4, key=jax.random.key(0))
    pairs = set(zip(truth.tolist(), np.asarray(codes).tolist(), strict=True))
    assert len(pairs) == 4  # one code for each cluster, one cluster for each code
    for cluster, code in pairs:
        wanted = np.float64(x[truth == cluster]).mean(axis=0)
        np.testing.assert_allclose(found[code], wanted, atol=1e-4 * unit, rtol=1e-7)


def test_the_cost_is_no_more_than_that_of_the_package():
    cluster = pytest.importorskip("sklearn.cluster")
    x = RNG.normal(size=(120, 2)).astype(np.float32)
    codes, centres = k_means(x, clusters=4, key=jax.random.key(1))
    cost = ((x - np.asarray(centres)[np.asarray(codes)]) ** 2).sum()
    peer = cluster.KMeans(4, n_init=10, random_state=0).fit(x)
    assert cost <= 1.01 * peer.inertia_


def test_rows_that_are_all_the_same_have_one_code():
    codes, centres = k_means(jnp.ones((5, 2)), clusters=3, key=jax.random.key(0))
    assert len(np.unique(codes)) == 1
    assert np.all(np.isfinite(centres))


def test_numbers_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="clusters, restarts and iterations must be at least 1"):
        k_means(jnp.ones((5, 2)), clusters=0, key=jax.random.key(0))
