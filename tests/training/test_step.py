"""One update, whatever the number of parts that its batch is embedded in."""

import functools

import jax
import numpy as np
import pytest

from mmjax.training import build_run
from mmjax.training.gradient_cache import row_keys
from mmjax.training.mesh import global_rows
from mmjax.training.step import embed_rows

PARTS = (1, 2, 4)
ROWS = 32  # four on each of eight devices
FAST = {"xla_backend_optimization_level": 0}  # compiles in half the time; memory is the same


def batch(run, step):
    """Rows at random, some of which lack a modality."""
    rng = np.random.default_rng(step)
    length, size = run.config.data.text.length, run.config.data.image.size
    inputs = {
        "image": rng.integers(0, 255, (ROWS, size, size, 3)).astype(np.uint8),
        "text": rng.integers(1, 9, (ROWS, length)).astype(np.int32),
    }
    where = {"image": rng.random(ROWS) < 0.9, "text": rng.random(ROWS) < 0.9}
    return global_rows({"inputs": inputs, "where": where}, run.mesh)


@pytest.fixture(scope="module")
def noisy(make_config, tmp_path_factory):
    """Make a run with dropout, patch dropout, and activations that outweigh its parameters."""
    workdir = tmp_path_factory.mktemp("noisy")

    def make(**changes):
        config = make_config(batch_size=ROWS, loss="clip", **changes)
        image = config.model.towers.image
        image.dropout, image.patch_dropout, image.patch_size = 0.1, 0.5, 2
        return build_run(config, workdir)

    return make


@pytest.fixture(scope="module")
def steps(noisy):
    """Per number of parts, the metrics of three steps and the memory that one takes, in bytes."""

    def run_steps(parts):
        run = noisy(micro_batches=parts)
        state, curve = run.make_state(), []
        step = run.train_step().lower(state, batch(run, 0)).compile(FAST)
        for i in range(3):
            state, metrics = step(state, batch(run, i))
            curve.append([metrics[name] for name in ("loss", "grad_norm", "logit_scale")])
        return np.array(curve), step.memory_analysis().temp_size_in_bytes

    with jax.numpy_dtype_promotion("standard"):
        return {parts: run_steps(parts) for parts in PARTS}


def test_the_loss_curve_does_not_depend_on_the_number_of_parts(steps):
    at_once = steps[1][0]
    assert np.ptp(at_once[:, 0]) > 1e-2
    for curve, _ in steps.values():
        np.testing.assert_allclose(curve, at_once, rtol=1e-5)


def test_more_parts_take_less_memory(steps):
    one, two, four = (memory for _, memory in steps.values())
    assert two < 0.8 * one
    assert four < 0.8 * two


def test_every_row_has_the_noise_of_its_own_key(noisy):
    run, key = noisy(), jax.random.key(3)
    params = run.make_state().params
    same = jax.tree.map(lambda x: np.repeat(np.asarray(x)[:1], 8, axis=0), batch(run, 0)["inputs"])
    embed = jax.jit(functools.partial(embed_rows, run.model, mesh=run.mesh))
    outputs = embed(params, same, row_keys(key, 8))

    @jax.jit
    def alone(key):
        one = jax.tree.map(lambda x: x[:1], same)
        return run.model.apply({"params": params}, one, train=True, rngs={"dropout": key})

    for i in range(3):
        wanted = alone(jax.random.fold_in(key, i))
        for name, rows in outputs["embeddings"].items():
            np.testing.assert_allclose(rows[i], wanted["embeddings"][name][0], atol=1e-5)
        assert outputs["logit_scale"] == wanted["logit_scale"]
    images = outputs["embeddings"]["image"]
    assert np.abs(images[0] - images[1]).max() > 1e-2


def test_parts_that_the_rows_of_a_device_do_not_allow_are_refused_at_once(noisy):
    with pytest.raises(ValueError, match=r"micro_batches must divide the 4 rows .* got 3; use one"):
        noisy(micro_batches=3)
