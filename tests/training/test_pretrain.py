"""Whole runs on a tiny data set: what they write, how they stop, and how they go on."""

import json
import pathlib

import jax
import numpy as np
import pytest

import mmjax.training.loop as loop
from mmjax.data.skipped import TooManyUnreadable
from mmjax.training import BadLoss, load_run, pretrain
from mmjax.training.journal import read_metrics


def lines(workdir):
    return (workdir / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def whole(make_config, tmp_path_factory):
    """A run of four steps that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    with jax.numpy_dtype_promotion("standard"):
        result = pretrain(make_config(), workdir, quiet=True)
    return result


def test_a_run_leaves_what_it_promises(whole):
    names = {path.name for path in whole.workdir.iterdir()}
    assert names == {
        "checkpoints", "config.json", "metrics.jsonl", "report.html", "tensorboard", "timing.jsonl",
        "tokenizer.json",
    }  # fmt: skip
    history = read_metrics(whole.workdir)
    assert [line["step"] for line in history] == [1, 2, 3, 4]
    assert all(np.isfinite(line["loss"]) for line in history)
    last = {name for name in history[-1] if name.startswith("eval/")}
    assert {"eval/test/image_to_text_recall@1", "eval/test/text_to_image_recall@10"} <= last
    assert not [name for line in history[:-1] for name in line if name.startswith("eval/")]
    assert whole.metrics == history[-1]
    assert sorted(path.name for path in (whole.workdir / "checkpoints").iterdir()) == ["2", "4"]
    assert json.loads((whole.workdir / "config.json").read_text())["steps"] == 4


def test_a_finished_run_says_so_and_does_nothing(whole, make_config, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.workdir.rglob("*") if path.is_file()}
    again = pretrain(make_config(), whole.workdir)
    assert "finished at step 4 already: nothing was done" in capsys.readouterr().out
    assert again.metrics == whole.metrics
    after = {path: path.stat().st_mtime_ns for path in whole.workdir.rglob("*") if path.is_file()}
    assert after == before


def interrupted(config, workdir, monkeypatch, *, after):
    """Run until step ``after`` is written, then fail as a crash would."""
    write = loop.Journal.write

    def failing(self, step, scalars):
        write(self, step, scalars)
        if step == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.Journal, "write", failing)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, workdir, quiet=True)


@pytest.mark.parametrize("after", [1, 3])  # before the first checkpoint, and behind it
def test_an_interrupted_run_goes_on_bit_by_bit(whole, make_config, tmp_path, monkeypatch, after):
    interrupted(make_config(), tmp_path, monkeypatch, after=after)
    pretrain(make_config(), tmp_path, quiet=True)
    assert lines(tmp_path) == lines(whole.workdir)


def test_raised_steps_go_on_and_a_changed_field_is_told(make_config, tmp_path, capsys):
    pretrain(make_config(steps=2, profile_steps=(2, 2)), tmp_path, quiet=True)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    result = pretrain(make_config(steps=3), tmp_path)
    assert result.step == 3
    told = capsys.readouterr().err
    assert "going on from the checkpoint of step 2" in told
    assert "steps: 2 -> 3" in told
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    assert ">3 of 16 pairs<" in (tmp_path / "report.html").read_text()


def test_a_finished_run_opens_and_embeds_what_it_was_evaluated_on(whole):
    trained = load_run(whole.workdir)
    assert trained.step == 4
    (found,) = trained.evaluate().values()
    for name, value in found.metrics.items():
        assert value == whole.metrics[f"eval/test/{name}"]
    texts = trained.embed_texts(["a red bar", "a blue frame", "no such thing"])
    assert texts.shape == (3, 32)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)
    source = trained.run.source("test")
    images = trained.embed_images([source[i]["image"] for i in range(3)])
    np.testing.assert_allclose(images, found.embedded.embeddings["image"][:3], atol=2e-3)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        load_run(whole.workdir / "checkpoints")


def test_a_run_on_all_three_mesh_axes_has_the_loss_curve_of_data_parallel(
    whole, make_config, tmp_path
):
    """And its checkpoint gives sharded parameters back. Steps of all layouts: test_layouts.py."""
    sizes = {"data": 2, "fsdp": 2, "tensor": 2}
    pretrain(make_config(mesh=sizes), tmp_path, quiet=True)
    losses = [[line["loss"] for line in read_metrics(run)] for run in (tmp_path, whole.workdir)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    kernel = load_run(tmp_path).params["image"]["transformer"]["layer_0"]["mlp"]["hidden"]["kernel"]
    assert kernel.size // kernel.addressable_shards[0].data.size == 4


def test_a_checkpoint_of_another_architecture_lists_what_differs(whole, make_config):
    config = make_config(steps=6)
    config.model.embed_dim = 16
    config.model.towers.image.positions = "learned"
    before = lines(whole.workdir)
    with pytest.raises(ValueError, match="another architecture") as caught:
        pretrain(config, whole.workdir, quiet=True)
    message = str(caught.value)
    assert "image_projection/kernel: checkpoint (32, 32), model (32, 16)" in message
    assert "image/positions" in message
    assert lines(whole.workdir) == before

    config = make_config(steps=6)
    config.data.text.vocab_size = 20
    with pytest.raises(ValueError, match=r"is a word tokenizer of vocab_size None.*of 20"):
        pretrain(config, whole.workdir, quiet=True)

    with pytest.raises(ValueError, match="with a moving average"):
        pretrain(make_config(steps=6, ema_decay=None), whole.workdir, quiet=True)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(make_config, tmp_path):
    pretrain(make_config(), tmp_path, quiet=True)
    before = lines(tmp_path)
    config = make_config(steps=8)
    config.optimizer.learning_rate, config.optimizer.clip_norm = 1e38, float("inf")
    with pytest.raises(BadLoss, match=r"the checkpoint of step . is good") as caught:
        pretrain(config, tmp_path, quiet=True)
    (path,) = tmp_path.glob("bad_batch_step_*.npz")
    assert str(path) in str(caught.value)
    with np.load(path, allow_pickle=False) as batch:
        assert batch["inputs/image"].shape == (16, 16, 16, 3)
        assert batch["index"].shape == (16,)
    assert lines(tmp_path).startswith(before)
    kept = load_run(tmp_path)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(kept.params))


def test_unreadable_images_are_skipped_counted_and_shown(make_config, folder, tmp_path, capsys):
    broken = tmp_path / "data"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "5.png").write_bytes(b"no image at all")
    config = make_config()
    config.data.options.root = str(broken)
    pretrain(config, tmp_path / "run")
    assert "1 record skipped: 5.png" in capsys.readouterr().err
    assert "5.png" in (tmp_path / "run/report.html").read_text()

    for i in range(12):
        (broken / f"{i}.png").write_bytes(b"")
    config.steps = 8  # the share counts from 100 images on
    with pytest.raises(TooManyUnreadable, match=r"at most 5\.0%"):
        pretrain(config, tmp_path / "again", quiet=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 12}, "batch_size 12 is not divisible by the 8 devices"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch_size": 72}, r"batch_size must lie in \[1, 64\]"),
        ({"mesh": {"data": 3}}, "does not cover the 8 devices"),
        ({"loss": "clipp"}, "loss must be one of clip, siglip, got 'clipp'"),
    ],
)
def test_a_configuration_that_cannot_work_says_why(make_config, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        pretrain(make_config(**change), pathlib.Path(tmp_path), quiet=True)
