"""The notebooks run from top to bottom, install nothing over JAX, and are committed clean."""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
from importlib.machinery import ModuleSpec

import nbclient
import nbformat
import numpy as np
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COLAB = "https://colab.research.google.com/github/mmjax/mmjax/blob/main/notebooks/"


def read(path):
    return nbformat.read(path, as_version=4)


def execute(name, report, workdir, **environment):
    """Run a notebook in ``workdir`` by this very Python; the value of the dict ``report`` there.

    Args:
        name: of the notebook, without its suffix.
        report: an expression over the names that the notebook leaves behind.
        workdir: its current folder; what the kernel itself keeps goes there as well.
        environment: variables of the kernel.

    Returns:
        What ``report`` is worth after the last cell, and all that the cells printed.
    """
    notebook = read(ROOT / "notebooks" / f"{name}.ipynb")
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json; print(json.dumps({report}))"))
    spec = workdir / "kernels" / "this-python"
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    content = {"argv": command, "display_name": "this Python", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(content))
    specs = KernelSpecManager(kernel_dirs=[str(spec.parent)])
    client = nbclient.NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_name=spec.name, kernel_spec_manager=specs),
        resources={"metadata": {"path": str(workdir)}},
        timeout=300,
    )
    environment |= {
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(workdir / "ipython"),
        # Here compiling costs more than running: a third of the time goes with the optimizer.
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0",
    }
    client.execute(env=os.environ | environment, cleanup_kc=True)  # also of a manager of ours
    *cells, last = (
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    )
    return json.loads(last), "".join(cells)


def test_first_loss_runs_sharded_and_learns(tmp_path):
    report, _ = execute(
        "00_first_loss",
        """{
            "devices": jax.device_count(),
            "difference": float(difference),
            "masked": [float(masked_mean(masked, where)), float(deleted.mean())],
            "losses": {name: [values[0], values[-1]] for name, values in history.items()},
        }""",
        tmp_path,
        JAX_NUM_CPU_DEVICES="8",
    )
    assert report["devices"] == 8
    assert report["difference"] < 1e-5
    np.testing.assert_allclose(*report["masked"], rtol=1e-6)
    assert set(report["losses"]) == {"InfoNCE", "CLIP", "SigLIP"}
    for name, (first, last) in report["losses"].items():
        assert last < first / 2, name


def test_pretraining_on_icons_trains_saves_and_resumes(tmp_path):
    report, printed = execute(
        "01_pretrain_on_icons",
        """{
            "report": str(longer.report.resolve()),
            "steps": [line["step"] for line in read_metrics(workdir)],
            "same": all(
                np.array_equal(rows, family.embedded.embeddings[name])
                for name, rows in loaded.embeddings.items()
            ),
            "saved": len(loaded.ids),
            "accuracy": accuracy["zero_shot_accuracy@1"],
            "classes": len(classes),
            "searched": image_rows.shape[0],
        }""",
        tmp_path,
        MMJAX_NOTEBOOK_SMALL="1",
    )
    assert report["steps"] == list(range(1, 9))  # six steps, and two when it is resumed
    assert "going on from the checkpoint of step 6" in printed
    assert pathlib.Path(report["report"]).is_relative_to(tmp_path)
    assert pathlib.Path(report["report"]).read_text().startswith("<!DOCTYPE html>")
    assert report["same"]
    assert report["saved"] == 1000
    assert report["searched"] == 2000
    assert report["classes"] >= 10
    assert 0 <= report["accuracy"] <= 1


def test_operators_capture_what_their_form_allows(tmp_path):
    report, _ = execute(
        "02_fusion",
        """{
            "captured": captured,
            "limits": limits,
            "bits": bits,
            "survives": survives,
        }""",
        tmp_path,
        MMJAX_NOTEBOOK_SMALL="1",
    )
    captured, bits, survives = (report[key] for key in ("captured", "bits", "survives"))
    for task, limit in report["limits"].items():
        assert captured["additive"][task] < limit + 0.03, task
        for operator in ("multiplicative", "low_rank", "gated"):
            assert captured[operator][task] > 0.95, (operator, task)
    for operator, told in bits.items():
        multiplies = operator in ("multiplicative", "low_rank", "gated")
        np.testing.assert_allclose(told["xor"], multiplies, atol=0.05, err_msg=operator)
    cases = list(survives.values())
    for found, truth in zip(cases[::2], cases[1::2], strict=True):
        for gate, wanted in truth.items():
            np.testing.assert_allclose(found[gate], wanted, atol=0.1, err_msg=gate)


def test_embeddings_know_what_they_were_trained_to_know(tmp_path):
    report, _ = execute(
        "03_fission",
        """{
            "error": float(abs(found[: len(gates)] - truth).max()),
            "knowledge": knowledge,
            "measured": measured.tolist(),
            "off": (abs(corrected) / spread).tolist(),
        }""",
        tmp_path,
        MMJAX_NOTEBOOK_SMALL="1",
    )
    assert report["error"] < 1e-5
    (redundancy, *unique, synergy), others = range(4), report["knowledge"]
    truth, contrastive, shared, own = others.values()
    assert [row.index(1) for row in truth.values()] == [redundancy, *unique, synergy]
    for embeddings in (contrastive, shared):
        assert embeddings["shared"][redundancy] > 0.15
        for label in list(truth)[1:]:
            assert sum(embeddings[label]) < 0.3, label
    for label, part in zip(list(truth)[1:], [*unique, synergy], strict=True):
        assert own[label][part] > 0.3, label
        assert sum(own[label]) - own[label][part] < own[label][part] / 3, label
    assert report["measured"][0] > 3 * report["measured"][-1] > 0
    assert max(report["off"]) < 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs_and_with_a_badge(path):
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
    assert re.findall(rf"\({re.escape(COLAB)}(.*)\)", notebook.cells[0].source) == [path.name]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_only_one_cell_installs(path):
    code = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    assert [index for index, source in enumerate(code) if re.search(r"\bpip\b", source)] == [0]


# A folder that merely bears the name, such as a clone, is found as a spec without an origin.
@pytest.mark.parametrize("found", [None, ModuleSpec("mmjax", None)], ids=["absent", "folder"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_installing_keeps_the_jax_that_is_there(path, found, tmp_path, monkeypatch):
    cell = next(cell for cell in read(path).cells if cell.cell_type == "code")
    commands = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    exec(cell.source, {})

    *clones, pip = commands
    assert all(command[:2] == ["git", "clone"] for command in clones)
    assert pip[:4] == [sys.executable, "-m", "pip", "install"]
    pinned = pathlib.Path(pip[pip.index("--constraint") + 1]).read_text().splitlines()
    for name in ("jax", "jaxlib", "numpy"):
        assert f"{name}=={importlib.metadata.version(name)}" in pinned
    # The package alone is asked for: nothing may be named, upgraded or built anew beside it.
    options = {"--quiet", "--constraint", "keep-jax.txt"}
    (package,) = set(pip[4:]) - options
    assert "mmjax" in package
