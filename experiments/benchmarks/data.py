"""Images that the host prepares in a second: ``python -m experiments.benchmarks.data``.

Tar shards of 256-pixel JPEGs with a text each; every entrant reads them in random order, decodes,
crops at random, resizes to 224 pixels, mirrors half of them and makes batches. Ours, with and
without ``simplejpeg``, beside torch's ``DataLoader`` with the package ``webdataset``, as far as
they are installed. Nothing is asserted. Examples::

    MMJAX_DATA=/where/the/data/is python -m experiments.benchmarks.data
    python -m experiments.benchmarks.data --shards='/data/cc3m/{00000..00007}.tar' --rounds=3

Without ``--shards`` the images are made, four photos of Flickr8k beside each other in one, so that
they have the detail of photos. All take turns for the given number of rounds, and what an entrant
has prepared ahead does not count. ``CPU ms`` is the processor time of an image over all threads
and processes of an entrant, known where ``psutil`` is installed: it depends less than the rate on
what else the machine does. The peer comes twice: giving bytes as ours does, and normalised floats,
as its users' recipes do on the host (ours are normalised on the device).
"""

import contextlib
import dataclasses
import datetime
import io
import json
import os
import pathlib
import platform
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags
from PIL import Image

from experiments.benchmarks import torch_loader
from mmjax.atomic import replacing
from mmjax.data import images
from mmjax.data.augmentation import Augmentation
from mmjax.data.pipeline import training_batches
from mmjax.data.preparation import Preparation
from mmjax.data.sources.flickr8k import load_flickr8k
from mmjax.data.sources.shards import shard_paths
from mmjax.data.sources.webdataset import load_webdataset
from mmjax.data.tokenizers import WordTokenizer

SHARDS = flags.DEFINE_string("shards", None, "tar shards of .jpg and .txt; made if not set")
SIZE = flags.DEFINE_integer("size", 224, "side of the prepared images, in pixels", lower_bound=1)
BATCH = flags.DEFINE_integer("batch_size", 64, "images of a batch", lower_bound=1)
THREADS = flags.DEFINE_integer("threads", 2, "threads of ours", lower_bound=1)
WORKERS = flags.DEFINE_integer("workers", 2, "processes of the peer", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "turns of each", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 4.0, "length of a turn", lower_bound=0.0)
JSON = flags.DEFINE_string("json", None, "also write everything to this file")

PHOTOS, PER_SHARD = 4096, 256  # photos that images are made of, and images of a shard
TILE = 128  # side of a photo, in pixels
CROP = (0.08, 1.0)  # share of the area that is kept


@dataclasses.dataclass
class Entrant:
    """One way to prepare images.

    Attributes:
        name: in the table.
        batches: endless; each has ``batch_size`` images.
        ahead: batches that it may have ready when its turn begins.
        simplejpeg: whether ours uses it.
        rates: images a second, one number a turn.
        costs: processor seconds an image, one number a turn.
    """

    name: str
    batches: Iterator[Any]
    ahead: int
    simplejpeg: Any = None
    rates: list[float] = dataclasses.field(default_factory=list)
    costs: list[float] = dataclasses.field(default_factory=list)

    def take_turn(self, seconds: float, batch_size: int) -> None:
        """Time the preparation of at least one batch."""
        images.simplejpeg = self.simplejpeg
        for _ in range(self.ahead + 1):
            next(self.batches)
        start, spent, count = time.perf_counter(), cpu_seconds(), 0
        while not count or time.perf_counter() - start < seconds:
            next(self.batches)
            count += batch_size
        self.rates.append(count / (time.perf_counter() - start))
        if spent is not None:
            self.costs.append(((cpu_seconds() or 0.0) - spent) / count)


def cpu_seconds() -> float | None:
    """Processor time of this process and its children so far; None without ``psutil``."""
    try:
        import psutil
    except ImportError:
        return None
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


def ours(shards: str, size: int, batch_size: int, threads: int) -> Iterator[Any]:
    """Batches of mmjax."""
    prepare = Preparation(
        tokenizer=WordTokenizer(["a", "photo"]),
        image_size=size,
        channels=3,
        text_length=16,
        augmentation=Augmentation(crop_scale=CROP, flip=0.5),
    )
    source = load_webdataset("all", shards=shards)
    return training_batches(source, prepare, batch_size=batch_size, seed=0, threads=threads)


