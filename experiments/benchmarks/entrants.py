"""What takes part in a benchmark: value and gradient of one loss, ready to be run and timed."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.benchmarks.peers import Peer, peer_module
from mmjax.reduction import masked_mean

AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Problem:
    """What every entrant of a loss is called with, in NumPy.

    Attributes:
        rows: the positional arguments, ``[n, d]``; differentiated.
        learned: scalars, by name; differentiated.
        constants: further options, by name: numbers, or integers ``[n]``.
        dtype: of the rows, wherever they are used.
    """

    rows: tuple[np.ndarray, ...]
    learned: Mapping[str, float]
    constants: Mapping[str, Any]
    dtype: str


@dataclasses.dataclass
class Entrant:
    """Value and gradient of one loss by one library.

    Attributes:
        name: what the table calls it.
        run: computes both once and waits for them; None if it cannot be run, ``note`` says why.
        measure: runs it for the first time and gives the bytes a device that were in use at most,
            besides arguments, or None where that cannot be told.
        compiled: bytes a device that XLA sets aside besides arguments and results, if XLA does it.
        measured: what ``measure`` gave.
        seconds: of every timed run.
        note: what else a reader has to know.
    """

    name: str
    run: Callable[[], None] | None = None
    measure: Callable[[], int | None] | None = None
    compiled: int | None = None
    measured: int | None = None
    seconds: list[float] = dataclasses.field(default_factory=list)
    note: str = ""


def device_mesh(devices: int) -> Mesh:
    """The first ``devices`` devices on one axis."""
    found = jax.devices()
    if len(found) < devices:
        raise ValueError(f"--devices={devices}, but JAX has {len(found)} {found[0].platform} ones")
    return Mesh(np.array(found[:devices]), (AXIS,), axis_types=(AxisType.Auto,))


def free_bytes(devices: int) -> float:
    """Bytes that each of the devices may still take; virtual ones share their host's."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    meminfo = pathlib.Path("/proc/meminfo")
    if not meminfo.exists():
        return np.inf
    (line,) = (s for s in meminfo.read_text().splitlines() if s.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024 / devices


def ours(name: str, loss: Callable, problem: Problem, mesh: Mesh, **options: Any) -> Entrant:
    """A loss of mmjax; over several devices its rows are sharded with ``shard_map``."""
    shards = mesh.size > 1
    if shards:
        options |= {"axis_name": AXIS}

    def cost(rows, learned, constants):
        values = loss(*rows, **learned, **constants, **options)
        return masked_mean(values, axis_name=AXIS if shards else None)

    step = jax.value_and_grad(cost, (0, 1))
    if shards:
        specs = _tree(problem, rows=P(AXIS), scalar=P())
        step = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=(P(), specs[:2]))
    return _compiled(name, step, problem, mesh)


def dense(name: str, loss: Callable, problem: Problem, mesh: Mesh) -> Entrant:
    """A loss of the whole batch in JAX; over several devices XLA shards it."""

    def cost(rows, learned, constants):
        return loss(*rows, **learned, **constants)

    return _compiled(name, jax.value_and_grad(cost, (0, 1)), problem, mesh)


def _tree(problem: Problem, *, rows: Any, scalar: Any) -> tuple[Any, Any, Any]:
    """The three arguments of a step, with the same thing for all rows and for all scalars."""
    return (
        tuple(rows for _ in problem.rows),
        dict.fromkeys(problem.learned, scalar),
        {name: rows if np.ndim(value) else scalar for name, value in problem.constants.items()},
    )


def _compiled(name: str, step: Callable, problem: Problem, mesh: Mesh) -> Entrant:
    arguments = (
        tuple(jnp.asarray(x, problem.dtype) for x in problem.rows),
        {key: jnp.float32(value) for key, value in problem.learned.items()},
        jax.tree.map(jnp.asarray, dict(problem.constants)),
    )
    place = functools.partial(NamedSharding, mesh)
    places = _tree(problem, rows=place(P(AXIS)), scalar=place(P()))
    arguments = jax.device_put(arguments, places)
    # Gradients are wanted where their rows are.
    jitted = jax.jit(step, out_shardings=(place(P()), places[:2]))
    compiled = jitted.lower(*arguments).compile()
    memory = compiled.memory_analysis()

    def run():
        jax.block_until_ready(compiled(*arguments))

    entrant = Entrant(name, compiled=None if memory is None else memory.temp_size_in_bytes)
    if entrant.compiled is not None and entrant.compiled > free_bytes(mesh.size):
        entrant.note = "does not fit in memory"
    else:
        entrant.run, entrant.measure = run, functools.partial(_xla_peak, run)
    return entrant


