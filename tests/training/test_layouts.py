"""The published configurations, narrow: one loss curve on every layout of eight devices."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from mmjax.training.config import read_config
from mmjax.training.design import build_design
from mmjax.training.dry_run import HASTILY

ROOT = pathlib.Path(__file__).parents[2]
STEPS, ROWS = 4, 16
LAYOUTS = {
    "data": {"data": 8, "fsdp": 1, "tensor": 1},
    "fsdp": {"data": 1, "fsdp": 8, "tensor": 1},
    "tensor": {"data": 2, "fsdp": 1, "tensor": 4},
    "all": {"data": 2, "fsdp": 2, "tensor": 2},
}
CLIP, SIGLIP = "clip_vit_b16", "siglip_vit_l16"
CASES = [(CLIP, "data"), (CLIP, "fsdp"), (CLIP, "tensor"), (SIGLIP, "data"), (SIGLIP, "all")]


def narrow(name, layout):
    """Structure, optimizer and schedule as published; width, depth and image are not."""
    config = read_config(ROOT / f"configs/{name}.py")
    config.batch_size, config.mesh = ROWS, LAYOUTS[layout]
    config.data.image.size, config.data.text.length = 32, 8
    config.optimizer.warmup_steps = 2
    config.model.embed_dim, config.model.dtype = 16, "float32"
    for tower in config.model.towers.values():
        tower.width, tower.depth, tower.heads = 32, 2, 4
    config.model.towers.text.vocab_size = 64
    return build_design(config, vocab_size=64)


def start(design):
    """A state like a fresh one, drawn on the host: compiling its making takes longer than a run."""
    rng = np.random.default_rng(0)

    def parameter(path, x):
        centre = float("scale" in jax.tree_util.keystr(path[-1:]))  # of norms and logits
        return rng.normal(centre, 0.1, x.shape).astype(x.dtype)

    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), design.abstract)
    params = jax.tree_util.tree_map_with_path(parameter, design.abstract.params)
    whole = dataclasses.replace(zeros, params=params)
    return jax.tree.map(lambda x, s: jax.device_put(x, s.sharding), whole, design.abstract)


def batch(design, step):
    rng = np.random.default_rng(step)
    inputs = {
        "image": rng.integers(0, 256, (ROWS, 32, 32, 3)).astype(np.uint8),
        "text": rng.integers(1, 64, (ROWS, 8)).astype(np.int32),
    }
    where = {name: np.arange(ROWS) != step for name in inputs}
    shapes = design.abstract_batch()
    return jax.tree.map(
        lambda x, s: jax.device_put(x, s.sharding), {"inputs": inputs, "where": where}, shapes
    )


@pytest.fixture(scope="module")
def runs():
    """Losses, final state and compiled step by configuration and layout."""
    found = {}
    with jax.numpy_dtype_promotion("standard"):
        for name, layout in CASES:
            design = narrow(name, layout)
            state, losses = start(design), []
            step = design.train_step().lower(design.abstract, design.abstract_batch())
            step = step.compile(HASTILY)
            for i in range(STEPS):
                state, metrics = step(state, batch(design, i))
                losses.append(float(metrics["loss"]))
            found[name, layout] = losses, state
    return found


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_the_loss_curve_is_that_of_data_parallel_training(runs, name, layout):
    curve, _ = runs[name, layout]
    expected, _ = runs[name, "data"]
    assert np.ptp(expected) > 1e-2
    np.testing.assert_allclose(curve, expected, rtol=1e-4)


def first(x):
    return x.addressable_shards[0].data.shape


def parts(x):
    return tuple(whole // part for whole, part in zip(x.shape, first(x), strict=True))


# How often the axes of [layers, embed, heads, kv], [layers, embed, mlp], [vocab, embed] are cut.
CUTS = {
    "data": ((1, 1, 1, 1), (1, 1, 1), (1, 1)),
    "fsdp": ((1, 8, 1, 1), (1, 8, 1), (1, 8)),
    "tensor": ((1, 1, 4, 1), (1, 1, 4), (4, 1)),
    "all": ((1, 2, 2, 1), (1, 2, 2), (2, 2)),
}


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_parameters_and_moments_lie_in_parts(runs, name, layout):
    _, state = runs[name, layout]
    (adam,) = (s for s in jax.tree.leaves(state.opt_state, is_leaf=is_adam) if is_adam(s))
    for tree in (state.params, adam.mu, adam.nu):
        text = tree["text"]
        layers = text["transformer"]["layers"]
        arrays = (
            layers["attention"]["query"],
            layers["mlp"]["hidden"]["kernel"],
            text["token_embedding"]["embedding"],
        )
        assert tuple(map(parts, arrays)) == CUTS[layout]


def is_adam(x):
    return hasattr(x, "mu") and hasattr(x, "nu")
