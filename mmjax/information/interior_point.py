"""The convex program behind BROJA, by an interior-point method with a certificate.

In words: of all joint distributions with two given marginals, the one in which ``y`` stays the most
uncertain once both sources are known. It is solved in float64 whatever comes in, also where JAX
runs without ``jax_enable_x64``.

Every cell of the distribution starts positive and stays so. A barrier pushes cells off zero, and
is lowered as the steps come to stay on the path of its minima. A step is a Newton step for
distribution and barrier at once, shortened until the barrier's objective hardly slopes up at its
end; the marginals hold in every step. The linear system has as many unknowns as there are marginal
probabilities, not cells: the cells of one ``(x1, x2)`` are eliminated in closed form.

Source: Bertschinger et al. 2014, arXiv:1311.2852, def. 2 (the program); Makkeh et al. 2018,
arXiv:1802.05441 (its dual as a certificate); Boyd and Vandenberghe 2004, Convex Optimization,
sec. 11.7 (steps for primal and dual at once). Step lengths and barrier rule are ours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mmjax.arrays import Array, checked

TOLERANCE = 1e-10  # nats, of the certified gap
# 24 are usual; 2 of 1,300 problems made to be hard come to 2e-9 only, the others take at most 45.
MOST_STEPS = 80
LOWERED = 0.03  # the barrier's weight from one point of its path to the next
ON_PATH = 50.0  # squared Newton decrement up to which a point counts as being on the path
SAFE = 0.93  # share of the way to the boundary that a step may go
FLAT = 0.1  # slope at the end of a step, as a share of that at its start, which is no overshooting
MOST_TRIALS = 4  # of shorter lengths
LEAST = 1e-100  # a probability; what is below is none: its square would be no number any more
DRIFT = 1e4  # factor by which a cell's multiplier may differ from barrier / cell


class Solution(NamedTuple):
    """The largest conditional entropy, and what certifies it.

    Attributes:
        entropy: H(y | x1, x2) of the distribution found, nats; at most ``gap`` below the largest.
        slope_1: its derivative by the marginal ``rows``, nats.
        slope_2: its derivative by the marginal ``columns``. Only sums of a ``slope_1`` and a
            ``slope_2`` with the same y mean something.
        gap: upper bound of the error, nats.
        infeasibility: sum of the absolute errors of both marginals.
    """

    entropy: Float[jax.Array, ""]
    slope_1: Float[jax.Array, "x1 y"]
    slope_2: Float[jax.Array, "x2 y"]
    gap: Float[jax.Array, ""]
    infeasibility: Float[jax.Array, ""]


class Program(NamedTuple):
    """What is given: both marginals, and what follows from where they are zero."""

    rows: Float[jax.Array, "x1 y"]
    columns: Float[jax.Array, "x2 y"]
    possible: Bool[jax.Array, "x1 x2 y"]  # cells that can be positive; the others are held at 1
    pinned: Bool[jax.Array, "k"]  # multipliers that are redundant: held where they are

    def marginals(self, cells: jax.Array) -> Float[jax.Array, "k"]:
        """Both marginals of a distribution, one behind the other."""
        sums = (jnp.sum(cells, axis=axis, where=self.possible) for axis in (1, 0))
        return jnp.concatenate([marginal.ravel() for marginal in sums])

    def spread(self, multipliers: Float[jax.Array, "k"]) -> Float[jax.Array, "x1 x2 y"]:
        """The transposed map: for each cell, the sum of its two multipliers."""
        first, second = self.split(multipliers)
        return jnp.where(self.possible, first[:, None] + second[None], 0)

    def split(self, multipliers: Float[jax.Array, "k"]) -> tuple[jax.Array, jax.Array]:
        """Multipliers of the rows, and of the columns."""
        first, second = multipliers[: self.rows.size], multipliers[self.rows.size :]
        return first.reshape(self.rows.shape), second.reshape(self.columns.shape)


class Iterate(NamedTuple):
    """Where the method is."""

    step: Int[jax.Array, ""]
    q: Float[jax.Array, "x1 x2 y"]  # the distribution
    log_posterior: Float[jax.Array, "x1 x2 y"]  # gradient of its negative entropy
    z: Float[jax.Array, "x1 x2 y"]  # multipliers of q >= 0
    multipliers: Float[jax.Array, "k"]  # of the marginals
    barrier: Float[jax.Array, ""]
    certificate: Float[jax.Array, "k"]  # the multipliers so far with the highest dual bound
    bound: Float[jax.Array, ""]  # which is this

    @property
    def negative_entropy(self) -> Float[jax.Array, ""]:
        """What is minimised; the posterior's logarithm is 0 where q is only held."""
        return jnp.sum(self.q * self.log_posterior)

    @property
    def gap(self) -> Float[jax.Array, ""]:
        """Upper bound of the error."""
        return self.negative_entropy - self.bound


