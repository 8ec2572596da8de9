"""What the README shows is true."""

import math
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

import mmjax.losses

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_code_runs_and_gives_the_loss_of_its_definition():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code, names)
    # Three valid pairs of orthogonal rows: log(e^10 + 2) - 10 each, in both directions.
    np.testing.assert_allclose(names["value"], math.log1p(2 * math.exp(-10)), atol=1e-6)
    assert all(jnp.isfinite(gradient).all() for gradient in names["gradients"])


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


def test_every_public_loss_is_in_the_readme():
    for name in mmjax.losses.__all__:
        assert name in ("Kernel", "Queue") or f"`{name}" in README, name
