import types

import jax
import pytest

from mmjax.training.accelerators import ACCELERATORS, accelerator_of, named_accelerator


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("TPU v4", "TPU-v4"),
        ("TPU v5 lite", "TPU-v5e"),
        ("TPU v5", "TPU-v5p"),
        ("TPU v6 lite", "TPU-v6e"),
    ],
)
def test_a_device_is_found_by_what_jax_calls_it(kind, name):
    assert accelerator_of(types.SimpleNamespace(device_kind=kind)) is ACCELERATORS[name]


def test_of_a_cpu_nothing_is_known():
    assert accelerator_of(jax.devices("cpu")[0]) is None


def test_the_share_of_a_gpu_is_the_one_that_jax_is_told(monkeypatch):
    gpu, tpu = named_accelerator("H100"), named_accelerator("TPU-v5e")
    assert gpu.usable_gib == 0.75 * 80
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert gpu.usable_gib == 0.9 * 80
    assert 15.5 < tpu.usable_gib < 16


def test_a_device_that_is_not_in_the_table_is_named_with_those_that_are():
    with pytest.raises(ValueError, match=r"'h100', did you mean .*There are .*H100.*--peak_tflops"):
        named_accelerator("h100")
