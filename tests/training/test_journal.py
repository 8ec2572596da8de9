import json
import math

from mmjax.training.journal import METRICS, TIMING, Journal, read_metrics
from mmjax.training.meter import Meter

METER = Meter(devices=2, model_flops=1e9, peak_tflops=0.5)


def write(workdir, *, step, upto, **options):
    with Journal(workdir, step=step, steps=9, batch_size=4, meter=METER, **options) as journal:
        for now in range(step + 1, upto + 1):
            journal.write(now, {"loss": 1 / now})


def test_one_object_a_step_and_steps_after_the_checkpoint_come_again_once(tmp_path, capsys):
    write(tmp_path, step=0, upto=5)
    once = (tmp_path / METRICS).read_text()
    write(tmp_path, step=3, upto=5)
    assert (tmp_path / METRICS).read_text() == once
    assert [json.loads(line) for line in once.splitlines()] == [
        {"step": step, "loss": 1 / step} for step in range(1, 6)
    ]
    assert list((tmp_path / "tensorboard").glob("events*"))
    shown = capsys.readouterr().err
    for part in ("step 5/9", "loss 0.2000", "samples/s", "a device", "MFU", "waiting for", "left"):
        assert part in shown
    (*_, line) = read_metrics(tmp_path, name=TIMING)
    each = line["samples_per_second"] / 2
    assert line["samples_per_second_per_device"] == each
    assert math.isclose(line["mfu"], each * 1e9 / 0.5e12)


def test_a_half_written_last_line_is_left_out(tmp_path):
    write(tmp_path, step=0, upto=2)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 3, "lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    write(tmp_path, step=2, upto=3)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]


def test_a_process_that_does_not_report_writes_and_shows_nothing(tmp_path, capsys):
    write(tmp_path, step=0, upto=2, writes=False, shows=False)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err == ""
