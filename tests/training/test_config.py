import pathlib

import pytest

from mmjax.training.config import (
    as_json,
    changes,
    load_config,
    read_config,
    save_config,
    unknown_field,
)

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_locked_named_and_survives_json(path, tmp_path):
    config = read_config(path)
    assert config.name == path.stem
    assert f"--config=configs/{path.name}" in path.read_text()
    with pytest.raises(AttributeError):
        config.stepz = 3
    save_config(tmp_path / "config.json", config)
    assert as_json(load_config(tmp_path / "config.json")) == as_json(config)


def test_an_unknown_field_is_named_with_the_nearest():
    config = read_config(ROOT / "configs/smoke.py")
    assert unknown_field(config, "optimizer.learning_rate") is None
    message = unknown_field(config, "optimizer.learning_rte")
    assert "no field 'optimizer.learning_rte'; did you mean optimizer.learning_rate?" in message
    assert "the fields are bad_loss, " in unknown_field(config, "zzzzzz")


def test_changes_name_the_field_and_both_values():
    old, new = {"a": 1, "b": {"c": [1], "d": 2}}, {"a": 1, "b": {"c": [2]}, "e": 3}
    assert changes(old, new) == ["b.c: [1] -> [2]", "b.d: 2 -> None", "e: None -> 3"]


def test_a_file_that_is_no_configuration_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no configuration file .*none\.py"):
        read_config(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match=r"empty\.py has no function get_config"):
        read_config(tmp_path / "empty.py")
