"""A user of one pure function pays for nothing else."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
HEAVY = {"flax", "optax", "orbax", "grain", "PIL", "tokenizers", "tensorflow", "torch"}


def loaded_by(statement):
    """Top-level modules that a fresh interpreter holds after the statement."""
    script = (
        f"{statement}\nimport sys\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_the_pure_rooms_load_no_framework():
    loaded = loaded_by("import mmjax.losses, mmjax.metrics, mmjax.reduction")
    assert "jax" in loaded
    assert not loaded & HEAVY


def test_the_package_itself_loads_nothing():
    assert not loaded_by("import mmjax; mmjax.__version__") & (HEAVY | {"jax", "numpy"})


@pytest.mark.parametrize("room", ["data", "training"])
def test_no_room_loads_torch_or_tensorflow(room):
    """Also not where they are installed, though TensorBoard's writer then takes torch."""
    loaded = loaded_by(f"import mmjax.{room}")
    assert "mmjax" in loaded
    assert not loaded & {"torch", "tensorflow", "tensorboardX"}
