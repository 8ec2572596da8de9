"""How well the devices are used: samples a device, share of their peak, memory."""

import dataclasses
from collections.abc import Mapping

import jax

from mmjax.training.accelerators import GIB, accelerator_of
from mmjax.training.design import Design


@dataclasses.dataclass(frozen=True)
class Meter:
    """Turns samples per second into what they mean. Made by :func:`build_meter`.

    Attributes:
        devices: of all processes.
        model_flops: FLOPs of a sample that the update needs, see
            :class:`mmjax.training.cost.SampleCost`.
        peak_tflops: of a device, in 1e12 FLOP/s; None where nobody knows, as for a CPU.
    """

    devices: int
    model_flops: float
    peak_tflops: float | None

    def rates(self, samples_per_second: float) -> dict[str, float]:
        """Rates by name, only those that are known.

        Args:
            samples_per_second: over all devices.

        Returns:
            ``samples_per_second_per_device``; ``mfu``, the share of the peak that goes into what
            the update needs (recomputation does not count); ``memory_gib`` and
            ``peak_memory_gib`` of the first device of this process, where it keeps account.
        """
        each = samples_per_second / self.devices
        rates = {"samples_per_second_per_device": each}
        if self.peak_tflops is not None:
            rates["mfu"] = each * self.model_flops / (self.peak_tflops * 1e12)
        stats = jax.local_devices()[0].memory_stats() or {}
        for name, key in (("memory_gib", "bytes_in_use"), ("peak_memory_gib", "peak_bytes_in_use")):
            if key in stats:
                rates[name] = stats[key] / GIB
        return rates


def describe_rates(rates: Mapping[str, float]) -> str:
    """The rates of :meth:`Meter.rates` for a line of progress.

    >>> describe_rates({"samples_per_second_per_device": 812.3, "mfu": 0.412, "memory_gib": 51.27})
    '812 a device, MFU 41.2%, 51.3 GiB'
    """
    words = [f"{rates['samples_per_second_per_device']:.0f} a device"]
    if "mfu" in rates:
        words.append(f"MFU {rates['mfu']:.1%}")
    if "memory_gib" in rates:
        words.append(f"{rates['memory_gib']:.1f} GiB")
    return ", ".join(words)


def build_meter(design: Design, *, peak_tflops: float | None = None) -> Meter:
    """The meter of a run.

    Args:
        design: whose model and devices.
        peak_tflops: of a device, in 1e12 FLOP/s; that of the table if None.
    """
    if peak_tflops is None:
        entry = accelerator_of(design.mesh.devices.flat[0])
        peak_tflops = None if entry is None else entry.tflops
    return Meter(design.mesh.size, design.cost().model, peak_tflops)
