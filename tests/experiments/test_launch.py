"""Several processes as one run: the same numbers, elastic, preempted, and wrongly set up."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import (
    ROOT,
    Processes,
    command,
    environment,
    free_port,
    metrics,
    steps_done,
    until,
)
from slurm_cluster import missing, slurm_cluster

PREEMPTED = 75
TIMEOUT = 10  # seconds until all processes have to be there


def numbers(workdir):
    return np.array([[x for x in line.values()] for line in metrics(workdir)[:-1]])


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The metrics of one process with eight devices that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    run = Processes([command(tiny, workdir)], devices=8)
    assert run.wait()[0] == [0]
    return workdir


def test_a_run_goes_on_in_another_number_of_processes_with_the_same_numbers(
    whole, tiny, launch, tmp_path
):
    """Two of four devices, told to leave; one of eight, told to leave; four of two to the end."""
    for processes, told in ((2, [1]), (1, [0])):
        run = launch(tiny, tmp_path, processes=processes, devices=8 // processes)
        before = steps_done(tmp_path)
        until(lambda before=before: steps_done(tmp_path) >= before + 5, run)
        for number in told:  # one of them hears it; all leave, at the same step
            run.each[number].send_signal(signal.SIGTERM)
        codes, said = run.wait()
        assert codes == [PREEMPTED] * processes, said
        assert "told to leave: saved after step" in said[0]
        assert 5 <= steps_done(tmp_path) < 60
    run = launch(tiny, tmp_path, processes=4, devices=2)
    codes, said = run.wait()
    assert codes == [0] * 4, said
    assert "going on from the checkpoint of step" in said[0]
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, 61))
    np.testing.assert_allclose(numbers(tmp_path), numbers(whole), rtol=1e-6, atol=1e-6)


def test_a_missing_process_is_waited_for_and_then_named(tiny, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    flags = (f"--coordinator={address}", "--processes=2", f"--cluster_timeout={TIMEOUT}")
    for number in (0, 1):
        run = Processes([command(tiny, tmp_path, *flags, f"--process={number}")], devices=1)
        (code,), (said,) = run.wait(timeout=TIMEOUT + 60)
        assert code == 1
        assert f"process {number} waited {TIMEOUT} s for the other processes at {address}" in said
        assert "Check failure stack trace" not in said


def test_a_port_in_use_is_named_by_every_process(tiny, launch, tmp_path):
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::", 0))
        other.listen()
        port = other.getsockname()[1]
        flag = f"--cluster_timeout={TIMEOUT}"
        codes, said = launch(tiny, tmp_path, flag, processes=2, port=port).wait()
    assert codes == [1, 1], said
    assert f"cannot listen on the port of 127.0.0.1:{port}" in said[0]
    assert f"process 1 waited {TIMEOUT} s" in said[1]


def test_processes_with_different_configurations_say_so_all(tiny, launch, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(
        tiny.read_text().replace("return config", "config.seed = 3\n    return config")
    )
    codes, said = launch(tiny, tmp_path, processes=2, each={1: {"config": other}}).wait()
    assert codes == [1, 1], said
    for text in said:
        assert "the processes were not started alike" in text
        assert "process 1: config.seed: 0 -> 3" in text


def test_folders_that_are_not_shared_are_named_by_all(tiny, tmp_path):
    patient = (  # a network file system is given a minute; nobody shall wait so long here
        "import runpy, mmjax.training.cluster as c; c.SHARED_SECONDS = 1.0;"
        "runpy.run_module('experiments.pretrain', run_name='__main__', alter_sys=True)"
    )
    address = f"--coordinator=127.0.0.1:{free_port()}"
    commands = []
    for i in range(2):
        flags = (address, "--processes=2", f"--process={i}")
        _, _, _, *arguments = command(tiny, tmp_path / str(i), *flags)
        commands.append([sys.executable, "-c", patient, *arguments])
    codes, said = Processes(commands, devices=1).wait()
    assert codes == [1, 1], said
    for text in said:
        assert "is not shared: what process 0 writes there, processes [1] do not see" in text
    assert not list((tmp_path / "0").iterdir())


def test_a_failure_of_one_process_ends_all_of_them(tiny, launch, tmp_path):
    """One of two has no data: its configuration names a folder that is on one machine only."""
    broken = tmp_path / "broken.py"
    text = tiny.read_text()
    # The same configuration for both, and a data set that is gone for the second one.
    broken.write_text(text.replace("return config", BLIND + "    return config"))
    codes, said = launch(broken, tmp_path / "run", processes=2).wait()
    assert codes == [1, 1], said
    assert "process 1 failed: FileNotFoundError" in said[0]
    assert "error: gone" in said[1]


BLIND = """
    import sys
    if "--process=1" in sys.argv:
        import mmjax.training.run as run
        def gone(*args, **options):
            raise FileNotFoundError("gone")
        run.load_source = gone
