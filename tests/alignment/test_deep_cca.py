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
EVERY = np.ones(N, bool)
WHERE = RNG.uniform(size=N) < 0.7
MASKS = {name: RNG.uniform(size=N) < 0.7 for name in VIEWS}


def whitened(x, ridge):
    rows = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(rows.T @ rows / (len(x) - 1) + ridge * np.eye(x.shape[1]))
    return rows @ vectors / np.sqrt(values) / np.sqrt(len(x) - 1)


@pytest.mark.parametrize(
    ("components", "power", "where"),
    [(None, 1, None), (2, 1, WHERE), (None, 2, WHERE)],
    ids=["all", "largest", "squares"],
)
def test_dcca_is_minus_the_sum_over_singular_values(
    components, power, where, assert_slopes, value_and_gradients
):
    keep = EVERY if where is None else where

    def loss(x, y):
        x, y = (jnp.where(keep[:, None], z, jnp.nan) for z in (x, y))
        return dcca_loss(x, y, components=components, power=power, ridge=0.1, where=where)

    values = np.linalg.svd(whitened(X[keep], 0.1).T @ whitened(Y[keep], 0.1), compute_uv=False)
    wanted = -np.sum(values[:components] ** power)
    np.testing.assert_allclose(value_and_gradients(loss, X, Y)[0], wanted, rtol=1e-9)
    assert_slopes(loss, X, Y)


def test_gradients_are_right_where_all_correlations_and_variances_tie(
    assert_slopes, value_and_gradients
):
    """White rows and a turned copy: every eigen- and every singular value is the same."""
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    white = whitened(X, 0.0) * np.sqrt(N - 1)
    tied = functools.partial(dcca_loss, ridge=1.0)
    np.testing.assert_allclose(value_and_gradients(tied, white, white @ turn)[0], -2, rtol=1e-9)
    assert_slopes(tied, white, white @ turn)
    views = [white, white @ turn, -white]

    def loss(*views):
        return dgcca_loss(dict(zip("abc", views, strict=True)), components=4, ridge=1.0)

    assert_slopes(loss, *views)


@jax.jit
def step_of(x, y, where, ridge):
    def loss(x, y):
        return dcca_loss(x, y, ridge=ridge, where=where)

    return jax.value_and_grad(loss, (0, 1))(x, y)


def single_step(x, y, where=EVERY, ridge=1e-4):
    """Value and gradients in float32."""
    return step_of(x, y, where, ridge)


def test_float32_gradients_are_finite_at_ties():
    white = np.float32(whitened(X, 0.0))
    value, gradients = single_step(white, white[:, :3], ridge=0.0)
    np.testing.assert_allclose(value, -3, rtol=1e-4)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def unexplained(*arrays):
    """Views, and masks as numbers, in the order of the names."""
    views, masks = (dict(zip(VIEWS, z, strict=True)) for z in (arrays[:3], arrays[3:]))
    masks = {name: mask > 0.5 for name, mask in masks.items()}
    views = {name: jnp.where(masks[name][:, None], x, jnp.nan) for name, x in views.items()}
    return dgcca_loss(views, components=2, ridge=0.0, where=masks)


@pytest.mark.parametrize("ragged", [False, True])
def test_dgcca_is_what_the_best_shared_rows_leave(ragged, assert_slopes, value_and_gradients):
    masks = MASKS if ragged else dict.fromkeys(VIEWS, EVERY)
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
    arrays = *VIEWS.values(), *masks.values()
    np.testing.assert_allclose(value_and_gradients(unexplained, *arrays)[0], sum(left), rtol=1e-8)
    assert_slopes(unexplained, *arrays)


def test_a_constant_side_has_no_gradient():
    constant = np.full((N, 3), 2.5, np.float32)
    for ridge in (0.0, 1e-3):
        value, gradients = single_step(np.float32(X), constant, ridge=ridge)
        assert value == 0
        assert not gradients[0].any()
        assert not gradients[1].any()
    views = {name: np.float32(VIEWS[name]) for name in "ab"} | {"c": constant}
    gradients = jax.jit(jax.grad(functools.partial(dgcca_loss, components=2)))(views)
    assert gradients["a"].any()
    assert not gradients["c"].any()


@pytest.mark.parametrize("where", [np.zeros(N, bool), np.arange(N) == 2], ids=["none", "one"])
def test_one_row_or_none_is_nothing(where):
    value, gradients = single_step(np.float32(X), np.float32(Y), where)
    assert value == 0
    assert not gradients[0].any()


def test_of_one_row_all_views_explain_nothing(value_and_gradients, double):
    masks = [np.arange(N) == 2] * 3
    value, gradients = value_and_gradients(unexplained, *VIEWS.values(), *masks)
    np.testing.assert_allclose(value, 3 * 2)
    assert not any(gradient.any() for gradient in gradients)


def test_eight_shards_equal_one_device():
    def losses(views, masks, axis_name=None):
        first = dcca_loss(views["a"], views["b"], where=masks["a"], axis_name=axis_name)
        return first, dgcca_loss(views, components=2, where=masks, axis_name=axis_name)

    def total(views, masks, axis_name=None):
        both = losses(views, masks, axis_name)
        return both[0] + 2 * both[1], both

    mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.shard_map(
        functools.partial(total, axis_name="data"), mesh=mesh, in_specs=P("data"), out_specs=P()
    )
    views = jax.tree.map(np.float32, VIEWS)
    found, wanted = (
        jax.jit(jax.value_and_grad(f, has_aux=True))(views, MASKS) for f in (sharded, total)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, wanted)


def test_the_order_of_the_views_does_not_matter():
    def loss(views, names):
        return dgcca_loss({name: views[name] for name in names}, components=2)

    compiled = jax.jit(loss, static_argnames="names")
    losses = [compiled(jax.tree.map(np.float32, VIEWS), names) for names in ("abc", "cba")]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_whole_numbers_of_numpy_are_as_good_as_python_s():
    views = jax.tree.map(np.float32, VIEWS)
    jax.eval_shape(lambda x: dcca_loss(x, x, components=np.int64(2)), views["a"])
    jax.eval_shape(lambda views: dgcca_loss(views, components=np.int64(2)), views)


def test_bad_input_is_refused():
    x, y = np.float32(X), np.float32(Y)
    with pytest.raises(ValueError, match="components must be between 1 and the smallest number"):
        dcca_loss(x, y, components=4)
    with pytest.raises(TypeCheckError):
        dcca_loss(x, y, power=3)
    with pytest.raises(TypeCheckError):
        dcca_loss(x, y[:5])
    with pytest.raises(ValueError, match="at least two views, got none"):
        dgcca_loss({}, components=1)
    with pytest.raises(ValueError, match="must name the same views, got a, b and a, c"):
        dgcca_loss({"a": x, "b": y}, components=1, where={"a": WHERE, "c": WHERE})
