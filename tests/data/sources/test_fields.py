import json

import numpy as np
import pytest

from mmjax.data.records import UnreadableRecord, check_record
from mmjax.data.sources.fields import Fields, parse, path_inside

from .conftest import npy


def record(names, row, **options):
    made = Fields(names, **options).record(row, identity="shard/7")
    check_record(made)
    return made


def test_all_fields_give_texts_and_the_first_that_is_there_gives_anything_else():
    names = {
        "image": ("jpg", "png"),
        "text": ("txt", "json.more", "json.none"),
        "label": "json.a.b",
    }
    row = {"png": b"2", "txt": b"one ", "json": {"more": ["two", "three"], "a": {"b": "cat"}}}
    assert record(names, row) == {
        "id": "shard/7", "image": b"2", "text": ("one", "two", "three"), "label": "cat",
    }  # fmt: skip
    assert record(names, {"jpg": b"1", "png": b"2"})["image"] == b"1"


def test_what_a_row_lacks_the_record_lacks():
    names = {"image": "jpg", "audio": "npy", "group": "json.photo"}
    assert record(names, {"jpg": None, "json": {}}) == {"id": "shard/7"}


def test_an_exact_name_goes_before_a_path():
    assert record({"group": "a.b"}, {"a.b": "exact", "a": {"b": "path"}})["group"] == "exact"


def test_numbers_become_names():
    names = {"id": "key", "label": "kind", "group": "kind"}
    made = record(names, {"key": 3, "kind": np.int64(1)}, labels={"kind": ["cat", "dog"]})
    assert made == {"id": "3", "label": "dog", "group": "1"}
    assert record({"label": "kind"}, {"kind": 7}, labels={"kind": ["cat"]})["label"] == "7"


def test_an_image_may_be_bytes_pixels_a_struct_or_a_path_inside_the_folder(tmp_path):
    def image(value):
        return record({"image": "x"}, {"x": value}, root=tmp_path)["image"]

    assert image(b"1") == b"1"
    assert image({"bytes": b"1", "path": "/elsewhere/a.png"}) == b"1"
    assert image({"bytes": None, "path": "a/b.png"}) == tmp_path / "a/b.png"
    assert image("a/b.png") == tmp_path / "a/b.png"
    assert image(np.zeros((2, 2), np.uint8)).shape == (2, 2)


@pytest.mark.parametrize(
    ("names", "value", "cause", "reason"),
    [
        ("image", "../b.png", "wrong image", "inside the folder, got '../b.png'"),
        ("image", "/etc/passwd", "wrong image", "inside the folder"),
        ("image", {"bytes": None, "path": None}, "wrong image", "got NoneType"),
        ("image", 3, "wrong image", "encoded bytes or pixels, got int 3"),
        ("text", 3, "wrong text", "expected text, got int 3"),
        ("text", ["a", None], "wrong text", "expected text, got NoneType"),
        ("text", b"\xff\xfe", "wrong text", "can't decode byte 0xff"),
        ("text", "\ud800", "wrong text", "can't encode"),
        ("id", "\ud800", "wrong id", "can't encode"),
        ("label", 1.5, "wrong label", "expected text, got float"),
        ("group", True, "wrong group", "expected text, got bool"),
        ("audio", "loud", "wrong audio", "expected numbers, got str"),
        ("audio", [[1], [1, 2]], "wrong audio", "numbers of one shape"),
    ],
)
def test_a_value_that_cannot_be_names_its_record(tmp_path, names, value, cause, reason):
    fields = Fields({names: "x"}, root=tmp_path)
    with pytest.raises(UnreadableRecord, match="shard/7") as told:
        fields.record({"x": value}, identity="shard/7")
    assert told.value.cause == cause
    assert reason in told.value.reason


def test_a_path_needs_a_folder():
    with pytest.raises(UnreadableRecord, match=r"encoded bytes or pixels, got str 'a\.png'"):
        record({"image": "x"}, {"x": "a.png"})


def test_a_key_without_any_field_is_refused_with_those_there_are():
    fields = Fields({"image": ("jpg", "png"), "text": "json.caption"})
    fields.check({"png", "json"}, "the shard")
    message = "the shard has no field 'jpg' or 'png' for 'image'.*it has jpgg, json: meant 'jpgg'"
    with pytest.raises(ValueError, match=message):
        fields.check({"jpgg", "json"}, "the shard")


def test_only_the_fields_that_are_wanted_are_wanted():
    fields = Fields({"image": ("jpg", "png"), "text": "json.caption"})
    assert [fields.wants(name) for name in ("png", "json", "js", "txt")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("path", ["", ".", "..", "a/../..", "/a", "a\0b", "../a"])
def test_no_path_leaves_its_folder(path):
    with pytest.raises(ValueError, match="inside the folder"):
        path_inside(path)


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.float16(3)],
    ids=["c", "fortran", "scalar"],
)
def test_an_npy_file_becomes_its_array(array):
    np.testing.assert_array_equal(parse("audio.npy", npy(array)), array)


def test_other_files_stay_bytes_and_json_is_parsed():
    assert parse("jpg", b"{}") == b"{}"
    assert parse("JSON", b'{"a": [1]}') == {"a": [1]}


OBJECTS = npy(np.array([1], object))
GIANT = npy(np.zeros(3)).replace(b"(3,)", b"(9" + b"9" * 12 + b",)")


@pytest.mark.parametrize(
    ("extension", "content", "message"),
    [
        ("npy", OBJECTS, "not an .npy file: ValueError: cannot create an OBJECT array"),
        ("npy", GIANT, "not an .npy file: ValueError: buffer is smaller"),
        ("npy", b"", "not an .npy file"),
        ("npy", npy(np.zeros(3))[:-1], "buffer is smaller than requested"),
        ("json", b"{", "Expecting property name"),
        ("json", b"\xff", "codec can't decode"),
        ("json", b"[" * 100_000, "nested too deeply"),
    ],
    ids=["objects", "giant", "empty", "cut", "half", "bytes", "deep"],
)
def test_a_file_of_another_kind_is_refused_before_any_memory_is_taken(extension, content, message):
    with pytest.raises(ValueError, match=message):
        parse(extension, content)


def test_json_that_is_no_object_has_no_fields():
    assert record({"text": "json.caption"}, {"json": json.loads("[1]")}) == {
        "id": "shard/7", "text": (),
    }  # fmt: skip
