import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmjax.data.encoding import MAGIC, NotARecord, decode_record, encode_record
from mmjax.data.images import UnreadableImage
from mmjax.data.records import check_record

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
ARRAYS = hnp.arrays(
    hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.unsigned_integer_dtypes()
    | hnp.floating_dtypes(sizes=(16, 32, 64)),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)  # fmt: skip
RECORDS = st.fixed_dictionaries(
    {"id": TEXT},
    optional={
        "group": TEXT, "label": TEXT, "text": st.lists(TEXT, max_size=3).map(tuple),
        "image": st.binary(max_size=20) | ARRAYS, "audio": ARRAYS,
    },
)  # fmt: skip


@settings(deadline=None)
@given(RECORDS)
def test_a_record_comes_back_as_it_was(record):
    found = decode_record(encode_record(record))
    check_record(found)
    assert list(found) == list(record)
    for key, value in record.items():
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype.newbyteorder("<")
            np.testing.assert_array_equal(found[key], value)
        else:
            assert found[key] == value


@settings(deadline=None, max_examples=300)
@given(RECORDS.map(encode_record), st.data())
def test_other_bytes_are_a_record_or_refused(encoded, data):
    changed = bytearray(encoded)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=5))
        changed = changed or bytearray(b"x")
    with contextlib.suppress(NotARecord):
        check_record(decode_record(bytes(changed)))


def packed(**record):
    return MAGIC + msgpack.packb(record)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"\n\xca\x01\n", "starts with b'MMR1', these bytes with"),
        (MAGIC, "not MessagePack"),
        (packed(id="a") + b"x", "not MessagePack"),
        (MAGIC + msgpack.packb([1]), "a record is a map, got list"),
        (MAGIC + b"\x91" * 5000, "not MessagePack"),
        (packed(text=["a"]), "must have an 'id'"),
        (packed(id="a", text="b"), "'text' must be a tuple of str"),
        (packed(id="a", audio=3), "'audio' is neither bytes nor an array, but int"),
        (packed(id="a", audio={"dtype": "O", "shape": [1], "data": b""}), "no array of numbers"),
        (packed(id="a", audio={"dtype": "f4", "shape": [2**39], "data": b""}), "and 0 bytes"),
        (packed(id="a", audio={"dtype": "f4", "shape": [-1], "data": b""}), r"the shape \[-1\]"),
        (packed(id="a", audio={"dtype": "f4", "shape": [True], "data": b""}), "has"),
        (packed(id="a", audio=b"123"), "'audio' must be an array of numbers, got bytes"),
    ],
)
def test_bytes_that_are_no_record_say_why(encoded, message):
    with pytest.raises(NotARecord, match=message):
        decode_record(encoded)


def test_the_file_of_an_image_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"pixels")
    encoded = encode_record({"id": "a", "image": tmp_path / "a.png"})
    assert decode_record(encoded) == {"id": "a", "image": b"pixels"}
    with pytest.raises(UnreadableImage, match=r"b\.png"):
        encode_record({"id": "b", "image": tmp_path / "b.png"})


def test_numbers_without_an_encoding_are_refused():
    with pytest.raises(ValueError, match="arrays of float128 have no encoding"):
        encode_record({"id": "a", "audio": np.zeros(2, np.longdouble)})