@jax.jit
@checked
def largest_conditional_entropy(
    rows: Float[Array, "x1 y"], columns: Float[Array, "x2 y"]
) -> Solution:
    r"""Entropy of ``y`` given both sources where it is largest for these marginals.

    .. math:: \max_{q \ge 0} H_q(Y \mid X_1, X_2) \quad \text{where} \quad
              q(x_1, y) = p(x_1, y), \; q(x_2, y) = p(x_2, y)

    The certificate is a point of the dual: for any :math:`\alpha, \beta` with
    :math:`\sum_y e^{\alpha(x_1, y) + \beta(x_2, y)} \le 1` for every :math:`x_1, x_2`, the maximum
    is at most :math:`-\sum p(x_1, y)\, \alpha(x_1, y) - \sum p(x_2, y)\, \beta(x_2, y)`.

    Args:
        rows: float64 probabilities :math:`p(x_1, y)`; zeros are welcome.
        columns: :math:`p(x_2, y)`, with the same :math:`p(y)`.

    Returns:
        The entropy in nats, its slopes, the certified gap and the error of the marginals.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Bertschinger et al. 2014, arXiv:1311.2852, def. 2 and lemma 3; see the module.

    >>> with jax.enable_x64(True):
    ...     xor = jnp.full((2, 2), 0.25)
    ...     print(f"{largest_conditional_entropy(xor, xor).entropy:.6f}")
    0.693147
    """
    rows, columns = jnp.asarray(rows), jnp.asarray(columns)
    program, first = _start(rows, columns)
    last = jax.lax.while_loop(
        lambda at: (at.step < MOST_STEPS) & (at.gap > TOLERANCE),
        lambda at: _advance(program, at),
        first,
    )
    wanted = jnp.concatenate([rows.ravel(), columns.ravel()])
    infeasibility = jnp.sum(jnp.abs(program.marginals(last.q) - wanted))
    slope_1, slope_2 = _slopes(program, last)
    return Solution(-last.negative_entropy, slope_1, slope_2, last.gap, infeasibility)


def _slopes(program: Program, last: Iterate) -> tuple[jax.Array, jax.Array]:
    """The certificate's multipliers, raised where their marginal is next to nothing.

    There the bound does not see them, and the barrier holds them down. At the optimum, each is the
    least over its cells of what the other multiplier leaves of the log-posterior.
    """
    first, second = program.split(last.certificate)

    def raised(left: jax.Array, axis: int, found: jax.Array) -> jax.Array:
        most = jnp.finfo(left.dtype).max
        least = jnp.min(left, axis=axis, where=program.possible, initial=most)
        return jnp.where(least < most, jnp.maximum(found, least), found)

    first = raised(last.log_posterior - second[None], 1, first)
    second = raised(last.log_posterior - first[:, None], 0, second)
    return -first, -second


def _start(rows: jax.Array, columns: jax.Array) -> tuple[Program, Iterate]:
    """Sources that are independent given y: feasible, and positive where that is possible."""
    total = jnp.sum(columns, axis=0, keepdims=True)
    there = columns > LEAST
    # Marginals of rows and columns agree on p(y): one equation for each y follows from the others.
    # The largest is left out, or the others would hang together by next to nothing. (No argmax: JAX
    # cannot lower it in float64 within a 32-bit program.)
    order = jnp.arange(len(columns))
    ahead = (columns[:, None] > columns[None]) | (
        (columns[:, None] == columns[None]) & (order[:, None] < order[None])[..., None]
    )
    redundant = ~jnp.any(ahead, axis=0)
    program = Program(
        rows,
        columns,
        (rows > LEAST)[:, None] & there[None],
        jnp.concatenate([(rows <= LEAST).ravel(), (~there | redundant).ravel()]),
    )
    q = rows[:, None] * (columns / jnp.where(total > 0, total, 1))[None]
    q = jnp.where(program.possible, jnp.maximum(q, LEAST), 1)
    barrier = 0.1 / jnp.sum(program.possible, dtype=q.dtype)
    z = jnp.where(program.possible, barrier / q, 1)
    none = jnp.zeros(rows.size + columns.size, q.dtype)
    lowest = jnp.array(jnp.finfo(q.dtype).min)
    posterior = _log_posterior(program, q)
    return program, Iterate(jnp.array(0), q, posterior, z, none, barrier, none, lowest)


