"""A data set and a configuration so small that a whole run takes seconds."""

import csv
import pathlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from mmjax.training.config import read_config

ROOT = pathlib.Path(__file__).parents[2]
COLOURS = ("red", "green", "blue", "white")
SHAPES = ("bar", "column", "square", "frame")


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax's Adam raises a float to the power of an integer, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def draw(colour, shape, size=16):
    """A shape of one colour on black."""
    mask = np.zeros((size, size), bool)
    mask[{"bar": np.s_[6:10], "column": np.s_[:, 6:10]}.get(shape, np.s_[4:12, 4:12])] = True
    if shape == "frame":
        mask[6:10, 6:10] = False
    level = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    return (mask[..., None] * np.array(level.get(colour, (255, 255, 255)))).astype(np.uint8)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """64 training images and 16 test images of 16 kinds, noisy, with their texts."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    with (root / "texts.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "text", "label", "split"])
        for i in range(80):
            colour, shape = kinds[i % 16]
            noise = rng.integers(0, 40, (16, 16, 3))
            pixels = np.clip(draw(colour, shape) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"{i}.png")
            split = "train" if i < 64 else "test"
            table.writerow([f"{i}.png", f"a {colour} {shape}", colour, split])
    return root


@pytest.fixture(scope="session")
def make_config(folder):
    """The smoke configuration on that folder; keyword arguments replace top-level fields."""

    def make(**changes):
        config = read_config(ROOT / "configs/smoke.py")
        with config.unlocked():
            config.data.source = "folder"
            config.data.options = ConfigDict({"root": str(folder)})
            config.data.image.size, config.data.image.channels = 16, 3
            config.evaluation.sets, config.evaluation.batch_size = ("test",), 16
            # Two shallow towers: such a run compiles in seconds. The whole smoke configuration
            # runs in tests/experiments.
            image = config.model.towers.image
            image.depth, image.scan_layers, image.remat, image.pooling = 1, False, False, "mean"
            config.model.towers.text = ConfigDict({"encoder": "bag_of_words", "width": 32})
            config.model.dtype = "float32"
            config.steps, config.batch_size, config.checkpoint.every = 4, 16, 2
            for name, value in changes.items():
                config[name] = value
        return config

    return make
