"""Every fusion can be laid over a mesh by the names of the axes of its parameters."""

import jax
import numpy as np
import pytest

from mmjax.fusion import FUSIONS, SEQUENCE_FUSIONS, Space, Supernet
from mmjax.training.mesh import make_mesh, state_shardings

ROWS = dict.fromkeys(["a", "b"], np.ones((2, 4), np.float32))
TOKENS = {name: x[:, None] for name, x in ROWS.items()}
SPACE = Space(("a", "b"), depth=1, cells=2)
FIRST = jax.tree.map(np.zeros_like, SPACE.choices())
FIELDS = {"film": {"content": "a"}, "nl_gate": {"content": "a"}, "depth": {"rounds": 2}}
CASES = {
    "supernet": (Supernet(8, SPACE), ROWS, FIRST),
    **{name: (fusion(8, **FIELDS.get(name, {})), ROWS) for name, fusion in FUSIONS.items()},
    **{
        name: (fusion(8, heads=2, **FIELDS.get(name, {})), TOKENS)
        for name, fusion in SEQUENCE_FUSIONS.items()
    },
}


@pytest.mark.parametrize("name", CASES)
def test_parameters_lie_over_the_devices(name):
    module, *inputs = CASES[name]
    abstract = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    shardings = state_shardings(abstract, make_mesh({"fsdp": 2}, jax.devices()[:2]))
    divided = [sharding for sharding in jax.tree.leaves(shardings) if "fsdp" in sharding.spec]
    assert len(divided) > len(jax.tree.leaves(shardings)) / 2
