"""Checkpoints on their own: what stays, what is found damaged, and what then is used."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from mmjax.training.checkpoints import Checkpoints
from mmjax.training.description import DamagedCheckpoint
from mmjax.training.keep import Keep


def made(step):
    """A state with everything that a run's has, small."""
    rng = np.random.default_rng(step)
    params = {"kernel": jnp.asarray(rng.normal(size=(64, 32)), jnp.float32), "bias": jnp.ones(3)}
    ema = {name: x.astype(jnp.bfloat16) for name, x in params.items()}
    return {"params": params, "ema": ema, "opt_state": (jnp.int32(step), None), "step": step}


def abstract(state):
    place = SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), as_arrays(state)
    )


def as_arrays(state):
    return jax.tree.map(jnp.asarray, state)


def save(folder, *steps, keep=None, metrics=None):
    with Checkpoints(folder, keep=keep) as checkpoints:
        for step in steps:
            scores = (metrics or {}).get(step)
            checkpoints.save(step, as_arrays(made(step)), {"steps": 9}, scores)
        checkpoints.wait()
        return checkpoints.steps


def same(state, step):
    expected = as_arrays(made(step))
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state, expected))


@pytest.fixture
def two(tmp_path):
    """A folder with the checkpoints of steps 1 and 2."""
    assert save(tmp_path / "two", 1, 2) == [1, 2]
    return tmp_path / "two"


def test_the_newest_comes_back_bit_by_bit_with_what_was_said_of_it(two):
    with Checkpoints(two) as checkpoints:
        restored = checkpoints.restore(abstract(made(2)))
        assert (restored.step, restored.damaged) == (2, {})
        assert same(restored.state, 2)
        said = checkpoints.description(2)
        assert said["config"] == {"steps": 9}
        assert said["arrays"]["params/kernel"][:2] == [[64, 32], "float32"]
        assert said["arrays"]["ema/bias"][:2] == [[3], "bfloat16"]
        assert [checkpoints.verify(step) for step in (1, 2)] == ["", ""]


def arrays_file(folder):
    """The file that holds most of the bytes."""
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x10
    path.write_bytes(data)


def flipped_array(folder):
    flip(arrays_file(folder), 0.5)


def cut_short(folder):
    path = arrays_file(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lost_file(folder):
    arrays_file(folder).unlink()


def lost_manifest(folder):
    (folder / "state/manifest.ocdbt").unlink()


def lost_tree(folder):
    (folder / "state/_METADATA").unlink()


def changed_configuration(folder):
    path = folder / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace('"steps": 9', '"steps": 8'))


def broken_description(folder):
    path = folder / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace('"performance_metrics"', '"pesformance_metrics"'))


def lost_description(folder):
    (folder / "_CHECKPOINT_METADATA").unlink()


