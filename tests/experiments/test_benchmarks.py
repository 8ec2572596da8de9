"""The benchmarks at tiny sizes: does every part run, and does it tell what it says it tells?"""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import mmjax.losses
from experiments.benchmarks import contrastive, entrants, textbook
from experiments.benchmarks.contrastive import CONTESTS, problem_of, table_of
from experiments.benchmarks.entrants import Entrant, device_mesh, take_times, warm_up
from experiments.benchmarks.peers import PEERS

ROOT = pathlib.Path(__file__).parents[2]


def benchmark(*arguments):
    # The command itself says how many devices it wants.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    command = [sys.executable, "-m", "experiments.benchmarks.contrastive", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("loss", CONTESTS)
def test_the_textbook_says_what_ours_says(loss):
    """Otherwise the two are not to be compared for speed."""
    problem = problem_of(CONTESTS[loss], n=8, d=4, dtype="float32")
    arguments = problem.rows, dict(problem.learned), dict(problem.constants)

    def mean_of(function):
        def value(rows, learned, constants):
            return jnp.mean(function(*rows, **learned, **constants))

        return jax.jit(jax.value_and_grad(value, (0, 1)))(*arguments)

    dense, ours = (mean_of(getattr(library, loss)) for library in (textbook, mmjax.losses))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, dense)


def test_the_command_prints_and_writes_its_tables(tmp_path):
    path, losses = tmp_path / "told.json", ["siglip_loss", "supervised_contrastive"]
    done = benchmark("--quick", "--devices=2", f"--losses={','.join(losses)}", f"--json={path}")
    assert done.returncode == 0, done.stderr
    told = json.loads(path.read_text())
    assert told["device"].startswith("2 x ")
    assert told["settings"]["n"] == 64
    assert list(told["losses"]) == losses
    for loss, rows in told["losses"].items():
        found = {row["name"]: row for row in rows}
        for name in ("dense", "ours", "ours, chunk_size=16", "ours, chunk_size=16, ring"):
            assert found[name]["ms"] > 0
            assert found[name]["compiled MiB"] > 0
        for name in PEERS[loss]:  # timed, or why not
            assert found[name]["ms"] or found[name]["note"]
        assert re.search(rf"^{loss}, n = 64, d = 16, float32$", done.stdout, re.MULTILINE)


def test_a_wrong_flag_ends_with_one_clear_line():
    done = benchmark("--losses=clip")
    assert done.returncode == 1
    assert "error: --losses must be among clip_loss, siglip_loss, " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 30}, "--n must be a multiple of 4 rows for each of 1 devices, got 30"),
        ({"n": 32, "devices": 16}, "for each of 16 devices, got 32"),
        ({"chunks": ["many"]}, "--chunks must be integers or none; .*'many'"),
    ],
)
def test_flags_that_cannot_be_are_refused(wrong, message):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(**wrong), pytest.raises(ValueError, match=message):
        contrastive.settings()


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(ValueError, match="--devices=9, but JAX has 8 cpu ones"):
        device_mesh(9)


def test_without_rounds_memory_is_known_and_nothing_is_run(monkeypatch):
    """So that sizes can be looked at which do not fit: 64 MiB of scores in 32 MiB here."""
    monkeypatch.setattr(entrants, "free_bytes", lambda devices: 2**25)
    chosen = contrastive.Settings(2**12, 4, "float32", 1, 0, ["clip_loss"], [None, 256])
    rows = contrastive.measured("clip_loss", chosen, device_mesh(1), None)
    names = ["dense", "ours", "ours, chunk_size=None", "ours, chunk_size=256"]
    assert [row["name"] for row in rows] == names
    assert all(row["ms"] is None for row in rows)
    dense, _, undivided, ours = rows
    assert dense["compiled MiB"] >= 64
    assert undivided["compiled MiB"] >= 64
    assert ours["compiled MiB"] < 20
    assert dense["note"] == "does not fit in memory"


def test_scores_that_no_device_holds_are_not_even_compiled(monkeypatch):
    monkeypatch.setattr(contrastive, "MOST_BYTES", 2**10)
    chosen = contrastive.Settings(64, 4, "float32", 1, 0, ["clip_loss"], [None])
    _, ours, undivided = contrastive.measured("clip_loss", chosen, device_mesh(1), None)
    assert ours["compiled MiB"] > 0
    assert undivided["compiled MiB"] is None
    assert undivided["note"].startswith("not compiled: ")


def test_entrants_take_turns_and_a_failing_one_is_left_out():
    order = []

    def failing():
        raise RuntimeError("out of memory\nwith many details")

    takers = [
        Entrant(name, run=lambda name=name: order.append(name), measure=lambda: 7)
        for name in ("a", "b")
    ]
    takers.insert(1, Entrant("broken", run=failing, measure=failing))
    warm_up(takers)
    take_times(takers, rounds=2)
    assert order == ["a", "b", "a", "b"]
    assert [len(taker.seconds) for taker in takers] == [2, 0, 2]
    assert [taker.measured for taker in takers] == [7, None, 7]
    assert takers[1].note == "failed: out of memory"


def test_a_column_that_nobody_fills_is_left_out():
    row = dict.fromkeys(["ms", "of dense", "compiled MiB", "measured MiB", "of matmul peak"])
    table = table_of(
        [{"name": "a", **row, "note": ""}, {"name": "b", **row, "ms": 2.5, "note": ""}]
    )
    assert table.splitlines() == [
        "| name |  ms |",
        "|------|----:|",
        "| a    |   - |",
        "| b    | 2.5 |",
    ]
