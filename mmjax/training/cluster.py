"""The processes of one run: how they find each other, agree, and end together.

``jax.distributed`` finds its cluster (Slurm, Open MPI, Kubernetes, TPU pod). What is added here is
that whatever is wrong with one ends in a message on every process, within a stated time.
"""

import contextlib
import errno
import json
import os
import pathlib
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import ml_collections
import numpy as np
from jax._src.distributed import global_state  # The public API does not tell the address.
from jax.experimental import multihost_utils

from mmjax import __version__
from mmjax.training.config import as_json, changes

TIMEOUT_SECONDS = 300.0  # until all processes have to be there
HEARTBEAT_SECONDS = 100  # JAX ends a run one of whose processes has not been heard of for so long
SHARED_SECONDS = 60.0  # a network file system may show another machine's file this late

# Number of processes, as launchers tell it: one that is larger than ours was not understood.
_LAUNCHERS = {"SLURM_NTASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec"}


class ClusterError(RuntimeError):
    """The processes of a run did not come together, or one of the others failed."""


def join_cluster(
    *,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> None:
    """Join the other processes of this run, if it has any; call it before anything uses a device.

    Args:
        coordinator: ``host:port`` of process 0; found by JAX in the environment if not given.
        processes: how many there are; likewise. 1 keeps this process alone.
        process: which one this is, from 0; likewise.
        timeout: seconds until all have to be there. A process that waits longer says what it
            waited for and exits with code 1: JAX itself would abort with a stack trace.

    Raises:
        ClusterError: if the port is taken, or a launcher started several processes that JAX
            cannot find.
    """
    given = (coordinator, processes, process)
    if coordinator is not None and process == 0:
        _check_port(coordinator)
    if processes != 1 and not _initialize(given, timeout) and processes is None:
        _check_alone()


def _initialize(given: tuple[str | None, int | None, int | None], timeout: float) -> bool:
    """Call ``jax.distributed.initialize``; False if there is no cluster."""
    try:
        with _deadline(timeout):
            jax.distributed.initialize(
                *given,
                # Later than ours: a process that JAX times out itself cannot say anything.
                initialization_timeout=int(timeout) + 60,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
    except ValueError as error:
        if given == (None, None, None) and "coordinator_address" in str(error):
            return False
        raise ClusterError(
            f"{error} Give --coordinator=host:port, --processes and --process together, or none of"
            " them where Slurm, Open MPI, Kubernetes or a TPU pod starts the processes"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        if "RPC server" not in str(error):
            raise
        raise _taken(str(global_state.coordinator_address)) from error
    return True


def _check_port(address: str) -> None:
    """Raise if process 0 cannot listen: JAX finds that out too, and then sometimes crashes."""
    port = address.rpartition(":")[2]
    if not port.isdecimal():
        raise ClusterError(f"--coordinator has the form host:port, got {address!r}")
    with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as probe:
        # A port on which only the connections of an earlier run linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(port)))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _taken(address) from error


def _taken(address: str) -> ClusterError:
    return ClusterError(
        f"process 0 cannot listen on the port of {address}: another program uses it. Choose another"
        " one with --coordinator, or with JAX_COORDINATOR_PORT where a launcher gives the address"
    )


def _check_alone() -> None:
    """Raise if a launcher started several processes, each of which would train alone."""
    for name, launcher in _LAUNCHERS.items():
        if int(os.environ.get(name, 1)) > 1:
            raise ClusterError(
                f"{name} is {os.environ[name]}, but this process was not started as one of them in"
                f" a way that JAX knows. Start it with {launcher}; for a launcher that JAX does not"
                " know give --coordinator=host:port, --processes and --process; to run alone,"
                " --processes=1"
            )
    if "JOB_COMPLETION_INDEX" in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ:
        raise ClusterError(
            "this is a pod of an indexed Kubernetes job, and JAX needs the package kubernetes to"
            " find the others: pip install 'jax[k8s]'; to run alone, --processes=1"
        )


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """End the process with a message if the body takes longer."""
    timer = threading.Timer(seconds, _give_up, [seconds])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _give_up(seconds: float) -> None:
    print(
        f"error: process {global_state.process_id} waited {seconds:.0f} s for the other processes"
        f" at {global_state.coordinator_address}. Is one of them missing, do two have the same"
        " number, did process 0 fail (see its messages), or does a firewall close the port?"
        " --cluster_timeout says how long to wait",
        file=sys.stderr,
    )
    leave(1)


def leave(code: int) -> NoReturn:
    """End this process now. Where there are several, an ordinary exit waits for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def gather(text: str) -> list[str]:
    """What each process says, by process; all have to call it."""
    if jax.process_count() == 1:
        return [text]
    said = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(said)], np.int32)).reshape(-1)
    padded = np.pad(said, (0, int(lengths.max()) - len(said)))
    rows = multihost_utils.process_allgather(padded).reshape(len(lengths), -1)
    return [bytes(row[:n]).decode() for row, n in zip(rows, lengths, strict=True)]


def agree(what: str, value: Any) -> None:
    """Raise ClusterError on every process unless ``value``, as JSON, is the same on all."""
    said = gather(json.dumps(value))
    if len(set(said)) > 1:
        raise ClusterError(
            f"the processes do not see the same: {what} are "
            + ", ".join(f"{text} on process {i}" for i, text in enumerate(said))
            + ". Is the work folder on a file system that they share?"
        )


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Every process gets through the body, or every process raises.

    Raises:
        ClusterError: where the body succeeded, but failed on another process. Where it failed,
            its own exception.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        failure = error
    said = gather("" if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    failed = [f"process {i} failed: {text}" for i, text in enumerate(said) if text]
    if failed:
        raise ClusterError("; ".join(failed))


def check_alike(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Check that all processes run the same thing in the same folder.

    Args:
        config: of this process.
        workdir: its work folder; made if it does not exist.

    Raises:
        ClusterError: on every process, if configurations, versions or numbers of devices differ,
            or the folder is not one that they share; says which process differs in what.
    """
    if jax.process_count() == 1:
        return
    mine = {
        "config": as_json(config),
        "jax": jax.__version__,
        "mmjax": __version__,
        "local devices": jax.local_device_count(),
    }
    described: list[dict[str, Any]] = [json.loads(text) for text in gather(json.dumps(mine))]
    different = [
        f"process {i}: {', '.join(changes(described[0], other))}"
        for i, other in enumerate(described)
        if other != described[0]
    ]
    if different:
        raise ClusterError(
            "the processes were not started alike (process 0 -> other): " + "; ".join(different)
        )
    _check_shared(workdir)


def _check_shared(workdir: pathlib.Path) -> None:
    """Process 0 puts a file into the folder, and the others have to see it."""
    word = gather(secrets.token_hex(8))[0]
    mark = workdir / f".shared-{word}"
    with together():
        if jax.process_index() == 0:
            workdir.mkdir(parents=True, exist_ok=True)
            mark.touch()
    try:
        sees = gather("yes" if _appears(mark, SHARED_SECONDS) else "")
    finally:
        if jax.process_index() == 0:
            mark.unlink(missing_ok=True)
    blind = [i for i, seen in enumerate(sees) if not seen]
    if blind:
        raise ClusterError(
            f"the work folder {workdir.resolve()} is not shared: what process 0 writes there,"
            f" processes {blind} do not see within {SHARED_SECONDS:.0f} s. Checkpoints need one"
            " folder for all: give a --workdir on a file system that every machine mounts"
        )


def _appears(path: pathlib.Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        with contextlib.suppress(OSError):
            os.listdir(path.parent)  # makes a network file system look again
        time.sleep(0.1)
    return True
