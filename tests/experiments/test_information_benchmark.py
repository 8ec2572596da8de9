"""The gates beside their known decomposition, and the times of the decompositions, small."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.reproduce import gates
from mmjax.data.synthetic import GATES

ROOT = pathlib.Path(__file__).parents[2]


def run(module, *arguments):
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_gates_are_printed_and_judged():
    done = run("experiments.reproduce.gates")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert set(GATES) <= set(lines)
    assert lines["and"].count("0.311278") == 2  # ours, and in brackets the known one


def test_a_gate_that_is_off_is_noticed(monkeypatch, capsys):
    wrong = {"and": (np.array([0.3, 0, 0, 0.5]), np.array([0.311278, 0, 0, 0.5]), 0.0)}
    monkeypatch.setattr(gates, "compared", lambda: wrong)
    with pytest.raises(SystemExit, match="off by more than"):
        gates.main([])
    assert "1.1e-02" in capsys.readouterr().out


def test_the_benchmark_prints_and_writes_its_table(tmp_path):
    path = tmp_path / "told.json"
    arguments = ["--shapes=2x2x2", "--problems=3", "--rounds=1", "--club_rows=16", f"--json={path}"]
    done = run("experiments.benchmarks.information", *arguments)
    assert done.returncode == 0, done.stderr
    told = json.loads(path.read_text())["timings"]
    ours = [timing for timing in told if timing["name"] == "mmjax"]
    assert [timing["task"] for timing in ours] == [
        "BROJA 2x2x2", "BROJA 2x2x2, 3 of them", "CLUB, 16 rows",
    ]  # fmt: skip
    assert all(timing["seconds"] > 0 for timing in told)
    unions = [timing["union"] for timing in told if timing["task"] == "BROJA 2x2x2"]
    np.testing.assert_allclose(unions, unions[0], atol=1e-6)  # of whoever is installed


def test_a_shape_of_two_axes_is_told():
    done = run("experiments.benchmarks.information", "--shapes=4x4")
    assert done.returncode
    assert "error: --shapes are like 20x20x2, for x1, x2 and y; got 4x4" in done.stderr
