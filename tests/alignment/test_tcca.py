"""Tensor canonical correlation: one view of the tensor at a time, and cases that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.alignment import cca, tcca

RNG = np.random.default_rng(0)
N = 60
# Third moments are what three views share: a symmetric latent has none.
LATENT = RNG.gamma(0.5, size=N)
VIEWS = {
    name: LATENT[:, None] * RNG.normal(size=d) + 0.3 * RNG.normal(size=(N, d))
    for name, d in (("a", 3), ("b", 2), ("c", 4))
}
WHERE = {name: RNG.uniform(size=N) < 0.85 for name in VIEWS}
COMPLETE = functools.reduce(np.logical_and, WHERE.values())


@functools.partial(jax.jit, static_argnames=("components", "iterations"))
def solved(views, where, ridge, components, iterations):
    return tcca(views, components=components, ridge=ridge, iterations=iterations, where=where)


def fitted(views, where=None, ridge=0.0, components=1, iterations=50):
    where = where or {name: np.ones(len(x), bool) for name, x in views.items()}
    return solved(views, where, ridge, components, iterations)


def tensor_of(views, ridge):
    """The covariance tensor of whitened rows."""
    rows = []
    for x in views:
        x = x - x.mean(axis=0)
        values, vectors = np.linalg.eigh(x.T @ x / (len(x) - 1) + ridge * np.eye(x.shape[1]))
        rows.append(x @ vectors / np.sqrt(values) @ vectors.T)
    return sum(
        np.multiply.outer(np.multiply.outer(a, b), c) for a, b, c in zip(*rows, strict=True)
    ) / (len(x) - 1)


def best_rank_1(tensor):
    """Largest product with unit vectors, by power iterations from many starts."""
    best = 0
    for _ in range(30):
        vectors = [RNG.normal(size=d) for d in tensor.shape]
        for _ in range(300):
            for axis in range(3):
                others = [vectors[i] for i in range(3) if i != axis]
                moved = np.moveaxis(tensor, axis, 0) @ others[1] @ others[0]
                vectors[axis] = moved / np.linalg.norm(moved)
        best = max(best, np.einsum("abc,a,b,c->", tensor, *vectors))
    return best


@pytest.mark.parametrize("ridge", [0.0, 0.5])
@pytest.mark.parametrize("ragged", [False, True])
def test_the_first_component_is_the_best_there_is(ragged, ridge, double):
    keep = COMPLETE if ragged else np.ones(N, bool)
    bad = {name: np.where(WHERE[name][:, None], x, np.nan) for name, x in VIEWS.items()}
    found = fitted(bad if ragged else VIEWS, WHERE if ragged else None, ridge)
    tensor = tensor_of([x[keep] for x in VIEWS.values()], ridge)
    wanted = best_rank_1(tensor)
    np.testing.assert_allclose(found.correlations, [wanted], rtol=1e-6)
    left = np.sqrt(1 - wanted**2 / (tensor**2).sum())
    np.testing.assert_allclose(found.residual, left, rtol=1e-6)
    # The correlation is what the projections say it is.
    parts = [
        np.asarray(p.project(VIEWS[name][keep]))[:, 0] for name, p in found.projections.items()
    ]
    np.testing.assert_allclose(np.prod(parts, axis=0).sum() / (keep.sum() - 1), wanted, rtol=1e-6)


def test_of_two_views_it_is_cca(double):
    x, y = VIEWS["a"], VIEWS["c"]
    found = fitted({"a": x, "c": y}, components=3)
    wanted = cca(x, y, components=3)
    np.testing.assert_allclose(found.correlations, wanted.correlations, rtol=1e-8)
    both = np.asarray(found.projections["c"].weights) * np.sign(found.projections["a"].weights[0])
    theirs = np.asarray(wanted.y.weights) * np.sign(wanted.x.weights[0])
    np.testing.assert_allclose(both, theirs, atol=1e-7)


def test_a_tensor_of_few_terms_is_found_again(double):
    """Views that take turns in being active: their tensor has one term for each turn."""
    n = 40
    turn, size = np.arange(n) % 2, RNG.gamma(0.3, size=n)
    latent = np.eye(2)[turn] * size[:, None]
    views = {name: latent @ RNG.normal(size=(2, 2)) for name in "abc"}
    found = fitted(views, components=2, iterations=400)
    np.testing.assert_allclose(found.residual, 0, atol=1e-4)


def test_the_order_of_the_views_does_not_matter(double):
    def reverse(views):
        return tcca({name: views[name] for name in "cba"}, components=1)

    found, wanted = jax.jit(reverse)(VIEWS), fitted(VIEWS)
    np.testing.assert_allclose(found.correlations, wanted.correlations, rtol=1e-9)


def test_it_can_be_differentiated(assert_slopes):
    def total(*views):
        found = tcca(dict(zip("abc", views, strict=True)), components=1, ridge=0.1)
        return jnp.sum(found.correlations) + found.residual

    assert_slopes(total, *VIEWS.values())


@pytest.mark.parametrize("kind", ["constant", "one row"])
def test_what_does_not_vary_correlates_with_nothing(kind, double):
    constant = kind == "constant"
    views = VIEWS | {"b": np.ones((N, 2))} if constant else VIEWS
    found = fitted(views, None if constant else dict.fromkeys(VIEWS, np.arange(N) == 3))
    assert not found.correlations.any()
    assert not found.residual.any()


def test_nan_in_a_valid_row_shows(double):
    bad = np.where(np.arange(N)[:, None] == 3, np.nan, VIEWS["b"])
    found = fitted(VIEWS | {"b": bad})
    assert np.isnan(found.correlations).all()
    assert np.isnan(found.residual)


def test_whole_numbers_of_numpy_are_as_good_as_python_s():
    found = jax.eval_shape(
        lambda views: tcca(views, components=np.int64(2), iterations=np.int64(3)), VIEWS
    )
    assert found.correlations.shape == (2,)


def test_without_views_there_is_nothing_to_analyse():
    with pytest.raises(ValueError, match="at least two views, got none"):
        tcca({}, components=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 3}, "components must be between 1 and the smallest number of features, 2"),
        ({"components": 1, "iterations": 0}, "iterations must be at least 1, got 0"),
        (
            {"components": 1, "where": {"a": COMPLETE}},
            "must name the same views, got a, b, c and a",
        ),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tcca(jax.tree.map(np.float32, VIEWS), **options)


def test_cca_zoo_agrees(double):
    linear = pytest.importorskip("cca_zoo.linear")
    centred = [x - x.mean(axis=0) for x in VIEWS.values()]
    theirs = linear.TCCA(1).fit(centred)
    found = fitted(VIEWS)
    for (name, p), wanted in zip(found.projections.items(), theirs.transform(centred), strict=True):
        ours = np.asarray(p.project(VIEWS[name]))[:, 0]
        assert abs(np.corrcoef(ours, wanted[:, 0])[0, 1]) > 1 - 1e-4
