import logging
import pathlib

import pytest

from mmjax.data.sources.shards import (
    BrokenShard,
    Shards,
    expand,
    open_shards,
    shard_paths,
    short_names,
)


class Listed(list):
    """A shard of records."""


def test_records_come_one_shard_after_the_other():
    source = Shards([Listed("ab"), Listed(), Listed("c"), Listed(), Listed("de")])
    assert [source[i] for i in range(len(source))] == list("abcde")
    for index in (-1, 5):
        with pytest.raises(IndexError, match=rf"\[0, 5\), got {index}"):
            source[index]


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a", ["a"]),
        ("a-{08..11}", ["a-08", "a-09", "a-10", "a-11"]),
        ("{x,y}/{0..1}", ["x/0", "x/1", "y/0", "y/1"]),
        ("{a,,b}", ["a", "", "b"]),
        ("{1..x}", ["1..x"]),
    ],
)
def test_braces_are_written_out(pattern, paths):
    assert expand(pattern) == paths


@pytest.mark.parametrize("pattern", ["{0..1000000}", "{0..999}{0..999}{0..999}", "{5..4}"])
def test_too_many_or_none_are_refused_before_they_are_written_out(pattern):
    with pytest.raises(ValueError, match=r"means .* files; at least 1 and at most a million"):
        expand(pattern)


def test_wildcards_find_files_in_order_and_braces_need_not(tmp_path):
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / name).touch()
    found = shard_paths([f"{tmp_path}/*.tar", f"{tmp_path}/{{x,y}}.tar"], "all")
    assert [path.name for path in found] == ["a.tar", "b.tar", "x.tar", "y.tar"]
    with pytest.raises(FileNotFoundError, match=r"no file is called .*/\*\.parquet"):
        shard_paths(f"{tmp_path}/*.parquet", "all")


def test_a_split_is_a_name_or_patterns_of_its_own():
    assert shard_paths("/d/{split}.tar", "dev") == [pathlib.Path("/d/dev.tar")]
    by_split = {"train": ["/d/{0..1}.tar", "/e.tar"], "dev": "/f.tar"}
    assert len(shard_paths(by_split, "train")) == 3
    with pytest.raises(ValueError, match=r"one of \['dev', 'train'\], got 'test'"):
        shard_paths(by_split, "test")


def test_shards_without_splits_are_not_taken_for_one():
    """Else a run would be evaluated on what it was trained on."""
    assert len(shard_paths("/d/{0..3}.tar", "all")) == 4
    with pytest.raises(ValueError, match=r"have no split 'train', only 'all': write \{split\}"):
        shard_paths("/d/{0..3}.tar", "train")


def test_names_are_short_and_distinct(tmp_path):
    paths = [tmp_path / "a/0.tar", tmp_path / "a/1.tar"]
    assert list(short_names(paths).values()) == ["0.tar", "1.tar"]
    assert list(short_names([*paths, tmp_path / "b/0.tar"]).values())[-1] == "b/0.tar"


def opened(broken, share):
    paths = [pathlib.Path(f"/d/{n}") for n in range(10)]

    def open_shard(path):
        if int(path.name) in broken:
            raise BrokenShard(f"{path}: cut short")
        if int(path.name) == 9:
            return open("/nowhere/at/all")  # an OSError like any other
        return Listed([path.name])

    return open_shards(paths, open_shard, max_broken_share=share)


def test_broken_shards_are_left_out_up_to_a_share_and_named(caplog):
    with caplog.at_level(logging.WARNING):
        source = opened({3}, share=0.2)
    assert [source[i] for i in range(len(source))] == list("01245678")
    assert "2 of 10 shards cannot be read: /d/3: cut short; /d/9: No such file" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_past_the_share_they_are_an_error(share):
    with pytest.raises(ValueError, match=rf"2 of 10 shards.*At most {share:.1%} may be \(max_bro"):
        opened({3}, share=share)


def test_no_record_at_all_is_an_error():
    with pytest.raises(ValueError, match="no record in the 10 shards /d/0"):
        opened(set(range(10)), share=1.0)
    with pytest.raises(ValueError, match="max_broken_share must lie in"):
        opened(set(), share=1.5)
