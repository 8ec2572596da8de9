"""The picture of the memory of tensor fusion, small."""

import pathlib
import subprocess
import sys

from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]


def test_the_command_prints_a_table_and_draws_it(tmp_path):
    picture = tmp_path / "curve.png"
    arguments = ["--sizes=16,32", "--rows=16", "--features=8", f"--picture={picture}"]
    command = [sys.executable, "-m", "experiments.benchmarks.fusion", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line]
    small, large = ([line[1:] for line in lines if line[0] == size] for size in ("16", "32"))
    assert len(small) == len(large) == 2  # numbers of modalities
    growth = [
        [float(b) / float(a) for a, b in zip(before, after, strict=True)]
        for before, after in zip(small, large, strict=True)
    ]
    (tensor_2, low_rank_2), (tensor_3, low_rank_3) = growth
    assert tensor_2 > 3  # with the product of the features: four times as much in the limit
    assert tensor_3 > 6  # eight times
    assert max(low_rank_2, low_rank_3) < 2.2  # with their sum
    with Image.open(picture) as image:
        assert image.width > 800
