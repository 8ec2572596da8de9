import json

import numpy as np
import pytest
from PIL import Image

from mmjax.data.images import UnreadableImage, decode
from mmjax.data.records import UnreadableRecord
from mmjax.data.sources import load_source
from mmjax.data.sources.folder import load_folder

HEADER = "image,text,id,label,group,split\n"
CSV = HEADER + (
    'cats/1.png,"a cat, asleep",first,cat,g1,train\n'
    "dogs/2.png,a dog,,dog,,test\n"
    "cats/1.png,one cat,first,cat,g1,train\n"
    "missing.png,nothing here,,,,train\n"
)


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(("cats/1.png", "dogs/2.png")):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (4, 4), number + 1).save(tmp_path / name)
    (tmp_path / "texts.csv").write_text(CSV)
    return tmp_path


def test_rows_of_one_image_are_texts_of_one_record(root):
    source = load_source("folder", "train", root=root)
    assert len(source) == 2
    record = source[0]
    assert (record["id"], record["label"], record["group"]) == ("first", "cat", "g1")
    assert record["text"] == ("a cat, asleep", "one cat")
    np.testing.assert_array_equal(decode(record["image"], 1), np.ones((4, 4, 1)))


def test_an_image_that_is_not_there_is_found_out_when_it_is_decoded(root):
    record = load_folder("train", root=root)[1]
    assert record["id"] == "missing.png"
    assert "label" not in record
    with pytest.raises(UnreadableImage, match=r"missing\.png"):
        decode(record["image"], 1)


def test_the_split_column_chooses_and_all_takes_everything(root):
    assert [load_folder("test", root=str(root))[0]["id"]] == ["dogs/2.png"]
    assert len(load_folder("all", root=root)) == 3


def test_one_table_a_split(root):
    for split in ("train", "held-out"):
        (root / f"{split}.csv").write_text(f"image,text\ndogs/2.png,{split}\n")
    assert load_folder("held-out", root=root, texts="{split}.csv")[0]["text"] == ("held-out",)
    with pytest.raises(FileNotFoundError, match=r"dev\.csv.*held-out\.csv.*texts\.csv.*train\.csv"):
        load_folder("dev", root=root, texts="{split}.csv")


def test_json_lines_take_one_text_or_a_list(root):
    rows = [
        {"image": "cats/1.png", "text": ["a cat", "one cat"], "split": "train"},
        {"image": "./cats/../cats/1.png", "text": "three", "extra": 1},
    ]
    (root / "t.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    source = load_folder("train", root=root, texts="t.jsonl")
    assert len(source) == 1
    assert source[0]["text"] == ("a cat", "one cat", "three")


def test_a_byte_order_mark_is_no_part_of_the_first_column(root):
    (root / "texts.csv").write_text("\ufeffimage,text\ndogs/2.png,ein Hündchen\n", encoding="utf-8")
    assert load_folder("all", root=root)[0]["text"] == ("ein Hündchen",)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("picture,caption\na.png,b\n", r"'image' and 'text'.*\['picture', 'caption'\]"),
        ("", r"'image' and 'text'.*\[\]"),
        ("image,text\na.png,b,c\n", "line 2: expected 2 fields.*comma"),
        ("image,text\na.png\n", "line 2: expected 2 fields"),
        ("image,text,split\na.png,b,train\na.png,c,test\n", "line 3.*split 'test'.*'train'"),
        ("image,text,label\na.png,b,cat\na.png,c,dog\n", "line 3.*label 'dog'.*'cat'"),
        ("image,text,id\na.png,b,1\nc.png,d,1\n", r"'a\.png' and 'c\.png' have one id, '1'"),
        ('image,text\na.png,"b\n', "line 1: unexpected end"),
        ("image,text\n", r"no image in split 'all'; it has \['all'\]"),
    ],
)
def test_a_malformed_csv_says_where_and_what(root, table, message):
    (root / "texts.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        load_folder("all", root=root)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: expected an object.*got list"),
        ('{"image": "a.png", "caption": "b"}', r"line 1.*\['image', 'caption'\]"),
        ('{"image": "a.png", "text": []}', "line 1.*empty list"),
        ('{"image": "a.png", "text": 3}', "line 1.*got 3"),
        ('{"image": 3, "text": "b"}', "line 1: 'image' must be a string, got 3"),
        ('{"image": "a.png", "text": "b", "label": 3}', "line 1: 'label'.*got 3"),
        (r'{"image": "a.png", "text": "\ud800"}', "line 1: 'utf-8' codec can't encode"),
        (r'{"image": "a.png", "text": "b", "id": "\ud800"}', "line 1: 'utf-8' codec"),
    ],
)
def test_malformed_json_lines_say_where_and_what(root, table, message):
    (root / "t.jsonl").write_text(table)
    with pytest.raises(ValueError, match=message):
        load_folder("all", root=root, texts="t.jsonl")


@pytest.mark.parametrize("path", ["../a.png", "x/../../a.png", "/etc/passwd", ".", ""])
def test_only_the_row_whose_path_leaves_the_folder_cannot_be_read(root, path):
    (root / "texts.csv").write_text(f"image,text\n{path},b\ncats/1.png,a cat\n")
    source = load_folder("all", root=root)
    with pytest.raises(UnreadableRecord, match=f"{path!r} of the table.*inside the folder") as told:
        source[0]
    assert told.value.cause == "path outside the folder"
    assert source[1]["text"] == ("a cat",)


def test_a_blank_text_is_left_to_whoever_prepares_the_record(root):
    (root / "texts.csv").write_text("image,text\ncats/1.png,\ncats/1.png,a cat\n")
    assert load_folder("all", root=root)[0]["text"] == ("", "a cat")


def test_a_table_in_another_encoding_is_refused(root):
    (root / "texts.csv").write_bytes("image,text\na.png,Hündchen\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        load_folder("all", root=root)


def test_a_table_of_another_kind_is_refused(root):
    (root / "texts.tsv").write_text("image\ttext\n")
    with pytest.raises(ValueError, match=r"must end in \.csv or \.jsonl"):
        load_folder("all", root=root, texts="texts.tsv")


def test_an_unknown_split_lists_those_there_are(root):
    with pytest.raises(ValueError, match=r"'dev'; it has \['test', 'train', 'all'\]"):
        load_folder("dev", root=root)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        load_folder("train", root=tmp_path / "nowhere")
