"""What devices can do at best, for utilisation and forecasts: a small table that a user overrides.

Figures are those of the vendors' data sheets, dense, for one JAX device; they are no measurements.
"""

import dataclasses
import difflib
import os
from typing import Any

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One device, and what connects it to the others.

    Attributes:
        name: as ``--device`` calls it.
        kinds: beginnings of what JAX calls it, ``jax.devices()[0].device_kind``.
        tflops: peak of bfloat16 products with float32 accumulation, in 1e12 FLOP/s.
        float32_tflops: peak of products at ``Precision.HIGHEST``: six bfloat16 passes on a TPU,
            the vector units on a GPU.
        memory_gib: memory in GiB.
        share: how much of it JAX may use by default.
        gather_gbs: 1e9 bytes/s that a device receives in a collective over all devices: all links
            of a TPU's torus; the eight 400 Gbit/s network cards of a GPU node, which pass on what
            each of them receives.
        neighbour_gbs: 1e9 bytes/s from one device to the next in a ring: one link, or one card.
    """

    name: str
    kinds: tuple[str, ...]
    tflops: float
    float32_tflops: float
    memory_gib: float
    share: float
    gather_gbs: float
    neighbour_gbs: float

    @property
    def usable_gib(self) -> float:
        """What JAX may use; ``XLA_PYTHON_CLIENT_MEM_FRACTION`` changes a GPU's share, as in JAX."""
        share = self.share
        if share == _GPU_SHARE:
            share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", share))
        return share * self.memory_gib


_GPU_SHARE = 0.75  # what JAX allocates at its start
_TPU_SHARE = 0.98


def _gpu(
    name: str, kinds: tuple[str, ...], tflops: float, float32: float, memory: float, gather: float
) -> Accelerator:
    return Accelerator(name, kinds, tflops, float32, memory, _GPU_SHARE, gather, 50.0)


def _tpu(
    name: str, kinds: tuple[str, ...], tflops: float, memory: float, links: int, link: float
) -> Accelerator:
    return Accelerator(name, kinds, tflops, tflops / 6, memory, _TPU_SHARE, links * link, link)


ACCELERATORS = {
    device.name: device
    for device in (
        _gpu("A100-40GB", ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"), 312, 19.5, 40, 200),
        _gpu("A100-80GB", ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB"), 312, 19.5, 80, 200),
        _gpu("H100", ("NVIDIA H100 80GB",), 989, 67, 80, 400),
        _gpu("H200", ("NVIDIA H200",), 989, 67, 141, 400),
        _gpu("B200", ("NVIDIA B200",), 2250, 75, 180, 400),
        _tpu("TPU-v4", ("TPU v4",), 275, 32, 6, 45),
        _tpu("TPU-v5e", ("TPU v5 lite", "TPU v5e"), 197, 16, 4, 45),
        _tpu("TPU-v5p", ("TPU v5", "TPU v5p"), 459, 95, 6, 90),
        _tpu("TPU-v6e", ("TPU v6 lite", "TPU v6e"), 918, 32, 4, 90),
    )
}


def named_accelerator(name: str) -> Accelerator:
    """The device that a user calls ``name``.

    Raises:
        ValueError: if the table has no such device, listing those it has.

    >>> named_accelerator("H10")
    Traceback (most recent call last):
    ...
    ValueError: no device is called 'H10', did you mean 'H100'? There are A100-40GB, A100-80GB, ...
    """
    if name not in ACCELERATORS:
        near = difflib.get_close_matches(name, ACCELERATORS, n=1, cutoff=0.4)
        hint = f", did you mean {near[0]!r}?" if near else "."
        raise ValueError(
            f"no device is called {name!r}{hint} There are {', '.join(ACCELERATORS)}; for another"
            " one give its --peak_tflops and --device_memory_gib"
        )
    return ACCELERATORS[name]


def accelerator_of(device: Any) -> Accelerator | None:
    """The table's entry for a JAX device, None if it has none, as for a CPU."""
    found = {
        kind: entry
        for entry in ACCELERATORS.values()
        for kind in entry.kinds
        if device.device_kind.startswith(kind)
    }
    return found[max(found, key=len)] if found else None  # "TPU v5 lite" is no "TPU v5"
