import itertools
import threading

import numpy as np
import pytest

from mmjax.data.pipeline import training_batches
from mmjax.data.preparation import Preparation
from mmjax.data.records import UnreadableRecord
from mmjax.data.skipped import Skipped, TooManyUnreadable
from mmjax.data.sources.mixture import Mixture
from mmjax.data.tokenizers import WordTokenizer

SIZE, BATCH = 23, 8  # two batches an epoch and a tail of seven
SOURCE = [{"id": str(n), "value": n} for n in range(SIZE)]


def prepare(record, rng):
    """The record's value and, for training, one draw."""
    value = record.get("value", 0)
    draw = 0.0 if rng is None else rng.random()
    return {
        "inputs": {"value": np.int32(value), "draw": np.float64(draw)},
        "where": {"value": np.bool_("value" in record)},
    }


def batches(count, **options):
    options = {"batch_size": BATCH, "seed": 3, "threads": 2} | options
    iterator = training_batches(SOURCE, prepare, **options)
    taken = list(itertools.islice(iterator, count))
    iterator.close()
    return taken


def rows(count, **options):
    return np.array([batch["index"] for batch in batches(count, **options)])


def assert_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a["index"], b["index"])
        np.testing.assert_array_equal(a["inputs"]["value"], b["inputs"]["value"])
        np.testing.assert_array_equal(a["inputs"]["draw"], b["inputs"]["draw"])


def test_a_batch_holds_the_rows_that_its_index_names():
    (batch,) = batches(1)
    assert batch["index"].dtype == np.int64
    assert batch["index"].shape == (BATCH,)
    np.testing.assert_array_equal(batch["inputs"]["value"], batch["index"])
    np.testing.assert_array_equal(batch["where"]["value"], np.ones(BATCH, bool))


def test_no_epoch_holds_a_record_twice_and_each_has_its_own_order_and_tail():
    epochs = rows(2 * 30).reshape(30, 2 * BATCH)
    assert all(len(set(epoch)) == 2 * BATCH for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 30
    left_out = {tuple(sorted(set(range(SIZE)) - set(epoch))) for epoch in epochs}
    assert len(left_out) == 30
    # Each record comes in 16/23 of the epochs: 20.9 of 30 expected, standard deviation 2.5.
    counts = np.bincount(epochs.ravel(), minlength=SIZE)
    assert counts.min() >= 10
    assert counts.sum() == 30 * 2 * BATCH


def test_the_seed_decides_and_neighbouring_seeds_have_nothing_in_common():
    assert_equal(batches(4), batches(4))
    epochs = [rows(2 * 5, seed=seed).reshape(5, -1) for seed in (3, 4, 5)]
    orders = {tuple(epoch) for of_seed in epochs for epoch in of_seed}
    assert len(orders) == 15  # not even shifted by an epoch
    assert batches(1)[0]["inputs"]["draw"][0] != batches(1, seed=4)[0]["inputs"]["draw"][0]


def test_every_position_has_draws_of_its_own():
    draws = np.concatenate([batch["inputs"]["draw"] for batch in batches(12)])
    assert len(set(draws)) == 12 * BATCH


@pytest.mark.parametrize("start", [1, 2, 5])
def test_it_resumes_at_any_step(start):
    assert_equal(batches(3, start_step=start), batches(start + 3)[start:])


def test_resuming_late_replays_nothing():
    read = []
    iterator = training_batches(
        SOURCE,
        lambda record, rng: read.append(record["id"]) or prepare(record, rng),
        batch_size=BATCH, seed=3, start_step=10**9, threads=1, prefetch=1,
    )  # fmt: skip
    next(iterator)
    iterator.close()
    assert len(read) <= 3 * BATCH


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_processes_together_hold_the_batch_of_one(count):
    whole = batches(5, start_step=1)
    slices = [
        batches(5, start_step=1, process_index=index, process_count=count) for index in range(count)
    ]
    for step, batch in enumerate(whole):
        parts = [of_process[step] for of_process in slices]
        assert {len(part["index"]) for part in parts} == {BATCH // count}
        for name in ("value", "draw"):
            joined = np.concatenate([part["inputs"][name] for part in parts])
            np.testing.assert_array_equal(joined, batch["inputs"][name])


def test_neither_threads_nor_prefetching_nor_the_parts_of_a_batch_change_it():
    source = [{"id": str(n), "value": n} for n in range(250)]
    taken = [
        list(itertools.islice(training_batches(
            source, prepare, batch_size=101, seed=0, threads=threads, prefetch=prefetch
        ), 4))
        for threads, prefetch in ((1, 1), (8, 3))
    ]  # fmt: skip
    assert taken[0][0]["index"].shape == (101,)
    assert_equal(*taken)
    assert len(set(np.concatenate([b["index"] for b in taken[0][:2]]))) == 202


def test_several_threads_read():
    names, barrier = set(), threading.Barrier(4, timeout=20)

    def slow(record, rng):
        names.add(threading.current_thread().name)
        barrier.wait()  # breaks unless four threads are here at the same time
        return prepare(record, rng)

    iterator = training_batches(SOURCE, slow, batch_size=1, seed=0, threads=4, prefetch=4)
    next(iterator)
    iterator.close()
    barrier.abort()
    assert len(names) >= 4


class Broken(Exception):
    pass


def test_an_exception_in_a_thread_arrives_as_itself():
    def fail(record, rng):
        raise Broken(record["id"])

    iterator = training_batches(SOURCE, fail, batch_size=BATCH, seed=0)
    with pytest.raises(Broken):
        next(iterator)
    iterator.close()


def test_too_many_unreadable_images_stop_the_run():
    source = [{"id": str(n), "image": b"broken" if n % 5 == 0 else np.zeros((2, 2, 1), np.uint8)}
              for n in range(200)]  # fmt: skip
    prepare = Preparation(
        tokenizer=WordTokenizer(["a"]), image_size=2, channels=1, text_length=2,
        skipped=Skipped(max_share=0.1),
    )  # fmt: skip
    iterator = training_batches(source, prepare, batch_size=20, seed=0)
    with pytest.raises(TooManyUnreadable, match="not an image"):
        list(itertools.islice(iterator, 20))
    iterator.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": SIZE + 1}, r"batch_size.*\[1, 23\].*got 24"),
        ({"batch_size": 0}, "batch_size.*got 0"),
        ({"process_count": 3}, "8 must be a multiple of the 3 processes"),
        ({"process_count": 2, "process_index": 2}, r"process_index.*\[0, 2\).*got 2"),
        ({"seed": -1}, "seed"),
        ({"start_step": -1}, "start_step"),
        ({"threads": 0}, "threads"),
        ({"prefetch": 0}, "prefetch"),
    ],
)
def test_numbers_that_cannot_be_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        batches(1, **wrong)