DAMAGES = {
    flipped_array: "the bits of ",
    cut_short: "cannot be read",
    lost_file: "cannot be read",
    lost_manifest: "cannot be read",
    lost_tree: "cannot be read",
    changed_configuration: "its description was changed",
    broken_description: "its description cannot be read",
    lost_description: "its description cannot be read",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_newest_is_named_set_aside_and_the_one_before_used(two, damage, capfd):
    damage(two / "2")
    with Checkpoints(two) as checkpoints:
        restored = checkpoints.restore(abstract(made(1)))
        assert restored.step == 1
        assert same(restored.state, 1)
        assert list(restored.damaged) == [2]
        assert DAMAGES[damage] in restored.damaged[2]
        assert sorted(path.name for path in two.iterdir()) == ["1", "damaged-2"]
        # The run comes to step 2 again, and saves it again.
        checkpoints.save(2, as_arrays(made(2)), {"steps": 9})
        checkpoints.wait()
        assert checkpoints.verify(2) == ""
    assert "Traceback" not in capfd.readouterr().err


def test_a_flipped_bit_is_found_wherever_it_is(two):
    """Orbax itself loads most of such files and says nothing."""
    path, found = arrays_file(two / "2"), 0
    whole = path.read_bytes()
    for place in np.linspace(0.01, 0.99, 25):
        flip(path, place)
        with Checkpoints(two, writes=False) as checkpoints:
            if checkpoints.verify(2):
                found += 1
            else:  # the bit means nothing, such as one between two arrays
                assert same(checkpoints.restore(abstract(made(2)), steps=[2]).state, 2)
        path.write_bytes(whole)
    assert found > 20


def test_who_only_reads_leaves_a_damaged_checkpoint_where_it_is(two):
    flipped_array(two / "2")
    with Checkpoints(two, writes=False) as checkpoints:
        assert checkpoints.restore(abstract(made(1))).step == 1
    assert sorted(path.name for path in two.iterdir()) == ["1", "2"]


@pytest.mark.parametrize("damage", [flipped_array, broken_description])
def test_if_none_is_whole_nothing_begins_anew_silently(two, damage):
    for step in "12":
        damage(two / step)
    message = r"(?s)no checkpoint in .* is whole:.*step 1"
    with pytest.raises(DamagedCheckpoint, match=message), Checkpoints(two) as checkpoints:
        checkpoints.restore(abstract(made(1)))
    assert {path.name for path in two.iterdir()} == {"1", "2"}


def test_what_a_killed_process_left_half_written_is_named_and_removed(two):
    left = two / "3.orbax-checkpoint-tmp"
    left.mkdir()
    (left / "state").touch()
    with Checkpoints(two) as checkpoints:
        assert checkpoints.unfinished == [left.name]
        assert checkpoints.steps == [1, 2]
        checkpoints.save(3, as_arrays(made(3)), {})
    assert {path.name for path in two.iterdir()} == {"2", "3"}


def test_a_part_is_restored_alone(two):
    part = {"ema": abstract(made(2))["ema"]}
    with Checkpoints(two) as checkpoints:
        state = checkpoints.restore(part, steps=[1], part=True).state
    assert list(state) == ["ema"]
    np.testing.assert_array_equal(state["ema"]["kernel"], as_arrays(made(1))["ema"]["kernel"])


def test_what_does_not_fit_is_listed_and_nothing_is_set_aside(two):
    wanted = abstract(made(2))
    wanted["params"]["bias"] = jax.ShapeDtypeStruct((4,), jnp.float32)
    wanted["params"]["other"] = jax.ShapeDtypeStruct((2,), jnp.bfloat16)
    with Checkpoints(two) as checkpoints:
        with pytest.raises(ValueError, match="another architecture") as caught:
            checkpoints.restore(wanted)
        assert checkpoints.steps == [1, 2]
    assert "bias: checkpoint (3,), model (4,)" in str(caught.value)
    assert "other: checkpoint has none, model (2,) bfloat16" in str(caught.value)


def test_a_step_that_is_not_there_is_not_found(two):
    with Checkpoints(two) as checkpoints:
        with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 7 .*\[1, 2\]"):
            checkpoints.restore(abstract(made(1)), steps=[7])
        checkpoints.forget_after(1)
        assert checkpoints.steps == [1]


SCORES = {step: {"recall": value} for step, value in {2: 0.5, 4: 0.9, 6: 0.7, 8: 0.9}.items()}


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Keep(latest=1), [9]),
        (Keep(latest=3), [7, 8, 9]),
        (Keep(latest=1, every=4), [4, 8, 9]),
        (Keep(latest=1, metric="recall"), [4, 9]),
        (Keep(latest=1, metric="recall", best=2), [4, 8, 9]),
        (Keep(latest=1, metric="recall", highest=False), [2, 9]),
        # 9 was saved on a notice to leave: it does not count as one of the two.
        (Keep(latest=2, scheduled=lambda step: step % 2 == 0), [6, 8, 9]),
    ],
)
def test_checkpoints_stay_by_rule(keep, kept):
    metrics = {step: SCORES.get(step, {}) for step in range(1, 10)}
    assert sorted(keep.stay(metrics)) == kept


def test_what_no_rule_names_is_removed_also_by_a_later_call(tmp_path):
    keep = Keep(latest=1, metric="recall")
    assert save(tmp_path, 1, 2, 3, keep=keep, metrics={1: {"recall": 0.9}, 2: {"recall": 0.1}})
    assert save(tmp_path, 4, 5, keep=keep, metrics={4: {"recall": 0.2}}) == [1, 5]
    assert {path.name for path in tmp_path.iterdir()} == {"1", "5"}


def test_a_metric_that_no_evaluation_gives_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"'recal' is none of .*: recall"):
        save(tmp_path, 1, keep=Keep(metric="recal"), metrics={1: {"recall": 0.9}})


def test_a_checkpoint_holds_no_code(two):
    """Every file is JSON, or one of tensorstore's: a pickle begins with 0x80."""
    for path in filter(pathlib.Path.is_file, two.rglob("*")):
        head = path.read_bytes()[:1]
        if head == b"{":
            json.loads(path.read_text())
        assert head != b"\x80", path
        assert path.suffix not in {".pkl", ".pickle", ".pt"}
