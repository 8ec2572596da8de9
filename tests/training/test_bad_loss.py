"""A loss that is no number, or jumps: judged, and then stopped at, skipped or rolled back from."""

import contextlib
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmjax.training.bad_loss as bad_loss
import mmjax.training.design as design
import mmjax.training.loop as loop
from mmjax.training import BadLoss, Preempted, load_run, pretrain
from mmjax.training.bad_loss import WINDOW, LossWatch, judge, without_update
from mmjax.training.journal import read_metrics


def judged(losses, *, spike):
    """Which of a sequence of losses are bad, and the last watch."""
    watch, found = LossWatch.fresh(), []
    step = jax.jit(lambda watch, loss: judge(watch, loss, jnp.float32(1), spike=spike))
    for loss in losses:
        bad, watch = step(watch, jnp.float32(loss))
        found.append(bool(bad))
    return found, watch


def by_definition(losses, spike):
    """The same in plain Python: a median of the last good losses, once there are enough."""
    good, found = [], []
    for loss in losses:
        recent = good[-WINDOW:]
        bad = not math.isfinite(loss)
        if not bad and spike is not None and len(recent) > WINDOW // 2:
            whole = recent + [math.inf] * (WINDOW - len(recent))
            bad = loss > spike * np.median(whole)
        if not bad:
            good.append(loss)
        found.append(bad)
    return found


@pytest.mark.parametrize("spike", [None, 1.5, 3.0])
def test_the_judgement_is_that_of_the_definition(spike):
    rng = np.random.default_rng(0)
    losses = rng.lognormal(0, 0.5, 300).astype(np.float32)
    losses[[5, 100, 101, 200]] = [np.nan, np.inf, 1e6, -np.inf]
    found, watch = judged(losses, spike=spike)
    assert found == by_definition(losses.tolist(), spike)
    assert int(watch.total) == sum(found)
    if spike == 1.5:
        assert 10 < sum(found) < 150


def test_a_gradient_that_is_no_number_is_bad_and_bad_steps_in_a_row_are_counted():
    watch, row = LossWatch.fresh(), []
    for norm in (1.0, np.nan, np.inf, 1.0, np.nan):
        _, watch = judge(watch, jnp.float32(1), jnp.float32(norm), spike=None)
        row.append(int(watch.in_a_row))
    assert row == [0, 1, 2, 0, 1]


def test_a_skipped_update_leaves_all_but_the_clock_of_the_learning_rate():
    params = {"w": jnp.arange(3.0)}
    optimizer = optax.adamw(optax.linear_schedule(1.0, 0.0, 10))
    old = optimizer.init(params)
    _, new = optimizer.update({"w": jnp.full(3, jnp.nan)}, old, params)
    kept = without_update(jnp.bool_(True), old, new)
    counts = optax.tree.get_all_with_path(kept, "count")
    assert {type_name(path): int(x) for path, x in counts} == {
        "ScaleByAdamState": 0, "ScaleByScheduleState": 1,
    }  # fmt: skip
    np.testing.assert_array_equal(optax.tree.get(kept, "mu")["w"], np.zeros(3))


def type_name(path):
    return path[-1].tuple_name


@pytest.fixture
def run(make_config, tmp_path, monkeypatch):
    """Train eight steps; say which batches make the loss NaN, jump, or are not there at all."""
    objective, batches = design.contrastive_objective, loop.training_batches

    def spoilt(outputs, where, **options):
        valid = where["image"].sum()
        factor = jnp.where(valid == 0, jnp.nan, jnp.where(valid == len(where["image"]), 1.0, 50.0))
        return objective(outputs, where, **options) * factor

    def train(name, *, bad=(), jumps=(), absent=(), **rule):
        def marked(*args, start_step, **options):
            with contextlib.closing(batches(*args, start_step=start_step, **options)) as rows:
                for number, batch in enumerate(rows, start_step + 1):
                    if number in absent:
                        continue
                    valid = 0 if number in bad else 15 if number in jumps else 16
                    yield batch | {"where": {k: np.arange(16) < valid for k in batch["where"]}}

        monkeypatch.setattr(design, "contrastive_objective", spoilt)
        monkeypatch.setattr(loop, "training_batches", marked)
        config = make_config(steps=8, mesh={"data": 1, "fsdp": 8, "tensor": 1})
        config.checkpoint.every, config.checkpoint.keep = 2, 9
        image = config.model.towers.image
        image.dropout = image.patch_dropout = 0.0  # whose noise is another at another step
        config.bad_loss.update(rule)
        pretrain(config, tmp_path / name)
        return read_metrics(tmp_path / name)

    return train


