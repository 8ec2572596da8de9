import pickle
import subprocess
import sys

import numpy as np
import pytest

from mmjax.data.images import decode
from mmjax.data.records import UnreadableRecord, check_record
from mmjax.data.sources.tfds import load_tfds

# Prepared in a process of its own: the builder's progress bars and warnings are not ours.
PREPARE = """
import io, sys
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


class Pairs(tfds.core.GeneratorBasedBuilder):
    '''Images with texts.'''
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "captions": tfds.features.Sequence(tfds.features.Text()),
            "kind": tfds.features.ClassLabel(names=["cat", "dog"]),
            "number": np.int64,
            "audio": tfds.features.Tensor(shape=(2,), dtype=np.float32),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(6)}

    def _generate_examples(self, count):
        for n in range(count):
            file = io.BytesIO()
            Image.new("RGB", (4, 4), (30 * n,) * 3).save(file, "PNG")
            yield n, {
                "image": file.getvalue(), "captions": [f"text {n}", "another"], "kind": n % 2,
                "number": n, "audio": np.full(2, n, np.float32),
            }


Pairs(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
assert "tensorflow" not in sys.modules
"""
FEATURES = {
    "image": "image", "text": "captions", "label": "kind", "group": "number", "audio": "audio",
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "pairs" / "1.0.0"


def test_examples_are_records_whose_images_stay_encoded(root):
    source = pickle.loads(pickle.dumps(load_tfds("train", root=root, fields=FEATURES)))
    assert len(source) == 6
    records = [source[i] for i in range(6)]
    assert sorted(record["group"] for record in records) == list("012345")
    for i, record in enumerate(records):
        check_record(record)
        number = int(record["group"])
        assert record["id"] == f"train/{i}"
        assert isinstance(record["image"], bytes)
        np.testing.assert_array_equal(decode(record["image"], 1), np.full((4, 4, 1), 30 * number))
        assert record["text"] == (f"text {number}", "another")
        assert record["label"] == ("cat", "dog")[number % 2]
        np.testing.assert_array_equal(record["audio"], [number, number])
    with pytest.raises(IndexError, match=r"\[0, 6\), got 6"):
        source[6]


def test_slices_of_a_split_count(root):
    assert len(load_tfds("train[:50%]", root=root, fields=FEATURES)) == 3


def test_tensorflow_is_not_needed(root):
    script = (
        "import sys; from mmjax.data.sources import load_source; "
        f"load_source('tfds', 'train', root={str(root)!r}, fields={FEATURES!r})[0]; "
        "assert 'tensorflow' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("split", "fields", "message"),
    [
        ("trian", FEATURES, r"cannot be read as 'trian'.*Its splits are \['train'\]"),
        ("train", {"text": "caption"}, "no field 'caption' for 'text'.*meant 'captions'"),
    ],
)
def test_wrong_names_list_the_right_ones(root, split, fields, message):
    with pytest.raises(ValueError, match=message):
        load_tfds(split, root=root, fields=fields)


def test_a_folder_without_a_data_set_says_which_folder_is_meant(root):
    with pytest.raises(FileNotFoundError, match="root is the folder of one version"):
        load_tfds("train", root=root.parent, fields=FEATURES)


def test_a_broken_record_is_named(root, tmp_path):
    import shutil

    copy = tmp_path / "1.0.0"
    shutil.copytree(root, copy)
    (shard,) = copy.glob("*.array_record*")
    content = bytearray(shard.read_bytes())
    at = content.find(b"another")
    content[at] ^= 255
    shard.write_bytes(content)
    source = load_tfds("train", root=copy, fields=FEATURES)
    with pytest.raises(UnreadableRecord) as told:
        [source[i] for i in range(6)]
    assert told.value.cause == "broken tfds record"
    assert str(copy) in told.value.identity