def make_shards(folder: pathlib.Path) -> str:
    """Make 1,024 images of 256 pixels in four shards; returns their pattern."""
    photos = load_flickr8k("train")
    for start in range(0, PHOTOS, 4 * PER_SHARD):
        with tarfile.open(folder / f"{start // (4 * PER_SHARD):05d}.tar", "w") as tar:
            for first in range(start, start + 4 * PER_SHARD, 4):
                image = Image.new("RGB", (2 * TILE, 2 * TILE))
                for i in range(4):
                    tile = images.fit(images.decode(photos[first + i]["image"], 3), TILE)
                    image.paste(images.to_pillow(tile), (i % 2 * TILE, i // 2 * TILE))
                encoded = io.BytesIO()
                image.save(encoded, "JPEG", quality=90)
                text = photos[first]["text"][0].encode()
                for name, content in (("jpg", encoded.getvalue()), ("txt", text)):
                    member = tarfile.TarInfo(f"{first // 4:06d}.{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return str(folder / "{00000..00003}.tar")


def entrants(shards: str) -> list[Entrant]:
    """All that can take part; the processes of the peer start before there are any threads."""
    size, batch, workers = SIZE.value, BATCH.value, WORKERS.value
    paths = [str(path) for path in shard_paths(shards, "all")]
    found = []
    if torch_loader.missing() is None:
        for name, floats in (("bytes", False), ("normalised floats", True)):
            batches = torch_loader.batches(
                paths, size=size, batch_size=batch, workers=workers, crop=CROP, floats=floats
            )
            next(batches)
            label = f"torch DataLoader + webdataset, {name}"
            found.append(Entrant(label, batches, ahead=torch_loader.AHEAD * workers))
    for module in dict.fromkeys([images.simplejpeg, None]):
        label = "ours, Pillow" if module is None else "ours, simplejpeg"
        batches = ours(shards, size, batch, THREADS.value)
        found.append(Entrant(label, batches, ahead=2 + THREADS.value, simplejpeg=module))
    return found


def row_of(entrant: Entrant, base: Entrant) -> dict[str, Any]:
    """What the table and the file say of an entrant."""
    rate = statistics.median(entrant.rates)
    return {
        "name": entrant.name,
        "images/s": round(rate),
        "of the first": round(rate / statistics.median(base.rates), 2),
        "CPU ms": round(1e3 * statistics.median(entrant.costs), 2) if entrant.costs else None,
        "turns": [round(rate) for rate in entrant.rates],
    }


def table_of(rows: list[dict[str, Any]]) -> str:
    """Markdown, one line an entrant."""
    lines = ["| name | images/s | of the first | CPU ms an image |", "|---|--:|--:|--:|"]
    for row in rows:
        cost = "-" if row["CPU ms"] is None else f"{row['CPU ms']:.2f}"
        lines.append(
            f"| {row['name']} | {row['images/s']:,} | {row['of the first']:.2f} | {cost} |"
        )
    return "\n".join(lines)


def main(_: list[str]) -> None:
    """Make the shards where none are given, let all take turns and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            shards = SHARDS.value or make_shards(pathlib.Path(folder))
            taking_part = entrants(shards)
        except (ValueError, OSError) as error:
            raise SystemExit(f"error: {error}") from error
        for _turn in range(ROUNDS.value):
            for entrant in taking_part:
                entrant.take_turn(SECONDS.value, BATCH.value)
        told: dict[str, Any] = {
            "date": datetime.date.today().isoformat(),
            "command": sys.argv,
            "machine": f"{os.cpu_count()} x {platform.processor() or platform.machine()}",
            "python": platform.python_version(),
            "peer": torch_loader.missing() or torch_loader.versions(),
            "rows": [row_of(entrant, taking_part[0]) for entrant in taking_part],
        }
        for entrant in taking_part:
            closing: Callable[[], None] = getattr(entrant.batches, "close", lambda: None)
            closing()
    print(f"{told['date']}, {told['machine']}, Python {told['python']}; peer: {told['peer']}")
    print(f"{BATCH.value} images of {SIZE.value} pixels, medians of {ROUNDS.value} turns")
    print(table_of(told["rows"]))
    if JSON.value:
        with replacing(JSON.value) as file:
            file.write((json.dumps(told, indent=2) + "\n").encode())


if __name__ == "__main__":
    app.run(main)
