"""The partial information decomposition of Gaussians.

The program is that of BROJA among Gaussians: given the target, each source is a channel with noise
of its own, and how the two noises go together is chosen so that both sources say the least of the
target. With white noises and a white target, the channels are two matrices of gains ``B``, and what
is chosen is a cross-covariance ``C`` of the noises, a matrix without a singular value above 1. It
is found in float64 by Newton steps behind a barrier that is lowered, with a certificate.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.covariances import (
    block_information,
    check_covariance,
    product,
    standardised,
)
from mmjax.information.pid import PID, Informations, decomposition, only_first_derivatives

TOLERANCE = 1e-10  # nats, of the certified gap
MOST_STEPS = 60  # some 20 are usual; more only where the optimum has a singular value of 1
LOWERED = 0.1  # the barrier's weight from one point of its path to the next
ON_PATH = 1.0  # squared Newton decrement up to which a point counts as being on the path
LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01, 1e-3)  # of a step; dropped if they leave the ball


@checked
def gaussian_pid(
    covariance: Float[Array, "*batch d d"], *, sizes: tuple[int, int, int], unit: str = "nats"
) -> PID:
    r"""What two Gaussian sources say of a Gaussian target: redundant, unique, synergistic.

    .. math:: I_\cup = \min_{\lVert C \rVert_2 \le 1} \tfrac12 \log \frac{\det (W + B B^\top)}
              {\det W}, \qquad W = \begin{pmatrix} 1 & C \\ C^\top & 1 \end{pmatrix}, \quad
              B_i = \Sigma_{i \mid y}^{-1/2} \Sigma_{iy} \Sigma_y^{-1/2}

    and the parts follow from it as for :func:`mmjax.information.broja`. For a target of one
    feature it is known: the redundancy is the smaller of :math:`I_1` and :math:`I_2`. The gradient
    comes from the optimal noise, held fixed; there are no second derivatives.

    Args:
        covariance: of the features of the first source, of the second and of the target, in this
            order; leading axes are a batch. Its scale does not matter, feature by feature.
        sizes: how many features the three have. A step solves a system of
            ``min(d1, k) * min(d2, k)`` unknowns for a target of ``k`` features.
        unit: "nats" or "bits".

    Returns:
        The decomposition. Constant features, and repeated ones of a source, change nothing. Inside
        jit, ``infeasibility`` is infinite, and the parts mean nothing, where the information is
        infinite or the matrix is no covariance.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit, or sizes that are not positive or do not add up; outside of
            jit, if the matrix is no covariance or an information is infinite.

    Source: Venkatesh et al. 2023, arXiv:2307.10515, the Gaussian decomposition of sec. 3, where
    the joint distribution has to be Gaussian too (no other has less information: Zhao et al. 2025,
    arXiv:2510.04417); the method is not theirs (projected gradients), and nothing is corrected for
    the bias of an estimated covariance. A target of one feature: Barrett 2015, arXiv:1411.2832.

    >>> covariance = jnp.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8 * 0.6], [0.6, 0.48, 1.0]])
    >>> parts = gaussian_pid(covariance, sizes=(1, 1, 1))
    >>> print(" ".join(f"{abs(part):.4f}" for part in parts[:4]))
    0.1309 0.0922 0.0000 0.2231
    """
    d = covariance.shape[-1]
    if min(sizes) < 1 or sum(sizes) != d:
        raise ValueError(f"sizes must be positive and add up to the {d} features, got {sizes}")
    check_covariance(covariance)
    matrix = jnp.asarray(covariance).astype(accumulation_dtype(covariance))
    *batch, _, _ = matrix.shape
    matrix = matrix.reshape(math.prod(batch), d, d)
    found, gap, finite = _informations(matrix, sizes)
    if not isinstance(finite, jax.core.Tracer) and not np.all(finite):
        raise ValueError(
            "a source determines a combination of the target, which is infinite information: add "
            "noise, such as 1e-6 on the diagonal of the correlations"
        )
    wrong = jnp.where(finite, 0, jnp.inf).astype(gap.dtype)
    parts = decomposition(found, gap=gap, infeasibility=wrong, unit=unit)
    return PID(*(part.reshape(batch) for part in parts))


@functools.partial(jax.jit, static_argnames="sizes")
def _informations(
    matrices: Float[jax.Array, "b d d"], sizes: tuple[int, int, int]
) -> tuple[Informations, jax.Array, jax.Array]:
    """The four informations, the gap of the last, and whether all are finite."""
    return jax.vmap(lambda matrix: _in_float64(matrix, sizes))(matrices)


# Differentiated by hand: JAX cannot differentiate float64 from within a 32-bit program.
@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _in_float64(matrix: Float[jax.Array, "d d"], sizes: tuple[int, int, int]) -> tuple:
    """All of it, in the dtype that it came in."""
    with jax.enable_x64(True):
        found, (gap, finite) = _found(matrix.astype(jnp.float64), sizes, matrix.dtype)
        return Informations(*found.astype(matrix.dtype)), gap.astype(matrix.dtype), finite


@_in_float64.defjvp
def _by_slopes(sizes: tuple[int, int, int], primals: tuple, tangents: tuple) -> tuple:
    (matrix,), (change,) = primals, tangents
    matrix = only_first_derivatives(matrix)
    value = _in_float64(matrix, sizes)
    with jax.enable_x64(True):
        wide = matrix.astype(jnp.float64)
        slopes, (_, finite) = jax.jacrev(_found, has_aux=True)(wide, sizes, matrix.dtype)
        slopes = jnp.where(finite, slopes, 0).astype(matrix.dtype)
    changes = Informations(*jnp.sum(slopes * change[None], axis=(1, 2)))
    return value, (changes, jnp.zeros_like(value[1]), np.zeros((), jax.dtypes.float0))


def _found(
    matrix: Float[jax.Array, "d d"], sizes: tuple[int, int, int], given: np.dtype
) -> tuple[Float[jax.Array, "4"], tuple[jax.Array, jax.Array]]:
    """All four, with what else there is; what rounding means is said by the dtype ``given``."""
    d1, d2, _ = sizes
    eps = float(jnp.finfo(given).eps)
    matrix, _ = standardised(matrix)
    first, second, target = np.split(np.arange(len(matrix)), np.cumsum(sizes)[:2])
    noise = jnp.array(len(matrix) * eps, matrix.dtype)
    found = [
        block_information(matrix[np.ix_(both, both)], len(source), noise)
        for source in (first, second, np.arange(d1 + d2))
        for both in [np.concatenate([source, target])]
    ]
    finite = jnp.all(jnp.isfinite(jnp.stack(found)))
    # Zeroed before use: what is infinite would put NaN into gradients of other problems.
    usable = jnp.where(finite, matrix, jnp.eye(len(matrix), dtype=matrix.dtype))
    union, gap = _union_information(*(_gains(usable, x, target, eps) for x in (first, second)))
    return jnp.stack([*(jnp.where(finite, nats, 0) for nats in found), union]), (gap, finite)


def _gains(
    correlation: Float[jax.Array, "d d"], source: np.ndarray, target: np.ndarray, eps: float
) -> Float[jax.Array, "s k"]:
    """The channel of a source, with white noise and a white target."""
    rounding = len(correlation) * eps
    half = _root(correlation[np.ix_(target, target)], jnp.full(len(target), rounding))
    explained = _divided(half, correlation[np.ix_(target, source)]).T
    noise = correlation[np.ix_(source, source)] - product(explained, explained.T)
    left = jnp.maximum(jax.lax.stop_gradient(jnp.diag(noise)), 8 * rounding)
    scale = jax.lax.rsqrt(left)
    half = _root(noise * scale[:, None] * scale[None], rounding / left)
    return _divided(half, scale[:, None] * explained)


def _root(
    matrix: Float[jax.Array, "d d"], rounding: Float[jax.Array, "d"]
) -> Float[jax.Array, "d d"]:
    """A triangular root of what may be singular up to the rounding of its variances.

    It is lifted along the directions that rounding may have emptied, and along no other: against a
    signal, the little that is left as noise counts.
    """
    eigenvalues, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(matrix))
    least = jnp.sum(vectors**2 * rounding[:, None], axis=0)
    missing = jnp.maximum(least - eigenvalues, 0)
    return jnp.linalg.cholesky(matrix + product(vectors * missing[None], vectors.T))


def _divided(half: jax.Array, right: jax.Array) -> jax.Array:
    return jax.scipy.linalg.solve_triangular(half, right, lower=True)


class _Optimum(NamedTuple):
    information: Float[jax.Array, ""]
    slope_1: Float[jax.Array, "d1 k"]
    slope_2: Float[jax.Array, "d2 k"]
    gap: Float[jax.Array, ""]


@jax.custom_jvp
def _union_information(
    gains_1: Float[jax.Array, "d1 k"], gains_2: Float[jax.Array, "d2 k"]
) -> tuple[jax.Array, jax.Array]:
    """The least information, and its gap; nats."""
    solved = _solve(gains_1, gains_2)
    return solved.information, solved.gap


@_union_information.defjvp
def _envelope(primals: tuple, tangents: tuple) -> tuple:
    """The noise may be anything in a ball that does not move: at the optimum, only gains count."""
    solved = _solve(*primals)
    slopes = (solved.slope_1, solved.slope_2)
    change = jnp.sum(jnp.stack([jnp.sum(s * t) for s, t in zip(slopes, tangents, strict=True)]))
    return (solved.information, solved.gap), (change, jnp.zeros_like(solved.gap))


@jax.jit
def _solve(gains_1: Float[jax.Array, "d1 k"], gains_2: Float[jax.Array, "d2 k"]) -> _Optimum:
    """Turn both sources so that few features are left that depend on the target, and minimise."""
    turned = [jnp.linalg.qr(g) if len(g) > len(g.T) else (None, g) for g in (gains_1, gains_2)]
    program = _Program(jnp.concatenate([g for _, g in turned]), len(turned[0][1]))
    point = _minimise(program)
    precision, learned = program.precisions(point.coupling)
    slopes = (precision - learned) @ program.gains
    slope_1, slope_2 = (
        slope if turn is None else turn @ slope
        for (turn, _), slope in zip(turned, jnp.split(slopes, [program.size]), strict=True)
    )
    return _Optimum(program.information(point.coupling), slope_1, slope_2, point.gap)


class _Program(NamedTuple):
    """The least information over the cross-covariance of both noises, a ``coupling``."""

    gains: Float[jax.Array, "s k"]
    size: int  # features of the first source

    def noise(self, coupling: Float[jax.Array, "a b"]) -> Float[jax.Array, "s s"]:
        a, b = (jnp.eye(size, dtype=coupling.dtype) for size in coupling.shape)
        return jnp.block([[a, coupling], [coupling.T, b]])

    def heard(self, coupling: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Root of the noise, the gains once it is white, and a root of 1 and what they carry.

        Nothing here is a difference of what grows where the noise is nearly singular, as it is at
        the optimum if both noises become one.
        """
        half = jnp.linalg.cholesky(self.noise(coupling))
        white = _divided(half, self.gains)
        eye = jnp.eye(white.shape[1], dtype=white.dtype)
        return half, white, jnp.linalg.cholesky(eye + white.T @ white)

    def precisions(self, coupling: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Inverse of the noise, and how much smaller that of noise and signal is."""
        half, white, carried = self.heard(coupling)
        root = jax.scipy.linalg.solve_triangular(
            half, _divided(carried, white.T).T, lower=True, trans=1
        )
        one = jnp.eye(len(half), dtype=half.dtype)
        return jax.scipy.linalg.cho_solve((half, True), one), root @ root.T

    def information(self, coupling: jax.Array) -> Float[jax.Array, ""]:
        return jnp.sum(jnp.log(jnp.diag(self.heard(coupling)[2])))

    def objective(self, coupling: jax.Array, barrier: jax.Array) -> Float[jax.Array, ""]:
        """Information and barrier; the largest number outside of the ball."""
        eigenvalues = jnp.linalg.eigvalsh(self.noise(coupling))
        inside = jnp.all(eigenvalues > 64 * jnp.finfo(eigenvalues.dtype).eps)
        volume = jnp.sum(jnp.log(jnp.where(inside, eigenvalues, 1)))
        cost = self.information(jnp.where(inside, coupling, 0)) - barrier * volume
        return jnp.where(inside, cost, jnp.finfo(cost.dtype).max)


class _Iterate(NamedTuple):
    step: Int[jax.Array, ""]
    coupling: Float[jax.Array, "a b"]
    barrier: Float[jax.Array, ""]
    gap: Float[jax.Array, ""]


def _minimise(program: _Program) -> _Iterate:
    shape = (program.size, len(program.gains) - program.size)
    dtype = program.gains.dtype
    coupling, barrier = jnp.zeros(shape, dtype), jnp.array(0.1, dtype)
    return jax.lax.while_loop(
        lambda at: (at.step < MOST_STEPS) & (at.gap > TOLERANCE),
        lambda at: _advance(program, at),
        _Iterate(jnp.array(0), coupling, barrier, _gap(program, coupling)),
    )


def _advance(program: _Program, at: _Iterate) -> _Iterate:
    """One Newton step on information and barrier."""
    a, b = at.coupling.shape
    precision, learned = program.precisions(at.coupling)
    gradient = -learned[:a, a:] - 2 * at.barrier * precision[:a, a:]
    curvature = (
        2 * at.barrier * _curvature(precision, precision, a)
        + _curvature(precision, learned, a)
        + _curvature(learned, precision - learned, a)
    )
    scale = jax.lax.rsqrt(jnp.diag(curvature))
    ridge = 8 * jnp.finfo(scale.dtype).eps * len(scale) * jnp.eye(len(scale), dtype=scale.dtype)
    half = jnp.linalg.cholesky(scale[:, None] * curvature * scale[None] + ridge)
    solved = jax.scipy.linalg.cho_solve((half, True), scale * gradient.ravel())
    step = -(scale * solved).reshape(a, b)
    decrement = -jnp.sum(gradient * step) / at.barrier
    lengths = jnp.array(LENGTHS, step.dtype)
    costs = jax.vmap(lambda t: program.objective(at.coupling + t * step, at.barrier))(lengths)
    length = jnp.max(lengths, where=costs == jnp.min(costs), initial=0)
    inside = jnp.min(costs) < jnp.finfo(costs.dtype).max
    coupling = at.coupling + jnp.where(inside, length * step, 0)
    lowest = 0.1 * TOLERANCE / (a + b)  # below, there is only rounding
    lowered = jnp.maximum(at.barrier * LOWERED, lowest)
    barrier = jnp.where(decrement < ON_PATH, lowered, at.barrier)
    return _Iterate(at.step + 1, coupling, barrier, _gap(program, coupling))


def _curvature(
    one: Float[jax.Array, "s s"], other: Float[jax.Array, "s s"], a: int
) -> Float[jax.Array, "ab ab"]:
    """Of one inverse twice: the negative second derivative of half a log-determinant.

    It is by entries of the block off the diagonal, and linear in each of two inverses.
    """
    same = jnp.einsum("ik,jl->ijkl", one[:a, :a], other[a:, a:])
    crossed = jnp.einsum("il,kj->ijkl", one[:a, a:], other[:a, a:])
    entries = a * (len(one) - a)
    return (same + crossed).reshape(entries, entries)


def _gap(program: _Program, coupling: Float[jax.Array, "a b"]) -> Float[jax.Array, ""]:
    """By how much a linear function with this slope could still fall within the ball."""
    _, learned = program.precisions(coupling)
    slope = -learned[: program.size, program.size :]
    return jnp.sum(slope * coupling) + jnp.sum(jnp.linalg.svdvals(slope))
