import json
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest

from mmjax.data.conversion import convert
from mmjax.data.records import UnreadableRecord
from mmjax.data.skipped import TooManyUnreadable
from mmjax.data.sources import load_source

ROOT = pathlib.Path(__file__).parents[2]
COUNT = 25


class Torn:
    """Records of which some cannot be read; counts how often each is."""

    def __init__(self, torn=()):
        self.torn, self.reads, self.fail_at = set(torn), [], None

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        self.reads.append(index)
        if index == self.fail_at:
            raise MemoryError("the night")
        if index in self.torn:
            raise UnreadableRecord(f"a.tar, sample {index}", "broken tar", "no header")
        return {"id": str(index), "text": ("a", "b"), "audio": np.full(2, index, np.float32)}


def converted(source, folder, **options):
    ticks = []
    defaults = {
        "origin": {"source": "torn"}, "records_per_shard": 10, "threads": 2,
        "max_unreadable_share": 0.2, "progress": ticks.append,
    }  # fmt: skip
    done = convert(source, folder, "train", **defaults | options)
    assert sum(ticks) == COUNT
    return done


def ids(folder, **options):
    source = load_source(
        "array_record", "train", shards=f"{folder}/{{split}}-*.array_record", **options
    )
    return [source[i]["id"] for i in range(len(source))]


def test_all_records_come_back_in_their_order(tmp_path):
    done = converted(Torn(), tmp_path)
    assert ids(tmp_path) == [str(n) for n in range(COUNT)]
    names = sorted(path.name for path in tmp_path.glob("train-*"))
    assert names == [f"train-{n:05d}-of-00003.array_record" for n in range(3)]
    assert (done.records, done.skipped) == (COUNT, {})
    assert done.size == sum(path.stat().st_size for path in tmp_path.glob("train-*"))
    source = load_source("array_record", "train", shards=done.shards)
    np.testing.assert_array_equal(source[7]["audio"], [7, 7])


def test_what_cannot_be_read_is_left_out_counted_and_named(tmp_path):
    done = converted(Torn({3, 24}), tmp_path)
    assert ids(tmp_path) == [str(n) for n in range(COUNT) if n not in (3, 24)]
    assert (done.records, done.skipped) == (COUNT - 2, {"broken tar": 2})
    (line,) = (
        (tmp_path / "train-00002-of-00003.array_record.skipped.jsonl").read_text().split("\n")[:-1]
    )
    assert json.loads(line) == {
        "row": "24", "record": "a.tar, sample 24", "cause": "broken tar", "reason": "no header",
    }  # fmt: skip


def test_too_much_of_it_stops_and_names_the_first(tmp_path):
    class Many(Torn):
        def __len__(self):
            return 300

    with pytest.raises(TooManyUnreadable, match=r"at most 5\.0%.*a\.tar, sample"):
        convert(
            Many(range(300)), tmp_path, "train", origin={}, records_per_shard=200, threads=2,
            max_unreadable_share=0.05, progress=lambda count: None,
        )  # fmt: skip
    assert not list(tmp_path.glob("*array_record*"))


def test_a_conversion_that_died_goes_on_with_the_shards_that_are_not_there(tmp_path):
    source = Torn({3})
    source.fail_at = 15
    with pytest.raises(MemoryError, match="the night"):
        converted(source, tmp_path, threads=1)
    first = tmp_path / "train-00000-of-00003.array_record"
    assert first.exists()
    assert not list(tmp_path.glob(".*.part"))
    before, source.fail_at = first.stat().st_mtime_ns, None
    source.reads.clear()
    done = converted(source, tmp_path)
    assert set(source.reads) == set(range(10, COUNT))
    assert first.stat().st_mtime_ns == before
    assert (done.records, done.skipped) == (COUNT - 1, {"broken tar": 1})
    source.reads.clear()
    assert converted(source, tmp_path) == done
    assert source.reads == []


@pytest.mark.parametrize("change", [{"records_per_shard": 9}, {"origin": {"source": "other"}}])
def test_a_folder_of_something_else_is_left_alone(tmp_path, change):
    converted(Torn(), tmp_path)
    with pytest.raises(ValueError, match=r"holds this split of something else: train\.json says"):
        converted(Torn(), tmp_path, **change)
    assert len(ids(tmp_path)) == COUNT


ELSEWHERE = """
import sys
from mmjax.data.conversion import convert

convert(
    [{"id": "0"}], sys.argv[1], "train", origin={"source": "torn"}, records_per_shard=10,
    threads=1, max_unreadable_share=0.0, progress=print,
)
"""


def test_two_conversions_do_not_write_into_each_other(tmp_path):
    inside, leave = threading.Event(), threading.Event()

    class Slow(Torn):
        def __getitem__(self, index):
            inside.set()
            leave.wait(60)
            return super().__getitem__(index)

    first = threading.Thread(target=converted, args=(Slow(), tmp_path))
    first.start()
    inside.wait(60)
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    leave.set()
    first.join()
    assert "another process converts into" in second.stderr
    assert len(ids(tmp_path)) == COUNT


@pytest.mark.parametrize("wrong", [{"records_per_shard": 0}, {"threads": 0}])
def test_numbers_that_cannot_be_are_named(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        converted(Torn(), tmp_path, **wrong)


def test_a_shard_that_lost_its_end_is_broken_and_one_bad_record_is_named(tmp_path):
    converted(Torn(), tmp_path)
    paths = sorted(tmp_path.glob("train-*.array_record"))
    paths[0].write_bytes(paths[0].read_bytes()[:70_000])
    content = bytearray(paths[2].read_bytes())
    content[content.find(b"MMR1") + 6] ^= 255
    paths[2].write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 3 shards.*00000-of-00003.*cut short"):
        ids(tmp_path)
    with pytest.raises(UnreadableRecord, match="hash mismatch") as told:
        ids(tmp_path, max_broken_share=0.4)
    assert told.value.cause == "broken ArrayRecord"
    assert "00002-of-00003.array_record, record 0" in told.value.identity


def test_records_that_are_too_large_are_not_decoded(tmp_path):
    converted(Torn(), tmp_path)
    with pytest.raises(UnreadableRecord, match=r"bytes, at most 20 \(max_record_bytes\)"):
        ids(tmp_path, max_record_bytes=20)
