"""What a run leaves in its folder when it ends, well or not."""

import dataclasses
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from mmjax.atomic import replacing
from mmjax.data.pipeline import Batch
from mmjax.evaluation.report import ReportSet, write_report
from mmjax.training.config import as_json
from mmjax.training.journal import TIMING, read_metrics
from mmjax.training.run import Run


@dataclasses.dataclass(frozen=True)
class Result:
    """What :func:`mmjax.training.pretrain` returns: where things are, and the last scalars."""

    workdir: pathlib.Path
    step: int
    metrics: Mapping[str, float]
    report: pathlib.Path

    def closing_words(self, *, finished_before: bool) -> str:
        """What the run ends with."""
        already = " already: nothing was done" if finished_before else ""
        lines = [f"finished at step {self.step}{already}; raise --config.steps to go on"]
        for name, value in self.metrics.items():
            if name.startswith("eval/") and name.count("/") == 2 and name.endswith("@1"):
                lines.append(f"  {name} {value:.1%}")
        return "\n".join([*lines, f"report: {self.report}"])


def save_bad_batch(run: Run, step: int, batch: Batch) -> pathlib.Path:
    """Save this process's rows of the batch of a step that went wrong; ``numpy.load`` reads them.

    Args:
        run: gives the folder.
        step: number of the update.
        batch: its rows.

    Returns:
        The file: ``index`` (rows of the source) and the arrays of ``inputs/`` and ``where/``.
    """
    path = run.workdir / f"bad_batch_step_{step}_process_{jax.process_index()}.npz"
    arrays = {
        f"{kind}/{name}": x for kind in ("inputs", "where") for name, x in batch[kind].items()
    }
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, index=batch["index"], **arrays)
    return path


def write_run_report(
    run: Run, steps: int, evaluation: Mapping[str, ReportSet], path: pathlib.Path
) -> None:
    """Write ``report.html`` from what is in the work folder.

    Args:
        run: what was trained.
        steps: updates made.
        evaluation: of the last step.
        path: the file.
    """
    history, timing = read_metrics(run.workdir), read_metrics(run.workdir, name=TIMING)
    rates = [line["samples_per_second"] for line in timing]
    summary = run.summary() | {
        "steps": f"{steps} of {run.config.batch_size} pairs",
        "training time": f"{sum(line['seconds'] for line in timing):.0f} s",
        "samples per second (median)": f"{np.median(rates):.0f}" if rates else "too short to say",
    }
    if skipped := [line["skipped"] for line in history[-1:] if line.get("skipped")]:
        summary["updates skipped"] = f"{skipped[0]:.0f}, their loss was bad"
    if passed := [line["passed_over"] for line in history[-1:] if line.get("passed_over")]:
        summary["batches passed over"] = f"{passed[0]:.0f}, by rolling back from a bad loss"
    write_report(
        path,
        title=run.config.name,
        summary=summary,
        history=history,
        sets=evaluation,
        skipped=run.prepare.skipped.reasons,
        configuration=as_json(run.config),
    )
