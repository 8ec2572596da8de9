"""Parquet files and Hugging Face folders: two forms of the same tables."""

import json
import pickle
import shutil
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmjax.data.images import decode
from mmjax.data.records import UnreadableRecord, check_record
from mmjax.data.sources import load_source
from mmjax.data.sources.huggingface import load_huggingface
from mmjax.data.sources.parquet import ParquetFile, load_parquet

from .conftest import COLUMNS, COUNT, table, write_arrow


@pytest.fixture
def saved(tmp_path):
    """What ``DatasetDict.save_to_disk`` leaves: one split in two files."""
    root = tmp_path / "saved"
    for number, rows in enumerate((table().slice(0, 3), table().slice(3))):
        write_arrow(root / "train" / f"data-{number:05d}-of-00002.arrow", rows)
    files = [{"filename": f"data-{number:05d}-of-00002.arrow"} for number in range(2)]
    (root / "train" / "state.json").write_text(json.dumps({"_data_files": files}))
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    return root


@pytest.fixture(params=["parquet", "huggingface"])
def source(request, parquet, saved):
    if request.param == "parquet":
        return load_source("parquet", "all", shards=str(parquet), fields=COLUMNS)
    return load_source("huggingface", "train", root=str(saved), fields=COLUMNS)


def test_a_row_is_a_record(source):
    source = pickle.loads(pickle.dumps(source))
    assert len(source) == COUNT
    for number in range(COUNT):
        record = source[number]
        check_record(record)
        assert record["text"] == (f"text {number}", "another")
        assert record["label"] == ("even", "odd")[number % 2]
        assert record["group"] == f"p{number // 2}"
        np.testing.assert_array_equal(record["audio"], [number] * 3)
        assert abs(int(decode(record["image"], 1)[0, 0, 0]) - 40 * number) <= 2
    assert len({source[i]["id"] for i in range(COUNT)}) == COUNT


def test_many_threads_read_the_same(source):
    found, threads = {}, []
    for i in range(40):

        def read(i=i):
            found[i] = source[i % COUNT]["group"]

        threads.append(threading.Thread(target=read))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert found == {i: f"p{i % COUNT // 2}" for i in range(40)}


def test_only_the_row_group_of_the_row_and_the_wanted_columns_are_read(parquet, monkeypatch):
    reads, real = [], ParquetFile.read

    def spy(self, number, columns):
        reads.append((number, list(columns)))
        return real(self, number, columns)

    monkeypatch.setattr(ParquetFile, "read", spy)
    source = load_parquet("all", shards=str(parquet), fields={"text": "captions"})
    assert reads == []
    assert source[3]["text"] == ("text 3", "another")
    assert source[2]["text"] == ("text 2", "another")
    assert reads == [(1, ["captions"])]


def test_a_null_is_a_missing_modality(tmp_path):
    rows = pa.table({"caption": ["a", None], "image": pa.array([None, b"1"], pa.binary())})
    pq.write_table(rows, tmp_path / "0.parquet")
    names = {"text": "caption", "image": "image"}
    source = load_parquet("all", shards=f"{tmp_path}/0.parquet", fields=names)
    assert source[0] == {"id": "0.parquet/0", "text": ("a",)}
    assert source[1] == {"id": "0.parquet/1", "text": (), "image": b"1"}


def test_images_may_lie_in_a_folder_and_nowhere_else(tmp_path):
    pq.write_table(pa.table({"file": ["a.png", "../b.png"]}), tmp_path / "0.parquet")
    options = {"shards": f"{tmp_path}/0.parquet", "fields": {"image": "file"}}
    source = load_parquet("all", root=tmp_path / "images", **options)
    assert source[0]["image"] == tmp_path / "images" / "a.png"
    with pytest.raises(UnreadableRecord, match="inside the folder"):
        source[1]


def test_a_row_that_is_too_large_is_named(parquet, saved):
    options = {"fields": COLUMNS, "max_record_bytes": 100}
    for source in (
        load_parquet("all", shards=str(parquet), **options),
        load_huggingface("train", root=saved, **options),
    ):
        with pytest.raises(UnreadableRecord, match="at most 100") as told:
            source[4]
        assert told.value.cause == "record too large"


def test_row_groups_that_are_too_large_are_refused_with_the_remedy(parquet):
    with pytest.raises(ValueError, match=r"at most 50 may be .*experiments\.convert"):
        load_parquet("all", shards=str(parquet), fields=COLUMNS, max_row_group_bytes=50)


def test_a_wrong_column_lists_the_right_ones(parquet, saved):
    message = r"no field 'caption' for 'text'.*audio, captions.*meant 'captions'"
    with pytest.raises(ValueError, match=message):
        load_parquet("all", shards=str(parquet), fields={"text": "caption"})
    with pytest.raises(ValueError, match=message):
        load_huggingface("train", root=saved, fields={"text": "caption"})


def test_a_file_that_is_cut_short_is_no_shard(tmp_path, parquet, saved):
    parquet.write_bytes(parquet.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"1 of 1 shards.*all\.parquet: .*magic bytes"):
        load_parquet("all", shards=str(parquet), fields=COLUMNS)
    file = saved / "train" / "data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:-1200])
    with pytest.raises(ValueError, match=r"1 of 2 shards cannot be read: .*00001-of-00002\.arrow"):
        load_huggingface("train", root=saved, fields=COLUMNS)
    left = load_huggingface("train", root=saved, fields=COLUMNS, max_broken_share=0.5)
    assert len(left) == 3


def test_a_data_set_without_splits_is_all(saved):
    one = saved / "train"
    assert len(load_huggingface("all", root=one, fields=COLUMNS)) == COUNT
    with pytest.raises(ValueError, match="one data set without splits: its split is 'all'"):
        load_huggingface("train", root=one, fields=COLUMNS)
    with pytest.raises(ValueError, match=r"one of \['train'\], got 'dev'"):
        load_huggingface("dev", root=saved, fields=COLUMNS)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (None, FileNotFoundError, "no data set that Hugging Face saved.*no state.json"),
        ("{", ValueError, "has no list '_data_files'"),
        ("[]", ValueError, "has no list '_data_files'"),
        ('{"_data_files": []}', ValueError, "must be a list of dict"),
        ('{"_data_files": ["a"]}', ValueError, "must be a list of dict"),
        ('{"_data_files": [{"filename": "../../x"}]}', ValueError, "inside the folder"),
        ('{"_data_files": [{}]}', ValueError, "None: no such file"),
    ],
)
def test_a_folder_that_is_something_else_is_refused(saved, state, error, message):
    (saved / "train" / "state.json").unlink()
    if state is not None:
        (saved / "train" / "state.json").write_text(state)
    with pytest.raises(error, match=message):
        load_huggingface("train", root=saved, fields=COLUMNS)


def test_a_compressed_stream_is_refused_as_it_would_fill_the_memory(saved):
    rows = pa.table({"captions": ["the same again and again"] * 2000})
    path = saved / "train" / "data-00000-of-00002.arrow"
    write_arrow(path, rows, size=2000, compression="zstd")
    with pytest.raises(ValueError, match="it is compressed"):
        load_huggingface("train", root=saved, fields={"text": "captions"})


def test_a_file_that_changes_under_the_run_is_noticed(saved):
    source = load_huggingface("train", root=saved, fields=COLUMNS)
    file = saved / "train" / "data-00000-of-00002.arrow"
    longer = file.with_name("longer")
    shutil.copy(file, longer)
    with longer.open("ab") as out:
        out.write(b"more")
    longer.replace(file)
    with pytest.raises(UnreadableRecord, match="has changed"):
        source[0]
