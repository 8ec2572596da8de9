"""Canonical correlation against its definitions and other libraries, and where it degenerates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.alignment import cca, gcca

RNG = np.random.default_rng(0)
N, D, E, F = 40, 4, 3, 5
LATENT = RNG.normal(size=(N, 3)) * [3.0, 2.0, 1.0]
VIEWS = {
    "a": LATENT @ RNG.normal(size=(3, D)) + RNG.normal(size=(N, D)),
    "b": LATENT @ RNG.normal(size=(3, E)) + RNG.normal(size=(N, E)) + 7,
    "c": LATENT @ RNG.normal(size=(3, F)) + RNG.normal(size=(N, F)),
}
X, Y = VIEWS["a"], VIEWS["b"]
WHERE = RNG.uniform(size=N) < 0.6
MASKS = {name: RNG.uniform(size=N) < 0.7 for name in VIEWS}


EVERY = np.ones(N, bool)
EVERY_VIEW = dict.fromkeys(VIEWS, EVERY)


# With masks and ridges always given, one program answers most questions.
@jax.jit
def solved(x, y, where, ridge):
    return cca(x, y, components=3, ridge=ridge, where=where)


def fitted(x, y, where=EVERY, ridge=0.0):
    return solved(x, y, where, ridge)


@jax.jit
def solved_of_views(views, where, ridge):
    return gcca(views, components=2, ridge=ridge, where=where)


def shared(views, where=EVERY_VIEW, ridge=0.0):
    return solved_of_views(views, {name: where[name] for name in views}, ridge)


def by_definition(x, y, ridge):
    """Generalised eigenvalues of the joint covariance against the one of each side."""
    d, joint = x.shape[1], np.cov(x, y, rowvar=False)
    within = scipy.linalg.block_diag(joint[:d, :d], joint[d:, d:]) + ridge * np.eye(len(joint))
    cross = joint.copy()
    cross[:d, :d] = cross[d:, d:] = 0
    values, vectors = scipy.linalg.eigh(cross, within)
    best = np.argsort(-values)[: min(d, y.shape[1])]
    vectors = vectors[:, best] * np.sqrt(2)  # each side has half of the length
    return values[best], vectors[:d], vectors[d:]


def assert_alike(found, wanted, **tolerance):
    """Columns are known up to their sign."""
    signs = np.sign(np.sum(np.asarray(found) * wanted, axis=0))
    np.testing.assert_allclose(np.asarray(found) * signs, wanted, **tolerance)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
@pytest.mark.parametrize("keep", [EVERY, WHERE], ids=["full", "ragged"])
def test_cca_is_what_the_eigenvalues_say(keep, ridge, double):
    bad = np.where(keep[:, None], X, np.nan)
    found = fitted(bad, Y, keep, ridge)
    wanted, a, b = by_definition(X[keep], Y[keep], ridge)
    np.testing.assert_allclose(found.correlations, wanted, rtol=1e-9)
    assert_alike(found.x.weights, a, rtol=1e-7, atol=1e-9)
    assert_alike(found.y.weights, b, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.x.mean, X[keep].mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.y.mean, Y[keep].mean(axis=0), atol=1e-12)


def test_components_have_variance_1_and_correlate_as_told(double):
    found = fitted(X, Y)
    x, y = found.x.project(X), found.y.project(Y)
    np.testing.assert_allclose(np.cov(x, rowvar=False), np.eye(3), atol=1e-10)
    joint = np.cov(x, y, rowvar=False)[:3, 3:]
    np.testing.assert_allclose(joint, np.diag(found.correlations), atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.floats(-3, 3))
def test_correlations_do_not_depend_on_coordinates(seed, size):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(D, D)))[0] * rng.uniform(0.5, 2, size=D)
    units = 10 ** rng.uniform(-1, 1, size=D) * 10**size
    moved = (X @ turn + rng.normal(size=D)) * units
    wanted = fitted(np.float32(X), np.float32(Y)).correlations
    found = fitted(np.float32(moved), np.float32(Y)).correlations
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_constant_and_repeated_features_change_nothing(double):
    more = np.concatenate([X[:, :2], X[:, :1] * 3, np.full((N, 1), 5.0)], axis=1)
    found = fitted(more, Y)
    wanted, a, _ = by_definition(X[:, :2], Y, 0.0)
    np.testing.assert_allclose(found.correlations[:2], wanted, rtol=1e-9)
    np.testing.assert_allclose(found.correlations[2], 0, atol=1e-7)
    rows = (X[:, :2] - X[:, :2].mean(axis=0)) @ a
    assert_alike(found.x.project(more)[:, :2], rows, atol=1e-8)
    np.testing.assert_array_equal(found.x.weights[3], 0)


def test_components_that_nothing_varies_for_have_correlation_0(double):
    thin = np.concatenate([X[:, :1], X[:, :1] * 2, X[:, :1] - 1, np.ones((N, 1))], axis=1)
    found = fitted(thin, Y)
    np.testing.assert_allclose(found.correlations[1:], 0, atol=1e-7)
    np.testing.assert_allclose(found.x.project(thin)[:, 1:], 0, atol=1e-6)
    assert found.correlations[0] > 0.1


def test_fewer_rows_than_features_correlate_in_the_directions_they_vary_in(double):
    """Three rows vary in a plane each, and any plane fits any other."""
    found = fitted(X, Y, np.arange(N) < 3)
    np.testing.assert_allclose(found.correlations, [1, 1, 0], atol=1e-7)
    x, y = (np.asarray(p.project(z[:3])) for p, z in ((found.x, X), (found.y, Y)))
    np.testing.assert_allclose(x, y, atol=1e-7)


@pytest.mark.parametrize("where", [np.zeros(N, bool), np.arange(N) == 3], ids=["none", "one"])
def test_without_two_rows_nothing_correlates(where):
    found = fitted(np.float32(X), np.float32(Y), where)
    np.testing.assert_array_equal(found.correlations, 0)
    np.testing.assert_array_equal(found.x.weights, 0)


def test_a_single_row_correlates_with_nothing():
    found = fitted(np.float32(X[:1]), np.float32(Y[:1]), EVERY[:1])
    np.testing.assert_array_equal(found.correlations, 0)


def test_correlations_and_components_can_be_differentiated(assert_slopes):
    def total(x, y):
        found = solved(x, y, WHERE, 0.1)
        return jnp.sum(found.correlations**3) + jnp.sum(found.x.project(x[:5]) ** 4)

    assert_slopes(total, X, Y)


def test_constant_features_do_no_harm_to_the_gradient(assert_slopes):
    """Several correlations are 0 then, and none of them is asked for."""

    def total(x):
        rows = jnp.concatenate([x, jnp.ones((N, 1)), jnp.full((N, 1), 5.0)], axis=1)
        return jnp.sum(cca(rows, Y, components=1).x.project(rows) ** 4)

    assert_slopes(total, X[:, :2])


def test_vmap_is_a_loop(double):
    found = jax.jit(jax.vmap(fitted))(np.stack([X, Y @ RNG.normal(size=(E, D))]), np.stack([Y, Y]))
    np.testing.assert_allclose(found.correlations[0], fitted(X, Y).correlations, rtol=1e-9)
    np.testing.assert_allclose(found.correlations[1], 1, rtol=1e-9)


@pytest.mark.parametrize("components", [0, 4])
def test_components_out_of_range_are_refused(components):
    with pytest.raises(ValueError, match="components must be between 1 and the smallest number"):
        cca(np.float32(X), np.float32(Y), components=components)


@pytest.mark.parametrize("ridge", [-1.0, np.nan])
def test_a_ridge_that_cannot_be_is_refused(ridge):
    with pytest.raises(ValueError, match="ridge must"):
        cca(np.float32(X), np.float32(Y), components=1, ridge=ridge)


def test_scikit_learn_agrees(double):
    sklearn = pytest.importorskip("sklearn.cross_decomposition")
    theirs = sklearn.CCA(n_components=3, max_iter=5000, tol=1e-10).fit(X, Y)
    found = fitted(X, Y)
    for component, (x, y) in enumerate(zip(*(z.T for z in theirs.transform(X, Y)), strict=True)):
        wanted = np.corrcoef(x, y)[0, 1]
        np.testing.assert_allclose(found.correlations[component], wanted, atol=1e-4)


def gcca_by_definition(views, masks, ridge, components):
    """Eigenvectors of a matrix of rows by rows, the rows of each view in place."""
    n = len(next(iter(views.values())))
    total, counts = np.zeros((n, n)), np.zeros(n)
    for name, x in views.items():
        keep = masks[name]
        rows = np.where(keep[:, None], x - x[keep].mean(axis=0), 0)
        inner = rows.T @ rows + (keep.sum() - 1) * ridge * np.eye(x.shape[1])
        total += rows @ np.linalg.solve(inner, rows.T)
        counts += keep
    weight = np.where(counts > 0, 1 / np.sqrt(np.maximum(counts, 1)), 0)
    values, vectors = np.linalg.eigh(weight[:, None] * total * weight[None])
    best = np.argsort(-values)[:components]
    return values[best], np.sqrt(len(views)) * weight[:, None] * vectors[:, best]


@pytest.mark.parametrize("ridge", [0.0, 0.5])
@pytest.mark.parametrize("masks", [EVERY_VIEW, MASKS], ids=["full", "ragged"])
def test_gcca_is_what_the_matrix_of_all_rows_says(masks, ridge, double):
    bad = {name: np.where(masks[name][:, None], x, np.nan) for name, x in VIEWS.items()}
    found = shared(bad, masks, ridge)
    values, components = gcca_by_definition(VIEWS, masks, ridge, 2)
    np.testing.assert_allclose(found.agreement, values, rtol=1e-9)
    assert_alike(found.shared, components, atol=1e-8)
    for name, x in VIEWS.items():
        keep = masks[name]
        rows = x[keep] - x[keep].mean(axis=0)
        inner = rows.T @ rows + (keep.sum() - 1) * ridge * np.eye(x.shape[1])
        wanted = np.linalg.solve(inner, rows.T @ found.shared[keep])
        np.testing.assert_allclose(found.projections[name].weights, wanted, atol=1e-9)


def test_gcca_can_be_differentiated_where_agreements_do_not_tie(assert_slopes, value_and_gradients):
    def total(x, y, where):
        masks = dict.fromkeys("ab", where > 0.5)
        found = gcca({"a": x, "b": y}, components=2, ridge=0.1, where=masks)
        return jnp.sum(found.agreement**3) + jnp.sum(found.shared**4)

    assert_slopes(total, X, Y, WHERE)
    _, gradients = value_and_gradients(total, X, Y, np.arange(N) == 3)  # every agreement is 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_in_a_valid_row_shows(bad, double):
    views = VIEWS | {"a": np.where(np.arange(N)[:, None] == 3, bad, X)}
    assert np.isnan(fitted(views["a"], views["b"]).correlations).all()
    found = shared(views)
    assert np.isnan(found.agreement).all()
    assert np.isnan(found.shared).all()


def test_rows_with_other_features_are_refused(double):
    with pytest.raises(ValueError, match="must have the 4 features of the fitted view, got 1"):
        fitted(X, Y).x.project(X[:, :1])


def test_whole_numbers_of_numpy_are_as_good_as_python_s():
    found = jax.eval_shape(lambda x: cca(x, x, components=np.int64(2)), X)
    assert found.correlations.shape == (2,)
    found = jax.eval_shape(lambda x: gcca({"a": x, "b": x}, components=np.int32(2)), X)
    assert found.agreement.shape == (2,)


def test_of_two_views_gcca_is_cca(double):
    found = shared({"a": X, "b": Y})
    np.testing.assert_allclose(found.agreement, (1 + fitted(X, Y).correlations[:2]) / 2, rtol=1e-9)


def test_the_order_of_the_views_does_not_matter(double):
    def reverse(views):
        turned = {name: views[name] for name in reversed(VIEWS)}
        assert list(turned) != sorted(turned)
        return gcca(turned, components=2, ridge=0.0, where=dict.fromkeys(VIEWS, EVERY))

    found, wanted = jax.jit(reverse)(VIEWS), shared(VIEWS)
    np.testing.assert_allclose(found.agreement, wanted.agreement, rtol=1e-9)
    assert_alike(found.shared, np.asarray(wanted.shared), atol=1e-9)


def test_masking_a_view_is_deleting_it(double):
    masks = {name: np.full(N, name != "c") for name in VIEWS}
    found = shared(VIEWS | {"c": np.full((N, F), np.nan)}, masks)
    wanted = shared({name: VIEWS[name] for name in "ab"})
    np.testing.assert_allclose(found.agreement, wanted.agreement, rtol=1e-9)
    assert not found.projections["c"].weights.any()


@pytest.mark.parametrize("where", [np.zeros(N, bool), np.arange(N) == 3], ids=["none", "one"])
def test_gcca_without_two_rows_is_nothing(where, double):
    found = shared(VIEWS, dict.fromkeys(VIEWS, where))
    assert not found.agreement.any()
    assert not found.shared.any()


def test_views_that_do_not_match_are_refused():
    views = jax.tree.map(np.float32, VIEWS)
    with pytest.raises(ValueError, match="must name the same views, got a, b, c and a, b"):
        gcca(views, components=1, where={"a": WHERE, "b": WHERE})
    with pytest.raises(ValueError, match="at least two views, got a"):
        gcca({"a": views["a"]}, components=1)
    with pytest.raises(ValueError, match="at least two views, got none"):
        gcca({}, components=1)
    with pytest.raises(ValueError, match="same number of rows"):
        gcca(views | {"c": views["c"][:5]}, components=1)


def test_cca_zoo_agrees(double):
    linear = pytest.importorskip("cca_zoo.linear")
    found = shared(VIEWS)
    centred = [x - x.mean(axis=0) for x in VIEWS.values()]
    theirs = linear.GCCA(2).fit(centred)
    for wanted, (name, projection) in zip(
        theirs.transform(centred), found.projections.items(), strict=True
    ):
        ours = np.asarray(projection.project(VIEWS[name]))
        for k in range(2):
            assert abs(np.corrcoef(ours[:, k], wanted[:, k])[0, 1]) > 1 - 1e-4
