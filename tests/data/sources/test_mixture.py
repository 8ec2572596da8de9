import collections

import ml_collections
import numpy as np
import pytest

from mmjax.data.records import UnreadableRecord
from mmjax.data.sources import load_source
from mmjax.data.sources.mixture import Mixture

from .conftest import COLUMNS, samples, write_tar


def records(count):
    return [{"id": str(n), "group": f"g{n}", "text": ("a",)} for n in range(count)]


def places(mixture):
    return [mixture.place(index) for index in range(len(mixture))]


def test_without_weights_every_record_comes_once():
    mixture = Mixture({"a": records(3), "b": records(5)})
    assert places(mixture) == [(0, n) for n in range(3)] + [(1, n) for n in range(5)]


@pytest.mark.parametrize("weights", [(1, 1, 1), (5, 1, 2), (0.7, 0.2, 0.1), (1, 30, 1)], ids=str)
def test_each_has_its_share_and_every_record_comes(weights):
    sizes = dict(zip("abc", (40, 7, 3), strict=True))
    named = dict(zip("abc", weights, strict=True))
    mixture = Mixture({name: records(size) for name, size in sizes.items()}, named)
    counts = collections.Counter(places(mixture))
    assert set(counts) == {(i, n) for i, size in enumerate(sizes.values()) for n in range(size)}
    of_source = np.array([sum(c for (i, _), c in counts.items() if i == k) for k in range(3)])
    expected = len(mixture) * np.array(weights) / sum(weights)
    np.testing.assert_allclose(of_source, expected, atol=2)
    for k in range(3):  # the records of one source equally often, give or take one
        often = [c for (i, _), c in counts.items() if i == k]
        assert max(often) - min(often) <= 1


def test_names_are_told_apart_and_the_rest_is_as_it_was():
    mixture = Mixture({"a": records(1), "b": [{"id": "0", "label": "cat"}]})
    assert mixture[0] == {"id": "a/0", "group": "a/g0", "text": ("a",)}
    assert mixture[1] == {"id": "b/0", "label": "cat"}
    with pytest.raises(IndexError, match=r"\[0, 2\), got 2"):
        mixture[2]


def test_what_cannot_be_read_is_named_with_its_source():
    class Torn(list):
        def __getitem__(self, index):
            raise UnreadableRecord("0.tar, sample 3", "broken tar", "no header")

    with pytest.raises(UnreadableRecord, match=r"^torn/0\.tar, sample 3: broken tar: no header$"):
        Mixture({"torn": Torn([0])})[0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1}, "a weight above 0 for each of a, b"),
        ({"a": 1, "b": 0}, "a weight above 0"),
        ({"a": 1, "b": float("nan")}, "a weight above 0"),
        ({"a": 1, "b": 1e-300}, "a weight that is small"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        Mixture({"a": records(1), "b": records(1)}, weights)


def test_a_source_without_records_is_refused():
    with pytest.raises(ValueError, match=r"expected sources with records, got \{'a': 0\}"):
        Mixture({"a": []})


def test_a_configuration_mixes_any_kinds(tmp_path, parquet):
    write_tar(tmp_path / "train.tar", samples(3))
    options = ml_collections.ConfigDict(
        {
            "sources": {
                "tars": {
                    "source": "webdataset", "options": {"shards": f"{tmp_path}/{{split}}.tar"},
                    "weight": 1.0,
                },
                "tables": {
                    "source": "parquet", "split": "all", "weight": 3.0,
                    "options": {"shards": str(parquet), "fields": COLUMNS},
                },
            }
        }
    )  # fmt: skip
    mixture = load_source("mixture", "train", **options)
    assert len(mixture) == 12
    names = [mixture[i]["id"].split("/")[0] for i in range(12)]
    assert names == ["tables"] * 9 + ["tars"] * 3
    assert mixture[0]["audio"].shape == (3,)
    assert "audio" not in mixture[9]  # a modality that only some of them have


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"source": "webdatset"}, "'x' of the mixture: no data set is called 'webdatset'.*meant"),
        ({"wieght": 1}, "'x' of the mixture has 'wieght'.*meant 'weight'"),
        ({"source": "icons", "options": {"sise": 1}}, "icons has no option 'sise'"),
    ],
)
def test_a_part_that_cannot_be_loaded_is_named(part, message):
    with pytest.raises(ValueError, match=message):
        load_source("mixture", "train", sources={"x": part})
