"""Train a model: ``python -m experiments.pretrain --config=configs/icons.py``.

Any field can be changed on the command line, ``--config.batch_size=64``. The same command goes on
where an interrupted run stopped.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from experiments.command_line import run_command
from mmjax.training import pretrain

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "where the run's files go; runs/<config> if not set")
flags.mark_flag_as_required("config")


def main() -> None:
    """Run what the flags say."""
    workdir = WORKDIR.value or pathlib.Path("runs", CONFIG.value.name)
    pretrain(CONFIG.value, workdir)


if __name__ == "__main__":
    run_command(main)
