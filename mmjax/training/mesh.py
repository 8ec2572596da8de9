"""Devices as a named mesh, and the rules that say which parameter dimension lies on which axis.

Parameters carry logical axis names ("embed", "mlp", ...). Data parallel, FSDP and tensor parallel
are the same code: only the sizes of the mesh axes differ.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))
RULES = (
    ("embed", "fsdp"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("vocab", "tensor"),
    ("conv_out", "tensor"),
    ("conv_in", "fsdp"),
    ("kv", None),
    ("layers", None),
)


def make_mesh(sizes: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh over all devices with the axes ``data``, ``fsdp`` and ``tensor``.

    Args:
        sizes: devices along each axis; at most one may be -1, "all that is left".
        devices: those of all processes if None; or others, such as those of a machine that a
            program is only compiled for.

    Returns:
        A mesh with automatic axes.

    Raises:
        ValueError: if an axis is unknown or the product is not the number of devices.

    >>> make_mesh({"data": -1}).axis_names
    ('data', 'fsdp', 'tensor')
    """
    if unknown := set(sizes) - set(AXES):
        raise ValueError(f"unknown mesh axes {sorted(unknown)}; the axes are {AXES}")
    shape = [sizes.get(axis, 1) for axis in AXES]
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if shape.count(-1) == 1:
        known = -math.prod(shape)
        shape = [count // known if size == -1 else size for size in shape]
    if min(shape) < 1 or math.prod(shape) != count:
        raise ValueError(
            f"the mesh {dict(sizes)} does not cover the {count} devices; make the product of its"
            " axes that number, or set one axis to -1"
        )
    axis_types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(shape), AXES, axis_types=axis_types, devices=devices)


def row_shards(mesh: Mesh) -> int:
    """Number of devices, or groups of tensor-parallel devices, that a batch is divided among."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise ValueError if the devices that share the rows do not divide ``batch_size``."""
    rows = row_shards(mesh)
    if batch_size % rows:
        raise ValueError(
            f"batch_size {batch_size} is not divisible by the {rows} devices that share its rows;"
            f" use {batch_size // rows * rows or rows} or {(batch_size // rows + 1) * rows}"
        )


def state_shardings(abstract: Any, mesh: Mesh) -> Any:
    """Shardings for a tree of abstract, logically annotated parameters (boxed or not).

    Args:
        abstract: what ``jax.eval_shape`` returns for ``init``.
        mesh: the devices.

    Returns:
        The unboxed tree with a ``NamedSharding`` for every leaf. A dimension that its mesh axis
        does not divide stays whole.
    """
    specs = nn.logical_to_mesh(nn.get_partition_spec(abstract), RULES)

    def sharding(leaf: jax.ShapeDtypeStruct, spec: PartitionSpec) -> NamedSharding:
        axes = tuple(spec) + (None,) * (leaf.ndim - len(spec))
        fits = (
            axis if axis is not None and size % mesh.shape[axis] == 0 else None
            for size, axis in zip(leaf.shape, axes, strict=True)
        )
        return NamedSharding(mesh, PartitionSpec(*fits))

    return jax.tree.map(sharding, nn.unbox(abstract), specs)


def global_rows(tree: Any, mesh: Mesh) -> Any:
    """This process's rows of a batch, as global arrays whose rows lie over the mesh."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


def replicated_rows(tree: Any, mesh: Mesh) -> Any:
    """A whole batch that every process holds alike, as global arrays with rows over the mesh."""
    sharding = NamedSharding(mesh, BATCH)

    def place(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(place, tree)


def vmap_rows(function: Callable[..., Any], mesh: Mesh, *, out_axes: Any = 0) -> Callable[..., Any]:
    """Map a function that applies a Linen module to one row over the rows of a batch.

    ``jax.vmap``, with the promise that the rows stay on the devices that they came to: whatever a
    module returns for them lies as the batch does. Without it, XLA may prefer to leave a parameter
    that is sharded over ``fsdp`` where it is, and to shard the features of the activations like it
    instead of their rows: a tensor parallelism that nobody asked for, with several times the
    traffic and memory. With it, parameters are gathered where a layer needs them, which is what
    FSDP is. Features are left to XLA, which lays those of hidden layers over ``tensor``, as their
    weights lie.

    Args:
        function: of one row of each argument, with no axis for the rows.
        mesh: the devices.
        out_axes: of the results, as for ``jax.vmap``.

    Returns:
        The function of all rows.
    """

    def pinned(x: Any) -> Any:
        # The axis of the rows is put in front by vmap, and lies where spmd_axis_name says.
        spec = PartitionSpec(*[PartitionSpec.UNCONSTRAINED] * x.ndim)
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        returned = call(*args, **kwargs)
        return jax.tree.map(pinned, returned) if context.method_name == "__call__" else returned

    def mapped(*arguments: Any) -> Any:
        (rows,) = BATCH
        with nn.intercept_methods(intercept):
            return jax.vmap(function, out_axes=out_axes, spmd_axis_name=rows)(*arguments)

    return mapped
