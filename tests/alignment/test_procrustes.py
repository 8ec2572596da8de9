"""Procrustes alignment against SciPy and against similarities that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jaxtyping import TypeCheckError

from mmjax.alignment import procrustes

RNG = np.random.default_rng(0)
N, D = 12, 3
X, NOISE = RNG.normal(size=(2, N, D))
WHERE = RNG.uniform(size=N) < 0.7
TURN = np.linalg.qr(RNG.normal(size=(D, D)))[0]
TURN *= np.sign(np.linalg.det(TURN))
MIRROR = TURN * [1, 1, -1]
Y = 2.5 * X @ TURN + 4 + 0.1 * NOISE
fitted = functools.partial(jax.jit, static_argnames=("translation", "scaling", "reflection"))(
    procrustes
)


@pytest.mark.parametrize("keep", [np.ones(N, bool), WHERE], ids=["full", "ragged"])
@pytest.mark.parametrize(("translation", "scaling"), [(True, True), (True, False), (False, True)])
def test_it_is_what_scipy_finds(translation, scaling, keep, double):
    bad = np.where(keep[:, None], X, np.nan)
    found = fitted(bad, Y, translation=translation, scaling=scaling, where=keep)
    means = [z[keep].mean(axis=0) * translation for z in (X, Y)]
    x, y = (z[keep] - mean for z, mean in zip((X, Y), means, strict=True))
    turn, total = scipy.linalg.orthogonal_procrustes(x, y)
    scale = total / (x**2).sum() if scaling else 1
    np.testing.assert_allclose(found.rotation, turn, atol=1e-10)
    np.testing.assert_allclose(found.scale, scale, rtol=1e-10)
    np.testing.assert_allclose(found.offset, means[1] - scale * means[0] @ turn, atol=1e-10)
    left = ((scale * x @ turn - y) ** 2).sum() / keep.sum()
    np.testing.assert_allclose(found.residual, left, rtol=1e-9)
    moved = np.asarray(found.move(X[keep]))
    np.testing.assert_allclose(((moved - Y[keep]) ** 2).sum() / keep.sum(), left, rtol=1e-9)


@pytest.mark.parametrize("reflection", [True, False])
def test_a_mirror_image_is_only_undone_where_it_may_be(reflection, double):
    found = fitted(X, X @ MIRROR, reflection=reflection)
    if reflection:
        np.testing.assert_allclose(found.rotation, MIRROR, atol=1e-10)
        np.testing.assert_allclose(found.residual, 0, atol=1e-12)
        return
    np.testing.assert_allclose(np.linalg.det(found.rotation), 1, rtol=1e-12)
    for _ in range(200):  # no rotation does better
        turn = scipy.linalg.expm(0.3 * (lambda a: a - a.T)(RNG.normal(size=(D, D))))
        x, y = X - X.mean(axis=0), (X - X.mean(axis=0)) @ MIRROR
        other = ((x @ found.rotation @ turn - y) ** 2).sum() / N
        assert other >= found.residual


@pytest.mark.parametrize("reflection", [True, False])
def test_everything_can_be_differentiated(reflection, assert_slopes):
    weights = RNG.normal(size=(D, D))

    def total(x, y):
        found = procrustes(x, y, scaling=True, reflection=reflection, where=WHERE)
        return (
            jnp.sum(found.rotation * weights) + found.scale + jnp.sum(found.offset) + found.residual
        )

    assert_slopes(total, X, Y)
    assert_slopes(total, X, X @ MIRROR + 0.1 * NOISE)


def test_ties_of_singular_values_do_no_harm(assert_slopes):
    corners = np.concatenate([np.eye(D), -np.eye(D)])  # the cross product is a multiple of I
    weights = RNG.normal(size=(D, D))
    assert_slopes(lambda x: jnp.sum(procrustes(x, corners).rotation * weights), corners)


def test_an_invalid_pair_has_no_gradient_even_if_nan():
    bad = np.float32(np.where(WHERE[:, None], X, np.nan))

    def total(x):
        found = procrustes(x, np.float32(Y), scaling=True, where=WHERE)
        return jnp.sum(found.offset) + jnp.sum(found.rotation[0])

    gradient = np.asarray(jax.jit(jax.grad(total))(bad))
    assert np.isfinite(gradient).all()
    assert not gradient[~WHERE].any()
    assert gradient[WHERE].all()


@pytest.mark.parametrize("points", ["line", "one", "none", "equal"])
def test_what_nothing_determines_is_still_a_rotation(points):
    where = np.arange(N) < {"one": 1, "none": 0}.get(points, N)
    x = {"line": X * [1, 0, 0], "equal": np.ones_like(X)}.get(points, X)

    def total(x, y):
        found = procrustes(x, y, scaling=True, where=where)
        return jnp.sum(found.rotation) + found.residual + found.scale, found

    step = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (_, found), gradients = step(np.float32(x), np.float32(Y))
    np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(D), atol=1e-5)
    assert np.isfinite(gradients[0]).all()
    assert np.isfinite(gradients[1]).all()
    if points in ("one", "equal", "none"):
        assert found.scale == 1


def test_in_one_dimension_no_negative_scale_makes_a_mirror_image(double):
    x, y = X[:, :1], -2 * X[:, :1]
    found = fitted(x, y, scaling=True, reflection=False)
    assert found.rotation == 1
    assert found.scale == 0  # no s >= 0 does better: the residual rises with s
    np.testing.assert_allclose(found.offset, y.mean(axis=0))
    np.testing.assert_allclose(found.residual, y.var())


def test_rows_with_other_features_are_not_moved(double):
    found = fitted(X, Y, translation=True, scaling=True, where=np.ones(N, bool))
    with pytest.raises(ValueError, match="must have the 3 features of the fitted points, got 1"):
        found.move(X[:, :1])


def test_vmap_is_a_loop():
    found = jax.vmap(lambda x: fitted(x, np.float32(Y)).residual)(np.float32([X, -X]))
    np.testing.assert_allclose(found[0], fitted(np.float32(X), np.float32(Y)).residual, rtol=1e-5)


def test_other_features_are_refused():
    with pytest.raises(TypeCheckError):
        procrustes(np.float32(X), np.float32(Y[:, :2]))
