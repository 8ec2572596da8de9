"""Batches whose rows are a function of the step alone.

Nothing about the position is stored: step ``s`` of a run with global batch size ``b`` holds the
positions ``s b`` to ``s b + b - 1`` of an endless, reshuffled walk over the source. A run therefore
resumes at any step at no cost, and on another number of processes, where each process reads its own
slice of the same rows.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import grain
import numpy as np

from mmjax.data.records import Record, Source, UnreadableRecord

Example: TypeAlias = dict[str, Any]
"""``{"inputs": {modality: array}, "where": {modality: bool[]}, "index": int64[]}``."""

Batch: TypeAlias = dict[str, Any]
"""An :data:`Example` whose arrays have one more axis in front, the rows."""

Prepare: TypeAlias = Callable[[Record | UnreadableRecord, np.random.Generator | None], Example]
"""A record, or why it could not be read, and for training a generator become an example; its
``index`` is added here."""

_ROWS_PER_READ = 32  # One task of a thread: far less per row is lost to Grain than row by row.


def training_batches(
    source: Source,
    prepare: Prepare,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 8,
    prefetch: int = 2,
) -> grain.DatasetIterator[Batch]:
    """Iterate over training batches for ever.

    An epoch is a random order of the source less the tail that fills no batch, so that no batch
    holds a record twice; the next epoch has another order and another tail.

    Args:
        source: the records; read from many threads at once.
        prepare: called with each record and a generator that is a function of the seed and the
            position only.
        batch_size: rows of the global batch.
        seed: at least 0; decides the order and every random change.
        start_step: the first batch is the one that an uninterrupted iterator gives after
            ``start_step`` others.
        process_index: which slice of the rows of each batch to return.
        process_count: number of slices; slice ``p`` of ``l`` rows holds ``p l`` to ``p l + l - 1``.
        threads: how many read and prepare at the same time.
        prefetch: batches that are prepared ahead.

    Returns:
        An iterator of batches of ``batch_size / process_count`` rows; ``index`` holds the rows in
        ``source``. Its ``close()`` stops the threads. An exception of the source (but that of an
        unreadable record, which ``prepare`` gets) or of ``prepare`` is raised by ``next`` with its
        own type.

    Raises:
        ValueError: if ``batch_size`` is larger than the source or not a multiple of
            ``process_count``, or a number is out of range.
    """
    if not 0 < batch_size <= len(source):
        raise ValueError(
            f"batch_size must lie in [1, {len(source)}], the number of records, got {batch_size}"
        )
    if process_count < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} must be a multiple of the {process_count} processes"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index must lie in [0, {process_count}), got {process_index}")
    if seed < 0 or start_step < 0:
        raise ValueError(f"seed and start_step must not be negative, got {seed}, {start_step}")
    rows = _endless_order(len(source), batch_size, seed)
    local = batch_size // process_count

    def positions(step: int) -> range:
        first = step * batch_size + process_index * local
        return range(first, first + local)

    def example(position: int) -> Example:
        row = rows[position]
        rng = np.random.default_rng((seed, position))
        record: Record | UnreadableRecord
        try:
            record = source[row]
        except UnreadableRecord as error:
            record = error
        return prepare(record, rng) | {"index": np.int64(row)}

    steps = range(start_step, sys.maxsize // batch_size)
    return _batches(steps, positions, example, threads=threads, prefetch=prefetch)


def _endless_order(count: int, batch_size: int, seed: int) -> grain.MapDataset[int]:
    """Rows of the source by position. Grain folds the epoch into the seed of the shuffle."""
    # Grain's epoch e of seed s is epoch 0 of seed s + e: spread neighbouring seeds apart.
    (spread,) = np.random.SeedSequence(seed).generate_state(1)
    shuffled = grain.MapDataset.range(count).shuffle(seed=int(spread))
    rows = shuffled[: count // batch_size * batch_size].repeat()
    rows[0]  # The first look-up sets up Grain's bookkeeping, which is not safe from many threads.
    return rows


def _batches(
    steps: range,
    positions: Callable[[int], range],
    example: Callable[[int], Example],
    *,
    threads: int,
    prefetch: int,
) -> grain.DatasetIterator[Batch]:
    """Join the examples at ``positions(step)`` for each step; threads read parts of a batch."""
    if threads < 1 or prefetch < 1:
        raise ValueError(f"threads and prefetch must be at least 1, got {threads}, {prefetch}")
    parts = -(-len(positions(0)) // _ROWS_PER_READ)

    def read(task: int) -> Batch:
        step, part = divmod(task, parts)
        of_step = positions(steps[step])
        first, last = (len(of_step) * p // parts for p in (part, part + 1))
        return _join([example(p) for p in of_step[first:last]], np.stack)

    ahead = max(prefetch * parts, threads)  # Grain leaves threads idle on a shorter buffer.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    tasks = grain.MapDataset.range(len(steps) * parts).map(read)
    whole = tasks.to_iter_dataset(options).batch(
        parts, batch_fn=lambda read_parts: _join(read_parts, np.concatenate)
    )
    return iter(whole)


def _join(trees: Iterable[Any], join: Callable[..., np.ndarray]) -> Any:
    """Apply ``join`` to the arrays at the same place of equal nested dicts."""
    trees = list(trees)
    if isinstance(trees[0], dict):
        return {key: _join([tree[key] for tree in trees], join) for key in trees[0]}
    return join(trees)
