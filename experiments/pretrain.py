"""Train a model: ``python -m experiments.pretrain --config=configs/icons.py``.

Any field can be changed on the command line, ``--config.batch_size=64``. The same command goes on
where an interrupted run stopped.

``--dry_run`` trains nothing: it compiles the step, prints what it needs and ends with an error if
that does not fit. It needs neither the data nor the devices::

    python -m experiments.pretrain --config=configs/clip_vit_b16.py --dry_run \\
        --virtual_devices=256 --device=H100
    python -m experiments.pretrain --config=configs/clip_vit_b16.py --dry_run --topology=v5e:16x16
"""

import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from experiments.cluster_flags import join
from experiments.command_line import run_command
from mmjax.training import pretrain
from mmjax.training.accelerators import accelerator_of, named_accelerator
from mmjax.training.dry_run import check_fits, dry_run, report, resolve, tpu_devices

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "where the run's files go; runs/<config> if not set")
PEAK = flags.DEFINE_float("peak_tflops", None, "1e12 FLOP/s of a device, instead of the table's")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "say what the run needs, and train nothing")
VIRTUAL = flags.DEFINE_integer("virtual_devices", None, "dry run: as many CPU devices as that")
TOPOLOGY = flags.DEFINE_string("topology", None, "dry run: a TPU slice, such as v5e:16x16")
DEVICE = flags.DEFINE_string("device", None, "dry run: whose peak and memory count, such as H100")
MEMORY = flags.DEFINE_float("device_memory_gib", None, "dry run: GiB instead of the table's")
UTILIZATION = flags.DEFINE_float("utilization", 0.4, "dry run: expected share of the peak (MFU)")
flags.mark_flag_as_required("config")


def main() -> None:
    """Run what the flags say."""
    if DRY_RUN.value:
        _forecast()
        return
    join()
    workdir = WORKDIR.value or pathlib.Path("runs", CONFIG.value.name)
    pretrain(CONFIG.value, workdir, peak_tflops=PEAK.value)


def _forecast() -> None:
    if VIRTUAL.value is not None and TOPOLOGY.value is not None:
        raise ValueError("give --virtual_devices or --topology, not both")
    if VIRTUAL.value is not None or TOPOLOGY.value is not None:
        jax.config.update("jax_platforms", "cpu")  # whatever this machine has stays alone
    if VIRTUAL.value is not None:
        jax.config.update("jax_num_cpu_devices", VIRTUAL.value)
    devices = tpu_devices(TOPOLOGY.value) if TOPOLOGY.value else jax.devices()
    accelerator = named_accelerator(DEVICE.value) if DEVICE.value else accelerator_of(devices[0])
    peak, memory = resolve(accelerator, peak_tflops=PEAK.value, memory_gib=MEMORY.value)
    forecast = dry_run(CONFIG.value, devices=devices)
    print(report(forecast, peak_tflops=peak, memory_gib=memory, utilization=UTILIZATION.value))
    if memory is None:
        print("whether it fits is unknown: give --device or --device_memory_gib")
        return
    check_fits(forecast, memory)
    print("it fits")


if __name__ == "__main__":
    run_command(main)
