"""A configuration is a fork of another one: all of them say everything that a run asks for."""

import pathlib

import pytest

from mmjax.training.config import field_names, read_config

ROOT = pathlib.Path(__file__).parents[2]
# Their fields are the keyword arguments of a function or a module, which checks them itself.
FREE = ("model.towers.", "data.options.", "data.image.augmentation.", "data.arrays.")


def fields(path):
    return {name for name in field_names(read_config(path)) if not name.startswith(FREE)}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_every_configuration_has_the_same_fields_and_the_name_of_its_file(path):
    assert fields(path) == fields(ROOT / "configs/smoke.py")
    assert read_config(path).name == path.stem
    assert f"--config=configs/{path.name}" in path.read_text()
