"""The first table of ``mutual_information`` in torch: the peer's recipe in its own framework.

One run of the released code is a draw: runs differ by up to a fifth at a level, as the critics have
15 hidden units and each level begins where the one before ended. So this trains four, in about a
minute and a half of a core for each estimator, and prints their mean and deviation. The estimates
are those of the released code (Cheng et al. 2020, arXiv:2006.12013)::

    nice python -m experiments.reproduce.mutual_information_torch
    python -m experiments.reproduce.mutual_information_torch NWJ
"""

import math
import sys
from typing import Any

import numpy as np
import torch

from experiments.reproduce.mutual_information import BATCH, HIDDEN, LEVELS, PAIRS, PEER, RATE

RUNS, STEPS, LAST = 4, 4000, 500

Layers = list[tuple[torch.Tensor, torch.Tensor]]


def perceptron(runs: int, inputs: int, hidden: int, outputs: int) -> Layers:
    """Two layers for each run, with torch's own beginning."""
    layers = []
    for rows, columns in ((inputs, hidden), (hidden, outputs)):
        made = [torch.nn.Linear(rows, columns) for _ in range(runs)]
        kernel = torch.stack([layer.weight.detach().T for layer in made])
        bias = torch.stack([layer.bias.detach() for layer in made])[:, None]
        layers.append((kernel.requires_grad_(), bias.requires_grad_()))
    return layers


def apply(layers: Layers, x: torch.Tensor) -> torch.Tensor:
    """A perceptron with rectified units, ``[run, row, feature]``."""
    (kernel, bias), (last, offset) = layers
    return torch.relu(x @ kernel + bias) @ last + offset


def scores(layers: Layers, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What the critic says of all pairs, ``[run, row of x, row of y]``."""
    (kernel, bias), (last, offset) = layers
    d = x.shape[-1]
    halves = (x @ kernel[:, :d])[:, :, None] + (y @ kernel[:, d:] + bias)[:, None]
    return (torch.relu(halves) @ last[:, None] + offset[:, None])[..., 0]


def start(name: str, runs: int) -> list[Layers]:
    """Parameters of an estimator."""
    if name == "CLUB":
        return [perceptron(runs, PAIRS, HIDDEN // 2, PAIRS) for _ in range(2)]
    return [perceptron(runs, 2 * PAIRS, HIDDEN, 1)]


def estimate(
    name: str, parameters: list[Layers], x: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each run maximises, and its estimate."""
    if name == "CLUB":
        mean, log_variance = apply(parameters[0], x), torch.tanh(apply(parameters[1], x))
        precision = torch.exp(-log_variance)
        own = (y - mean) ** 2 * precision
        centre = y.mean(dim=1, keepdim=True)
        spread = (y - centre).square().mean(dim=1, keepdim=True)
        all_pairs = (spread + (centre - mean) ** 2) * precision
        likelihood = -(own + log_variance).sum(dim=2).mean(dim=1)
        return likelihood, (all_pairs - own).sum(dim=2).mean(dim=1) / 2
    said = scores(parameters[0], x, y)
    if name == "InfoNCE":
        said = torch.nn.functional.softplus(said)
    joint = torch.diagonal(said, dim1=1, dim2=2).mean(dim=1)
    if name == "InfoNCE":
        found = joint - said.logsumexp(dim=2).mean(dim=1) + math.log(said.shape[2])
    elif name == "NWJ":
        found = joint - (said - 1).exp().mean(dim=(1, 2))
    else:
        draws = torch.randint(said.shape[2], said.shape[:2])
        drawn = torch.gather(said, 2, draws[..., None])[..., 0]
        found = joint - drawn.exp().mean(dim=1).log()
    return found, found


def benchmark(name: str, *, runs: int, steps: int, last: int) -> np.ndarray:
    """Estimates of one estimator, ``[level, run]``; each level goes on from the one before."""
    torch.manual_seed(0)
    parameters = start(name, runs)
    flat: list[Any] = [array for layers in parameters for layer in layers for array in layer]
    optimizer = torch.optim.Adam(flat, RATE)
    means = []
    for level in LEVELS:
        rho = math.sqrt(-math.expm1(-2 * level / PAIRS))
        estimates = []
        for _ in range(steps):
            x, noise = torch.randn(2, runs, BATCH, PAIRS)
            objective, found = estimate(
                name, parameters, x, rho * x + math.sqrt(1 - rho**2) * noise
            )
            optimizer.zero_grad()
            (-objective.sum()).backward()
            optimizer.step()
            estimates.append(found.detach().numpy())
        means.append(np.mean(estimates[-last:], axis=0))
    return np.stack(means)


def main(names: list[str]) -> None:
    """Print the table."""
    if unknown := set(names) - set(PEER):
        sys.exit(f"error: estimators are {', '.join(PEER)}; got {', '.join(unknown)}")
    print(f"in nats, mean and deviation over {RUNS} runs")
    print(f"{'information':12s}" + "".join(f"{level:>12.0f}" for level in LEVELS))
    for name in names or PEER:
        found = benchmark(name, runs=RUNS, steps=STEPS, last=LAST)
        cells = zip(found.mean(axis=1), found.std(axis=1), strict=True)
        print(f"{name:12s}" + "".join(f"{m:7.2f} {s:.2f}" for m, s in cells), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
