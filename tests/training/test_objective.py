"""From outputs and masks to the loss that a step goes down on."""

import functools

import jax
import numpy as np
import pytest

from mmjax.losses import clip_loss, siglip_loss
from mmjax.training.mesh import make_mesh
from mmjax.training.objective import contrastive_objective

RNG = np.random.default_rng(0)
X, Y, Z = RNG.normal(size=(3, 8, 5)).astype(np.float32)
SCALARS = {"logit_scale": np.float32(2), "logit_bias": np.float32(-1)}
WHERE = {
    "image": np.array([1, 1, 1, 0, 0, 0, 0, 0], bool),
    "text": np.array([1, 0, 1, 1, 0, 0, 0, 0], bool),
}


def objective(*arguments, **options):
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})  # rows lie on the first two
    return jax.jit(functools.partial(contrastive_objective, mesh=mesh, **options))(*arguments)


@pytest.mark.parametrize(
    "layout", [{}, {"chunk_size": 3}, {"chunk_size": 1, "ring": True}], ids=str
)
@pytest.mark.parametrize(
    ("name", "loss", "options"),
    [("clip", clip_loss, ["logit_scale"]), ("siglip", siglip_loss, ["logit_scale", "logit_bias"])],
)
def test_two_modalities_cost_the_mean_over_the_rows_that_have_both(name, loss, options, layout):
    outputs = {"embeddings": {"image": X, "text": Y}, **SCALARS}
    got = objective(outputs, WHERE, loss=name, **layout)
    rows = loss(X[[0, 2]], Y[[0, 2]], **{option: SCALARS[option] for option in options})
    np.testing.assert_allclose(got, np.mean(rows), rtol=1e-6)


def test_a_row_without_a_pair_weighs_nothing_and_one_with_more_pairs_no_more():
    outputs = {"embeddings": {"image": X, "text": Y, "sound": Z}, **SCALARS}
    where = WHERE | {"sound": np.arange(8) == 0}
    got = objective(outputs, where, loss="clip")
    # Row 0 has three pairs, in two of which it is alone and costs nothing; row 2 has one.
    first, third = clip_loss(X[[0, 2]], Y[[0, 2]], logit_scale=2.0)
    np.testing.assert_allclose(got, (first / 3 + third) / 2, rtol=1e-6)
