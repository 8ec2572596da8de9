"""Parameters without the seconds that compiling an initialiser takes."""

import flax.linen as nn
import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def fill():
    """``fill(module, *args, **options)``: random numbers in the shapes that ``init`` would give.

    Random everywhere, also where ``init`` would give zeros: a bias that is ignored then shows.
    """

    def fill(module, *args, **options):
        rng = np.random.default_rng(0)

        def init(*args):
            return module.init(jax.random.key(0), *args, **options)

        shapes = nn.unbox(jax.eval_shape(init, *args))
        return jax.tree.map(lambda leaf: np.float32(0.4 * rng.normal(size=leaf.shape)), shapes)

    return fill
