"""A run on three modalities, some of which are missing here and there, from ArrayRecord shards."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmjax.data.conversion import convert
from mmjax.data.sources.folder import load_folder
from mmjax.training import load_run, pretrain
from mmjax.training.journal import read_metrics

SOUND = (12,)  # features: which shape it is, and noise


class Heard:
    """The records of a source, three of four with a sound and every fifth without its text."""

    def __init__(self, source):
        self.source, self.rng = source, np.random.default_rng(1)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        record = dict(self.source[index])
        sound = self.rng.normal(0, 0.1, SOUND).astype(np.float32)
        sound[index % 4] += 1
        if index % 4 != 3 or index % 8 == 7:
            record["sound"] = sound
        if index % 5 == 4:
            del record["text"]
        return record


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("heard")
    for split in ("train", "test"):
        source = Heard(load_folder(split, root=folder))
        done = convert(
            source, root, split, origin={}, records_per_shard=20, threads=1,
            max_unreadable_share=0.0, progress=lambda _: None,
        )  # fmt: skip
        assert done.records == len(source)
    return str(root / "{split}-*.array_record")


def test_three_modalities_are_trained_evaluated_and_embedded(make_config, shards, tmp_path):
    config = make_config(steps=3)
    with config.unlocked():
        config.data.source, config.data.options = "array_record", ConfigDict({"shards": shards})
        config.data.arrays = ConfigDict({"sound": SOUND})
        config.data.distinct = "label"
        config.model.towers.sound = ConfigDict({"encoder": "mlp", "hidden": (16,), "features": 16})
    result = pretrain(config.lock(), tmp_path, quiet=True)
    names = ("image", "text", "sound")
    for query in names:
        for candidate in {*names} - {query}:
            assert 0 <= result.metrics[f"eval/test/{query}_to_{candidate}_recall@10"] <= 1
    lines = read_metrics(tmp_path)
    assert all(np.isfinite(line["loss"]) for line in lines)
    # Of a batch, one row of each of the four labels stays; two records have an image only.
    assert all(line["duplicates"] >= config.batch_size - 4 - 2 for line in lines)

    trained = load_run(tmp_path)
    embedded = trained.embed(trained.run.source("test"))
    assert {name: len(rows) for name, rows in embedded.embeddings.items()} == {
        "image": 16,
        "text": 13,  # without 4, 9 and 14
        "sound": 14,  # without 3 and 11
    }
    assert result.report.stat().st_size > 10_000
