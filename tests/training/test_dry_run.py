"""What a dry run says of a small run is what that run then has."""

import dataclasses

import jax
import pytest

from mmjax.training.accelerators import ACCELERATORS, GIB, accelerator_of
from mmjax.training.design import build_design
from mmjax.training.dry_run import DoesNotFit, check_fits, dry_run, report, resolve, tpu_devices


@pytest.fixture(scope="module")
def small(make_config):
    """A forecast on eight devices, data, FSDP and tensor parallel at once, in two parts."""
    config = make_config(mesh={"data": 2, "fsdp": 2, "tensor": 2}, micro_batches=2)
    config.data.text.vocab_size = 20
    with jax.numpy_dtype_promotion("standard"):
        return dry_run(config)


def bytes_of_first_device(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def test_state_and_batch_are_as_large_as_they_will_be(small):
    state = small.design.make_state()
    memory = small.memory
    assert memory.parameters == bytes_of_first_device((state.params, state.ema))
    assert memory.optimizer == bytes_of_first_device(state.opt_state)
    rows = 16 // 4  # data x fsdp share them
    assert memory.batch == rows * (16 * 16 * 3 + 12 * 4 + 2)
    assert small.parameters == sum(x.size for x in jax.tree.leaves(state.params))
    # Gradients, at least, are temporaries; metrics are all that comes out beside the state.
    assert memory.temporaries > memory.parameters / 2
    assert 0 < memory.outputs < 1024
    assert memory.total == sum(dataclasses.astuple(memory))


def test_the_report_says_what_a_person_asks_first(small):
    text = report(small, peak_tflops=100.0, memory_gib=1.0, utilization=0.5)
    for part in (
        "8 x cpu, mesh data 2 x fsdp 2 x tensor 2",
        f"{small.parameters:,}",
        "16, 4 rows a device, 2 parts of 2",
        "negatives an example  15",
        "GiB of 1.0 (an estimate",
        "at the peak of 100 TFLOP/s",
        "at 50% of it",
        "received a step",
    ):
        assert part in text, part
    assert small.received.keys() >= {"all-gather", "all-reduce"}
    assert "samples/s" not in report(small, peak_tflops=None, memory_gib=None, utilization=0.5)


def test_samples_per_second_are_flops_over_flops(small):
    assert small.samples_per_second(2.0, 0.5) == pytest.approx(1e12 / small.cost.model)


def test_what_does_not_fit_is_refused_with_what_would_help(small):
    check_fits(small, small.memory.total / GIB)
    with pytest.raises(DoesNotFit, match=r"a step needs 0\.0 GiB .* more micro_batches .now 2, 4"):
        check_fits(small, small.memory.total / GIB - 1e-6)


def test_remedies_are_those_that_are_left(small):
    config = small.design.config.copy_and_resolve_references()
    config.micro_batches = 4
    config.model.towers.image.remat = True
    large = dataclasses.replace(small.memory, temporaries=0)
    design = dataclasses.replace(small.design, config=config)
    with pytest.raises(DoesNotFit) as caught:
        check_fits(dataclasses.replace(small, design=design, memory=large), 1e-9)
    assert "a larger mesh.fsdp, or more devices" in str(caught.value)
    assert "micro_batches" not in str(caught.value)
    assert "remat" not in str(caught.value)


def test_without_data_the_number_of_tokens_has_to_be_said(make_config):
    with pytest.raises(ValueError, match=r"set\s+--config\.data\.text\.vocab_size"):
        dry_run(make_config())


def test_a_user_overrides_the_table():
    h100 = ACCELERATORS["H100"]
    assert resolve(None, peak_tflops=None, memory_gib=None) == (None, None)
    assert resolve(h100, peak_tflops=None, memory_gib=None) == (989, h100.usable_gib)
    assert resolve(h100, peak_tflops=500.0, memory_gib=12.0) == (500.0, 12.0)


def test_a_design_needs_no_devices_of_this_process(make_config):
    config = make_config(mesh={"data": -1})
    design = build_design(config, vocab_size=20, devices=jax.devices()[:4])
    assert design.mesh.size == 4
    assert design.abstract_batch()["inputs"]["image"].sharding.num_devices == 4


def test_a_tpu_needs_its_compiler(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'jax\[tpu\]'"):
        tpu_devices("v5e:2x2")


def test_a_tpu_that_is_not_there_is_compiled_for(make_config):
    pytest.importorskip("libtpu", reason="the compiler for TPUs is not installed")
    config = make_config(batch_size=8)
    config.data.text.vocab_size = 20
    found = dry_run(config, devices=tpu_devices("v5e:2x2"))
    assert (found.platform, found.design.mesh.size) == ("tpu", 4)
    assert accelerator_of(found.design.mesh.devices.flat[0]) is ACCELERATORS["TPU-v5e"]
    assert found.memory.temporaries > found.memory.parameters / 2
    with pytest.raises(ValueError, match=r"no TPU topology 'v5e:3x99'"):
        tpu_devices("v5e:3x99")
