"""What triplets cost where it can be worked out by hand, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mmjax.losses.triplet import triplet_margin

# Points on a line. From 0: positives at 1 and 3, negatives at 2 and 5.
LINE = np.array([[0.0], [1.0], [3.0], [2.0], [5.0]], np.float32)
CLASS = np.array([0, 0, 0, 1, 1], np.int32)


@pytest.mark.parametrize(
    ("mining", "wanted"),
    [
        ("hard", 1.5 + 3 - 2),  # the furthest positive, the nearest negative
        ("semi-hard", ((1.5 + 1 - 2) + 0) / 2),  # 2 is beyond 1; only 5 is beyond 3, by a margin
        ("all", (0.5 + 0 + 2.5 + 0) / 4),  # (1, 2), (1, 5), (3, 2), (3, 5)
    ],
)
def test_an_anchor_among_its_like(mining, wanted):
    options = {"margin": 1.5, "mining": mining, "distance": "euclidean"}
    rows = triplet_margin(LINE, labels=CLASS, **options)
    np.testing.assert_allclose(rows[0], wanted, rtol=1e-6)


def test_an_anchor_is_its_own_positive_only_where_the_candidates_are_others():
    alone, options = np.arange(5, dtype=np.int32), {"margin": 1.5, "distance": "euclidean"}
    np.testing.assert_array_equal(triplet_margin(LINE, labels=alone, **options), np.zeros(5))
    # The nearest other point is 1 away, the own partner 0: 1.5 + 0 - 1; from 5 it is 2 away.
    rows = triplet_margin(LINE, LINE, labels=alone, **options)
    np.testing.assert_allclose(rows, [0.5, 0.5, 0.5, 0.5, 0])
    np.testing.assert_allclose(triplet_margin(LINE, LINE, **options), rows)


@pytest.mark.parametrize("mining", ["hard", "semi-hard", "all"])
def test_every_mining_sees_labels_that_say_the_same_as_the_pairing(mining):
    x, y = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    options = {"margin": 2.0, "mining": mining, "distance": "squared"}
    labels = np.arange(6, dtype=np.int32)
    np.testing.assert_allclose(
        triplet_margin(x, y, labels=labels, **options), triplet_margin(x, y, **options), rtol=1e-5
    )


@pytest.mark.parametrize(("distance", "wanted"), [("squared", 4 - 1), ("euclidean", 2 - 1)])
def test_distances(distance, wanted):
    x, y = np.array([[0.0], [9.0]], np.float32), np.array([[2.0], [1.0]], np.float32)
    rows = triplet_margin(x, y, margin=0.25, distance=distance)
    np.testing.assert_allclose(rows[0], 0.25 + wanted, rtol=1e-6)


def test_a_batch_of_one_class_has_no_negative():
    for mining in ("hard", "semi-hard", "all"):
        rows = triplet_margin(LINE, labels=np.zeros(5, np.int32), mining=mining, margin=1.0)
        np.testing.assert_array_equal(rows, np.zeros(5))


def test_partners_that_coincide_have_a_finite_gradient():
    x = jnp.eye(3)

    def value(x, y):
        return triplet_margin(x, y, margin=2.0, distance="euclidean").sum()

    gradients = jax.jit(jax.grad(value, argnums=(0, 1)))(x, x)
    assert all(np.all(np.isfinite(g)) and np.any(g) for g in gradients)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mining": "semihard"},
            "mining must be one of 'hard', 'semi-hard', 'all', got 'semihard'",
        ),
        ({"distance": "l2"}, "distance must be one of 'cosine', 'euclidean', 'squared', got 'l2'"),
        ({"margin": 0}, "margin must be positive and finite, got 0"),
        ({}, "expected a candidate or labels, got neither"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    candidate = LINE if options else None
    with pytest.raises(ValueError, match=message):
        triplet_margin(LINE, candidate, **options)


@pytest.mark.parametrize("labels", [CLASS.astype(np.float32), CLASS[:4], CLASS[:, None]])
def test_labels_of_another_kind_or_shape_are_refused(labels):
    with pytest.raises(TypeCheckError):
        triplet_margin(LINE, labels=labels)


@pytest.mark.parametrize("mining", ["hard", "semi-hard", "all"])
def test_memory_is_that_of_distances_and_not_of_triplets(mining):
    n = 256
    run = jax.jit(jax.grad(lambda x, labels: triplet_margin(x, labels=labels, mining=mining).sum()))
    shapes = jax.ShapeDtypeStruct((n, 8), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.int32)
    temporary = run.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 20 * 4 * n * n < 4 * n**3
