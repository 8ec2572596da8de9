"""Processes of a run on this machine: started, watched and ended by tests."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(devices):
    """Programs are compiled in half the time, and have the same numbers in all layouts."""
    return os.environ | {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONUNBUFFERED": "1",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }


def command(config, workdir, *flags):
    """The command that trains."""
    return [
        sys.executable, "-m", "experiments.pretrain", f"--config={config}",
        f"--workdir={workdir}", *map(str, flags),
    ]  # fmt: skip


class Processes:
    """The processes of one run."""

    def __init__(self, commands, devices):
        self.each = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(devices),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for command in commands
        ]

    def wait(self, timeout=300):
        """Exit codes, and what each said."""
        said = [process.communicate(timeout=timeout)[0] for process in self.each]
        return [process.returncode for process in self.each], said


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def until(happened, processes, seconds=120):
    """Wait until ``happened()``; fails if a process ends first."""
    end = time.monotonic() + seconds
    while not happened():
        ended = [process for process in processes.each if process.poll() is not None]
        assert not ended, ended[0].communicate()[0]
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def steps_done(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
