"""Rows as codes of a small alphabet, and how often these occur together."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from mmjax.arrays import Array, accumulation_dtype, checked


@checked
def joint_probabilities(
    *codes: Integer[Array, "n"],
    sizes: Sequence[int],
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, "..."]:
    r"""How often codes occur together.

    .. math:: p(c_1, \dots, c_k) = \frac{1}{|V|} \, \big| \{ i \in V : c_{i1} = c_1, \dots,
              c_{ik} = c_k \} \big|

    Args:
        *codes: of each variable, one for each row, from 0.
        sizes: how many codes each variable has. A row with another code is left out.
        where: valid rows :math:`V`, all if None.

    Returns:
        The joint probabilities, float32, an axis for each variable; all 0 if no row is valid.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: unless there is a size for each variable, and all are positive.

    Source: the maximum of the likelihood; no paper.

    >>> print(joint_probabilities(jnp.array([0, 1, 1, 1]), jnp.array([0, 0, 1, 1]), sizes=(2, 2)))
    [[0.25 0.  ]
     [0.25 0.5 ]]
    """
    if len(codes) != len(sizes) or min(sizes, default=0) < 1:
        raise ValueError(
            f"sizes must be positive, one for each of {len(codes)} variables, got {tuple(sizes)}"
        )
    columns = [as_codes(code).astype(int) for code in codes]
    valid = jnp.ones(len(columns[0]), bool) if where is None else jnp.asarray(where)
    index = jnp.zeros(len(valid), int)
    for code, size in zip(columns, sizes, strict=True):
        valid &= (code >= 0) & (code < size)
        index = index * size + code
    cells = math.prod(sizes)
    counts = jnp.zeros(cells, jnp.int32).at[jnp.where(valid, index, cells)].add(1, mode="drop")
    total = jnp.maximum(jnp.sum(counts), 1).astype(jnp.float32)
    return counts.astype(jnp.float32).reshape(tuple(sizes)) / total


def as_codes(labels: Array) -> Int[jax.Array, "*b"]:
    r"""Integers as int32, :math:`\{-1\} \cup \{0, 1, \dots\}`, of which -1 is no code.

    JAX would wrap those of another width: what is no class by far would be one.

    Args:
        labels: integers of any width; what is below 0 or too large becomes -1.

    Returns:
        The codes.

    Source: no paper; two's complement.

    >>> print(as_codes(np.array([0, 3, -7, 2**32])))
    [ 0  3 -1 -1]
    """
    numbers = np if isinstance(labels, np.ndarray) else jnp  # before JAX sees what it would wrap
    largest = min(jnp.iinfo(labels.dtype).max, jnp.iinfo(jnp.int32).max)
    fits = (labels >= 0) & (labels <= largest)
    return jnp.where(fits, numbers.where(fits, labels, 0).astype(jnp.int32), -1)


def as_conditions(condition: Array) -> Integer[jax.Array, "n"]:
    r"""Labels that are the same where the condition is, :math:`l_i = l_j \iff c_i = c_j`.

    Args:
        condition: integers of any width.

    Returns:
        The labels, small ones for what JAX would wrap.

    Source: no paper; two's complement.

    >>> print(as_conditions(np.array([2**32, 0])))
    [1 0]
    """
    if isinstance(condition, np.ndarray):
        condition = np.unique(condition, return_inverse=True)[1].astype(np.int32)
    return jnp.asarray(condition)


@checked
def principal_components(x: Float[Array, "n d"], k: int) -> Float[jax.Array, "n k"]:
    r"""Coordinates of rows along the directions in which they vary the most.

    .. math:: z_i = V^\top (x_i - \bar x), \qquad V = \text{the first } k \text{ eigenvectors of }
              \operatorname{cov}(x)

    Args:
        x: rows.
        k: how many directions; those that are missing from ``x`` are filled with 0.

    Returns:
        The coordinates, float32 or wider, in the unit of ``x``; a direction's sign means nothing.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``k`` is below 1.

    Source: Pearson 1901, On Lines and Planes of Closest Fit.

    >>> print(jnp.abs(principal_components(jnp.array([[0.0, 3.0], [0.0, 5.0]]), 1)))
    [[1.]
     [1.]]
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    rows, _, size = _centred(x)
    highest = jax.lax.Precision.HIGHEST
    _, vectors = jnp.linalg.eigh(jnp.matmul(rows.T, rows, precision=highest))
    kept = size * jnp.matmul(rows, vectors[:, ::-1][:, :k], precision=highest)
    return jnp.pad(kept, ((0, 0), (0, k - kept.shape[1])))


