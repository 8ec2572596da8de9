"""No product may be left to the default precision, which is 8 bits on some accelerators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import alignment
from mmjax.alignment import spectra

X, Y = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
SQUARE = X[:3] @ X[:3].T
VIEWS = {"a": X, "b": Y, "c": X[:, ::-1]}
HIGHEST = jax.lax.Precision.HIGHEST
FUNCTIONS = {
    "inverse_root": lambda x: spectra.inverse_root(SQUARE * x[0, 0]),
    "singular_value_sum": lambda x: spectra.singular_value_sum(x, 2, 1),
    "eigenvalue_sum": lambda x: spectra.eigenvalue_sum(SQUARE * x[0, 0], 2),
    "largest_singular": lambda x: spectra.largest_singular(x, 2),
    "cca": lambda x: alignment.cca(x, Y, components=2),
    "gcca": lambda x: alignment.gcca(VIEWS | {"a": x}, components=2),
    "tcca": lambda x: alignment.tcca(VIEWS | {"a": x}, components=2),
    "ctw": lambda x: alignment.ctw(x, Y, components=2),
    "dcca": lambda x: alignment.dcca_loss(x, Y),
    "dgcca": lambda x: alignment.dgcca_loss(VIEWS | {"a": x}, components=2),
    "procrustes": lambda x: alignment.procrustes(x, Y, scaling=True),
    "squared_costs": lambda x: alignment.squared_costs(x, Y),
    "sinkhorn": lambda x: alignment.sinkhorn(x, epsilon=1.0),
    "gromov": lambda x: alignment.gromov_wasserstein(SQUARE * x[0, 0], SQUARE, epsilon=1.0),
    "projection": lambda x: alignment.cca(X, Y, components=2).x.project(x),
    "movement": lambda x: alignment.procrustes(X, Y).move(x),
}


def products(program):
    """Precisions of all products in a program, and in those that it calls."""
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            if is_program(inner):
                yield from products(getattr(inner, "jaxpr", inner))


def is_program(value):
    return hasattr(getattr(value, "jaxpr", value), "eqns")


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_every_product_keeps_its_digits(function):
    def both(x):
        return jax.jvp(function, (x,), (x,))

    found = [
        np.ravel(precision) for precision in products(jax.make_jaxpr(both)(jnp.array(X)).jaxpr)
    ]
    assert found or function is FUNCTIONS["sinkhorn"]
    assert all((precision == HIGHEST).all() for precision in found)
