"""A run so small that it is mostly start-up, and a way to start it in several processes."""

import contextlib
import csv

import numpy as np
import pytest
from PIL import Image
from processes import ROOT, Processes, command, free_port

CONFIG = """
from ml_collections import ConfigDict
from mmjax.training.config import read_config

def get_config():
    config = read_config({smoke!r})
    with config.unlocked():
        config.name = "tiny"
        config.data.source = "folder"
        config.data.options = ConfigDict({{"root": {root!r}}})
        config.data.image.size, config.data.image.channels = 16, 3
        config.evaluation.sets, config.evaluation.batch_size = ("test",), 16
        image = config.model.towers.image
        image.depth, image.scan_layers, image.remat, image.pooling = 1, False, False, "mean"
        config.model.towers.text = ConfigDict({{"encoder": "bag_of_words", "width": 32}})
        config.model.dtype = "float32"
        config.steps, config.batch_size, config.checkpoint.every = 60, 16, 8
        # Small steps: sums in another order differ in last digits, which large ones would amplify.
        config.optimizer.learning_rate = 2e-4
    return config.lock()
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A configuration file: 60 steps of 16 coloured squares, a checkpoint every 8."""
    root = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    with (root / "texts.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "text", "split"])
        for i in range(80):
            level = np.array([(i >> bit) % 2 for bit in range(3)]) * 200
            pixels = (level + rng.integers(0, 40, (16, 16, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"{i}.png")
            table.writerow([f"{i}.png", f"kind {i % 8}", "train" if i < 64 else "test"])
    path = root / "tiny.py"
    path.write_text(CONFIG.format(smoke=str(ROOT / "configs/smoke.py"), root=str(root)))
    return path


@pytest.fixture
def launch():
    """Start ``experiments.pretrain`` in processes that find each other; ended with the test."""
    started = []

    def start(config, workdir, *flags, processes=1, devices=1, port=None, each=None):
        """``each``: by number of a process, a ``config`` or ``workdir`` of its own."""
        address = f"--coordinator=127.0.0.1:{port or free_port()}"
        commands = []
        for number in range(processes):
            own = (each or {}).get(number, {})
            place = [address, f"--processes={processes}", f"--process={number}"]
            commands.append(
                command(
                    own.get("config", config),
                    own.get("workdir", workdir),
                    *flags,
                    *(place if processes > 1 else ()),
                )
            )
        started.append(Processes(commands, devices))
        return started[-1]

    yield start
    for run in started:
        for process in run.each:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            process.stdout.close()
