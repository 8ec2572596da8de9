"""A Slurm cluster of one machine: munged, slurmctld and slurmd, in a folder of its own."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time

from processes import ROOT, free_port

DAEMONS = ("munged", "slurmctld", "slurmd")
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
FirstJobId={job}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """The programs that are not installed."""
    return [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=PATH) is None]


@contextlib.contextmanager
def slurm_cluster(folder):
    """Start the daemons; yields a function that runs one of Slurm's commands."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            controller=free_port(),
            node=free_port(),
            job=free_port(),  # JAX makes its port of the job's number: clusters must not share one
            user=getpass.getuser(),
            folder=folder,
        )
    )
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    environment = {"SLURM_CONF": str(configuration)}
    munged = [
        "munged", "--foreground", "--force", f"--key-file={key}",
        f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
        f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for command in (munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]):
            log = stack.enter_context((folder / f"{command[0]}.out").open("w"))
            daemon = subprocess.Popen(
                [shutil.which(command[0], path=PATH), *command[1:]],
                env=os.environ | environment,
                stdout=log,
                stderr=log,
            )
            stack.callback(_end, daemon)

        def slurm(*command, **variables):
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | variables | environment,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            return done.stdout

        _wait_for_node(slurm, folder)
        yield slurm


def _wait_for_node(slurm, folder, seconds=60):
    end = time.monotonic() + seconds
    state = ""
    while time.monotonic() < end:
        with contextlib.suppress(AssertionError):
            state = slurm("sinfo", "--noheader", "--format=%T").strip()
            if state == "idle":
                return
        time.sleep(0.3)
    logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))
    raise AssertionError(f"the node did not become idle but {state!r}:\n{logs}")


def _end(daemon):
    daemon.terminate()
    try:
        daemon.wait(timeout=20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