@functools.partial(jax.jit, static_argnames=("clusters", "restarts", "iterations"))
@checked
def k_means(
    x: Float[Array, "n d"],
    *,
    clusters: int,
    key: jax.Array,
    restarts: int = 8,
    iterations: int = 50,
) -> tuple[Int[jax.Array, "n"], Float[jax.Array, "k d"]]:
    r"""Codes of rows: which of ``clusters`` centres is the nearest.

    .. math:: \min_{c, \mu} \sum_i \lVert x_i - \mu_{c_i} \rVert^2

    Args:
        x: rows, all finite; neither an offset nor their unit matters.
        clusters: how many centres; some stay without a row if there are fewer different rows.
        key: random key of the first centres.
        restarts: how often to start anew; the best is kept.
        iterations: of assigning and averaging, in each restart.

    Returns:
        The codes, and the centres.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a number is below 1.

    Source: Lloyd 1982, Least Squares Quantization in PCM; first centres: Arthur and Vassilvitskii
    2007, k-means++, sec. 2.2.

    >>> x = jnp.array([[0.0], [0.1], [5.0], [5.1]])
    >>> codes, _ = k_means(x, clusters=2, key=jax.random.key(0))
    >>> print(bool(codes[0] == codes[1]), bool(codes[1] == codes[2]))
    True False
    """
    if min(clusters, restarts, iterations) < 1:
        raise ValueError(
            "clusters, restarts and iterations must be at least 1, got "
            f"{clusters}, {restarts} and {iterations}"
        )
    rows, middle, size = _centred(x)

    def run(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        centres = _spread_centres(rows, clusters, key)
        centres = jax.lax.fori_loop(0, iterations, lambda _, c: _averages(rows, c), centres)
        return centres, jnp.sum(jnp.min(_distances(rows, centres), axis=1))

    centres, costs = jax.lax.map(run, jax.random.split(key, restarts))
    best = centres[jnp.argmin(costs)]
    return jnp.argmin(_distances(rows, best), axis=1), size * best + middle


def _centred(x: Array) -> tuple[Float[jax.Array, "n d"], Float[jax.Array, "1 d"], jax.Array]:
    """Rows less their mean and over their size: squares drown in no offset, and do not overflow."""
    rows = jnp.asarray(x).astype(accumulation_dtype(x))
    middle = jnp.mean(rows, axis=0, keepdims=True)
    rows -= middle
    largest = jnp.max(jnp.abs(rows), initial=0)
    size = jnp.where(largest > 0, largest, 1)
    return rows / size, middle, size


def _distances(rows: jax.Array, centres: jax.Array) -> Float[jax.Array, "n k"]:
    """Squared distances, up to what depends on the row alone being rounded: never below 0."""
    products = jnp.matmul(rows, centres.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(rows**2, axis=1)[:, None] + jnp.sum(centres**2, axis=1)[None]
    return jnp.maximum(squares - 2 * products, 0)


def _averages(rows: jax.Array, centres: jax.Array) -> Float[jax.Array, "k d"]:
    """Centres of what is nearest to them; one that nothing is nearest to stays."""
    codes = jnp.argmin(_distances(rows, centres), axis=1)
    own = (codes[:, None] == jnp.arange(len(centres))[None]).astype(rows.dtype)
    counts = jnp.sum(own, axis=0)[:, None]
    sums = jnp.matmul(own.T, rows, precision=jax.lax.Precision.HIGHEST)
    return jnp.where(counts > 0, sums / jnp.maximum(counts, 1), centres)


def _spread_centres(rows: jax.Array, clusters: int, key: jax.Array) -> Float[jax.Array, "k d"]:
    """Draw rows one after another, by their squared distance from the nearest drawn before."""
    keys = jax.random.split(key, clusters)
    centres = jnp.zeros((clusters, rows.shape[1]), rows.dtype)
    centres = centres.at[0].set(rows[jax.random.randint(keys[0], (), 0, len(rows))])

    def draw(i: int, state: tuple) -> tuple:
        centres, nearest = state
        total = jnp.sum(nearest)
        even = jnp.full_like(nearest, 1 / len(nearest))
        share = jnp.where(total > 0, nearest / jnp.where(total > 0, total, 1), even)
        row = rows[jax.random.choice(keys[i], len(rows), p=share)]
        distance = _distances(rows, row[None])[:, 0]
        return centres.at[i].set(row), jnp.minimum(nearest, distance)

    first = _distances(rows, centres[:1])[:, 0]
    return jax.lax.fori_loop(1, clusters, draw, (centres, first))[0]
