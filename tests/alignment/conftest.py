"""Float64, gradients held against differences, all paths, and transport by plain scalings."""

import functools
import types

import jax
import numpy as np
import pytest


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@functools.cache
def _compiled(function, count):
    return jax.jit(jax.value_and_grad(function, tuple(range(count))))


@pytest.fixture(scope="session")
def value_and_gradients():
    """Value and gradients of a scalar function; compiled once for a function of a module."""

    def step(function, *arrays):
        return _compiled(function, len(arrays))(*(np.asarray(x, np.float64) for x in arrays))

    return step


@pytest.fixture
def assert_slopes(double):
    """Compare the gradients of a scalar function with central differences, along directions."""

    def check(function, *arrays, step=1e-5, rtol=1e-6, atol=1e-8, directions=3):
        arrays = [np.asarray(x, np.float64) for x in arrays]
        compiled = _compiled(function, len(arrays))  # one program for both
        _, gradients = compiled(*arrays)
        rng = np.random.default_rng(0)
        for place in range(len(arrays)):
            for _ in range(directions):
                direction = rng.normal(size=arrays[place].shape)
                ends = []
                for sign in (1, -1):
                    moved = list(arrays)
                    moved[place] = moved[place] + sign * step * direction
                    ends.append(float(compiled(*moved)[0]))
                wanted = (ends[0] - ends[1]) / (2 * step)
                found = float(np.sum(np.asarray(gradients[place]) * direction))
                np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)

    return check


@pytest.fixture(scope="session")
def paths():
    """All monotone paths through a table of costs, one by one."""
    return types.SimpleNamespace(every=_all_paths, costs=_costs_of, soft_minimum=_soft_minimum)


def _all_paths(t, s, band=None):
    """Lists of cells from (0, 0) to (t - 1, s - 1); the empty one for two empty sequences."""
    if t == 0 and s == 0:
        return [[]]
    found = []

    def go(path):
        i, j = path[-1]
        if i >= t or j >= s or (band is not None and abs(i - j) > band):
            return
        if (i, j) == (t - 1, s - 1):
            found.append(path)
            return
        for step in ((1, 1), (1, 0), (0, 1)):
            go([*path, (i + step[0], j + step[1])])

    if t > 0 and s > 0:
        go([(0, 0)])
    return found


def _costs_of(cost, paths):
    return np.array([sum(cost[cell] for cell in path) for path in paths])


def _soft_minimum(cost, gamma, lengths, band=None):
    """Soft minimum over all paths, and the expected path."""
    paths = [p for p in _all_paths(*lengths, band) if np.isfinite(_costs_of(cost, [p])[0])]
    visits = np.zeros_like(cost)
    if not paths:
        return np.inf, visits
    scores = -_costs_of(cost, paths) / gamma
    largest = scores.max()
    shares = np.exp(scores - largest)
    for path, share in zip(paths, shares / shares.sum(), strict=True):
        for cell in path:
            visits[cell] += share
    return -gamma * (largest + np.log(shares.sum())), visits


@pytest.fixture(scope="session")
def scalings():
    """Entropic transport as it is defined."""
    return _scaled


def _scaled(cost, a, b, epsilon):
    """Plan by plain scalings of the kernel, and its regularised cost."""
    a, b = a / a.sum(), b / b.sum()
    kernel = np.exp(-cost / epsilon)
    v = np.ones_like(b)
    for _ in range(20000):
        u = a / (kernel @ v)
        v = b / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    product = a[:, None] * b
    entropy = np.sum(plan * np.log(np.where(plan > 0, plan / product, 1)))
    return np.sum(plan * cost) + epsilon * entropy, plan
