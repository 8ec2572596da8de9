"""Parts of another run's parameters, for fine-tuning."""

import pathlib
import shutil

import jax
import numpy as np
import pytest

from mmjax.training import load_run, pretrain
from mmjax.training.checksums import tree_names
from mmjax.training.journal import read_metrics


@pytest.fixture(scope="module")
def first(make_config, tmp_path_factory):
    """A short run with a moving average, to take things from."""
    workdir = tmp_path_factory.mktemp("first")
    with jax.numpy_dtype_promotion("standard"):
        pretrain(make_config(steps=3, ema_decay=0.5), workdir, quiet=True)
    return workdir


def continued(make_config, first, parts, **changes):
    config = make_config(steps=1, **changes)
    config.initialize_from.workdir, config.initialize_from.parts = str(first), parts
    config.optimizer.learning_rate = 0.0  # what was taken stays what it is
    return config


def test_a_tower_is_taken_and_told_and_the_rest_is_new(make_config, first, tmp_path, capsys):
    parts = ("image", "text_projection")
    config = continued(make_config, first, parts, seed=5, ema_decay=None)
    pretrain(config, tmp_path)
    told = capsys.readouterr().err
    assert f"taken from {first}, step 3:" in told
    assert "image: " in told
    assert "made anew:" in told
    old, new = (tree_names(load_run(folder).params) for folder in (first, tmp_path))
    for name, x in new.items():
        same = np.array_equal(old[name], x)
        if name.startswith(("image/", "text_projection/")):
            assert same, name
        elif x.size > 1 and np.ptp(x):  # what is not initialised to one value
            assert not same, name


def test_a_text_tower_comes_with_its_tokenizer(make_config, first, tmp_path):
    config = continued(make_config, first, ("text",))
    config.data.options.root = str(tmp_path / "other")
    other = tmp_path / "other"
    other.mkdir()
    for i in range(64):
        shutil.copy(pathlib.Path(make_config().data.options.root, f"{i}.png"), other)
    rows = "".join(
        f"{i}.png,words of another world,{'test' if i > 47 else 'train'}\n" for i in range(64)
    )
    (other / "texts.csv").write_text("image,text,split\n" + rows)
    pretrain(config, tmp_path / "run", quiet=True)
    names = [(folder / "tokenizer.json").read_text() for folder in (first, tmp_path / "run")]
    assert names[0] == names[1]


def test_it_happens_once_at_the_beginning(make_config, first, tmp_path):
    config = continued(make_config, first, ("image",))
    config.optimizer.learning_rate = 1e-3
    pretrain(config, tmp_path, quiet=True)
    config.steps = 2
    config.initialize_from.workdir = str(tmp_path / "gone")
    pretrain(config, tmp_path, quiet=True)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    ("parts", "change", "message"),
    [
        (("sound",), {}, r"the model has no \['sound'\]; its parts are image"),
        ((), {}, r"the model has no part named"),
        (("image_projection",), {"embed_dim": 16}, r"image_projection/kernel: .*\(32, 32\).*16"),
    ],
)
def test_what_cannot_be_taken_is_named(make_config, first, tmp_path, parts, change, message):
    config = continued(make_config, first, parts)
    config.model.update(change)
    with pytest.raises(ValueError, match=message):
        pretrain(config, tmp_path, quiet=True)


def test_a_run_without_a_checkpoint_is_named(make_config, tmp_path):
    config = continued(make_config, tmp_path / "none", ("image",))
    with pytest.raises(FileNotFoundError, match="none has no checkpoints"):
        pretrain(config, tmp_path / "run", quiet=True)
