"""A loss, its rows and every gradient in each context in which JAX can run it."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
from definitions.case import SHARDS, N
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.reduction import masked_mean

DATA = P("data")
WEIGHTS = np.random.default_rng(0).uniform(0.5, 1.5, N).astype(np.float32)  # no two rows alike
LAYOUTS = {  # 24 rows are 3 on each shard: no chunk divides what it has to
    "dense": {"chunk_size": None},
    "chunked": {"chunk_size": 5},
    "ring": {"chunk_size": None, "ring": True},
    "ring-chunked": {"chunk_size": 2, "ring": True},
}
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile, the same arithmetic
UNSHARDED = ["unsharded", "jit"]
SHARDED = ["grad(shard_map)", "shard_map(grad)", "pmap(grad)"]


def runs(cases):
    """Name, context, layout and dtype of all that is run.

    A plain name is a loss and runs in everything. A name with a slash is an option of it, which
    knows of rows and pairs but not of shards: it runs in every layout, on one device and in the
    strictest of the sharded contexts, in float32.
    """
    for name, case in cases.items():
        option = "/" in name
        contexts = ["unsharded", "shard_map(grad)"] if option else UNSHARDED + SHARDED
        for context in contexts:
            sharded = LAYOUTS if context in SHARDED else ["dense", "chunked"]
            for layout in sharded if case.streamed else ["dense"]:
                yield name, context, layout, "float32"
                # Of dtypes the strictest context says all that the others could.
                if not option and context in ("unsharded", "shard_map(grad)"):
                    yield name, context, layout, "bfloat16"


def mesh(**axes):
    devices = np.array(jax.devices()[:SHARDS]).reshape(tuple(axes.values()))
    return Mesh(devices, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def differentiable(value):
    return jnp.issubdtype(value.dtype, jnp.floating)


def split(inputs):
    """What is differentiated, and what is not."""
    moving = {k: v for k, v in inputs.items() if differentiable(jnp.asarray(v))}
    return moving, {k: v for k, v in inputs.items() if k not in moving}


def specs(case, inputs, rows=DATA):
    """Scalars lie on every shard; all else is sharded by its first axis."""
    return {name: P() if name in case.scalars else rows for name in inputs}


def objective(case, layout, axis_name, moving, fixed, where, weights):
    """The weighted mean that is differentiated, and the rows behind it."""
    options = {**case.options, **moving, **fixed}
    if case.streamed:
        options |= LAYOUTS[layout]
    accepted = inspect.signature(case.function).parameters
    takes_axis = "axis_name" in accepted or any(p.kind == p.VAR_KEYWORD for p in accepted.values())
    if takes_axis:
        options["axis_name"] = axis_name
    found = case.function(**options, where=where)
    if case.whole:
        return found, found
    return masked_mean(found * weights, where, axis_name), found


@functools.cache
def compiled(case, context, layout):
    """``run(inputs, where, weights) -> (value, rows), gradients`` of global arrays."""

    def run(inputs, where, weights):
        moving, fixed = split(inputs)
        arguments = moving, fixed, where, weights
        local = functools.partial(objective, case, layout, None)
        if context == "unsharded":
            return jax.value_and_grad(local, has_aux=True)(*arguments)
        sharded = functools.partial(objective, case, layout, "data")
        placed = (specs(case, moving), specs(case, fixed), DATA, DATA)
        rows = P() if case.whole else DATA
        if context == "grad(shard_map)":
            inner = jax.shard_map(
                sharded, mesh=mesh(data=SHARDS), in_specs=placed, out_specs=(P(), rows)
            )
            return jax.value_and_grad(inner, has_aux=True)(*arguments)
        inner = jax.value_and_grad(sharded, has_aux=True)
        out = ((P(), rows), placed[0])
        return jax.shard_map(inner, mesh=mesh(data=SHARDS), in_specs=placed, out_specs=out)(
            *arguments
        )

    if context == "pmap(grad)":
        return functools.partial(pmapped, case, layout)
    if context == "unsharded":
        return jax.jit(run)
    if context != "jit":
        return jax.jit(run, compiler_options=QUICK)

    def automatic(inputs, where, weights):
        place = functools.partial(NamedSharding, mesh(data=SHARDS))
        wanted = jax.tree.map(place, (specs(case, inputs), DATA, DATA))
        inputs, where, weights = jax.device_put((inputs, where, weights), wanted)
        return placed_run(inputs, where, weights)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def placed_run(inputs, where, weights):
        moving, fixed = split(inputs)
        local = functools.partial(objective, case, layout, None)
        return jax.value_and_grad(local, has_aux=True)(moving, fixed, where, weights)

    return automatic


@functools.cache
def parallel(case, layout):
    sharded = functools.partial(objective, case, layout, "data")

    def local(rows, scalars, where, weights):
        moving, fixed = split({**rows, **scalars})
        return jax.value_and_grad(sharded, has_aux=True)(moving, fixed, where, weights)

    # Spelled out: a bare None among axes is taken for an empty tree where there are no scalars.
    rows = dict.fromkeys([*case.rows, *case.pairs, *case.others], 0)
    axes = rows, dict.fromkeys(case.scalars), 0, 0
    devices = jax.devices()[:SHARDS]
    return jax.pmap(local, axis_name="data", in_axes=axes, devices=devices)


def pmapped(case, layout, inputs, where, weights):
    """Gradients still have to be averaged over the shards, as the docstrings say."""

    def cut(x):
        return np.reshape(x, (SHARDS, -1, *np.shape(x)[1:]))

    rows = {name: cut(x) for name, x in inputs.items() if name not in case.scalars}
    scalars = {name: x for name, x in inputs.items() if name in case.scalars}
    (value, found), raw = parallel(case, layout)(rows, scalars, cut(where), cut(weights))
    gradients = {}
    for name, gradient in raw.items():
        if name in case.scalars:
            gradients[name] = np.mean(gradient, axis=0)
        else:  # that of the mean of the shards' values, too
            whole = np.asarray(gradient).reshape(-1, *gradient.shape[2:])
            gradients[name] = (np.float32(whole) / SHARDS).astype(whole.dtype)
    found = found[0] if case.whole else np.reshape(found, -1)
    return (value[0], found), gradients
