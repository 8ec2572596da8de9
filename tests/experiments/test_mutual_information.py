"""The table of bounds and the race of CLUB, at tiny sizes: do they run, and say what they say?"""

import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.club import club_seconds, entrants
from experiments.reproduce.conditional_information import conditional_bounds
from experiments.reproduce.mutual_information import BENCHMARK, PEER, correlated, with_own
from experiments.reproduce.perceptrons import conditional_model, perceptron
from mmjax.information.log_ratio import club
from mmjax.information.lower_bounds import nwj_bound

ROOT = pathlib.Path(__file__).parents[2]


def command(*arguments):
    line = [sys.executable, "-m", "experiments.reproduce.mutual_information", *arguments]
    # Three steps are not worth the time to compile them well.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags}
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=environment)


def test_the_command_prints_both_tables():
    size = "--level_steps=3", "--last=2", "--runs=1", "--estimators=CLUB", "--given=2"
    done = command(*size)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if line]
    tables = "in information CLUB", "conditional features NCE CLUB NCE-CLUB"
    assert rows == " ".join(tables).split()
    assert len(re.findall(r"-?\d+\.\d\d 0\.00 \( *\d+\.\d\d \d\.\d\d\)", done.stdout)) == 5


def test_an_estimator_that_there_is_not_is_named():
    done = command("--estimators=CLUP")
    assert done.returncode
    assert "--estimators are of NWJ, MINE, InfoNCE, CLUB; got CLUP" in done.stderr


def test_batches_have_the_correlation_of_their_information():
    draw = jax.vmap(lambda key: correlated(key, jnp.float32(10.0)))
    x, y = jax.jit(draw)(jax.random.split(jax.random.key(0), 50))
    found = np.corrcoef(np.ravel(x), np.ravel(y))[0, 1]
    assert found == pytest.approx(np.sqrt(1 - np.exp(-1)), abs=0.01)


def test_the_estimators_are_the_peers():
    """The peers' formulas, in NumPy, for parameters at their beginning."""
    assert list(BENCHMARK) == list(PEER)
    x, y = (np.asarray(z) for z in correlated(jax.random.key(1), jnp.float32(6.0)))
    layers = BENCHMARK["NWJ"].init(jax.random.key(2))
    (w, b), (v, c) = [tuple(map(np.float64, layer)) for layer in layers]
    pairs = np.concatenate(np.broadcast_arrays(x[:, None], y[None]), axis=2)
    matrix = (np.maximum(pairs @ w + b, 0) @ v + c)[..., 0]
    joint, softplus = np.diag(matrix), np.log1p(np.exp(matrix))
    draws = jax.random.randint(jax.random.key(3), (len(x),), 0, len(x))
    drawn = matrix[np.arange(len(x)), draws]
    wanted = {
        "MINE": joint.mean() - np.log(np.exp(drawn).mean()),
        "NWJ": joint.mean() - np.exp(matrix - 1).mean(),
        "InfoNCE": np.mean(np.diag(softplus) - np.log(np.exp(softplus).mean(axis=1))),
    }
    for name, value in wanted.items():
        _, found = jax.jit(BENCHMARK[name].objective)(layers, x, y, jax.random.key(3))
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-5)
    parameters = BENCHMARK["CLUB"].init(jax.random.key(4))
    _, found = jax.jit(BENCHMARK["CLUB"].objective)(parameters, x, y, jax.random.key(5))
    mean, log_variance = (
        np.maximum(x @ first[0] + first[1], 0) @ second[0] + second[1]
        for first, second in [[tuple(map(np.float64, z)) for z in p] for p in parameters]
    )
    precision = np.exp(-np.tanh(log_variance))
    squares = ((y[None] - mean[:, None]) ** 2).mean(axis=1) - (y - mean) ** 2
    assert found["CLUB"] == pytest.approx((squares * precision).sum(axis=1).mean() / 2, rel=1e-4)


def test_the_conditional_bounds_are_those_of_each_row_alone():
    rng = np.random.default_rng(1)
    x, y = np.float32(rng.normal(size=(3, 2))), np.float32(rng.normal(size=(3, 4, 1)))
    critic = perceptron(jax.random.key(0), (3, 5, 1))
    model = conditional_model(jax.random.key(1), (2, 5, 1))
    cost, found = jax.jit(conditional_bounds)((critic, model), x, y, None)

    def perceive(layers, row):
        (w, b), (v, c) = [tuple(map(np.float64, layer)) for layer in layers]
        return (np.maximum(row @ w + b, 0) @ v + c)[0]

    rows = {name: [] for name in ("NCE", "CLUB", "NCE-CLUB", "likelihood")}
    for own, draws in zip(x, y, strict=True):
        said = np.array([perceive(critic, np.concatenate([own, draw])) for draw in draws])
        mean, log_variance = perceive(model[0], own), np.tanh(perceive(model[1], own))
        variance = np.exp(log_variance)
        density = -((draws[:, 0] - mean) ** 2 / variance + np.log(2 * np.pi * variance)) / 2
        rows["NCE"].append(said[0] - np.log(np.exp(said).mean()))
        rows["NCE-CLUB"].append(said[0] - said[1:].mean())
        rows["CLUB"].append(density[0] - density[1:].mean())
        rows["likelihood"].append(density[0])
    wanted = {name: np.mean(values) for name, values in rows.items()}
    assert cost == pytest.approx(-wanted["NCE"] - wanted.pop("likelihood"), rel=1e-4)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(wanted, rel=1e-3)


def test_own_pairs_can_stand_among_the_marginals():
    matrix = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    scores, where = with_own(jnp.asarray(matrix), jnp.ones((3, 3), bool))
    wanted = np.diag(matrix) - np.exp(matrix - 1).mean(axis=1)
    np.testing.assert_allclose(nwj_bound(scores, where=where), wanted, rtol=1e-5)


def test_all_ways_to_make_club_agree():
    values = {name: run() for name, run in entrants(32, 4).items()}
    mean, log_variance, y = np.random.default_rng(0).normal(size=(3, 32, 4)).astype(np.float32)
    wanted = float(jnp.mean(club(mean, log_variance, y)))
    assert values == pytest.approx(dict.fromkeys(values, wanted), rel=1e-4)
    assert min(club_seconds(32, 4, rounds=1).values()) > 0
