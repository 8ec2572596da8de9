"""The published sizes, compiled whole for 8 and for 256 devices; and the flags of a dry run."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

# Parameters as published with the models, what ours leaves out and adds, and the parts of a batch
# with which a step fits on eight devices of 80 GB.
PUBLISHED = {"clip_vit_b32": 151_277_313, "clip_vit_b16": 149_620_737, "clip_vit_l14": 427_616_513}
PUBLISHED |= {"siglip_vit_b16": 203_155_970, "siglip_vit_l16": 652_150_786}
PARTS = {"clip_vit_b32": 1, "clip_vit_b16": 4, "clip_vit_l14": 8}
PARTS |= {"siglip_vit_b16": 4, "siglip_vit_l16": 8}

FULL_SIZE = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 256)
from mmjax.training.accelerators import named_accelerator
from mmjax.training.config import read_config
from mmjax.training.dry_run import check_fits, dry_run, report

h100, found = named_accelerator("H100"), {}
for name, parts in json.loads(sys.argv[1]).items():
    for devices in (8, 256):
        config = read_config(f"configs/{name}.py")
        config.micro_batches = parts if devices == 8 else 1
        forecast = dry_run(config, devices=jax.devices()[:devices])
        check_fits(forecast, h100.usable_gib)
        text = report(
            forecast, peak_tflops=h100.tflops, memory_gib=h100.usable_gib, utilization=0.4
        )
        print(text, file=sys.stderr)
        found[f"{name} {devices}"] = {
            "parameters": forecast.parameters,
            "memory": vars(forecast.memory),
            "received": forecast.received,
            "report": text,
        }
print(json.dumps(found))
"""


def python(*arguments, devices=1):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def full_size():
    """What dry runs of all published sizes find, in one process of 256 devices."""
    done = python("-c", FULL_SIZE, json.dumps(PARTS))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def ours(name):
    """Parameters that ours should have."""
    width, depth, text_width, text_depth = {
        "clip_vit_b32": (768, 12, 512, 12),
        "clip_vit_b16": (768, 12, 512, 12),
        "clip_vit_l14": (1024, 24, 768, 12),
        "siglip_vit_b16": (768, 12, 768, 12),
        "siglip_vit_l16": (1024, 24, 1024, 24),
    }[name]
    keys = depth * width + text_depth * text_width  # biases that a softmax takes away again
    if name.startswith("clip"):
        # No norm before the first block; a bias of the patches instead of the class token's
        # position, which add up to nothing; a bias of the logits.
        return PUBLISHED[name] - keys - 2 * width + width - width + 1
    # The pool has keys too; the image is projected as well, and no projection has a bias.
    return PUBLISHED[name] - keys - width + width**2 - text_width


@pytest.mark.parametrize("devices", [8, 256])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes_compile_and_fit(full_size, name, devices):
    found = full_size[f"{name} {devices}"]
    assert found["parameters"] == ours(name)
    assert abs(found["parameters"] / PUBLISHED[name] - 1) < 0.003
    memory, state = found["memory"], 4 * found["parameters"]
    assert memory["parameters"] == state  # data parallel: whole on every device
    assert memory["optimizer"] == pytest.approx(2 * state, rel=1e-5)
    assert memory["temporaries"] > state / 2  # gradients, at least
    assert f"{32768 // devices:,} rows a device" in found["report"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_more_devices_need_less_memory_and_hardly_more_traffic(full_size, name):
    few, many = full_size[f"{name} 8"], full_size[f"{name} 256"]
    assert many["memory"]["batch"] == few["memory"]["batch"] / 32
    # The sum of the gradients in bfloat16, once for each part of the batch.
    for found, devices, parts in ((few, 8, PARTS[name]), (many, 256, 1)):
        sums = parts * 2 * 2 * found["parameters"] * (devices - 1) / devices
        assert found["received"]["all-reduce"] == pytest.approx(sums, rel=0.03)


SMOKE = ("-m", "experiments.pretrain", "--config=configs/smoke.py", "--dry_run")
TOKENS = "--config.data.text.vocab_size=500"


def test_a_dry_run_needs_neither_data_nor_devices_and_leaves_nothing(tmp_path):
    done = python(
        *SMOKE, TOKENS, "--config.data.source=nowhere", "--virtual_devices=8", "--device=TPU-v4",
        f"--workdir={tmp_path}/run", "--config.mesh.fsdp=4", "--peak_tflops=100",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for part in ("mesh data 2 x fsdp 4 x tensor 1", "at the peak of 100 TFLOP/s", "it fits"):
        assert part in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([TOKENS, "--device_memory_gib=0.001"], "error: a step needs 0.0 GiB on each device"),
        (["--virtual_devices=2"], "error: a dry run looks at no data"),
        ([TOKENS, "--device=TPU-v9"], "error: no device is called 'TPU-v9', did you mean 'TPU-v"),
        ([TOKENS, "--virtual_devices=2", "--topology=v5e:2x2"], "not both"),
        ([TOKENS, "--config.mesh.data=3"], "error: the mesh {'data': 3"),
    ],
)
def test_what_cannot_be_ends_with_one_clear_line(flags, message):
    done = python(*SMOKE, *flags)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_device_it_says_that_nobody_knows_whether_it_fits():
    done = python(*SMOKE, TOKENS)
    assert done.returncode == 0, done.stderr
    assert "whether it fits is unknown: give --device or --device_memory_gib" in done.stdout
