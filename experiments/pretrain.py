"""Train a model: ``python -m experiments.pretrain --config=configs/icons.py``.

Any field can be changed on the command line, ``--config.batch_size=64``. The same command goes on
where an interrupted run stopped.
"""

import pathlib

from absl import app, flags, logging
from ml_collections import config_flags

from mmjax.training import pretrain
from mmjax.training.config import parse_flags

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "where the run's files go; runs/<config> if not set")
flags.mark_flag_as_required("config")


def main(_: list[str]) -> None:
    """Run what the flags say."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells a lot; --verbosity=0 shows it.
    workdir = WORKDIR.value or pathlib.Path("runs", CONFIG.value.name)
    pretrain(CONFIG.value, workdir)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