"""


def test_if_a_process_is_killed_the_others_end_too_and_the_rest_goes_on(
    whole, tiny, launch, tmp_path
):
    run = launch(tiny, tmp_path, processes=2, devices=4)
    until(lambda: steps_done(tmp_path) >= 10, run)
    run.each[1].kill()
    codes, said = run.wait(timeout=150)  # JAX misses it after 100 s if nothing else does
    assert codes[0] not in (0, PREEMPTED), said
    assert "another" in said[0]
    codes, said = launch(tiny, tmp_path, devices=8).wait()
    assert codes == [0], said
    np.testing.assert_allclose(numbers(tmp_path), numbers(whole), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"])
def test_a_launcher_that_jax_does_not_find_is_no_reason_to_train_twice(tiny, tmp_path, name):
    done = subprocess.run(
        command(tiny, tmp_path / "run"),
        cwd=ROOT,
        env=os.environ | {name: "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"error: {name} is 2, but this process was not started as one of them" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="Open MPI is not installed")
def test_open_mpi_starts_a_run(whole, tiny, tmp_path):
    mpirun = ["mpirun", "--oversubscribe", "--allow-run-as-root", "-n", "2"]
    run = Processes([[*mpirun, *command(tiny, tmp_path)]], devices=4)
    codes, said = run.wait()
    assert codes == [0], said
    np.testing.assert_allclose(numbers(tmp_path), numbers(whole), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}")
def test_slurm_requeues_a_run_that_goes_on_with_the_same_numbers(
    whole, tiny, tmp_path, tmp_path_factory
):
    """Told to leave, the script requeues it; requeued from outside, the run saves in time."""
    workdir, log = tmp_path / "run", tmp_path / "log"
    python = os.path.dirname(sys.executable)
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as slurm:

        def state():
            told = slurm("scontrol", "--oneliner", "show", "job", job)
            return dict(part.split("=", 1) for part in told.split() if "=" in part)

        def until_restarted(times):
            wait_for(lambda: int(state()["Restarts"]) == times, log)
            wait_for(lambda: state()["JobState"] == "PENDING", log)
            before = steps_done(workdir)
            # Else in two minutes; at once, slurmd would still refuse what it has just ended.
            slurm("scontrol", "update", f"JobId={job}", "StartTime=now+10")
            return before

        job = slurm(
            "sbatch", "--parsable", "--ntasks=2", "--cpus-per-task=1", f"--output={log}",
            "experiments/launch/slurm.sh", f"--config={tiny}", f"--workdir={workdir}",
            **environment(devices=4) | {"PATH": f"{python}{os.pathsep}{os.environ['PATH']}"},
        ).strip()  # fmt: skip
        wait_for(lambda: steps_done(workdir) >= 5, log)
        slurm("scancel", "--signal=TERM", job)
        before = until_restarted(1)
        wait_for(lambda: steps_done(workdir) >= before + 3, log)
        slurm("scontrol", "requeue", job)
        until_restarted(2)
        wait_for(lambda: state()["JobState"] == "COMPLETED", log)
    told = log.read_text()
    assert told.count("told to leave: saved after step") == 4  # two tasks, twice
    assert told.count("going on from the checkpoint of step") == 2
    np.testing.assert_allclose(numbers(workdir), numbers(whole), rtol=1e-6, atol=1e-6)


def wait_for(happened, log, seconds=240):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, log.read_text() if log.exists() else "never started"
        time.sleep(0.02)
