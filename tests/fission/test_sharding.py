"""Every module can be laid over a mesh by the names of the axes of its parameters."""

import functools

import jax
import numpy as np
import pytest

from mmjax.fission import (
    MFM,
    MISA,
    BilinearCritic,
    CoMM,
    ConcatenatedCritic,
    DisentangledSSL,
    FactorCL,
    Perceptron,
    SeparableCritic,
)
from mmjax.fusion import Additive
from mmjax.training.mesh import make_mesh, state_shardings

ROWS = dict.fromkeys(["a", "b"], np.ones((2, 4), np.float32))


def encoders():
    return {name: Perceptron((4,), 4) for name in ROWS}


# Each module, the method that uses all of it, and how often that takes rows.
CASES = {
    "MISA": (MISA(4), "__call__", 1),
    "MFM": (MFM(Additive(4), outputs=2), "__call__", 1),
    "CoMM": (CoMM(Additive(4)), "project", 1),
    "DisentangledSSL": (DisentangledSSL(encoders(), encoders()), "__call__", 1),
    **{
        critic.__name__: (FactorCL(encoders(), encoders(), critic), "self_supervised", 2)
        for critic in (BilinearCritic, ConcatenatedCritic, SeparableCritic)
    },
}


@pytest.mark.parametrize("name", CASES)
def test_parameters_lie_over_the_devices(name):
    module, method, times = CASES[name]
    init = functools.partial(module.init, method=method)
    abstract = jax.eval_shape(init, jax.random.key(0), *[ROWS] * times)
    shardings = state_shardings(abstract, make_mesh({"fsdp": 2}, jax.devices()[:2]))
    assert any("fsdp" in sharding.spec for sharding in jax.tree.leaves(shardings))