def of_peer(name: str, peer: Peer, problem: Problem, mesh: Mesh) -> Entrant:
    """A loss of another library; one that torch runs has one device, whatever ours have."""
    accelerated = jax.default_backend() == "gpu"
    if peer.cuda and not accelerated:
        return Entrant(name, note="runs on CUDA only")
    n = len(problem.rows[0])
    try:
        peer_module(peer.module)
    except ImportError as error:
        return Entrant(name, note=str(error))
    if peer.framework == "jax":
        return dense(name, peer.function, problem, mesh)
    if not peer.cuda and peer.held(n) > free_bytes(1):
        return Entrant(name, note=f"not run: holds some {peer.held(n) / 2**30:,.0f} GiB")
    return _of_torch(name, peer, problem, "cuda" if accelerated else "cpu")


def _of_torch(name: str, peer: Peer, problem: Problem, device: str) -> Entrant:
    torch = peer_module("torch")
    if device == "cuda" and not torch.cuda.is_available():
        return Entrant(name, note="this torch has no CUDA")
    dtype = getattr(torch, problem.dtype)
    rows = [torch.tensor(x, device=device, dtype=dtype, requires_grad=True) for x in problem.rows]
    learned = {
        key: torch.tensor(value, device=device, requires_grad=True)
        for key, value in problem.learned.items()
    }
    constants = {
        key: torch.tensor(value, device=device) if np.ndim(value) else value
        for key, value in problem.constants.items()
    }
    differentiated = [*rows, *learned.values()]

    def run():
        value = peer.function(*rows, **learned, **constants)
        torch.autograd.grad(value, differentiated, allow_unused=True)
        if device == "cuda":
            torch.cuda.synchronize()

    measure = functools.partial(_cuda_peak if device == "cuda" else _profiled_peak, run)
    return Entrant(name, run, measure, note="torch on one device")


def warm_up(entrants: list[Entrant]) -> None:
    """Run each once and note its memory where that can be measured.

    The allocator of JAX only ever raises its peak, so that entrants go by the memory they will
    take: a peak that rises is the entrant's own. Another library's failure is a result: it is
    noted, and the entrant is left out.
    """
    for entrant in sorted(entrants, key=lambda e: e.compiled or 0):
        if entrant.measure is None:
            continue
        try:
            entrant.measured = entrant.measure()
        except Exception as error:
            entrant.run, entrant.note = None, f"failed: {str(error).partition(chr(10))[0]}"


def _xla_peak(run: Callable[[], None]) -> int | None:
    device = jax.devices()[0]
    before = device.memory_stats()
    run()
    after = device.memory_stats()
    if not before or not after or "peak_bytes_in_use" not in before:
        return None
    risen = after["peak_bytes_in_use"] > before["peak_bytes_in_use"]
    return after["peak_bytes_in_use"] - before["bytes_in_use"] if risen else None


def _cuda_peak(run: Callable[[], None]) -> int:
    cuda = peer_module("torch").cuda
    run()  # what is compiled and kept at the first run is not the loss's
    cuda.reset_peak_memory_stats()
    before = cuda.memory_allocated()
    run()
    return cuda.max_memory_allocated() - before


def _profiled_peak(run: Callable[[], None]) -> int:
    profiler = peer_module("torch.profiler")
    run()
    with profiler.profile(
        activities=[profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run()
    # Every allocation (positive) and release (negative), in the order of time.
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return int(np.max(np.cumsum(changes), initial=0))


def take_times(entrants: list[Entrant], rounds: int) -> None:
    """Time all entrants in turn, round after round: a busy machine hurts all of them alike."""
    for _ in range(rounds):
        for entrant in entrants:
            if entrant.run is not None:
                begin = time.perf_counter()
                entrant.run()
                entrant.seconds.append(time.perf_counter() - begin)


def matmul_peak(dtype: str, side: int = 8192, rounds: int = 10) -> float:
    """Operations a second of one device in a product of two square matrices."""
    precision = "highest" if dtype == "float32" else "default"
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=precision))
    # Random: a product of constants takes less power and so runs at a higher clock.
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    jax.block_until_ready(product(a))
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        jax.block_until_ready(product(a))
        seconds.append(time.perf_counter() - begin)
    return 2 * side**3 / float(np.median(seconds))
