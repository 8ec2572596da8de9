"""The entry points as a user calls them, each in a process of its own."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 20


def command(name, *arguments):
    return [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)]


def run(name, *arguments, devices=1):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    done = subprocess.run(
        command(name, *arguments), cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def smoke(workdir, *arguments):
    return (
        "--config=configs/smoke.py", f"--workdir={workdir}", f"--config.steps={STEPS}",
        "--config.checkpoint.every=5", *arguments,
    )  # fmt: skip


def losses(workdir):
    return [
        json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The smoke configuration, uninterrupted, and what it printed."""
    workdir = tmp_path_factory.mktemp("smoke")
    return workdir, run("pretrain", *smoke(workdir))


def test_the_smoke_run_finishes_with_its_numbers_and_a_report(whole):
    workdir, told = whole
    assert f"finished at step {STEPS}" in told
    assert "eval/random/image_to_text_recall@1" in told
    assert str(workdir / "report.html") in told
    assert "<h1>smoke</h1>" in (workdir / "report.html").read_text()
    curve = losses(workdir)
    assert len(curve) == STEPS
    assert np.mean(curve[-5:]) < np.mean(curve[:5])


def test_after_kill_9_the_metrics_are_bit_by_bit_those_of_an_uninterrupted_run(whole, tmp_path):
    victim = int(np.random.default_rng().integers(1, STEPS))
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    process = subprocess.Popen(
        command("pretrain", *smoke(tmp_path)),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = tmp_path / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= victim:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL, f"it ended before step {victim}"
    run("pretrain", *smoke(tmp_path))
    assert metrics.read_text() == (whole[0] / "metrics.jsonl").read_text(), f"killed at {victim}"


def test_eight_devices_give_the_loss_curve_of_one(tmp_path):
    curves = []
    for devices in (1, 8):
        workdir = tmp_path / str(devices)
        arguments = (
            "--config=configs/icons.py", f"--workdir={workdir}", "--config.steps=20",
            "--config.batch_size=64", "--config.evaluation.sets=('random',)",
        )  # fmt: skip
        run("pretrain", *arguments, devices=devices)
        curves.append(losses(workdir))
    np.testing.assert_allclose(*curves, rtol=1e-5)


def test_a_full_disk_keeps_the_checkpoints_before(whole, tmp_path):
    """A limit on the size of files stands for the full disk: writing past it fails likewise."""
    workdir = tmp_path / "full"
    shutil.copytree(whole[0], workdir)
    longer = command("pretrain", *smoke(workdir), f"--config.steps={STEPS + 1}")
    limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *longer]  # KiB
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    (error,) = (line for line in done.stderr.split("\n") if line.startswith("error: "))
    assert "could not save a checkpoint" in error
    assert "Complete checkpoints kept: [15, 20]. Make room on the disk" in error
    told = run("pretrain", *smoke(workdir))
    assert f"finished at step {STEPS} already" in told


def test_evaluate_prints_and_writes_what_the_run_had(whole):
    workdir, _ = whole
    told = run(
        "evaluate", f"--workdir={workdir}", "--sets=random,family",
        "--classes=arrow,battery,calendar", "--template={}", "--template={} outline",
    )  # fmt: skip
    written = json.loads((workdir / "evaluation.json").read_text())
    assert written["step"] == STEPS
    assert set(written["sets"]) == {"random", "family"}
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    for name in ("image_to_text_recall@10", "text_to_image_mrr"):
        assert written["sets"]["random"][name] == last[f"eval/random/{name}"]
        assert name in told
    assert 0 <= written["sets"]["family"]["zero_shot_accuracy@1"] <= 1


def test_embed_writes_unit_rows_with_their_ids(whole, tmp_path):
    workdir, _ = whole
    told = run("embed", f"--workdir={workdir}", "--set=random", f"--output={tmp_path}/rows.npz")
    assert "1000 ids" in told
    with np.load(tmp_path / "rows.npz", allow_pickle=False) as rows:
        assert rows["ids"].shape == (1000,)
        for name in ("image", "text"):
            assert rows[f"embeddings/{name}"].shape == (1000, 32)
            np.testing.assert_allclose(
                np.linalg.norm(rows[f"embeddings/{name}"], axis=1), 1, rtol=1e-4
            )
            np.testing.assert_array_equal(rows[f"owners/{name}"], np.arange(1000))


@pytest.mark.parametrize("name", ["evaluate", "embed"])
def test_a_folder_without_a_run_is_named(name, tmp_path):
    arguments = [f"--workdir={tmp_path}"] + ["--set=random"] * (name == "embed")
    done = subprocess.run(command(name, *arguments), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{tmp_path} holds no run: it has no config.json" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.batch_sze=4", "no field 'batch_sze'; did you mean batch_size?"),
        ("--config.steps=many", "--config.steps=many"),
        ("--config.steps=2.5", "--config.steps=2.5"),
        ("--confg.steps=2", "confg.steps"),
        ("--config=configs/none.py", "no configuration file configs/none.py"),
        ("--config configs/smoke.py --config.batch_sze=4", "did you mean batch_size?"),
    ],
)
def test_a_wrong_flag_ends_with_one_clear_line(flag, message):
    flags = flag.split() if "configs/" in flag else ["--config=configs/smoke.py", flag]
    done = subprocess.run(command("pretrain", *flags), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert any(line.startswith("error: ") and message in line for line in done.stderr.split("\n"))
    assert "Traceback" not in done.stderr
