"""Evaluate a run: ``python -m experiments.evaluate --workdir=runs/icons``.

Prints retrieval (and zero-shot, where classes are given) of the newest checkpoint on the sets of
the run's configuration or on those of ``--sets``, and writes them to ``evaluation.json`` there.
"""

import json
import pathlib

from absl import flags

from experiments.command_line import run_command
from mmjax.atomic import replacing
from mmjax.training import load_run

WORKDIR = flags.DEFINE_string("workdir", None, "the run's work folder", required=True)
SETS = flags.DEFINE_list("sets", None, "splits to evaluate; those of the configuration if not set")
CLASSES = flags.DEFINE_list("classes", None, "class names for zero-shot classification by label")
TEMPLATES = flags.DEFINE_multi_string(
    "template", None, "a prompt with {} for the class name; may be given several times"
)


def main() -> None:
    """Evaluate and print."""
    trained = load_run(WORKDIR.value)
    options = trained.run.config.evaluation
    with options.unlocked():
        options.sets = tuple(SETS.value or options.sets)
        options.zero_shot.classes = tuple(CLASSES.value or options.zero_shot.classes)
        options.zero_shot.templates = tuple(TEMPLATES.value or options.zero_shot.templates)
    results = {name: found.metrics for name, found in trained.evaluate().items()}
    print(f"{WORKDIR.value}, step {trained.step}")
    for name, metrics in results.items():
        print(f"\n{name}")
        for metric, value in metrics.items():
            share = "recall" in metric or "accuracy" in metric
            print(f"  {metric:42s} {value:8.1%}" if share else f"  {metric:42s} {value:8.3g}")
    path = pathlib.Path(WORKDIR.value, "evaluation.json")
    with replacing(path) as file:
        file.write(json.dumps({"step": trained.step, "sets": results}, indent=2).encode())
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    run_command(main)
