"""Flags that say where the other processes of a run are, for when no launcher does."""

from absl import flags

from mmjax.training.cluster import TIMEOUT_SECONDS, join_cluster

COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0 of several")
PROCESSES = flags.DEFINE_integer("processes", None, "how many there are; 1 to stay alone")
PROCESS = flags.DEFINE_integer("process", None, "which one this is, from 0")
TIMEOUT = flags.DEFINE_float(
    "cluster_timeout", TIMEOUT_SECONDS, "seconds until all processes have to be there", 1.0
)


def join() -> None:
    """Join the others, see :func:`mmjax.training.cluster.join_cluster`."""
    join_cluster(
        coordinator=COORDINATOR.value,
        processes=PROCESSES.value,
        process=PROCESS.value,
        timeout=TIMEOUT.value,
    )
