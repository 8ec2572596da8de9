import jax.numpy as jnp
import pytest

from mmjax.training.trace import Trace


def run(trace, first, last):
    with trace:
        for step in range(first, last + 1):
            trace.begin(step)
            trace.end(step, jnp.ones(3) * step)


def traces(folder):
    return list(folder.rglob("*.xplane.pb"))


@pytest.mark.parametrize(
    ("steps", "first", "last", "count"),
    [
        ((2, 3), 1, 5, 1),
        ([2, 3], 3, 5, 1),  # resumed within, from a configuration that was JSON
        ((2, 9), 1, 5, 1),  # the run ends first
        ((2, 3), 4, 5, 0),
        ((), 1, 5, 0),
    ],
)
def test_the_steps_are_traced_once(tmp_path, steps, first, last, count):
    run(Trace(steps, tmp_path), first, last)
    assert len(traces(tmp_path)) == count


@pytest.mark.parametrize("steps", [(1,), (3, 2), (0, 2), (1, 2, 3)])
def test_steps_that_cannot_be_are_refused(tmp_path, steps):
    with pytest.raises(ValueError, match=r"profile_steps must be \(\) or \(a, b\)"):
        Trace(steps, tmp_path)
