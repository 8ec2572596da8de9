"""The objectives of deep canonical correlation against what the analyses themselves reach."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import TypeCheckError

from mmjax.alignment import dcca_loss, dgcca_loss

RNG = np.random.default_rng(0)
N = 24
LATENT = RNG.normal(size=(N, 2))
VIEWS = {
    name: LATENT @ RNG.normal(size=(2, d)) + RNG.normal(size=(N, d))
    for name, d in (("a", 4), ("b", 3), ("c", 3))
}
X, Y = VIEWS["a"], VIEWS["b"]
WHERE = RNG.uniform(size=N) < 0.7
MASKS = {name: RNG.uniform(size=N) < 0.7 for name in VIEWS}


def whitened(x, ridge):
    rows = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(rows.T @ rows / (len(x) - 1) + ridge * np.eye(x.shape[1]))
    return rows @ vectors / np.sqrt(values) / np.sqrt(len(x) - 1)


@pytest.mark.parametrize("components", [None, 2])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("where", [None, WHERE], ids=["full", "ragged"])
def test_dcca_is_minus_the_sum_over_singular_values(where, power, components, assert_slopes):
    keep = np.ones(N, bool) if where is None else where

    def loss(x, y):
        x, y = (jnp.where(keep[:, None], z, jnp.nan) for z in (x, y))
        return dcca_loss(x, y, components=components, power=power, ridge=0.1, where=where)

    values = np.linalg.svd(whitened(X[keep], 0.1).T @ whitened(Y[keep], 0.1), compute_uv=False)
    wanted = -np.sum(values[:components] ** power)
    np.testing.assert_allclose(jax.jit(loss)(X, Y), wanted, rtol=1e-9)
    assert_slopes(loss, X, Y)


def test_gradients_are_right_where_all_correlations_and_variances_tie(assert_slopes):
    """White rows and a turned copy: every eigen- and every singular value is the same."""
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    white = whitened(X, 0.0) * np.sqrt(N - 1)
    np.testing.assert_allclose(dcca_loss(white, white @ turn, ridge=1.0), -2, rtol=1e-9)
    assert_slopes(functools.partial(dcca_loss, ridge=1.0), white, white @ turn)
    views = [white, white @ turn, -white]

    def loss(*views):
        return dgcca_loss(dict(zip("abc", views, strict=True)), components=4, ridge=1.0)

    assert_slopes(loss, *views)


def test_float32_gradients_are_finite_at_ties():
    white = jnp.asarray(np.float32(np.concatenate([np.eye(4), -np.eye(4)])))
    gradient = jax.jit(jax.grad(lambda x: dcca_loss(x, white)))(white)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("ragged", [False, True])
def test_dgcca_is_what_the_best_shared_rows_leave(ragged, assert_slopes):
    masks = MASKS if ragged else {name: np.ones(N, bool) for name in VIEWS}

    def loss(*views):
        views = {
            name: jnp.where(masks[name][:, None], x, jnp.nan)
            for name, x in zip(VIEWS, views, strict=True)
        }
        return dgcca_loss(views, components=2, ridge=0.0, where=MASKS if ragged else None)

    # From the reconstruction itself: the best rows, and the best map from each view to them.
    counts = sum(mask.astype(float) for mask in masks.values())
    weight = np.where(counts > 0, 1 / np.sqrt(np.maximum(counts, 1)), 0)
    bases = {}
    for name, x in VIEWS.items():
        basis = np.zeros_like(x)
        basis[masks[name]] = whitened(x[masks[name]], 0.0)
        bases[name] = basis
    total = sum(weight[:, None] * (b @ b.T) * weight for b in bases.values())
    best = np.sqrt(len(VIEWS)) * weight[:, None] * np.linalg.eigh(total)[1][:, -2:]
    left = [
        np.sum((masks[name][:, None] * best - basis @ (basis.T @ best)) ** 2)
        for name, basis in bases.items()
    ]
    np.testing.assert_allclose(jax.jit(loss)(*VIEWS.values()), sum(left), rtol=1e-8)
    assert_slopes(loss, *VIEWS.values())


def test_a_constant_side_has_no_gradient():
    constant = jnp.full((N, 3), 2.5)
    for ridge in (0.0, 1e-3):
        loss = functools.partial(dcca_loss, ridge=ridge)
        value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(np.float32(X), constant)
        assert value == 0
        assert not gradients[0].any()
        assert not gradients[1].any()
    views = {name: np.float32(VIEWS[name]) for name in "ab"} | {"c": constant}
    loss = functools.partial(dgcca_loss, components=2)
    gradients = jax.jit(jax.grad(loss))(views)
    assert gradients["a"].any()
    assert not gradients["c"].any()


def test_one_row_or_none_is_nothing():
    for where in (np.zeros(N, bool), np.arange(N) == 2):
        loss = functools.partial(dcca_loss, where=where)
        value, gradient = jax.jit(jax.value_and_grad(loss))(np.float32(X), np.float32(Y))
        assert value == 0
        assert not gradient.any()


@pytest.mark.parametrize("name", ["dcca", "dgcca"])
def test_eight_shards_equal_one_device(name):
    def loss(views, masks, axis_name=None):
        if name == "dgcca":
            return dgcca_loss(views, components=2, where=masks, axis_name=axis_name)
        return dcca_loss(views["a"], views["b"], where=masks["a"], axis_name=axis_name)

    mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.shard_map(
        functools.partial(loss, axis_name="data"), mesh=mesh, in_specs=P("data"), out_specs=P()
    )
    views = jax.tree.map(np.float32, VIEWS)
    found, wanted = (jax.jit(jax.value_and_grad(f))(views, MASKS) for f in (sharded, loss))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, wanted)


def test_the_order_of_the_views_does_not_matter():
    views = jax.tree.map(np.float32, VIEWS)
    turned = dict(reversed(list(views.items())))
    losses = [dgcca_loss(v, components=2) for v in (views, turned)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_bad_input_is_refused():
    x, y = np.float32(X), np.float32(Y)
    with pytest.raises(ValueError, match="components must be between 1 and the smallest number"):
        dcca_loss(x, y, components=4)
    with pytest.raises(TypeCheckError):
        dcca_loss(x, y, power=3)
    with pytest.raises(TypeCheckError):
        dcca_loss(x, y[:5])
    with pytest.raises(ValueError, match="must name the same views, got a, b and a, c"):
        dgcca_loss({"a": x, "b": y}, components=1, where={"a": WHERE, "c": WHERE})
