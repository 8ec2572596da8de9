"""Embed a set with a run: ``python -m experiments.embed --workdir=runs/icons --set=random``.

Writes an ``.npz`` that ``numpy.load`` reads: ``ids``, per modality ``embeddings/<name>`` (float32,
unit rows) and ``owners/<name>`` (which id each row is of), and what could not be read.
"""

import pathlib

from absl import flags

from experiments.command_line import run_command
from mmjax.evaluation.embed import save_embeddings
from mmjax.training import load_run

WORKDIR = flags.DEFINE_string("workdir", None, "the run's work folder", required=True)
SET = flags.DEFINE_string("set", None, "the split to embed", required=True)
OUTPUT = flags.DEFINE_string("output", None, "the file; <workdir>/embeddings_<set>.npz if not set")


def main() -> None:
    """Embed and save."""
    trained = load_run(WORKDIR.value)
    embedded = trained.embed(trained.run.source(SET.value))
    path = pathlib.Path(OUTPUT.value or pathlib.Path(WORKDIR.value, f"embeddings_{SET.value}.npz"))
    save_embeddings(path, embedded)
    for name, rows in embedded.embeddings.items():
        print(f"{name}: {rows.shape[0]} rows of {rows.shape[1]} features")
    if embedded.skipped:
        print(f"{len(embedded.skipped)} records skipped, the first: {next(iter(embedded.skipped))}")
    print(f"{len(embedded.ids)} ids, step {trained.step}, written to {path}")


if __name__ == "__main__":
    run_command(main)
