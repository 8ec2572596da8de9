"""What a step costs on 8 to 4,096 devices, on paper: ``python -m experiments.weak_scaling``.

Prints a Markdown table of batches of 32,768 to 1,048,576 for the model of ``--config`` on
``--device``: seconds for towers and loss, bytes that a device receives, memory of the loss, and
which share of the step is left to the towers if nothing overlaps with anything. Every function
below is one term of that model; ``tests/experiments/test_weak_scaling.py`` holds bytes and memory
against programs that XLA compiles for up to 512 devices.
"""

import dataclasses

import jax
from absl import flags

from experiments.command_line import run_command
from mmjax.training.accelerators import Accelerator, named_accelerator
from mmjax.training.config import read_config
from mmjax.training.cost import SampleCost, sample_cost
from mmjax.training.design import Design, build_design

CONFIG = flags.DEFINE_string("config", "configs/clip_vit_b16.py", "whose model")
DEVICE = flags.DEFINE_string("device", "H100", "whose peak and links")
UTILIZATION = flags.DEFINE_float("utilization", 0.4, "share of their peak that products reach")
COUNTS = flags.DEFINE_list("device_counts", ["8", "64", "512", "4096"], "numbers of devices")
AT_ONCE = flags.DEFINE_integer("rows_at_once", 4096, "rows that a device embeds at the same time")
BATCHES = flags.DEFINE_list("batches", ["32768", "262144", "1048576"], "rows over all devices")

FLOAT32, BFLOAT16 = 4, 2  # bytes
MIB = 2**20
_DIRECTIONS = {"clip": 2, "siglip": 1}


def other_devices(devices: int) -> float:
    """Share of an array, divided over ``devices``, that a device does not have itself."""
    return (devices - 1) / devices


def gradient_bytes(parameters: int, devices: int, *, parts: int = 1) -> float:
    """Bytes that a device receives to sum the gradients of replicated parameters.

    They are summed as the towers compute them, in bfloat16; in a ring every device receives each
    twice, once to be summed and once as the sum. XLA sums them after every part of a batch.

    Args:
        parameters: their number.
        devices: that share the rows.
        parts: that a batch is embedded in.
    """
    return 2 * BFLOAT16 * parts * parameters * other_devices(devices)


def loss_bytes(batch_size: int, embed_dim: int, devices: int, *, ring: bool) -> float:
    """Bytes that a device receives for a loss of two modalities, forward and backward.

    Gathered, the columns come once and the sums of their gradients are scattered once. In a ring,
    the columns travel all the way round twice, and once their gradients with them.

    Args:
        batch_size: rows over all devices.
        embed_dim: features of a row, float32.
        devices: that share the rows.
        ring: of the loss.
    """
    columns = FLOAT32 * batch_size * embed_dim
    return 3.0 * columns if ring else 2 * columns * other_devices(devices)


def loss_memory(
    loss: str, batch_size: int, embed_dim: int, devices: int, *, chunk_size: int, ring: bool
) -> float:
    """Bytes that a loss of two modalities needs on a device beside the embeddings themselves.

    Gathered, those are the columns of all devices and their gradients; in a ring, those of one
    device. The rest are blocks: of columns, and two of scores for each direction of the loss.

    Args:
        loss: "clip", which scores in both directions, or "siglip".
        batch_size: rows over all devices.
        embed_dim: features of a row, float32.
        devices: that share the rows.
        chunk_size: columns that are scored together.
        ring: of the loss.
    """
    rows = batch_size // devices
    block = min(chunk_size, rows if ring else batch_size)
    columns = 2 * (rows if ring else batch_size) + (2 if ring else 1) * block
    scores = 2 * _DIRECTIONS[loss] * rows * block
    return FLOAT32 * (columns * embed_dim + scores)


