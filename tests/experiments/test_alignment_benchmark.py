"""The benchmark of alignment at a tiny size: does every part run, and say what it says it does?"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from experiments.benchmarks.alignment import Entrant, measured, table_of

ROOT = pathlib.Path(__file__).parents[2]


def test_the_command_prints_and_writes_its_tables(tmp_path):
    path = tmp_path / "told.json"
    sizes = ["--turns=1", "--pairs=2", "--sequence_length=6", "--dimensions=2", "--points=8"]
    command = [sys.executable, "-m", "experiments.benchmarks.alignment", *sizes, f"--report={path}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(path.read_text())
    for name in ("soft-DTW, value and gradient, 2 x 6 x 6", "Sinkhorn, 8 x 8, error 0.001"):
        assert f"\n{name}\n" in done.stdout
        ours, *others = told[name]
        assert ours["ms"] > 0
        assert all(row["differs"] < 0.01 for row in others)  # the same question


def test_entrants_take_turns_and_the_first_call_is_apart():
    order = []
    entrants = [Entrant(name, lambda name=name: order.append(name) or 2.0) for name in "ab"]
    rows = measured(entrants, rounds=2)
    assert order == ["a", "b"] * 3
    assert rows[0]["of ours"] == pytest.approx(1)
    assert rows[1]["differs"] == 0
    assert table_of(rows).count("\n") == 3
