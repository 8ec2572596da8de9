import types

import jax
import pytest

from mmjax.training.meter import Meter, build_meter, describe_rates


def test_utilization_is_what_the_update_needs_over_the_peak():
    rates = Meter(devices=8, model_flops=2e11, peak_tflops=500).rates(8000)
    assert rates["samples_per_second_per_device"] == 1000
    assert rates["mfu"] == pytest.approx(1000 * 2e11 / 500e12)


def test_what_nobody_knows_is_not_told():
    assert set(Meter(1, 1e9, None).rates(10)) == {"samples_per_second_per_device"}


def test_memory_is_told_where_the_device_keeps_account(monkeypatch):
    stats = {"bytes_in_use": 3 * 2**30, "peak_bytes_in_use": 5 * 2**30}
    device = types.SimpleNamespace(memory_stats=lambda: stats)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    rates = Meter(1, 1e9, 1.0).rates(10)
    assert (rates["memory_gib"], rates["peak_memory_gib"]) == (3, 5)
    assert describe_rates(rates) == "10 a device, MFU 1.0%, 3.0 GiB"


@pytest.mark.parametrize(("given", "expected"), [(None, 989), (123.0, 123.0)])
def test_the_peak_is_that_of_the_table_unless_told_otherwise(monkeypatch, given, expected):
    device = types.SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")
    design = types.SimpleNamespace(
        mesh=types.SimpleNamespace(size=8, devices=types.SimpleNamespace(flat=[device])),
        cost=lambda: types.SimpleNamespace(model=7.0),
    )
    assert build_meter(design, peak_tflops=given) == Meter(8, 7.0, expected)
