"""FactorCL's tables at tiny sizes: each part against its definition, and the command."""

import os
import pathlib
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from experiments.reproduce import factorcl
from experiments.reproduce.factorcl import augment
from experiments.reproduce.reading import information, probe, train
from mmjax.data.synthetic import correlated_gaussians

ROOT = pathlib.Path(__file__).parents[2]
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def promote_as_scripts_do():
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers
        yield


def test_a_row_is_augmented_in_one_of_four_ways():
    x = RNG.normal(size=(400, 20)).astype(np.float32)
    found = np.asarray(jax.jit(augment)(x, jax.random.key(0)))
    halves = np.concatenate([x[:, 10:], x[:, :10]], axis=1)
    same = (found == x).all(axis=1)
    swapped = (found == halves).all(axis=1)
    holes = ((found == 0).sum(axis=1) == 2) & ((found == x) | (found == 0)).all(axis=1)
    noisy = (found != x).all(axis=1) & (np.abs(found - x).max(axis=1) < 0.06)
    ways = np.stack([same, swapped, holes, noisy])
    assert (ways.sum(axis=0) == 1).all()
    assert (ways.sum(axis=1) > 70).all()
    assert np.std((found - x)[noisy]) == pytest.approx(0.01, rel=0.1)
    assert len({tuple(np.flatnonzero(row == 0)) for row in found[holes]}) > 30


@pytest.mark.parametrize(("steps", "wanted"), [(0, 0), (5, 1), (10, 2)])
def test_an_epoch_shows_every_example_once(steps, wanted):
    """A gradient step of size 1 adds up the numbers that it is shown: powers of 2."""
    data = {"number": jnp.asarray(2.0 ** np.arange(15))}
    total = train(
        lambda params, batch, key: -params * jnp.sum(batch["number"]),
        jnp.float32(0),
        data,
        optax.sgd(1.0),
        steps=steps,
        batch_size=3,
        seed=0,
    )
    assert total == wanted * (2**15 - 1)


def test_a_part_of_an_epoch_shows_every_example_once_at_most():
    data = {"number": jnp.asarray(4.0 ** np.arange(10))}
    total = train(
        lambda params, batch, key: -params * jnp.sum(batch["number"]),
        jnp.float32(0),
        data,
        optax.sgd(1.0),
        steps=2,
        batch_size=3,
        seed=1,
    )
    digits = np.base_repr(int(total), 4)
    assert set(digits) <= {"0", "1"}
    assert digits.count("1") == 6


def test_the_probe_is_a_logistic_regression():
    """Found again by a general minimiser, for embeddings that are collinear and of any size."""
    n = 200
    rows = RNG.normal(size=(2 * n, 3))
    label = (rows @ [1, -2, 0.5] + RNG.normal(size=2 * n) > 0.3).astype(int)
    parts = {"a": 100 * rows[:, :2] + 7, "b": rows @ RNG.normal(size=(3, 4))}
    both = np.concatenate(list(parts.values()), axis=1)
    x = (both - both[:n].mean(axis=0)) / both[:n].std(axis=0)

    def cost(weights):
        margins = (2 * label[:n] - 1) * (x[:n] @ weights[:-1] + weights[-1])
        return np.log1p(np.exp(-margins)).sum() + (weights[:-1] ** 2).sum() / 2

    weights = scipy.optimize.minimize(cost, np.zeros(x.shape[1] + 1), tol=1e-9).x
    wanted = np.mean((x[n:] @ weights[:-1] + weights[-1] > 0) == label[n:])
    halves = slice(None, n), slice(n, None)
    found = probe(
        [{name: z[half] for name, z in parts.items()} for half in halves],
        [label[half] for half in halves],
    )
    assert 0.7 < wanted < 1
    assert found == pytest.approx(wanted, abs=1 / n)  # one row may lie on the line


def test_information_is_that_of_gaussians_and_none_of_noise():
    data = correlated_gaussians(4096, features=4, mutual_information=1.0, seed=0)
    w = data.modalities["y"]
    noise = np.random.default_rng(1).normal(size=w.shape).astype(np.float32)
    z = jnp.asarray(np.stack([5 + 30 * data.modalities["x"], noise]))
    parts = slice(None, 3072), slice(3072, None)
    found = information(
        [z[:, part] for part in parts],
        [jnp.asarray(w[part]) for part in parts],
        hidden=(64,),
        steps=300,
        seed=0,
    )
    assert 0.75 < found[0] < 1.05  # a lower bound, but for chance; 300 steps do not find all
    assert abs(found[1]) < 0.1


def test_the_command_prints_both_tables():
    line = "--examples=60 --epochs=1 --batch_size=16 --hidden=8 --critic_hidden=8 --table_hidden=8"
    done = subprocess.run(
        [sys.executable, "-m", "experiments.reproduce.factorcl", *line.split(), "--table_steps=2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
    )
    assert done.returncode == 0, done.stderr
    for method, published in (("SUP", "0.986"), ("SSL", "0.972"), ("SimCLR", "0.956")):
        assert re.search(rf"^{method} +[01]\.\d+ \+- 0\.000 +{published}$", done.stdout, re.M)
    cells = r"( +-?\d+\.\d\d \( ?\d+\.\d\d\)){3}$"
    rows = re.findall(rf"^(SUP|SSL|SimCLR) (Z_\w+){cells}", done.stdout, re.M)
    kinds = ["Z_S1", "Z_S2", "Z_U1", "Z_U2"]
    assert sorted(row[1] for row in rows) == sorted([*kinds, *kinds, "Z_1", "Z_2"])


def test_a_method_that_there_is_not_is_named_before_anything_is_trained(monkeypatch):
    monkeypatch.setattr(factorcl, "METHODS", types.SimpleNamespace(value=["SUP", "SLS"]))
    with pytest.raises(SystemExit, match="--methods are of SUP, SSL, SimCLR; got SUP, SLS"):
        factorcl.main([])
