"""Killed at any moment, told to leave, found damaged: a run goes on with the same numbers."""

import signal
import subprocess
import time

import numpy as np
import pytest
from processes import ROOT, Processes, command, environment, metrics, steps_done, until

PREEMPTED = 75
BUSY = ("--config.steps=40", "--config.evaluation.every=3", "--config.checkpoint.every=2")


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A run that evaluates and saves nearly all the time, and that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole")
    assert finish(tiny, workdir) == 0
    return workdir


def finish(tiny, workdir):
    (code,), said = Processes([command(tiny, workdir, *BUSY)], devices=1).wait()
    assert code == 0, said
    return code


def lines(workdir):
    return (workdir / "metrics.jsonl").read_text()


def saving(workdir):
    return bool(list(workdir.glob("checkpoints/*.orbax-checkpoint-tmp*")))


def evaluating(workdir):
    """Step 3 k is evaluated before its line is written."""
    return steps_done(workdir) % 3 == 2 and steps_done(workdir) > 3


@pytest.mark.parametrize("doing", [saving, evaluating])
def test_killed_while_saving_or_evaluating_it_goes_on_bit_by_bit(
    whole, tiny, launch, tmp_path, doing
):
    run = launch(tiny, tmp_path, *BUSY)
    for _ in range(2):  # also what had been continued already
        until(lambda: doing(tmp_path), run)
        time.sleep(np.random.default_rng().uniform(0, 0.004))
        run.each[0].send_signal(signal.SIGKILL)
        assert run.wait()[0] == [-signal.SIGKILL]
        run = launch(tiny, tmp_path, *BUSY)
    codes, said = run.wait()
    assert codes == [0], said
    assert lines(tmp_path) == lines(whole)


def test_told_to_leave_it_exits_with_the_code_that_asks_for_more(whole, tiny, launch, tmp_path):
    run = launch(tiny, tmp_path, *BUSY)
    until(lambda: steps_done(tmp_path) >= 5, run)
    run.each[0].send_signal(signal.SIGTERM)
    codes, (said,) = run.wait()
    assert codes == [PREEMPTED], said
    assert "told to leave: saved after step" in said
    assert "Traceback" not in said
    finish(tiny, tmp_path)
    assert lines(tmp_path) == lines(whole)


def test_a_damaged_newest_checkpoint_is_named_and_the_run_goes_on(whole, tiny, launch, tmp_path):
    run = launch(tiny, tmp_path, *BUSY)
    until(lambda: (tmp_path / "checkpoints/8").exists(), run)
    run.each[0].send_signal(signal.SIGKILL)
    run.wait()
    newest = max(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdecimal())
    files = (tmp_path / f"checkpoints/{newest}").rglob("*")
    largest = max((p for p in files if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 3] ^= 1
    largest.write_bytes(data)

    looked = inspect(tmp_path)
    assert looked.returncode == 1
    assert f"the checkpoint of step {newest} is damaged: the bits of " in looked.stderr

    codes, (said,) = launch(tiny, tmp_path, *BUSY).wait()
    assert codes == [0], said
    assert f"the checkpoint of step {newest} is damaged: the bits of " in said
    assert f"going on from the checkpoint of step {newest - 2}" in said
    assert lines(tmp_path) == lines(whole)


def test_a_checkpoint_can_be_looked_into(whole):
    looked = inspect(whole)
    assert looked.returncode == 0, looked.stderr
    found = looked.stdout
    assert "step 40: " in found
    name = "eval/test/image_to_text_recall@1"
    assert f"{name} {metrics(whole)[-1][name]:.4g}" in found
    assert '"name": "tiny"' in found
    assert "params/image_projection/kernel" in found
    assert "(32, 32)" in found
    assert "arrays have the checksums that they had" in found
    assert "error: no checkpoint of step 5" in inspect(whole, "--step=5").stderr


def inspect(workdir, *flags):
    name = "experiments.inspect_checkpoint"
    return subprocess.run(
        [*command("", "")[:2], name, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=environment(devices=2),  # not that of the run
        capture_output=True,
        text=True,
    )
