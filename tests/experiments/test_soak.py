import json
import subprocess
import sys

from processes import ROOT, environment


def soak(workdir, tiny, *flags):
    return subprocess.run(
        [
            sys.executable, "-m", "experiments.soak", f"--config={tiny}", f"--workdir={workdir}",
            "--set=steps=20", *flags,
        ],
        cwd=ROOT,
        env=environment(devices=1),
        capture_output=True,
        text=True,
    )  # fmt: skip


def test_three_kills_change_nothing(tiny, tmp_path):
    done = soak(tmp_path / "soak", tiny, "--kills=3")
    assert done.returncode == 0, done.stderr
    assert "3 kills in " in done.stdout
    assert "none differs" in done.stdout
    result = json.loads((tmp_path / "soak/soak.json").read_text())
    assert result["kills"] == len(result["each"]) == 3
    assert result["lines_compared"] == 20 * result["runs_compared"]
    assert (tmp_path / "soak/soak.svg").read_text().count("<title>") == 3


def test_a_run_that_does_not_come_out_the_same_is_told(tiny, tmp_path):
    """A configuration that depends on the clock: the lines cannot be the same."""
    other = tmp_path / "clock.py"
    seed = "config.seed = __import__('time').time_ns() % 2**31\n    return config"
    other.write_text(tiny.read_text().replace("return config", seed))
    done = soak(tmp_path / "soak", other, "--kills=1")
    assert done.returncode == 1
    assert "line 1: expected " in done.stderr
