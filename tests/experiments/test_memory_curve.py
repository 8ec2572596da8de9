"""The picture of the memory curve, small."""

import pathlib
import subprocess
import sys

from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]


def test_the_command_prints_a_table_and_draws_it(tmp_path):
    picture = tmp_path / "curve.png"
    arguments = ["--sizes=4096,8192", "--features=8", "--virtual_devices=2", f"--picture={picture}"]
    command = [sys.executable, "-m", "experiments.benchmarks.memory", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line]
    small, large = ([line[1:] for line in lines if line[0] == n] for n in ("4,096", "8,192"))
    assert len(small) == len(large) == 2  # losses
    for before, after in zip(small, large, strict=True):
        dense, gathered, ring = (float(b) / float(a) for a, b in zip(before, after, strict=True))
        assert dense > 3.5  # of four times as many scores
        assert max(gathered, ring) < 2.5
    with Image.open(picture) as image:
        assert image.width > 800
