"""Any source as ArrayRecord shards: quick to read in any order, and the same for every reader.

A conversion leaves in its folder, per split, ``{split}.json`` (what it is made from), the shards
``{split}-00003-of-00012.array_record``, and beside a shard, where records were left out,
``....skipped.jsonl`` with their names and why. A shard appears when it is complete, so that a
conversion that was killed goes on with the first that is not there.
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmjax.atomic import replacing
from mmjax.data.encoding import encode_record
from mmjax.data.images import UnreadableImage
from mmjax.data.records import Source, UnreadableRecord
from mmjax.data.skipped import Skipped
from mmjax.data.sources.array_record import array_record_writer, load_array_record

FORMAT = "mmjax records in ArrayRecord shards, version 1"


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a conversion made, those parts included that an earlier call had made.

    Attributes:
        shards: the pattern that the source ``array_record`` reads them with.
        records: how many are in them.
        size: of all shards, in bytes.
        skipped: how many records were left out, by cause.
    """

    shards: str
    records: int
    size: int
    skipped: Mapping[str, int]


def convert(
    source: Source,
    folder: str | os.PathLike[str],
    split: str,
    *,
    origin: Mapping[str, Any],
    records_per_shard: int,
    threads: int,
    max_unreadable_share: float,
    progress: Callable[[int], None],
) -> Converted:
    """Write the records of a source to shards, or go on where an earlier call stopped.

    Args:
        source: the records, in the order in which they are written.
        folder: made if it does not exist.
        split: begins the names of the shards.
        origin: what the source is, as JSON holds it; an earlier call must have said the same.
        records_per_shard: of the source; where some cannot be read a shard has fewer.
        threads: shards that are written at the same time.
        max_unreadable_share: see :class:`mmjax.data.skipped.Skipped`.
        progress: called with the number of records by which the conversion has got on.

    Returns:
        What the folder now holds.

    Raises:
        ValueError: if a number is out of range, or the folder holds that split of something else.
        TooManyUnreadable: past ``max_unreadable_share``; finished shards stay.
        OSError: if it cannot be written, or another process converts into the folder.
    """
    if records_per_shard < 1 or threads < 1:
        raise ValueError(
            "records_per_shard and threads must be at least 1, got "
            f"{records_per_shard} and {threads}"
        )
    starts = range(0, len(source), records_per_shard)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        folder / f"{split}-{number:05d}-of-{len(starts):05d}.array_record"
        for number in range(len(starts))
    ]
    plan = {
        "format": FORMAT,
        "records": len(source),
        "records_per_shard": records_per_shard,
        "origin": origin,
    }
    with _alone(folder):
        _keep_plan(folder / f"{split}.json", plan)
        writer = _Writer(source, Skipped(max_unreadable_share), progress)
        tasks = []
        for path, start in zip(paths, starts, strict=True):
            rows = range(start, min(start + records_per_shard, len(source)))
            if path.exists():
                progress(len(rows))
            else:
                tasks.append((path, rows))
        writer.write_all(tasks, threads)
    return _summary(folder, split, paths)


class _Writer:
    """Writes shards from several threads, until one fails."""

    def __init__(self, source: Source, ledger: Skipped, progress: Callable[[int], None]):
        self._source, self._ledger, self._progress = source, ledger, progress
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def write_all(self, tasks: list[tuple[pathlib.Path, range]], threads: int) -> None:
        """Write every shard; the first error stops the others and is raised."""
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            futures = [pool.submit(self._write, *task) for task in tasks]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            finally:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)

    def _write(self, path: pathlib.Path, rows: range) -> None:
        """Write one shard beside its place, then what was left out, and put it there."""
        part = path.with_name(f".{path.name}.part")
        skipped: list[dict[str, str]] = []
        try:
            with array_record_writer(part) as writer:
                for row in rows:
                    if self._stopped.is_set():
                        return
                    encoded = self._encoded(row, skipped)
                    if encoded is not None:
                        writer.write(encoded)
                    with self._lock:
                        self._progress(1)
            lines = "".join(json.dumps(line) + "\n" for line in skipped)
            if lines:
                with replacing(_skipped_path(path)) as file:
                    file.write(lines.encode())
            os.replace(part, path)
        except BaseException:
            self._stopped.set()  # at once: this thread would take up the next shard
            raise
        finally:
            part.unlink(missing_ok=True)

    def _encoded(self, row: int, skipped: list[dict[str, str]]) -> bytes | None:
        record: Any = {"id": f"record {row}"}
        try:
            record = self._source[row]
            encoded = encode_record(record)
        except (UnreadableRecord, UnreadableImage) as error:
            name = error.identity if isinstance(error, UnreadableRecord) else record["id"]
            skipped.append(
                {"row": str(row), "record": name, "cause": error.cause, "reason": error.reason}
            )
            self._ledger.count(name, error.reason, cause=error.cause)
            return None
        self._ledger.count(record["id"])
        return encoded


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Hold the folder against other processes; the system lets go of it when this one dies."""
    with (folder / ".converting").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"another process converts into {folder} just now") from error
        yield


def _keep_plan(path: pathlib.Path, plan: Mapping[str, Any]) -> None:
    wanted = json.dumps(plan, indent=2, sort_keys=True)
    if not path.exists():
        with replacing(path) as file:
            file.write(wanted.encode())
    elif (found := path.read_text(encoding="utf-8")) != wanted:
        raise ValueError(
            f"{path.parent} holds this split of something else: {path.name} says\n{found}\nand "
            f"this conversion is\n{wanted}\nUse another folder, or remove that one"
        )


def _skipped_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.skipped.jsonl")


def _summary(folder: pathlib.Path, split: str, paths: list[pathlib.Path]) -> Converted:
    causes: dict[str, int] = {}
    for path in paths:
        if _skipped_path(path).exists():
            for line in _skipped_path(path).read_text(encoding="utf-8").splitlines():
                cause = json.loads(line)["cause"]
                causes[cause] = causes.get(cause, 0) + 1
    pattern = os.fspath(folder / f"{{split}}-*-of-{len(paths):05d}.array_record")
    return Converted(
        shards=pattern,
        records=len(load_array_record(split, shards=pattern)),
        size=sum(path.stat().st_size for path in paths),
        skipped=causes,
    )
