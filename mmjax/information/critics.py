r"""Critics: a score for every pair of rows, from arrays, for modules that own them.

``scores[i, j]`` is :math:`f(x_i, y_j)`, as :mod:`mmjax.information.lower_bounds` reads it. Invalid
rows are scored as if they were zeros, so that nothing they hold reaches a parameter; give the same
mask to the bound, which leaves their scores out.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked

Layer = tuple[Float[Array, "_ _"], Float[Array, "_"]]  # kernel and bias
Activation = Callable[[jax.Array], jax.Array]

CHUNK_SIZE = 32  # rows whose pairs are in memory together


@checked
def separable_scores(
    x: Float[Array, "n d"],
    y: Float[Array, "m d"],
    *,
    where_x: Bool[Array, "n"] | None = None,
    where_y: Bool[Array, "m"] | None = None,
) -> Float[jax.Array, "n m"]:
    r"""Product of two embeddings, :math:`f(x_i, y_j) = g(x_i) \cdot h(y_j)`.

    Args:
        x: rows :math:`g(x_i)`, as one network made them.
        y: rows :math:`h(y_j)`, as another did. Divide one of them by a temperature if wanted.
        where_x: valid rows of ``x``, all if None. An invalid one counts as zeros; its gradient is
            0 even where it holds NaN.
        where_y: valid rows of ``y``, likewise.

    Returns:
        The scores, float32 or wider.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Poole et al. 2019, arXiv:1905.06922, sec. 3, the separable critic.

    >>> print(separable_scores(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 1.0], [0.0, 1.0]])))
    [[5. 2.]]
    """
    dtype = accumulation_dtype(x, y)
    return _product("nd,md->nm", _valid(x, where_x), _valid(y, where_y), dtype)


@checked
def bilinear_scores(
    x: Float[Array, "n d"],
    y: Float[Array, "m e"],
    weight: Float[Array, "d e"],
    *,
    where_x: Bool[Array, "n"] | None = None,
    where_y: Bool[Array, "m"] | None = None,
) -> Float[jax.Array, "n m"]:
    r"""Bilinear critic, :math:`f(x_i, y_j) = x_i^\top W y_j`.

    Args:
        x: rows.
        y: rows, of as many features or others.
        weight: :math:`W`.
        where_x: valid rows of ``x``, all if None. An invalid one counts as zeros; its gradient is
            0 even where it holds NaN.
        where_y: valid rows of ``y``, likewise.

    Returns:
        The scores, float32 or wider.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: van den Oord et al. 2018, arXiv:1807.03748, eq. 3, the logarithm.

    >>> print(bilinear_scores(jnp.ones((1, 2)), jnp.eye(3), jnp.arange(6.0).reshape(2, 3)))
    [[3. 5. 7.]]
    """
    dtype = accumulation_dtype(x, y, weight)
    x, y = _valid(x, where_x), _valid(y, where_y)
    # The smaller side is multiplied first: m e d + n m d, or n d e + n m e.
    if len(x) <= len(y):
        return _product("ne,me->nm", _product("nd,de->ne", x, weight, dtype), y, dtype)
    return _product("nd,md->nm", x, _product("me,de->md", y, weight, dtype), dtype)


@checked
def concatenated_scores(
    x: Float[Array, "n d"],
    y: Float[Array, "m e"],
    layers: Sequence[Layer],
    *,
    activation: Activation = jax.nn.relu,
    where_x: Bool[Array, "n"] | None = None,
    where_y: Bool[Array, "m"] | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> Float[jax.Array, "n m"]:
    r"""Joint critic: a perceptron on the concatenation of every pair, split at its first layer.

    .. math:: f(x_i, y_j) = \mathrm{MLP}([x_i; y_j]), \qquad
              W [x_i; y_j] + b = W_x x_i + (W_y y_j + b)

    The two halves of the first layer see n + m rows instead of n m pairs. Pairs are first formed
    as the sum of the halves, a chunk of rows at a time; as soon as there is more than one chunk,
    the backward pass makes them anew, so that neither pass holds more than chunk_size x m hidden
    units of a layer.

    Args:
        x: rows.
        y: rows, of as many features or others.
        layers: kernels and biases; the first kernel has ``d + e`` rows, those of ``x`` first, the
            last one a single column. One layer alone is a sum of a term of x and one of y.
        activation: between the layers, elementwise.
        where_x: valid rows of ``x``, all if None. An invalid one counts as zeros; its gradient is
            0 even where it holds NaN.
        where_y: valid rows of ``y``, likewise.
        chunk_size: rows of ``x`` whose pairs with all ``y`` are in memory together.

    Returns:
        The scores, float32 or wider.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a kernel has not as many rows as the layer before has units (the first: as
            ``x`` and ``y`` have features), the last one more than one column, there is no layer,
            or ``chunk_size`` is below 1.

    Source: Poole et al. 2019, arXiv:1905.06922, sec. 3, the joint critic; the split is arithmetic.

    >>> layers = [(jnp.array([[1.0], [2.0]]), jnp.zeros(1)), (jnp.ones((1, 1)), jnp.ones(1))]
    >>> print(concatenated_scores(jnp.array([[1.0], [-9.0]]), jnp.array([[0.0], [3.0]]), layers))
    [[2. 8.]
     [1. 1.]]
    """
    _check_layers(x.shape[1], y.shape[1], layers)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    x, y = _valid(x, where_x), _valid(y, where_y)
    dtype = accumulation_dtype(x, y, *(array for layer in layers for array in layer))
    (kernel, bias), *rest = [
        (jnp.asarray(k).astype(dtype), jnp.asarray(b).astype(dtype)) for k, b in layers
    ]
    halves_x = _product("nd,dh->nh", x, kernel[: x.shape[1]], dtype)
    halves_y = _product("md,dh->mh", y, kernel[x.shape[1] :], dtype) + bias[None]

    def row(half: Float[jax.Array, "h"]) -> Float[jax.Array, "m"]:
        hidden = half[None] + halves_y
        for kernel, bias in rest:
            hidden = _product("mh,hk->mk", activation(hidden), kernel, dtype) + bias[None]
        return hidden[:, 0]

    if chunk_size >= len(x):
        return jax.vmap(row)(halves_x)
    return jax.lax.map(jax.checkpoint(row), halves_x, batch_size=chunk_size)


def _valid(rows: Array, where: Array | None) -> Array:
    return rows if where is None else jnp.where(where[:, None], rows, 0)


def _product(subscripts: str, a: Array, b: Array, dtype: jnp.dtype) -> jax.Array:
    operands = (jnp.asarray(z).astype(dtype) for z in (a, b))
    return jnp.einsum(subscripts, *operands, precision=jax.lax.Precision.HIGHEST)


def _check_layers(d: int, e: int, layers: Sequence[Layer]) -> None:
    if not layers:
        raise ValueError("layers must have at least one kernel and bias, got none")
    units = d + e
    for i, (kernel, bias) in enumerate(layers):
        if kernel.ndim != 2 or kernel.shape[0] != units or bias.shape != kernel.shape[1:]:
            wanted = f"{d} + {e} features" if i == 0 else f"{units} units of the layer before"
            raise ValueError(
                f"the kernel of layer {i} must have a row for each of the {wanted} and its bias "
                f"an entry for each column, got shapes {kernel.shape} and {bias.shape}"
            )
        units = kernel.shape[1]
    if units != 1:
        raise ValueError(f"the last layer must have one column, the score; got {units}")