def column(history, name):
    return [line[name] for line in history]


def params(workdir, step):
    return jax.tree.leaves(load_run(workdir, step=step).params)


def test_a_skipped_update_is_told_counted_and_not_made(run, tmp_path, capfd):
    history = run("skip", bad={4, 5}, policy="skip", limit=2)
    assert column(history, "skipped") == [0, 0, 0, 1, 2, 2, 2, 2]
    assert np.flatnonzero(np.isnan(column(history, "loss"))).tolist() == [3, 4]
    assert '"loss": null' in (tmp_path / "skip/metrics.jsonl").read_text()
    said = capfd.readouterr().err
    assert re.search(r"step 4: loss nan, gradient norm .*\. Update skipped, 1 so far", said)
    assert "2, their loss was bad" in (tmp_path / "skip/report.html").read_text()
    # The parameters that meet batch 6 are those that met batch 4.
    other = run("without", absent={4, 5}, policy="skip")
    np.testing.assert_allclose(history[5]["loss"], other[3]["loss"], rtol=1e-6)
    schedule = column(other, "learning_rate")
    assert column(history, "learning_rate") == schedule

    with pytest.raises(BadLoss, match=r"Stopped after 1 updates skipped in a row; .* step 2 is"):
        run("again", bad={3, 4}, policy="skip", limit=1)


def test_a_spike_over_the_median_is_bad_too(run, monkeypatch):
    monkeypatch.setattr(bad_loss, "WINDOW", 4)
    history = run("spike", jumps={2, 7}, policy="skip", spike=5.0)
    assert column(history, "skipped") == [0, 0, 0, 0, 0, 0, 1, 1]  # at 2 too few were seen
    assert history[6]["loss"] > 5 * np.median(column(history[2:6], "loss"))
    with pytest.raises(BadLoss, match=r"step 7: loss .* Stopped; the checkpoint of step 6 is good"):
        run("stop", jumps={2, 7}, policy="stop", spike=5.0)


def test_a_rollback_passes_over_the_batches_that_led_there(run, tmp_path, capfd):
    history = run("rollback", bad={5}, policy="rollback")
    said = capfd.readouterr().err
    assert "step 5: loss nan" in said
    assert "Rolled back to step 4; 1 batches are passed over so far" in said
    assert column(history, "step") == list(range(1, 9))
    assert column(history, "passed_over") == [0] * 4 + [1] * 4
    other = run("without", absent={5}, policy="rollback")
    assert column(history, "loss") == column(other, "loss")
    assert "1, by rolling back" in (tmp_path / "rollback/report.html").read_text()


def test_a_rollback_comes_out_the_same_whenever_the_run_is_told_to_leave(
    run, tmp_path, monkeypatch
):
    """Bad is batch 6, and again the batch 7 that comes then; the checkpoint before is of step 4."""
    expected = run("whole", bad={6, 7}, policy="rollback")
    assert column(expected, "passed_over")[-1] == 3  # 5 and 6, then 7
    came = loop.Notice.came
    for after in (5, 6, 7):
        calls = iter([False] * (after - 1))  # then it has come, and stays
        monkeypatch.setattr(loop.Notice, "came", lambda _, calls=calls: next(calls, True))
        with pytest.raises(Preempted, match="told to leave: saved after step"):
            run(f"left_{after}", bad={6, 7}, policy="rollback")
        monkeypatch.setattr(loop.Notice, "came", came)
        run(f"left_{after}", bad={6, 7}, policy="rollback")
        assert lines(tmp_path / f"left_{after}") == lines(tmp_path / "whole")


def lines(workdir):
    return (workdir / "metrics.jsonl").read_text()


def test_rolling_back_has_an_end(run):
    with pytest.raises(BadLoss, match=r"Stopped after 2 rollbacks since step 4; .* step 4 is good"):
        run("end", bad={5, 6, 7}, policy="rollback", limit=2)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"policy": "ignore"}, "bad_loss.policy must be one of stop, skip, rollback, got 'ignore'"),
        ({"spike": 0.5}, "bad_loss.spike is a multiple of the median loss, above 1, got 0.5"),
        ({"limit": 0}, "bad_loss.limit must be at least 1, got 0"),
    ],
)
def test_a_rule_that_cannot_work_says_why(run, rule, message):
    with pytest.raises(ValueError, match=message):
        run("none", **rule)
