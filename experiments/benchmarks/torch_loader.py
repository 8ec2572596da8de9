"""The peer of :mod:`experiments.benchmarks.data`: torch's DataLoader over ``webdataset``.

Written as the documentation of ``webdataset`` does it. The transforms are those that torchvision
makes of Pillow images (``RandomResizedCrop``, ``RandomHorizontalFlip``, ``ToTensor``,
``Normalize``), step by step, so that torchvision itself is not needed.
"""

import functools
import importlib.util
import math
import random
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image

AHEAD = 2  # batches that torch lets each worker prepare ahead

_NEEDED = ("torch", "webdataset")
_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def missing() -> str | None:
    """Say what is not installed; None if nothing is."""
    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def versions() -> str:
    """Say which peer this is."""
    return ", ".join(f"{name} {version(name)}" for name in _NEEDED)


def batches(
    paths: Sequence[str],
    *,
    size: int,
    batch_size: int,
    workers: int,
    crop: tuple[float, float],
    floats: bool,
) -> Iterator[Any]:
    """Iterate over batches for ever.

    Args:
        paths: of the shards.
        size: side of the images, in pixels.
        batch_size: images of a batch.
        workers: processes.
        crop: smallest and largest share of the area that is kept.
        floats: normalised float32 [n, 3, h, w]; uint8 otherwise.
    """
    import torch
    import webdataset

    torch.set_num_threads(1)
    prepare = functools.partial(transform, size=size, crop=crop, floats=floats)
    data = (
        webdataset.WebDataset(
            list(paths), resampled=True, shardshuffle=False, nodesplitter=webdataset.split_by_node
        )
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "txt")
        .map_tuple(prepare, str)
        .batched(batch_size, partial=False)
    )
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=workers, prefetch_factor=AHEAD)
    return iter(loader)


def transform(image: Image.Image, *, size: int, crop: tuple[float, float], floats: bool) -> Any:
    """Crop, resize and mirror at random; a tensor [3, size, size]."""
    import torch

    image = image.crop(_random_box(*image.size, crop))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()
    if not floats:
        return pixels
    mean, deviation = (torch.tensor(x).view(3, 1, 1) for x in (_MEAN, _DEVIATION))
    return pixels.to(torch.float32).div(255).sub_(mean).div_(deviation)


def _random_box(width: int, height: int, crop: tuple[float, float]) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = width * height * random.uniform(*crop)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
