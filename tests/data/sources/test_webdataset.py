import concurrent.futures
import os
import pickle
import tarfile

import numpy as np
import pytest

from mmjax.data.images import decode
from mmjax.data.records import UnreadableRecord, check_record
from mmjax.data.sources import load_source
from mmjax.data.sources.tar import BrokenShard, Descriptor, members, sample_spans
from mmjax.data.sources.webdataset import load_webdataset

from .conftest import COUNT, jpeg, samples, write_tar

FIELDS = {
    "image": "jpg", "text": ("txt", "json.more"), "group": "json.photo", "audio": "audio.npy",
}  # fmt: skip
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.fixture
def shard(tmp_path):
    return write_tar(tmp_path / "0.tar", samples())


def records(source):
    found = [source[i] for i in range(len(source))]
    for record in found:
        check_record(record)
    return found


@pytest.mark.parametrize("kind", FORMATS)
def test_a_sample_is_the_files_that_share_a_name(tmp_path, kind):
    shard = write_tar(tmp_path / "0.tar", samples(), format=FORMATS[kind])
    found = records(load_source("webdataset", "all", shards=str(shard), fields=FIELDS))
    assert len(found) == COUNT
    record = found[3]
    assert record["id"] == "0.tar/0003"
    assert record["text"] == ("text 3", "another")
    assert record["group"] == "p1"
    np.testing.assert_array_equal(record["audio"], np.full((2, 3), 3))
    assert abs(int(decode(record["image"], 1)[0, 0, 0]) - 120) <= 2


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_long_names_and_folders_belong_to_the_key(tmp_path, kind):
    key = "folder.d/" + "n" * 150 + "é"
    write_tar(tmp_path / "0.tar", [(key, {"JPG": b"1", "txt": b"a"})], format=FORMATS[kind])
    (record,) = records(load_webdataset("all", shards=f"{tmp_path}/0.tar"))
    assert record == {"id": f"0.tar/{key}", "image": b"1", "text": ("a",)}


def test_a_file_that_is_missing_is_a_modality_that_is_missing(tmp_path):
    write_tar(tmp_path / "0.tar", [("a", {"jpg": b"1"}), ("b", {"txt": b"b"})])
    first, second = records(load_webdataset("all", shards=f"{tmp_path}/0.tar"))
    assert (first.get("text"), first["image"]) == ((), b"1")
    assert "image" not in second


def test_many_threads_and_another_process_read_the_same(shard):
    source = load_webdataset("all", shards=str(shard), fields=FIELDS)
    source = pickle.loads(pickle.dumps(source))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: source[i % COUNT]["image"], range(300)))
    assert read == [jpeg(i % COUNT) for i in range(300)]


def test_the_shard_is_scanned_once_and_then_only_its_index_is_read(shard, monkeypatch):
    spans = sample_spans(shard)
    assert shard.with_name("0.tar.index.npy").stat().st_size < 300
    monkeypatch.setattr(Descriptor, "read", lambda *_: pytest.fail("the shard was read"))
    np.testing.assert_array_equal(sample_spans(shard), spans)


def test_a_shard_that_changed_is_scanned_again(shard):
    assert len(sample_spans(shard)) == COUNT
    write_tar(shard, samples(3))
    assert len(sample_spans(shard)) == 3
    other = write_tar(shard.with_name("1.tar"), samples(2))
    os.utime(other, ns=(0, 0))
    shard.with_name("1.tar.index.npy").write_bytes(
        shard.with_name("0.tar.index.npy").read_bytes()  # of another tar
    )
    assert len(sample_spans(other)) == 2


def test_where_nothing_can_be_written_the_index_goes_into_the_cache(shard, cache, monkeypatch):
    from mmjax.data.sources import tar

    real = tar.replacing

    def refusing(path):
        if path.parent == shard.parent:
            raise PermissionError(13, "Read-only file system")
        return real(path)

    monkeypatch.setattr(tar, "replacing", refusing)
    spans = sample_spans(shard)
    assert not shard.with_name("0.tar.index.npy").exists()
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(Descriptor, "read", lambda *_: pytest.fail("the shard was read"))
    np.testing.assert_array_equal(sample_spans(shard), spans)