def _advance(program: Program, at: Iterate) -> Iterate:
    """One Newton step, and the next barrier if it came out near the path."""
    possible = program.possible
    force = jnp.where(possible, at.log_posterior - at.barrier / at.q, 0)
    inverse = _InverseHessian.at(program, at)
    residual = force - program.spread(at.multipliers)
    wanted = jnp.concatenate([program.rows.ravel(), program.columns.ravel()])
    # For the change of the multipliers, not for the multipliers: what is small is rounded less.
    change = inverse.solve_schur(
        program, program.marginals(inverse.times(residual)) + wanted - program.marginals(at.q)
    )
    residual = residual - program.spread(change)
    dq = -inverse.times(residual)
    dz = jnp.where(possible, (at.barrier - at.z * dq) / at.q - at.z, 0)
    decrement = -jnp.sum(residual * dq, where=possible) / at.barrier

    end = _search(program, at, dq, jnp.sum(force * dq))
    central = at.barrier / end.q
    z = jnp.clip(at.z + _longest(possible, at.z, dz) * dz, central / DRIFT, central * DRIFT)
    multipliers = at.multipliers + change
    bound = _dual_bound(program, multipliers)
    better = bound > at.bound  # any multipliers prove a bound, and rounding can spoil later ones
    lowest = 0.1 * TOLERANCE / jnp.sum(possible, dtype=dq.dtype)  # below, there is only rounding
    lowered = jnp.maximum(at.barrier * LOWERED, lowest)
    found = Iterate(
        at.step + 1,
        end.q,
        end.log_posterior,
        jnp.where(possible, z, 1),
        multipliers,
        jnp.where(decrement < ON_PATH, lowered, at.barrier),
        jnp.where(better, multipliers, at.certificate),
        jnp.where(better, bound, at.bound),
    )
    sound = jnp.isfinite(found.negative_entropy + bound + jnp.sum(found.z))
    stayed = at._replace(step=at.step + 1)  # with a gap that says so
    return jax.tree.map(lambda new, old: jnp.where(sound, new, old), found, stayed)


class _End(NamedTuple):
    """Where a step of some length leads, and how the barrier's objective slopes there."""

    length: Float[jax.Array, ""]
    q: Float[jax.Array, "x1 x2 y"]
    log_posterior: Float[jax.Array, "x1 x2 y"]
    slope: Float[jax.Array, ""]


def _search(program: Program, at: Iterate, dq: jax.Array, slope: jax.Array) -> _End:
    """The longest safe step, or a shorter one where that passes the minimum on its way.

    The objective is convex, so its slope rises along the step, from ``slope`` below zero. Where it
    ends clearly above zero, the line through both slopes says where it is zero.
    """
    downhill = jnp.minimum(slope, 0)

    def end(length: jax.Array) -> _End:
        q = jnp.where(program.possible, at.q + length * dq, 1)
        posterior = _log_posterior(program, q)
        return _End(length, q, posterior, jnp.sum((posterior - at.barrier / q) * dq))

    def shorter(trial: tuple[jax.Array, _End]) -> tuple[jax.Array, _End]:
        number, (length, *_, uphill) = trial
        share = downhill / jnp.minimum(downhill - uphill, -jnp.finfo(dq.dtype).tiny)
        return number + 1, end(length * jnp.clip(share, 0.05, 0.95))

    _, found = jax.lax.while_loop(
        lambda trial: (trial[0] < MOST_TRIALS) & (trial[1].slope > -FLAT * downhill),
        shorter,
        (jnp.array(0), end(_longest(program.possible, at.q, dq))),
    )
    return found


