"""The peer's recipe in torch: the same estimates as ours, of the same parameters."""

import jax
import numpy as np
import pytest

from experiments.reproduce.mutual_information import BENCHMARK

torch = pytest.importorskip("torch")


def ours(layers, run):
    """Parameters of one run as ours are."""
    return [tuple(array[run].detach().numpy().reshape(shape) for array, shape in (
        (kernel, kernel.shape[1:]), (bias, bias.shape[2:])
    )) for kernel, bias in layers]  # fmt: skip


@pytest.mark.parametrize("name", ["NWJ", "InfoNCE", "CLUB"])
def test_estimates_are_those_of_ours(name):
    from experiments.reproduce.mutual_information_torch import PAIRS, estimate, start

    torch.manual_seed(0)
    parameters = start(name, 2)
    x, y = torch.randn(2, 2, 64, PAIRS)
    _, found = estimate(name, parameters, x, y + x)
    objective = jax.jit(BENCHMARK[name].objective)
    for run in range(2):
        mine = [ours(layers, run) for layers in parameters]
        given = mine if name == "CLUB" else mine[0]
        _, wanted = objective(given, x[run].numpy(), (x + y)[run].numpy(), jax.random.key(0))
        assert found[run].item() == pytest.approx(float(wanted[name]), rel=1e-3, abs=1e-4)


def test_every_estimator_trains():
    from experiments.reproduce.mutual_information_torch import LEVELS, benchmark

    for name in BENCHMARK:
        found = benchmark(name, runs=2, steps=3, last=2)
        assert found.shape == (len(LEVELS), 2)
        assert np.all(np.isfinite(found))
