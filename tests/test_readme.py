"""What the README shows is true."""

import importlib
import math
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

import mmjax.losses

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


LOSS, FUSION = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(code):
    names: dict = {}
    exec(code, names)
    return names


def test_the_loss_is_that_of_its_definition():
    names = run(LOSS)
    # Three valid pairs of orthogonal rows: log(e^10 + 2) - 10 each, in both directions.
    np.testing.assert_allclose(names["value"], math.log1p(2 * math.exp(-10)), atol=1e-6)
    assert all(jnp.isfinite(gradient).all() for gradient in names["gradients"])


def test_fusion_and_decomposition_give_what_they_say():
    names = run(FUSION)
    assert names["fused"].shape == (2, 16)
    np.testing.assert_allclose(names["parts"].synergy, 1, atol=1e-6)


def test_ci_runs_the_two_commands_of_the_readme():
    ci = (ROOT / ".ci/run").read_text()
    for part in ("-e '.[quickstart]'", "configs/icons.py", "-e '.[test]'", "-m pytest"):
        assert part in README
        assert part in ci


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_every_configuration_is_in_the_table():
    for path in (ROOT / "configs").glob("*.py"):
        assert re.search(rf"^\|[^|]*`{path.stem}`[^|]*\|", README, re.MULTILINE), path.stem


def test_what_the_tables_of_rooms_name_is_there():
    tables = re.findall(r"^\| to [\w ]+ \(`(mmjax\.\w+)`\) .*\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert [room for room, _ in tables] == [
        "mmjax.fusion", "mmjax.fission", "mmjax.information", "mmjax.alignment",
    ]  # fmt: skip
    for room, table in tables:
        named = set(re.findall(r"`(\w+)`", table))
        assert named
        assert named <= set(importlib.import_module(room).__all__), room


def test_every_public_loss_is_in_the_readme():
    for name in mmjax.losses.__all__:
        assert name in ("Kernel", "Queue") or f"`{name}" in README, name