class _InverseHessian(NamedTuple):
    r"""Inverse of :math:`\operatorname{diag}((1 + z) / q) - 1 1^\top / r`, one for each (x1, x2).

    It is :math:`D + D 1 1^\top D / s` with :math:`D = \operatorname{diag}(q / (1 + z))`, by Sherman
    and Morrison.
    """

    diagonal: Float[jax.Array, "x1 x2 y"]  # D
    slack: Float[jax.Array, "x1 x2 1"]  # s = r - sum of D

    @classmethod
    def at(cls, program: Program, at: Iterate) -> "_InverseHessian":
        diagonal = jnp.where(program.possible, at.q / (1 + at.z), 0)
        # Summed as D z: r and the sum of D nearly cancel where no cell is on the boundary.
        slack = jnp.sum(diagonal * at.z, axis=-1, keepdims=True)
        return cls(diagonal, jnp.where(slack > 0, slack, 1))

    def times(self, cells: jax.Array) -> jax.Array:
        scaled = self.diagonal * cells
        return scaled + self.diagonal * jnp.sum(scaled, axis=-1, keepdims=True) / self.slack

    def solve_schur(self, program: Program, right: Float[jax.Array, "k"]) -> jax.Array:
        """Solve for multipliers: marginals of the inverse Hessian of their spread."""
        (n, classes), m = program.rows.shape, len(program.columns)
        one = jnp.eye(classes, dtype=right.dtype)[None, None]
        rank_one = self.diagonal / jnp.sqrt(self.slack)
        blocks = rank_one[..., :, None] * rank_one[..., None, :] + self.diagonal[..., None] * one
        across = blocks.transpose(0, 2, 1, 3).reshape(n * classes, m * classes)
        own = (_block_diagonal(jnp.sum(blocks, axis=axis)) for axis in (1, 0))
        schur = jnp.block([[next(own), across], [across.T, next(own)]])
        fixed = program.pinned
        schur = jnp.where(fixed[:, None] | fixed[None], jnp.diag(fixed.astype(right.dtype)), schur)
        scale = jax.lax.rsqrt(jnp.diag(schur))
        # On a diagonal of ones this is rounding; it keeps a singular system from having no factor.
        ridge = 2 * jnp.finfo(right.dtype).eps * jnp.eye(len(right), dtype=right.dtype)
        factor = jnp.linalg.cholesky(scale[:, None] * schur * scale[None] + ridge)
        right = jnp.where(fixed, 0, right)
        return scale * jax.scipy.linalg.cho_solve((factor, True), scale * right)


def _block_diagonal(blocks: Float[jax.Array, "k y y"]) -> Float[jax.Array, "l l"]:
    k, classes, _ = blocks.shape
    spread = jnp.eye(k, dtype=blocks.dtype)[:, None, :, None] * blocks[:, :, None, :]
    return spread.reshape(k * classes, k * classes)


def _longest(possible: jax.Array, at: jax.Array, change: jax.Array) -> Float[jax.Array, ""]:
    """The longest step that is safe: it leaves everything positive, and is at most 1."""
    shrinks = jnp.max(-change / at, where=possible, initial=0)
    return jnp.minimum(1, SAFE / jnp.maximum(shrinks, SAFE))


def _log_posterior(program: Program, q: jax.Array) -> Float[jax.Array, "x1 x2 y"]:
    """Logarithm of q(y | x1, x2): the gradient of the negative entropy."""
    total = jnp.sum(q, axis=-1, keepdims=True, where=program.possible)
    return jnp.where(program.possible, jnp.log(q / jnp.where(total > 0, total, 1)), 0)


def _dual_bound(program: Program, multipliers: Float[jax.Array, "k"]) -> Float[jax.Array, ""]:
    """A lower bound of the negative entropy: multipliers shifted until the dual admits them."""
    first, second = program.split(multipliers)
    some = jnp.any(program.possible, axis=-1)
    exponents = jnp.where(some[..., None], program.spread(multipliers), 0)
    lowest = jnp.finfo(exponents.dtype).min
    over = jax.nn.logsumexp(exponents, axis=-1, where=program.possible | ~some[..., None])
    over = jnp.where(some, over, lowest)
    shift_1 = jnp.where(jnp.any(some, axis=1), jnp.max(over, axis=1), 0)
    shift_2 = jnp.max(over - shift_1[:, None], axis=0, where=some, initial=lowest)
    shift_2 = jnp.where(jnp.any(some, axis=0), shift_2, 0)
    return jnp.sum(program.rows * (first - shift_1[:, None])) + jnp.sum(
        program.columns * (second - shift_2[:, None])
    )