def test_a_tar_without_its_end_mark_is_whole(shard):
    end = int(sample_spans(shard)[-1, 1])
    padded = end + -end % 512
    for size in (end, padded, padded + 512):
        content = shard.read_bytes()[:size]
        other = shard.with_name(f"{size}.tar")
        other.write_bytes(content)
        assert len(sample_spans(other)) == COUNT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:3080], r"cut short: the member at byte \d+, '0\d+\.\S+', has \d+ bytes"),
        (lambda b: b[:700], "cut short: the member at byte 0, '0000.jpg'"),
        (lambda b: b[:100], "cut short in a header at byte 0"),
        (lambda b: b"\x1f\x8b" + b[2:], "no tar header at byte 0: it is compressed"),
        (lambda b: b"x" * len(b), "no tar header at byte 0$"),
        (lambda b: b[:140] + b"8" + b[141:], "no tar header at byte 0$"),
    ],
)
def test_a_broken_tar_says_where(tmp_path, shard, change, message):
    broken = tmp_path / "broken.tar"
    broken.write_bytes(change(shard.read_bytes()))
    with pytest.raises(BrokenShard, match=f"broken.tar: {message}"):
        sample_spans(broken)


def test_samples_that_are_not_kept_together_are_refused(tmp_path):
    write_tar(tmp_path / "0.tar", [("a", {"jpg": b"1"}), ("b", {"jpg": b"2"}), ("a", {"txt": b""})])
    with pytest.raises(ValueError, match="files of sample 'a' do not stand together"):
        load_webdataset("all", shards=f"{tmp_path}/0.tar")


def test_links_and_folders_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, kind in (("d.jpg", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    file = Descriptor(tmp_path / "0.tar")
    assert list(members(file.read, file.stat().st_size)) == []


def test_a_field_that_no_sample_has_is_refused_at_once(shard):
    with pytest.raises(ValueError, match=r"no field 'jpgg' for 'image'.*meant 'jpg'"):
        load_webdataset("all", shards=str(shard), fields={"image": "jpgg"})


@pytest.mark.parametrize(
    ("extra", "cause", "reason"),
    [
        ({"jpg": bytes(9000)}, "record too large", r"\d+ bytes, at most 8000 \(max_record_bytes\)"),
        ({"json": b"{"}, "broken field", "json: Expecting"),
        ({"audio.npy": b"npy"}, "broken field", "audio.npy: not an .npy file"),
        ({"txt": b"\xff"}, "wrong text", "can't decode"),
    ],
)
def test_one_bad_sample_is_named_and_leaves_the_others(tmp_path, extra, cause, reason):
    good = samples(2)
    shard = write_tar(
        tmp_path / "0.tar", [good[0], ("bad", {**samples(1)[0][1], **extra}), good[1]]
    )
    source = load_webdataset("all", shards=str(shard), fields=FIELDS, max_record_bytes=8000)
    with pytest.raises(UnreadableRecord, match=reason) as told:
        source[1]
    assert told.value.cause == cause
    assert "0.tar" in told.value.identity
    assert source[2]["id"] == "0.tar/0001"


def test_a_shard_that_goes_away_is_a_cause_of_its_own(shard):
    source = pickle.loads(pickle.dumps(load_webdataset("all", shards=str(shard))))
    shard.unlink()
    with pytest.raises(UnreadableRecord) as told:
        source[0]
    assert told.value.cause == "missing shard"


def test_missing_and_cut_shards_are_left_out_up_to_their_share(tmp_path, shard):
    (tmp_path / "1.tar").write_bytes(shard.read_bytes()[:3000])
    pattern = str(tmp_path / "{0..2}.tar")
    with pytest.raises(ValueError, match=r"2 of 3 shards.*1\.tar: cut short.*2\.tar: No such file"):
        load_webdataset("all", shards=pattern, max_broken_share=0.5)
    assert len(load_webdataset("all", shards=pattern, max_broken_share=0.7)) == COUNT
