"""Critics score with their own parameters, and can be held still."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fission import BilinearCritic, ConcatenatedCritic, Perceptron, SeparableCritic

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(4, 3)).astype(np.float32), RNG.normal(size=(5, 2)).astype(np.float32)
CRITICS = {
    "separable": SeparableCritic((6, 5), features=4),
    "bilinear": BilinearCritic(),
    "concatenated": ConcatenatedCritic((6, 5), chunk_size=3),
}


def perceptron(params, x):
    """Layer after layer, float64."""
    count = len(params) // 2
    for i in range(count):
        x = x @ np.float64(params[f"kernel_{i}"]) + np.float64(params[f"bias_{i}"])
        x = np.maximum(x, 0) if i < count - 1 else x
    return x


def definition(name, params):
    x, y = np.float64(X), np.float64(Y)
    if name == "separable":
        return perceptron(params["x"], x) @ perceptron(params["y"], y).T / np.sqrt(4)
    if name == "bilinear":
        return x @ np.float64(params["weight"]) @ y.T
    pairs = [[np.concatenate([a, b])[None] for b in y] for a in x]
    return np.array([[perceptron(params, pair)[0, 0] for pair in row] for row in pairs])


@pytest.mark.parametrize("name", CRITICS)
def test_scores_are_those_of_the_definition_and_frozen_ones_hold_still(name, fill):
    critic = CRITICS[name]
    variables = fill(critic, X, Y)

    def total(variables, x, frozen):
        scores = critic.apply(variables, x, Y, frozen=frozen)
        return jnp.sum(scores**2), scores

    run = jax.jit(jax.grad(total, (0, 1), has_aux=True), static_argnums=2)
    (free, by_x), scores = run(variables, X, False)
    np.testing.assert_allclose(scores, definition(name, variables["params"]), rtol=1e-4, atol=1e-5)
    (still, by_x_still), scores_still = run(variables, X, True)
    np.testing.assert_array_equal(scores, scores_still)
    np.testing.assert_allclose(by_x, by_x_still, rtol=1e-6)
    assert np.abs(by_x).max() > 0
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(free))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(still))


@pytest.mark.parametrize("hidden", [(), (7,)])
def test_a_perceptron_names_every_axis_once(hidden):
    shapes = jax.eval_shape(Perceptron(hidden, 4).init, jax.random.key(0), X)
    for name, box in shapes["params"].items():
        assert len(box.names) == box.value.ndim, name
        named = [axis for axis in box.names if axis]
        assert len(set(named)) == len(named)
        assert box.value.dtype == jnp.float32


def test_a_perceptron_widens_narrow_rows_and_keeps_wide_ones(fill):
    module = Perceptron((6,), 4)
    variables = fill(module, X)
    half = jax.eval_shape(module.apply, variables, jnp.bfloat16(X))
    assert half.dtype == jnp.float32
    with jax.enable_x64(True):
        rows = module.apply(variables, jnp.float64(X))
        assert rows.dtype == jnp.float64
        np.testing.assert_allclose(rows, perceptron(variables["params"], np.float64(X)), rtol=1e-12)
