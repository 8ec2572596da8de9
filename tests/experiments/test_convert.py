"""The command as a user calls it."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from mmjax.data.sources import load_source

ROOT = pathlib.Path(__file__).parents[2]


def command(*arguments):
    return [sys.executable, "-m", "experiments.convert", *map(str, arguments)]


def run(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path):
    """A table of 3,000 records, one of them outside the folder and one without its image."""
    root = tmp_path / "photos"
    root.mkdir()
    for n in range(3000):
        (root / f"{n}.png").write_bytes(b"%d" % n)  # any bytes: a conversion decodes nothing
    rows = [{"image": f"{n}.png", "text": [f"text {n}", "b"]} for n in range(3000)]
    rows[7]["image"] = "../outside.png"
    (root / "9.png").unlink()
    (root / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def options(folder):
    return json.dumps({"root": str(folder), "texts": "texts.jsonl"})


def test_a_conversion_that_is_killed_goes_on_and_is_complete(folder, tmp_path):
    output = tmp_path / "shards"
    arguments = (
        "--source=folder", f"--options={options(folder)}", "--split=all", f"--output={output}",
        "--records_per_shard=100", "--threads=2", "--max_unreadable_share=0.05",
    )  # fmt: skip
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        if len(list(output.glob("all-*.array_record"))) >= 3:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in output.glob("all-*.array_record")}
    assert 3 <= len(kept) < 30
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "2998 records" in done.stdout
    assert "left out, path outside the folder: 1" in done.stdout
    assert "left out, missing file: 1" in done.stdout
    assert "3000/3000" in done.stderr  # the progress bar
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    source = load_source("array_record", "all", shards=f"{output}/{{split}}-*.array_record")
    assert len(source) == 2998
    assert source[1] == {"id": "1.png", "image": b"1", "text": ("text 1", "b")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--source=foldr", "--options={}"), "no data set is called 'foldr'"),
        (("--source=folder", "--options={"), "--options is not JSON"),
        (("--source=folder", "--options=[]"), "--options must be a JSON object"),
        (("--source=folder", "--options={}"), "folder needs the option 'root'"),
    ],
)
def test_what_cannot_work_ends_with_one_clear_line(tmp_path, arguments, message):
    done = run(*arguments, "--split=all", f"--output={tmp_path}/x")
    assert done.returncode == 1
    assert any(line.startswith("error: ") and message in line for line in done.stderr.split("\n"))
    assert "Traceback" not in done.stderr
    assert not os.path.exists(f"{tmp_path}/x")
