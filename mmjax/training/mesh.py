"""Devices as a named mesh, and the rules that say which parameter dimension lies on which axis.

Parameters carry logical axis names ("embed", "mlp", ...). Data parallel, FSDP and tensor parallel
are the same code: only the sizes of the mesh axes differ.
"""

import math
from collections.abc import Mapping
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


def make_mesh(sizes: Mapping[str, int]) -> Mesh:
    """Mesh over all devices with the axes ``data``, ``fsdp`` and ``tensor``.

    Args:
        sizes: devices along each axis; at most one may be -1, "all that is left".

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
    devices = jax.device_count()
    if shape.count(-1) == 1:
        known = -math.prod(shape)
        shape = [devices // known if size == -1 else size for size in shape]
    if min(shape) < 1 or math.prod(shape) != devices:
        raise ValueError(
            f"the mesh {dict(sizes)} does not cover the {devices} devices; make the product of its"
            " axes that number, or set one axis to -1"
        )
    return jax.make_mesh(tuple(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise ValueError if the devices that share the rows do not divide ``batch_size``."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
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
