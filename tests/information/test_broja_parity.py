"""The exact decomposition beside two independent packages, where they are installed."""

import jax
import numpy as np
import pytest

from mmjax.data.synthetic import GATES
from mmjax.information import broja


def union_by_cones(p):
    """The program of the definition as exponential cones, all of them in one constraint."""
    cvxpy = pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    n, m, classes = p.shape
    q = cvxpy.Variable((n * m, classes), nonneg=True)
    total = cvxpy.sum(q, axis=1, keepdims=True) @ np.ones((1, classes))
    rows, columns = np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))
    constraints = [rows @ q == p.sum(axis=1), columns @ q == p.sum(axis=0)]
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(cvxpy.rel_entr(q, total))), constraints)
    problem.solve(solver=cvxpy.CLARABEL)
    target = p.sum(axis=(0, 1))
    return (problem.value - np.sum(target * np.log(target))) / np.log(2)


@pytest.mark.parametrize("shape", [(2, 2, 2), (5, 4, 3), (10, 10, 2), (20, 20, 2), (20, 20, 10)])
def test_the_union_information_is_that_of_a_conic_solver(shape):
    p = np.random.default_rng(sum(shape)).exponential(size=shape)
    p /= p.sum()
    wanted = union_by_cones(p)
    with jax.enable_x64(True):
        parts = broja(p, unit="bits")
        union = sum(map(float, parts[:3]))
    assert union == pytest.approx(wanted, abs=1e-6)
    assert float(parts.gap) < 2e-10


@pytest.mark.parametrize("name", ["and", "xor", "redundant", "unique_1", "copy"])
def test_gates_are_those_of_dit(name):
    dit = pytest.importorskip("dit")
    joint = GATES[name].joint
    cells = {"".join(map(str, i)): joint[i] for i in np.ndindex(joint.shape) if joint[i] > 0}
    distribution = dit.Distribution(list(cells), list(cells.values()))
    lattice = dit.pid.PID_BROJA(distribution, [[0], [1]], [2])
    nodes = (((0,), (1,)), ((0,),), ((1,),), ((0, 1),))
    found = broja(joint.astype(np.float32), unit="bits")
    np.testing.assert_allclose(found[:4], [lattice[node] for node in nodes], atol=1e-4)
