"""The cost model of the README's table against programs compiled for up to 512 devices."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from experiments.weak_scaling import (
    StepTime,
    dense_scores,
    gradient_bytes,
    loss_bytes,
    loss_memory,
)

ROOT = pathlib.Path(__file__).parents[2]
CHUNK = 1024

# devices, rows over all of them, features of a row
SIZES = [(8, 32_768, 512), (64, 262_144, 768), (512, 32_768, 512), (512, 1_048_576, 512)]

COMPILE = """
import functools, json, sys
import jax, jax.numpy as jnp
jax.config.update("jax_num_cpu_devices", 512)
from jax.sharding import NamedSharding
from mmjax.training.collectives import received_bytes
from mmjax.training.dry_run import HASTILY
from mmjax.training.mesh import BATCH, make_mesh
from mmjax.training.objective import contrastive_objective

def compiled(loss, devices, rows, features, ring):
    mesh = make_mesh({"data": -1}, jax.devices()[:devices])
    lies = NamedSharding(mesh, BATCH)
    row = jax.ShapeDtypeStruct((rows, features), jnp.float32, sharding=lies)
    there = jax.ShapeDtypeStruct((rows,), bool, sharding=lies)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    scalars = {"logit_scale": scalar, "logit_bias": scalar}
    outputs = {"embeddings": {"image": row, "text": row}, **scalars}
    cost = functools.partial(
        contrastive_objective, loss=loss, mesh=mesh, chunk_size=int(sys.argv[2]), ring=ring
    )
    step = jax.jit(jax.value_and_grad(cost))
    return step.lower(outputs, {"image": there, "text": there}).compile(HASTILY)

found = []
for size in json.loads(sys.argv[1]):
    for loss in ("clip", "siglip"):
        for ring in (False, True):
            program = compiled(loss, *size, ring)
            bytes = sum(received_bytes(program.as_text()).values())
            found.append([bytes, program.memory_analysis().temp_size_in_bytes])
print(json.dumps(found))
"""

CASES = [
    (size, loss, ring) for size in SIZES for loss in ("clip", "siglip") for ring in (False, True)
]


@pytest.fixture(scope="module")
def programs():
    """Bytes received and set aside by the compiled value and gradient, by case."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, json.dumps(SIZES), str(CHUNK)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize(("size", "loss", "ring"), CASES)
def test_bytes_on_paper_are_those_of_the_program(programs, size, loss, ring):
    devices, rows, features = size
    received, _ = programs[size, loss, ring]
    # The program also sends masks and one statistic or a few for each column.
    on_paper = loss_bytes(rows, features, devices, ring=ring)
    assert 1 <= received / on_paper < 1.02


@pytest.mark.parametrize(("size", "loss", "ring"), CASES)
def test_memory_on_paper_is_that_of_the_program(programs, size, loss, ring):
    devices, rows, features = size
    _, memory = programs[size, loss, ring]
    on_paper = loss_memory(loss, rows, features, devices, chunk_size=CHUNK, ring=ring)
    assert memory == pytest.approx(on_paper, rel=0.1)
    if rows // devices >= CHUNK and ring:  # the point of it all
        assert memory < 0.2 * dense_scores(rows, devices)


def test_the_gradients_of_one_device_need_no_sum():
    assert gradient_bytes(1000, 1) == 0
    assert gradient_bytes(1000, 4, parts=3) == 3 * 2 * 2 * 1000 * 3 / 4


def test_efficiency_is_the_share_of_the_towers():
    assert StepTime(towers=6, loss=1, gradients=2, embeddings=3).efficiency == 0.5


def test_the_command_prints_a_row_for_each_batch_and_number_of_devices():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.weak_scaling",
            "--device_counts=8,4096",
            "--device=TPU-v5p",
        ],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 3 * 2
    assert all(row.count("|") == rows[0].count("|") for row in rows)
    assert rows[-1].startswith("| 1,048,576 | 4,096 | 256 |")
