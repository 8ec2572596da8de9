"""Parameters without the seconds that compiling an initialiser takes."""

import flax.linen as nn
import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def fill():
    """``fill(module, *args)``: ``{"params": ...}`` of random numbers in the shapes of ``init``.

    Random everywhere, also where ``init`` would give zeros or ones: a bias that is ignored, or
    added twice, then shows.
    """

    def fill(module, *args):
        rng = np.random.default_rng(0)

        def values(path, leaf):
            offset = 1.0 if jax.tree_util.keystr(path).endswith("['scale']") else 0.0
            return np.float32(offset + 0.2 * rng.normal(size=leaf.shape))

        shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), *args))
        return jax.tree_util.tree_map_with_path(values, shapes)

    return fill