def dense_scores(batch_size: int, devices: int) -> float:
    """Bytes of a device's rows of the matrix of all scores, which nothing here keeps."""
    return FLOAT32 * batch_size * (batch_size / devices)


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step, term by term.

    Attributes:
        towers: forward and backward, with what is computed again.
        loss: scores and their gradients, float32.
        gradients: their sum over the devices.
        embeddings: what the loss sends.
    """

    towers: float
    loss: float
    gradients: float
    embeddings: float

    @property
    def efficiency(self) -> float:
        """Share of the step that is left to the towers when nothing overlaps."""
        return self.towers / sum(dataclasses.astuple(self))


def step_time(
    cost: SampleCost,
    *,
    batch_size: int,
    embed_dim: int,
    parameters: int,
    devices: int,
    parts: int,
    ring: bool,
    device: Accelerator,
    utilization: float,
) -> StepTime:
    """Seconds of a data-parallel step.

    Args:
        cost: FLOPs of a sample at this batch size.
        batch_size: rows over all devices.
        embed_dim: features of a row.
        parameters: their number.
        devices: that share the rows.
        parts: that a batch is embedded in.
        ring: of the loss.
        device: peaks and links.
        utilization: share of the peaks that products reach.
    """
    rows, peak = batch_size / devices, utilization * 1e12
    link = device.neighbour_gbs if ring else device.gather_gbs
    return StepTime(
        towers=rows * (cost.towers + cost.recomputed) / (peak * device.tflops),
        loss=rows * (cost.loss + cost.rescored) / (peak * device.float32_tflops),
        gradients=gradient_bytes(parameters, devices, parts=parts) / (device.gather_gbs * 1e9),
        embeddings=loss_bytes(batch_size, embed_dim, devices, ring=ring) / (link * 1e9),
    )


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the table: one batch on one number of devices, gathered and in a ring."""

    devices: int
    batch_size: int
    gradients: float  # bytes received
    embeddings: tuple[float, float]  # bytes received
    memory: tuple[float, float]  # bytes of the loss
    times: tuple[StepTime, StepTime]

    def markdown(self) -> str:
        """Its cells."""
        times = self.times[0]
        memory = (*self.memory, dense_scores(self.batch_size, self.devices))
        cells = (
            f"{self.batch_size:,}",
            f"{self.devices:,}",
            f"{self.batch_size // self.devices:,}",
            _number(times.towers * 1e3),
            _number(times.loss * 1e3),
            _number(self.gradients / MIB),
            " / ".join(_number(x / MIB) for x in self.embeddings),
            " / ".join(_number(x / MIB) for x in memory),
            " / ".join(f"{x.efficiency:.0%}" for x in self.times),
        )
        return f"| {' | '.join(cells)} |"


def _number(x: float) -> str:
    """Two digits that count."""
    return f"{x:,.0f}" if x >= 10 else f"{x:.2g}"


HEAD = (
    "| batch | devices | rows a device | towers, ms | loss, ms | gradients, MiB | embeddings, MiB:"
    " gathered / ring | memory of the loss, MiB: gathered / ring / all scores | left to the towers:"
    " gathered / ring |\n" + "|--:" * 9 + "|"
)


def forecast(
    design: Design,
    batch_size: int,
    devices: int,
    device: Accelerator,
    *,
    utilization: float,
    rows_at_once: int,
) -> Line:
    """What the model of ``design`` costs with another batch, data parallel over ``devices``.

    Args:
        design: its model, loss and chunks count.
        batch_size: rows over all devices.
        devices: that share the rows.
        device: peaks and links.
        utilization: share of the peaks that products reach.
        rows_at_once: that a device embeds; where it has more, they come in parts, and twice.
    """
    config, width = design.config, design.config.model.embed_dim
    parameters = sum(x.size for x in jax.tree.leaves(design.abstract.params))
    shapes = {name: x.shape[1:] for name, x in design.inputs.items()}
    chunk = config.loss_chunk_size
    parts = -(-batch_size // (devices * rows_at_once))

    def times(ring: bool) -> StepTime:
        return step_time(
            sample_cost(
                design.model,
                shapes,
                batch_size=batch_size,
                micro_batches=parts,
                chunk_size=chunk,
                ring=ring,
            ),
            batch_size=batch_size,
            embed_dim=width,
            parameters=parameters,
            devices=devices,
            parts=parts,
            ring=ring,
            device=device,
            utilization=utilization,
        )

    def memory(ring: bool) -> float:
        return loss_memory(config.loss, batch_size, width, devices, chunk_size=chunk, ring=ring)

    def received(ring: bool) -> float:
        return loss_bytes(batch_size, width, devices, ring=ring)

    return Line(
        devices=devices,
        batch_size=batch_size,
        gradients=gradient_bytes(parameters, devices, parts=parts),
        embeddings=(received(False), received(True)),
        memory=(memory(False), memory(True)),
        times=(times(False), times(True)),
    )


def main() -> None:
    """Print the table."""
    config = read_config(CONFIG.value)
    device = named_accelerator(DEVICE.value)
    vocab_size = config.data.text.vocab_size
    design = build_design(config, vocab_size=vocab_size, devices=jax.devices()[:1])
    print(
        f"{config.name} on {device.name}, products at {UTILIZATION.value:.0%} of"
        f" {device.tflops:,.0f} and, in float32, {device.float32_tflops:,.0f} TFLOP/s;"
        f" {device.gather_gbs:,.0f} GB/s to gather, {device.neighbour_gbs:,.0f} to a neighbour\n"
    )
    print(HEAD)
    for batch in map(int, BATCHES.value):
        for count in map(int, COUNTS.value):
            line = forecast(
                design,
                batch,
                count,
                device,
                utilization=UTILIZATION.value,
                rows_at_once=AT_ONCE.value,
            )
            print(line.markdown())


if __name__ == "__main__":
    run_command(main)
