import os
import signal
import threading

import pytest

import mmjax.training.loop as loop
from mmjax.training import Preempted, pretrain
from mmjax.training.journal import read_metrics
from mmjax.training.preemption import Notice


def test_sigterm_is_noticed_while_listening_and_does_what_it_did_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with Notice() as notice:
        assert not notice.came()
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.came()
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_leaves_the_signal_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def listen():
        with Notice() as notice:
            seen.append((notice.came(), signal.getsignal(signal.SIGTERM) == before))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


@pytest.mark.parametrize("after", [1, 2, 3])  # a checkpoint is due after 2
def test_a_run_that_is_told_to_leave_saves_and_goes_on_bit_by_bit(
    make_config, tmp_path, monkeypatch, after
):
    write = loop.Journal.write

    def told(self, step, scalars):
        if step == after:
            os.kill(os.getpid(), signal.SIGTERM)
        write(self, step, scalars)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Journal, "write", told)
        with pytest.raises(Preempted, match=r"saved after step (\d)") as caught:
            pretrain(make_config(steps=6), tmp_path, quiet=True)
    saved = int(str(caught.value).split("step ")[1][0])
    assert after <= saved < 6
    assert len(read_metrics(tmp_path)) == saved
    assert str(saved) in {path.name for path in (tmp_path / "checkpoints").iterdir()}
    pretrain(make_config(steps=6), tmp_path, quiet=True)
    pretrain(make_config(steps=6), tmp_path / "whole", quiet=True)
    assert lines(tmp_path) == lines(tmp_path / "whole")


def lines(workdir):
    return (workdir / "metrics.jsonl").read_text()
