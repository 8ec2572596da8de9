"""CLUB beside the quadratic form that it equals: ``python -m experiments.benchmarks.club``.

The bound's mean over all pairs, made three ways from the same rows in float32: ours, which needs
two moments; the quadratic form in JAX, which XLA fuses so that it only costs time; and, where torch
is installed, as the peer writes it, with all n x n x d differences in memory. Nothing is asserted.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.information.log_ratio import club


def quadratic(mean: jax.Array, log_variance: jax.Array, y: jax.Array) -> jax.Array:
    """Cheng et al. 2020, arXiv:2006.12013, sec. 3.2, without the pairs of a row with itself."""

    def log_density(y: jax.Array) -> jax.Array:
        return -jnp.sum((y - mean[:, None]) ** 2 * jnp.exp(-log_variance)[:, None], axis=-1) / 2

    apart = ~jnp.eye(len(y), dtype=bool)
    own = log_density(y[:, None])[:, 0]
    return jnp.mean(own - jnp.mean(log_density(y[None]), axis=1, where=apart))


def torch_quadratic(rows: tuple[np.ndarray, ...]) -> Callable[[], float]:
    """The same in torch, to be called as often as wanted."""
    import torch

    mean, log_variance, y = (torch.from_numpy(z) for z in rows)

    def run() -> float:
        n = len(y)
        precision = (-log_variance).exp()
        squares = (y[None] - mean[:, None]) ** 2  # n x n x d
        negative = (squares.sum(dim=1) * precision).sum(dim=1)
        own = ((y - mean) ** 2 * precision).sum(dim=1)
        return ((negative - own) / (n - 1) - own).mean().item() / 2

    return run


def entrants(n: int, d: int) -> dict[str, Callable[[], float]]:
    """What takes part, compiled; each call makes the bound once and waits for it."""
    rng = np.random.default_rng(0)
    mean, log_variance, y = rows = tuple(rng.normal(size=(3, n, d)).astype(np.float32))

    def ready(function: Callable[..., jax.Array]) -> Callable[[], float]:
        arguments = jax.device_put((mean, log_variance, y))
        compiled = jax.jit(function).lower(*arguments).compile()
        return lambda: float(compiled(*arguments))

    parts = {
        "ours": ready(lambda *z: jnp.mean(club(*z))),
        "quadratic, JAX": ready(quadratic),
    }
    if importlib.util.find_spec("torch") is not None:
        parts["quadratic, torch"] = torch_quadratic(rows)
    return parts


def club_seconds(n: int = 4096, d: int = 64, *, rounds: int = 3) -> dict[str, float]:
    """Median seconds of each way to make the bound, without the time to compile.

    Args:
        n: rows. The quadratic form in torch holds ``8 n^2 d`` bytes: 8 GiB for 4,096 rows of 64.
        d: features.
        rounds: timed calls of each, of which ours is fast enough for 20 times as many.

    Returns:
        Seconds by name; "ours" comes first.

    Raises:
        RuntimeError: if two ways disagree, since their times then mean nothing.
    """
    found = {}
    values = {}
    for name, run in entrants(n, d).items():
        values[name] = run()
        seconds = []
        for _ in range(20 * rounds if name == "ours" else rounds):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        found[name] = statistics.median(seconds)
    if not np.allclose(list(values.values()), values["ours"], rtol=1e-3):
        raise RuntimeError(f"the ways to make CLUB disagree: {values}")
    return found


if __name__ == "__main__":
    print("CLUB, n = 4,096, d = 64, forward")
    times = club_seconds()
    for label, seconds in times.items():
        print(f"{label:18s}{1e3 * seconds:12.2f} ms {seconds / times['ours']:12,.0f} x")
