"""One process alone: joins nobody, agrees with itself. Several are in tests/experiments."""

import pytest

from mmjax.training import ClusterError, join_cluster
from mmjax.training.cluster import check_alike, gather, together


def test_alone_it_agrees_with_itself(make_config, tmp_path):
    assert gather("what it says") == ["what it says"]
    check_alike(make_config(), tmp_path)
    with pytest.raises(KeyError), together():
        raise KeyError("its own")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_NTASKS": "2"}, "Start it with srun"),
        ({"PMI_SIZE": "4"}, "PMI_SIZE is 4"),
        (
            {"JOB_COMPLETION_INDEX": "0", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            r"pip install 'jax\[k8s\]'",
        ),
    ],
)
def test_a_launcher_that_jax_did_not_find_is_named(monkeypatch, variables, message):
    monkeypatch.setattr("jax.distributed.initialize", not_found)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ClusterError, match=message):
        join_cluster()
    join_cluster(processes=1)  # to stay alone is a choice


def not_found(*args, **options):
    raise ValueError("coordinator_address should be defined.")


def test_without_any_launcher_it_stays_alone(monkeypatch):
    monkeypatch.setattr("jax.distributed.initialize", not_found)
    for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    join_cluster()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coordinator": "here:1234"}, "Give --coordinator=host:port, --processes and --process"),
        ({"coordinator": "here", "processes": 2, "process": 0}, "host:port, got 'here'"),
    ],
)
def test_half_an_address_is_not_enough(monkeypatch, given, message):
    def incomplete(*args, **options):
        raise ValueError("Number of processes must be defined.")

    monkeypatch.setattr("jax.distributed.initialize", incomplete)
    with pytest.raises(ClusterError, match=message):
        join_cluster(**given)
