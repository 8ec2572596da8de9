"""Every value of every record of a source as one row on the shared sphere."""

import collections
import concurrent.futures
import dataclasses
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from mmjax.arrays import Array
from mmjax.atomic import replacing
from mmjax.data.images import UnreadableImage
from mmjax.data.preparation import Preparation, said
from mmjax.data.records import Record, Source, UnreadableRecord, check_record

Encode: TypeAlias = Callable[[Mapping[str, Array]], Mapping[str, Array]]
Unreadable: TypeAlias = UnreadableImage | UnreadableRecord


@dataclasses.dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings of a source's records, one or several values per record and modality.

    Attributes:
        ids: the records, in the order of the source, less the skipped ones.
        positions: ``i32[records]``, where each record lies in the source.
        embeddings: per modality ``f32[values, d]``, unit-norm rows; the values of one record
            stand together, in the record's own order.
        owners: per modality ``i32[values]``, ascending: the row in ``ids`` that a value is of.
        labels: per record its class name, or "" if it has none.
        skipped: the id of every record that was left out, and why.

    Raises:
        ValueError: if lengths disagree, or owners are not ascending rows of ``ids``.
    """

    ids: tuple[str, ...]
    positions: np.ndarray
    embeddings: Mapping[str, np.ndarray]
    owners: Mapping[str, np.ndarray]
    labels: tuple[str, ...]
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        records = len(self.ids)
        if not records == len(self.positions) == len(self.labels):
            raise ValueError(
                "expected one position and one label per id, got "
                f"{records} ids, {len(self.positions)} positions, {len(self.labels)} labels"
            )
        if set(self.embeddings) != set(self.owners):
            raise ValueError(
                f"embeddings are of {sorted(self.embeddings)}, owners of {sorted(self.owners)}"
            )
        for name, owners in self.owners.items():
            if len(owners) != len(self.embeddings[name]):
                raise ValueError(
                    f"{name}: {len(self.embeddings[name])} embeddings have {len(owners)} owners"
                )
            inside = np.all((owners >= 0) & (owners < records))
            if not inside or np.any(np.diff(owners) < 0):
                raise ValueError(f"{name}: owners must ascend within [0, {records})")


class _Rows:
    """Values of one modality on their way through ``encode``, in batches of one fixed size."""

    def __init__(self, encode: Encode, modality: str, batch_size: int):
        self.encode, self.modality, self.batch_size = encode, modality, batch_size
        self.waiting: list[np.ndarray] = []
        self.done: list[np.ndarray] = []
        self.owners: list[int] = []

    def add(self, values: Sequence[np.ndarray], owner: int) -> None:
        self.waiting.extend(values)
        self.owners.extend([owner] * len(values))
        while len(self.waiting) >= self.batch_size:
            self._encode_batch()

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        if self.waiting:
            self._encode_batch()
        if not self.done:
            raise ValueError(f"no record of the source has a readable {self.modality!r}")
        return np.concatenate(self.done), np.asarray(self.owners, np.int32)

    def _encode_batch(self) -> None:
        values = self.waiting[: self.batch_size]
        del self.waiting[: self.batch_size]
        # A short last batch would compile the encoder a second time: repeat a row instead.
        batch = np.stack(values + values[:1] * (self.batch_size - len(values)))
        rows = np.asarray(self.encode({self.modality: batch})[self.modality], np.float32)
        if rows.ndim != 2 or len(rows) != self.batch_size:
            raise ValueError(
                f"encode must return [{self.batch_size}, d] for {self.modality!r}, got {rows.shape}"
            )
        self.done.append(rows[: len(values)])


def embed_source(
    encode: Encode,
    source: Source,
    prepare: Preparation,
    *,
    modalities: Sequence[str],
    batch_size: int,
    threads: int = 8,
) -> Embedded:
    """Embed every value of the named modalities: an image once, each of five captions.

    The source is read once, by a pool of threads that stays a bounded number of records ahead
    of the encoder. Every call of ``encode`` has one modality and exactly ``batch_size`` rows,
    so a jitted ``encode`` compiles once per modality.

    Args:
        encode: takes ``{modality: [batch_size, ...]}`` (``uint8[n, h, w, c]`` for images,
            ``int32[n, t]`` for texts, float32 for the arrays of ``prepare``) and returns
            ``{modality: f32[batch_size, d]}`` with unit-norm rows.
        source: the records. One without some modality, or without any text, has no value there.
        prepare: turns an image into ``uint8[h, w, c]`` and texts into ``int32[n, t]``.
        modalities: what to embed, of "image", "text" and the arrays of ``prepare``.
        batch_size: rows per call of ``encode``.
        threads: records read and decoded at a time.

    Returns:
        The embeddings. A record with an unreadable image is left out of every modality and
        named in ``skipped``, with the reason; the ledger of ``prepare`` counts it too.

    Raises:
        ValueError: on an unknown modality, a size below 1, an id that comes twice, an encoder
            that returns another number of rows, a malformed record, or a modality of which
            nothing can be read.
        TooManyUnreadable: see :class:`mmjax.data.skipped.Skipped`.
    """
    known = ["image", "text", *prepare.arrays]
    if not modalities or not set(modalities) <= set(known):
        raise ValueError(f"modalities must be of {known}, got {list(modalities)}")
    if batch_size < 1 or threads < 1:
        raise ValueError(f"batch_size {batch_size} and threads {threads} must be at least 1")

    def read(position: int) -> tuple[Record, dict[str, Sequence[np.ndarray]] | Unreadable]:
        try:
            record = source[position]
        except UnreadableRecord as error:
            return {"id": error.identity}, error
        check_record(record)
        try:
            return record, {name: _values(record, name, prepare) for name in modalities}
        except (UnreadableImage, UnreadableRecord) as error:
            return record, error

    rows = {name: _Rows(encode, name, batch_size) for name in dict.fromkeys(modalities)}
    kept: dict[str, tuple[int, str]] = {}
    skipped: dict[str, str] = {}
    for position, (record, values) in enumerate(_ahead(read, len(source), batch_size, threads)):
        name = record["id"]
        if name in kept or name in skipped:
            raise ValueError(f"the id {name!r} comes twice; ids must be unique in a source")
        if isinstance(values, Unreadable):
            prepare.skipped.count(name, values.reason, cause=values.cause)
            skipped[name] = values.reason
            continue
        prepare.skipped.count(name)
        for modality, found in values.items():
            rows[modality].add(found, owner=len(kept))
        kept[name] = (position, record.get("label", ""))

    done = {name: modality_rows.finish() for name, modality_rows in rows.items()}
    return Embedded(
        ids=tuple(kept),
        positions=np.asarray([position for position, _ in kept.values()], np.int32),
        embeddings={name: embeddings for name, (embeddings, _) in done.items()},
        owners={name: owners for name, (_, owners) in done.items()},
        labels=tuple(label for _, label in kept.values()),
        skipped=skipped,
    )


def _values(record: Record, modality: str, prepare: Preparation) -> Sequence[np.ndarray]:
    if modality not in record:
        return []
    if modality == "image":
        return [prepare.image(record["image"])]
    if modality != "text":
        return [prepare.array(record, modality)]
    texts = said(record["text"])
    return list(prepare.texts(texts)) if texts else []


def _ahead(function: Callable, count: int, ahead: int, threads: int) -> Iterator:
    """Results of ``function(0), function(1), ...`` in order, at most ``ahead`` computed early."""
    pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="embed")
    try:
        futures: collections.deque[concurrent.futures.Future] = collections.deque()
        for index in range(count):
            futures.append(pool.submit(function, index))
            if len(futures) > ahead:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def save_embeddings(path: str | os.PathLike[str], embedded: Embedded) -> None:
    """Write embeddings to an ``.npz`` file that plain :func:`numpy.load` reads, without pickle.

    Arrays in the file: ``ids``, ``positions``, ``labels``, per modality ``embeddings/<name>``
    and ``owners/<name>``, and ``skipped/ids``, ``skipped/reasons``.

    Args:
        path: the file, replaced as a whole; the name is used as it is.
        embedded: what to save.

    Raises:
        ValueError: if a string ends in a NUL character, which NumPy would drop.
        OSError: if the file cannot be written; an older one then stays.
    """
    arrays = {
        "ids": _strings(embedded.ids),
        "positions": embedded.positions,
        "labels": _strings(embedded.labels),
        "skipped/ids": _strings(embedded.skipped.keys()),
        "skipped/reasons": _strings(embedded.skipped.values()),
    }
    for name, rows in embedded.embeddings.items():
        arrays[f"embeddings/{name}"] = rows
        arrays[f"owners/{name}"] = embedded.owners[name]
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_embeddings(path: str | os.PathLike[str]) -> Embedded:
    """Read what :func:`save_embeddings` wrote.

    Args:
        path: the file.

    Returns:
        The embeddings, equal to what was saved.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no ``.npz`` file, or lacks an array that belongs there.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{os.fspath(path)} is not an .npz file of embeddings: {error}") from error
    names = [key.removeprefix("embeddings/") for key in arrays if key.startswith("embeddings/")]
    wanted = ["ids", "positions", "labels", "skipped/ids", "skipped/reasons"]
    missing = [key for key in wanted + [f"owners/{name}" for name in names] if key not in arrays]
    if missing:
        raise ValueError(f"{os.fspath(path)} lacks {missing}; it holds {sorted(arrays)}")
    skipped = zip(arrays["skipped/ids"].tolist(), arrays["skipped/reasons"].tolist(), strict=True)
    return Embedded(
        ids=tuple(arrays["ids"].tolist()),
        positions=arrays["positions"],
        embeddings={name: arrays[f"embeddings/{name}"] for name in names},
        owners={name: arrays[f"owners/{name}"] for name in names},
        labels=tuple(arrays["labels"].tolist()),
        skipped=dict(skipped),
    )


def _strings(texts) -> np.ndarray:
    texts = list(texts)
    for text in texts:
        if text.endswith("\0"):
            raise ValueError(f"{text!r} ends in a NUL character, which an array cannot hold")
    return np.asarray(texts, dtype=None if texts else "U1")
