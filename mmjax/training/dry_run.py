"""A step compiled ahead of time, without a parameter: what it will need, and whether it fits."""

import dataclasses
import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.experimental import topologies

from mmjax.training.accelerators import GIB, Accelerator
from mmjax.training.collectives import received_bytes
from mmjax.training.cost import SampleCost
from mmjax.training.design import Design, build_design
from mmjax.training.mesh import row_shards

# Options for a CPU program whose speed is no matter: without effort for machine code the compiler
# takes half of the time, and half of that where it still has its older emitters.
HASTILY = {"xla_backend_optimization_level": 0} | (
    {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
)


class DoesNotFit(ValueError):
    """The step needs more memory than a device has; the message says what would help."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device while a step runs.

    Attributes:
        parameters: and their moving average, where there is one.
        optimizer: what the optimizer keeps.
        batch: inputs and masks.
        temporaries: gradients, activations and whatever else XLA sets aside.
        outputs: what the step returns beyond the state, whose memory it uses again.
    """

    parameters: int
    optimizer: int
    batch: int
    temporaries: int
    outputs: int

    @property
    def total(self) -> int:
        """All of it, at the same time."""
        return sum(dataclasses.asdict(self).values())


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What is known of a run before a step is spent. Made by :func:`dry_run`.

    Attributes:
        design: the run without data.
        parameters: their number.
        cost: FLOPs of a sample.
        memory: per device.
        received: bytes that a device receives in a step, by kind of collective; None where the
            compiler's program cannot be added up.
        platform: what it was compiled for.
    """

    design: Design
    parameters: int
    cost: SampleCost
    memory: Memory
    received: Mapping[str, float] | None
    platform: str

    def samples_per_second(self, peak_tflops: float, utilization: float = 1.0) -> float:
        """Samples a second on each device, when its products run at a share of their peak.

        Args:
            peak_tflops: 1e12 FLOP/s of bfloat16 products.
            utilization: share of the peak (MFU); the best published one of a contrastive run is
                about 0.4.
        """
        return utilization * peak_tflops * 1e12 / self.cost.model


def dry_run(config: ml_collections.ConfigDict, *, devices: Sequence[Any] | None = None) -> Forecast:
    """Compile the step of a run for its devices, without data and without parameters.

    A CPU computes bfloat16 in float32, and would set aside twice the memory: on virtual CPU devices
    the step is compiled with float16 in its place, which is as wide. It remains an estimate, and
    a high one, since other compilers fuse more.

    Args:
        config: as the files in ``configs/`` return it.
        devices: those of this process if None, or those of :func:`tpu_devices`.

    Returns:
        The forecast.

    Raises:
        ValueError: if the configuration cannot work, or does not say how many tokens there are.
    """
    design = build_design(config, vocab_size=_vocab_size(config), devices=devices)
    platform = design.mesh.devices.flat[0].platform
    virtual = platform == "cpu"
    state, batch = design.abstract, design.abstract_batch()
    step: Any = (_in_float16(design) if virtual else design).train_step()
    compiled = step.lower(state, batch).compile(HASTILY if virtual else None)
    found = compiled.memory_analysis()
    return Forecast(
        design=design,
        parameters=sum(x.size for x in jax.tree.leaves(state.params)),
        cost=design.cost(),
        memory=Memory(
            parameters=bytes_on_device((state.params, state.ema)),
            optimizer=bytes_on_device(state.opt_state),
            batch=bytes_on_device(batch),
            temporaries=found.temp_size_in_bytes,
            outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
        ),
        # The TPU's compiler divides a collective among fusions, each of which names it.
        received=None if platform == "tpu" else received_bytes(compiled.as_text()),
        platform=platform,
    )


def bytes_on_device(tree: Any) -> int:
    """Bytes of one device's shards of a tree of abstract arrays that carry shardings."""
    leaves = jax.tree.leaves(tree)
    shards = [(x.sharding.shard_shape(x.shape), x.dtype) for x in leaves]
    return sum(jax.ShapeDtypeStruct(*shard).size * shard[1].itemsize for shard in shards)


def check_fits(forecast: Forecast, memory_gib: float) -> None:
    """Raise unless the step fits.

    Args:
        forecast: of a run.
        memory_gib: what a device has for it, in GiB.

    Raises:
        DoesNotFit: with what it needs and what would help.
    """
    memory, config = forecast.memory, forecast.design.config
    if memory.total <= memory_gib * GIB:
        return
    rows = config.batch_size // row_shards(forecast.design.mesh)
    remedies = []
    if config.micro_batches < rows:
        finer = next(k for k in range(config.micro_batches + 1, rows + 1) if rows % k == 0)
        remedies.append(f"more micro_batches (now {config.micro_batches}, {finer} is possible)")
    if not all(t.get("remat", True) for t in config.model.towers.values()):
        remedies.append("remat in the towers")
    if memory.parameters + memory.optimizer > memory.total / 4:
        remedies.append("a larger mesh.fsdp")
    remedies.append("more devices or a smaller batch_size")
    estimate = (
        " By the compiler for CPUs, which sets aside more than that of an accelerator; --topology"
        " asks the compiler for TPUs."
        if forecast.platform == "cpu"
        else ""
    )
    raise DoesNotFit(
        f"a step needs {memory.total / GIB:.1f} GiB on each device, of which temporaries are"
        f" {memory.temporaries / GIB:.1f}, and there are {memory_gib:.1f}; use"
        f" {', or '.join(remedies)}.{estimate}"
    )


def report(
    forecast: Forecast, *, peak_tflops: float | None, memory_gib: float | None, utilization: float
) -> str:
    """The forecast as text, for people.

    Args:
        forecast: of a run.
        peak_tflops: of the device, in 1e12 FLOP/s; None says nothing about time.
        memory_gib: what a device has; None compares with nothing.
        utilization: share of the peak that the expected throughput assumes.
    """
    config, mesh, cost = forecast.design.config, forecast.design.mesh, forecast.cost
    rows = config.batch_size // row_shards(mesh)
    parts = f", {config.micro_batches} parts of {rows // config.micro_batches}"
    memory = {f"  {k}": f"{v / GIB:.2f} GiB" for k, v in vars(forecast.memory).items()}
    lines = {
        "run": f"{config.name}, {config.steps:,} steps, loss {config.loss}",
        "devices": f"{mesh.size} x {mesh.devices.flat[0].device_kind}, mesh "
        + " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items()),
        "parameters": f"{forecast.parameters:,}",
        "batch": f"{config.batch_size:,}, {rows:,} rows a device"
        + (parts if config.micro_batches > 1 else ""),
        "negatives an example": f"{config.batch_size - 1:,}",
        "FLOPs a sample": f"{cost.model / 1e9:.1f} GFLOP, {cost.loss / cost.model:.2%} of it the"
        f" loss; computed {cost.computed / 1e9:.1f}",
        "memory a device": f"{forecast.memory.total / GIB:.2f} GiB"
        + (f" of {memory_gib:.1f}" if memory_gib else "")
        + (" (an estimate, by the compiler for CPUs)" if forecast.platform == "cpu" else ""),
        **memory,
    }
    if forecast.received is not None:
        total = sum(forecast.received.values())
        kinds = ", ".join(f"{k} {v / 2**20:,.0f}" for k, v in sorted(forecast.received.items()))
        lines["received a step"] = f"{total / 2**20:,.0f} MiB a device ({kinds})"
    if peak_tflops is not None:
        lines |= _throughput(forecast, peak_tflops, utilization)
    return "\n".join(f"{name:22s}{value}" for name, value in lines.items())


def _throughput(forecast: Forecast, peak: float, utilization: float) -> dict[str, str]:
    config, devices = forecast.design.config, forecast.design.mesh.size
    at_best, expected = (forecast.samples_per_second(peak, u) for u in (1.0, utilization))
    hours = config.steps * config.batch_size / (expected * devices) / 3600
    return {
        "samples/s/device": f"{at_best:,.0f} at the peak of {peak:,.0f} TFLOP/s",
        f"  at {utilization:.0%} of it": f"{expected:,.0f}; {expected * devices:,.0f} on all"
        f" devices, {hours:,.1f} hours for all steps",
    }


def tpu_devices(topology: str) -> Sequence[Any]:
    """Devices of a TPU slice that is not there, to compile for.

    Args:
        topology: such as "v5e:16x16".

    Returns:
        Its devices, for :func:`dry_run`.

    Raises:
        ImportError: without the package ``libtpu``, naming the command that installs it.
        ValueError: for a topology that there is not.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ImportError("compiling for a TPU needs its compiler: pip install 'jax[tpu]'")
    # The library would wait for the metadata server of a machine that has TPUs.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # The library raises what it has: RuntimeErrors of several kinds.
        raise ValueError(
            f"no TPU topology {topology!r}: {str(error).splitlines()[0]}; an example is v5e:16x16"
        ) from error


def resolve(
    accelerator: Accelerator | None, *, peak_tflops: float | None, memory_gib: float | None
) -> tuple[float | None, float | None]:
    """Peak and memory: what the user says, or what the table says of the device, or None."""
    if accelerator is not None:
        peak_tflops = accelerator.tflops if peak_tflops is None else peak_tflops
        memory_gib = accelerator.usable_gib if memory_gib is None else memory_gib
    return peak_tflops, memory_gib


def _vocab_size(config: ml_collections.ConfigDict) -> int:
    size = config.data.text.vocab_size
    if size is None:
        raise ValueError(
            "a dry run looks at no data and so cannot count the tokens: set"
            " --config.data.text.vocab_size"
        )
    return size


def _in_float16(design: Design) -> Design:
    towers = {
        name: tower.clone(dtype=jnp.float16, parent=None) if tower.dtype == jnp.bfloat16 else tower
        for name, tower in design.model.towers.items()
    }
    return dataclasses.replace(design, model=design.model.clone(towers=towers))
