import inspect

import pytest

from mmjax.data.sources import SOURCES, load_source


def test_every_source_takes_a_split_first():
    assert set(SOURCES) == {
        "array_record", "flickr8k", "folder", "huggingface", "icons", "mixture", "parquet", "tfds",
        "webdataset",
    }  # fmt: skip
    for load in SOURCES.values():
        first, *others = inspect.signature(load).parameters.values()
        assert first.name == "split"
        assert all(other.kind is other.KEYWORD_ONLY for other in others)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("icnos", {}, "'icnos'; there are array_record, .*, webdataset: meant 'icons'"),
        ("icons", {"sise": 3}, "icons has no option 'sise'; there are seed, size: meant 'size'"),
        ("folder", {"x": 3}, "folder has no option 'x'; there are root, texts$"),
        ("parquet", {"shards": "x"}, "parquet needs the option 'fields'"),
        ("icons", {"size": 16}, "must be one of .*got 'nowhere'"),
    ],
)
def test_wrong_names_list_the_right_ones(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_source(name, "nowhere", **options)
