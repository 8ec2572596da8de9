"""Imports point down the rooms; each room knows only the libraries that it may know."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "mmjax"

# Lowest first. A room imports from lower levels and from itself, never from its own level's others.
LEVELS = [
    {"arrays", "atomic", "__version__"},
    {"reduction", "modalities"},
    {"losses", "information", "alignment", "metrics", "data"},
    {"encoders", "fusion", "fission"},
    {"models"},
    {"evaluation"},  # below training: a run evaluates itself
    {"training"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

PURE = {"flax", "optax", "orbax", "grain"}
FORBIDDEN = {
    **dict.fromkeys(LEVELS[0] | LEVELS[1] | LEVELS[2] - {"data"}, PURE),
    "data": {"jax", "flax", "optax", "orbax"},  # runs on hosts, in threads, before any device
}
NOWHERE = {"experiments", "configs", "tests", "torch", "tensorflow"}
NAMELESS = {"util", "utils", "common", "misc", "helper", "helpers"}

SOURCES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = ("mmjax", "experiments", "configs", "tests")


def imported_names(source, path="<source>"):
    """Every dotted name that the source imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def complaints(room, source):
    """What is wrong with a module of this room importing what it does."""
    for name in imported_names(source):
        library, _, rest = name.partition(".")
        if library in NOWHERE | FORBIDDEN.get(room, set()):
            yield f"{room} imports {name}, and may not import {library}"
        if library == "mmjax":
            other = rest.partition(".")[0]
            if other not in LEVEL:
                yield f"{room} imports {name}, which is no room: import the thing from its room"
            elif other != room and LEVEL[other] >= LEVEL[room]:
                yield f"{room} imports {name}, which is not below it"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        assert not list(imported_names(path.read_text())), "import mmjax has to stay free"
    else:
        assert room in LEVEL, f"{room} is no room: give it a level here and in the README"
        assert not list(complaints(room, path.read_text()))


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("losses", "from mmjax.encoders import MLP"),
        ("losses", "import mmjax.metrics"),
        ("losses", "def f():\n    import flax.linen as nn"),
        ("evaluation", "from mmjax import training"),
        ("data", "import jax.numpy as jnp"),
        ("models", "from mmjax import pretrain"),
        ("training", "import configs.icons"),
    ],
)
def test_an_import_that_points_elsewhere_is_noticed(room, line):
    assert list(complaints(room, line))


def test_an_import_that_points_down_is_not_complained_about():
    assert not list(complaints("training", "import jax, flax\nfrom mmjax.evaluation import embed"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_has_a_concept_for_a_name(folder):
    paths = (ROOT / folder).rglob("*")
    assert not [str(p) for p in paths if "__pycache__" not in p.parts and p.stem in NAMELESS]
