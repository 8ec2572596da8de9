"""Gradient caching: the loss of a whole batch, at the memory of a part of it."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Key

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.training.mesh import row_shards

Tree: TypeAlias = Any  # of arrays
Embed: TypeAlias = Callable[[Tree, Tree, jax.Array], Tree]
Loss: TypeAlias = Callable[[Tree, Tree], jax.Array]
ValueAndGrad: TypeAlias = Callable[[Tree, Tree, jax.Array], tuple[tuple[jax.Array, Tree], Tree]]


def cached_value_and_grad(embed: Embed, loss: Loss, *, micro_batches: int) -> ValueAndGrad:
    r"""Value and gradient of a loss over a batch that is too large to be embedded at once.

    .. math:: \nabla_\theta L(f_\theta(x_1), \dots, f_\theta(x_n))
              = \sum_{j=1}^{k} \sum_{i \in B_j} \frac{\partial L}{\partial f_\theta(x_i)}
                \frac{\partial f_\theta(x_i)}{\partial \theta}

    Every part :math:`B_j` is embedded without keeping its activations; the loss of all rows gives
    the slopes :math:`\partial L / \partial f_\theta(x_i)`; then every part is embedded once more,
    and its slopes are pulled back. Every row meets the negatives of the whole batch, and only the
    activations of one part are alive at a time, for the price of a second forward pass.

    The result is that of the whole batch, random noise included, because every row has a key of its
    own, see :func:`row_keys`. Part ``j`` is every ``micro_batches``-th row from row ``j`` on: where
    a batch is sharded over devices, each has rows of every part, and none moves to another device.

    Args:
        embed: ``embed(params, rows, keys) -> outputs``: one model call. ``rows`` is a part of the
            batch and ``keys`` holds one key per row. The outputs are a tree of floating-point
            arrays: some have one entry per row, which must depend on that row and its key only
            (no batch statistics); the shape of the others, such as the scale of the logits, does
            not depend on the number of rows, and they are averaged over the parts.
        loss: ``loss(outputs, batch) -> scalar``, of the outputs of all rows, in their order.
        micro_batches: number of parts; 1 embeds the batch at once and caches nothing.

    Returns:
        ``f(params, batch, key) -> (value, outputs), grads``, pure, for use under ``jax.jit``.
        ``batch`` is a tree of arrays with one entry per row, ``key`` a typed random key. Gradients
        are summed over the parts in float32 or wider, and have the dtype of their parameters.

    Raises:
        ValueError: if ``micro_batches`` is below 1; while tracing, if it does not divide the rows,
            if the arrays of the batch do not have equally many rows, for an output that is no
            float, or for a kind of key whose noise depends on its neighbours.

    Source: Gao et al. 2021 (GradCache), arXiv:2101.06983, sec. 3.2. There, a part replays the state
    of the generator, so that its two passes agree and the noise still depends on the cut; here the
    noise is that of the whole batch. Learned scalars of the loss, which are outputs here, are ours.

    >>> def embed(weight, rows, keys):
    ...     return {"rows": rows * weight, "scale": weight}
    >>> def loss(outputs, batch):
    ...     return outputs["scale"] * jnp.sum(outputs["rows"]) ** 2
    >>> step = cached_value_and_grad(embed, loss, micro_batches=2)
    >>> (value, _), slope = step(jnp.float32(2), jnp.arange(4.0), jax.random.key(0))
    >>> print(value, slope)  # 36 weight ** 3
    288.0 432.0
    """
    if micro_batches < 1:
        raise ValueError(f"micro_batches must be at least 1, got {micro_batches}")

    def at_once(params: Tree, batch: Tree, key: jax.Array) -> Any:
        keys = row_keys(key, _row_count(batch))

        def cost(params: Tree) -> tuple[jax.Array, Tree]:
            outputs = embed(params, batch, keys)
            return loss(outputs, batch), outputs

        return jax.value_and_grad(cost, has_aux=True)(params)

    def in_parts(params: Tree, batch: Tree, key: jax.Array) -> Any:
        n = _row_count(batch)
        _check_parts(n, micro_batches, key)
        keys = row_keys(key, n)

        def embed_part(params: Tree, index: jax.Array) -> Tree:
            return embed(params, *_part((batch, keys), index, micro_batches))

        parts = jnp.arange(micro_batches, dtype=jnp.int32)
        stacked = jax.lax.map(functools.partial(embed_part, params), parts)
        per_row = _per_row(stacked, whole=jax.eval_shape(embed, params, batch, keys))
        outputs = jax.tree.map(_join, stacked, per_row)
        value, slopes = jax.value_and_grad(loss)(outputs, batch)

        def slopes_of(index: jax.Array) -> Tree:
            def of(slope: jax.Array, rows: bool) -> jax.Array:
                return _part(slope, index, micro_batches) if rows else slope / micro_batches

            return jax.tree.map(of, slopes, per_row)

        def add_part(total: Tree, index: jax.Array) -> tuple[Tree, None]:
            _, pull_back = jax.vjp(lambda params: embed_part(params, index), params)
            (grads,) = pull_back(slopes_of(index))
            return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, grads), None

        zeros = jax.tree.map(lambda p: jnp.zeros_like(p, accumulation_dtype(p)), params)
        total, _ = jax.lax.scan(add_part, zeros, parts)
        return (value, outputs), jax.tree.map(lambda t, p: t.astype(p.dtype), total, params)

    return at_once if micro_batches == 1 else in_parts


@checked
def row_keys(key: Key[jax.Array, ""], rows: int) -> Key[jax.Array, "{rows}"]:
    """Give every row of a batch a key of its own.

    What row ``i`` draws from it is a function of ``(key, i)`` alone: not of the number of rows, of
    the part that the row is embedded in, nor of the device that it lies on. With ``jax.vmap`` over
    rows and keys a model that knows of none of this can be given such noise, see
    :func:`mmjax.training.step.embed_rows`.

    Args:
        key: of the step.
        rows: rows of the whole batch, over all devices.

    Returns:
        One key per row.

    >>> few, many = (jax.random.key_data(row_keys(jax.random.key(0), n)) for n in (2, 5))
    >>> bool((few == many[:2]).all())
    True
    """
    numbers = jnp.arange(rows, dtype=jnp.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def check_micro_batches(micro_batches: int, batch_size: int, mesh: Mesh) -> None:
    """Raise ValueError if ``micro_batches`` does not divide the rows that each device has."""
    devices = row_shards(mesh)
    rows = batch_size // devices
    if micro_batches < 1 or rows % micro_batches:
        possible = ", ".join(str(k) for k in range(1, rows + 1) if rows % k == 0)
        raise ValueError(
            f"micro_batches must divide the {rows} rows that each of {devices} devices has of"
            f" batch_size {batch_size}, got {micro_batches}; use one of {possible}"
        )


def _part(tree: Tree, index: jax.Array, parts: int) -> Tree:
    """Every ``parts``-th row from row ``index`` on; a device that holds rows takes its own."""

    def cut(x: Array) -> jax.Array:
        table = x.reshape(len(x) // parts, parts, *x.shape[1:])
        return jax.lax.dynamic_index_in_dim(table, index, axis=1, keepdims=False)

    return jax.tree.map(cut, tree)


def _join(stacked: jax.Array, per_row: bool) -> jax.Array:
    """Undo the cut: rows in their order, or the mean over the parts of what is no row."""
    if not per_row:
        return jnp.mean(stacked, axis=0)
    parts, rows, *rest = stacked.shape
    return jnp.swapaxes(stacked, 0, 1).reshape(parts * rows, *rest)


def _per_row(stacked: Tree, *, whole: Tree) -> Tree:
    """Whether an output has one entry per row: then its shape follows the number of rows."""

    def kind(path: Any, stack: jax.Array, whole: jax.ShapeDtypeStruct) -> bool:
        name, part = jax.tree_util.keystr(path), stack.shape[1:]
        if not jnp.issubdtype(stack.dtype, jnp.floating):
            raise ValueError(
                f"outputs of embed must be floats, got {stack.dtype} for {name}; what needs no"
                " gradient can be part of the batch, which the loss gets too"
            )
        if part == whole.shape:
            return False
        if part and (len(stack) * part[0], *part[1:]) == whole.shape:
            return True
        raise ValueError(
            f"outputs of embed must have one entry per row on their first axis, or a shape that"
            f" does not depend on the rows, got {name} of {part} for a part and {whole.shape} for"
            " all rows"
        )

    return jax.tree_util.tree_map_with_path(kind, stacked, whole)


def _row_count(batch: Tree) -> int:
    """Number of rows of a batch, which all of its arrays have."""
    shapes = {
        jax.tree_util.keystr(path): jnp.shape(x)
        for path, x in jax.tree_util.tree_leaves_with_path(batch)
    }
    counts = {shape[:1] for shape in shapes.values()}
    if len(counts) != 1 or () in counts:
        raise ValueError(
            f"arrays of the batch must have the same number of rows, got the shapes {shapes}; what"
            " is the same for all rows belongs into embed and loss themselves"
        )
    ((count,),) = counts
    return count


def _check_parts(n: int, micro_batches: int, key: jax.Array) -> None:
    if n % micro_batches:
        raise ValueError(
            f"micro_batches must divide the rows of the batch, got {micro_batches} for {n} rows"
        )
    kind = str(jax.random.key_impl(key))
    if kind != "threefry2x32":
        raise ValueError(
            f"with micro_batches, keys must be of the kind threefry2x32, got {kind}: there, what a"
            " row draws depends on the rows beside it, so that the two passes and the whole batch"
            " would differ; unset jax_default_prng_impl"
        )