def test_a_batch_as_large_as_the_source_is_an_epoch():
    for batch in rows(3, batch_size=SIZE):
        assert sorted(batch) == list(range(SIZE))


class Torn:
    """A source of which every fifth record cannot be read."""

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        if index % 5 == 0:
            raise UnreadableRecord(f"torn.tar, sample {index}", "broken tar", "no header")
        return {"id": str(index), "text": ("a",)}


def test_a_record_that_cannot_be_read_is_masked_in_its_place():
    prepare = Preparation(
        tokenizer=WordTokenizer(["a"]), image_size=2, channels=1, text_length=2,
        skipped=Skipped(max_share=0.5),
    )  # fmt: skip
    iterator = training_batches(Torn(), prepare, batch_size=SIZE, seed=0)
    batch = next(iterator)
    iterator.close()
    np.testing.assert_array_equal(batch["where"]["text"], batch["index"] % 5 != 0)
    assert prepare.skipped.causes["broken tar"] == 5


@pytest.mark.parametrize("count", [2, 4])
def test_a_mixture_too_gives_the_same_batches_on_any_number_of_processes(count):
    parts = {name: [{"id": str(n), "value": n} for n in range(size)]
             for name, size in (("a", 30), ("b", 11), ("c", 5))}  # fmt: skip
    mixture = Mixture(parts, {"a": 1.0, "b": 1.0, "c": 0.5})

    def taken(index, of):
        iterator = training_batches(
            mixture, prepare, batch_size=BATCH, seed=1, start_step=3,
            process_index=index, process_count=of,
        )  # fmt: skip
        found = list(itertools.islice(iterator, 6))
        iterator.close()
        return found

    slices = [taken(index, count) for index in range(count)]
    for step, whole in enumerate(taken(0, 1)):
        joined = np.concatenate([of_process[step]["index"] for of_process in slices])
        np.testing.assert_array_equal(joined, whole["index"])
