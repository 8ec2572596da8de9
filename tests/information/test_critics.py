"""Critics against a loop over all pairs; chunks change neither scores nor gradients."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.information.critics import bilinear_scores, concatenated_scores, separable_scores

N, M, D, E, H = 7, 4, 3, 2, 5
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, D)), RNG.normal(size=(M, E))
WEIGHT = RNG.normal(size=(D, E))
SIZES = (D + E, H, H + 1, 1)
LAYERS = [(RNG.normal(size=(a, b)), RNG.normal(size=b)) for a, b in itertools.pairwise(SIZES)]
COTANGENT = RNG.normal(size=(N, M))
WHERE_X, WHERE_Y = np.arange(N) != 2, np.arange(M) != 0


def perceptron(row, layers):
    for i, (kernel, bias) in enumerate(layers):
        row = row @ kernel + bias
        row = np.tanh(row) if i < len(layers) - 1 else row
    return row[0]


def concatenated(x, y, layers):
    return np.array([[perceptron(np.concatenate([a, b]), layers) for b in y] for a in x])


@functools.cache
def compiled(chunk_size):
    def total(x, y, layers):
        scores = concatenated_scores(
            x,
            y,
            layers,
            activation=jnp.tanh,
            chunk_size=chunk_size,
            where_x=WHERE_X,
            where_y=WHERE_Y,
        )
        counted = jnp.asarray(WHERE_X)[:, None] & jnp.asarray(WHERE_Y)[None]
        return jnp.sum(jnp.where(counted, scores, 0) * COTANGENT), scores

    return jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))


@pytest.mark.parametrize("chunk_size", [N, 3], ids=["whole", "chunks, the last one shorter"])
def test_concatenation_is_that_of_every_pair(chunk_size):
    hidden = np.where(WHERE_X[:, None], X, np.nan), np.where(WHERE_Y[:, None], Y, np.nan)
    with jax.enable_x64(True):
        (_, scores), gradients = compiled(chunk_size)(*hidden, LAYERS)
    counted = np.ix_(WHERE_X, WHERE_Y)
    np.testing.assert_allclose(
        np.asarray(scores)[counted], concatenated(X, Y, LAYERS)[counted], rtol=1e-10
    )

    def objective(x, y, layers):
        return (concatenated(x, y, layers) * COTANGENT)[counted].sum()

    leaves, tree = jax.tree.flatten((X, Y, LAYERS))
    for which, gradient in enumerate(jax.tree.leaves(gradients)):
        wanted = np.zeros_like(leaves[which])
        for index in np.ndindex(wanted.shape):
            ends = []
            for sign in (1, -1):
                moved = [np.array(leaf) for leaf in leaves]
                moved[which][index] += sign * 1e-6
                ends.append(objective(*jax.tree.unflatten(tree, moved)))
            wanted[index] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("longer", ["x", "y"])
def test_separable_and_bilinear_scores(longer):
    x, y = (X, Y) if longer == "x" else (X[:2], Y)
    embeddings = x @ WEIGHT
    with jax.enable_x64(True):
        found = jax.jit(bilinear_scores)(x, y, WEIGHT)
        product = jax.jit(separable_scores)(embeddings, y)
    wanted = [[a @ WEIGHT @ b for b in y] for a in x]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_allclose(product, wanted, rtol=1e-12)


@pytest.mark.parametrize("critic", [separable_scores, bilinear_scores])
def test_an_invalid_row_reaches_no_gradient(critic):
    weights = (np.float32(WEIGHT),) if critic is bilinear_scores else ()
    x = np.float32(X if weights else X[:, :E])
    hidden = np.where(WHERE_X[:, None], x, np.nan), np.where(WHERE_Y[:, None], Y, np.nan)

    def total(x, y, *weights):
        scores = critic(x, y, *weights, where_x=WHERE_X, where_y=WHERE_Y)
        return jnp.sum(scores * np.float32(COTANGENT))

    inputs = (hidden[0], np.float32(hidden[1]), *weights)
    gradients = jax.jit(jax.grad(total, tuple(range(len(inputs)))))(*inputs)
    assert all(np.all(np.isfinite(g)) for g in gradients)
    assert not np.any(gradients[0][2])
    assert not np.any(gradients[1][0])
    assert all(np.any(g) for g in gradients)


def shapes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from shapes(inner)


@pytest.mark.parametrize(("chunk_size", "bounded"), [(4, True), (64, False)])
def test_no_pass_holds_the_hidden_units_of_all_pairs(chunk_size, bounded):
    n, h = 64, 16
    layers = [(np.ones((4, h), np.float32), np.ones(h, np.float32))]
    layers.append((np.ones((h, 1), np.float32), np.ones(1, np.float32)))

    def objective(x, layers):
        return concatenated_scores(x, x, layers, chunk_size=chunk_size).sum()

    jaxpr = jax.make_jaxpr(jax.grad(objective, (0, 1)))(np.ones((n, 2), np.float32), layers)
    largest = max(math.prod(shape) for shape in shapes(jaxpr.jaxpr))
    assert (largest <= max(4 * n * h, n * n)) == bounded


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "at least one kernel"),
        ([(np.ones((D, 1)), np.ones(1))], "layer 0 must have a row for each of the 3 . 2 features"),
        ([(np.ones((D + E, 4)), np.ones(3))], "its bias an entry for each column"),
        ([(np.ones((D + E, 4)), np.ones(4))], "the last layer must have one column, .*; got 4"),
        (
            [(np.ones((D + E, 4)), np.ones(4)), (np.ones((3, 1)), np.ones(1))],
            "layer 1 must have a row for each of the 4 units of the layer before",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        concatenated_scores(X, Y, layers)


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        concatenated_scores(X, Y, LAYERS, chunk_size=0)
