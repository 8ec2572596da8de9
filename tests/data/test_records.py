import pathlib

import numpy as np
import pytest

from mmjax.data.records import all_texts, check_record

LETTERS = [{"id": "a", "text": ("A", "a")}, {"id": "b"}, {"id": "c", "text": ("C",)}]


def test_all_texts_come_in_order_and_records_without_text_are_passed_over():
    assert list(all_texts(LETTERS)) == ["A", "a", "C"]


@pytest.mark.parametrize(
    "image", [b"bytes", pathlib.Path("a.png"), np.zeros((2, 2, 1), np.uint8)], ids=type
)
def test_a_sound_record_passes(image):
    check_record({"id": "a", "group": "g", "label": "l", "text": ("t",), "image": image})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (["id"], "must be a mapping"),
        ({"text": ("t",)}, "'id'.*None.*'text'"),
        ({"id": 3}, "'id'.*3"),
        ({"id": "a", "label": 1}, "'a': 'label'.*1"),
        ({"id": "a", "group": None}, "'a': 'group'.*None"),
        ({"id": "a", "text": "cat"}, "'a': 'text'.*tuple.*'cat'"),
        ({"id": "a", "text": ["cat"]}, "'a': 'text'.*tuple"),
        ({"id": "a", "text": (None,)}, "'a': 'text'.*None"),
        ({"id": "a", "image": "cat.png"}, "'a': 'image'.*str"),
    ],
)
def test_a_malformed_record_is_named_with_its_fault(record, message):
    with pytest.raises(ValueError, match=message):
        check_record(record)
