"""Gromov-Wasserstein: match points of two spaces by the distances within each of them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.alignment.arithmetic import exact_einsum, far, reciprocal_or_0
from mmjax.alignment.counts import Count, as_count
from mmjax.alignment.marginals import allowed_costs, costs_between, is_blocked, masses
from mmjax.alignment.potentials import iterate, marginal_error, plan_of
from mmjax.arrays import Array, Scalar, accumulation_dtype, as_scalar, checked

SINKHORN = 1000  # at most so many of its iterations in each of ours


class Matching(NamedTuple):
    """A local optimum of entropic Gromov-Wasserstein, and what is known of it.

    Attributes:
        value: the regularised cost, to be differentiated.
        plan: mass that goes from each point to each; a constant.
        cost: what the plan costs, without the entropy; a constant.
        change: mass that the last iteration moved: 0 where it is a stationary point.
        error: mass that the plan puts where it should not, summed over both sides.
        iterations: how many were made.
    """

    value: Float[jax.Array, "*b"]
    plan: Float[jax.Array, "*b n m"]
    cost: Float[jax.Array, "*b"]
    change: Float[jax.Array, "*b"]
    error: Float[jax.Array, "*b"]
    iterations: Int[jax.Array, "*b"]


@checked
def gromov_wasserstein(
    cost_x: Float[Array, "*b n n"],
    cost_y: Float[Array, "*b m m"],
    *,
    epsilon: Scalar,
    a: Float[Array, "*b n"] | None = None,
    b: Float[Array, "*b m"] | None = None,
    where_x: Bool[Array, "*b n"] | None = None,
    where_y: Bool[Array, "*b m"] | None = None,
    start: Float[Array, "*b n m"] | None = None,
    tolerance: Scalar = 1e-4,
    iterations: Count = 200,
) -> Matching:
    r"""Entropic Gromov-Wasserstein with the squared loss.

    .. math:: \min_{P 1 = a,\, P^\top 1 = b} E(P) + \epsilon\, \mathrm{KL}(P \,|\, a b^\top), \qquad
              E(P) = \sum_{ijkl} (C^x_{ik} - C^y_{jl})^2 P_{ij} P_{kl}

    by solving, again and again, the transport problem whose cost is the gradient of :math:`E` at
    the last plan. Four indices never meet: a product of three matrices gives the same.

    Args:
        cost_x: distances, or other costs, within the first space, all finite. Leading axes are
            problems of their own.
        cost_y: within the second space.
        epsilon: :math:`\epsilon > 0`, in the squared unit of the costs.
        a: masses of the first space, not negative, equal if None; divided by their sum.
        b: masses of the second space, likewise.
        where_x: valid points of the first space, all if None. An invalid one has no mass, and its
            gradient is 0 even where costs or masses are NaN.
        where_y: valid points of the second space, likewise.
        start: first plan, of any sum; that of :math:`a b^\top` if None, which in spaces with many
            symmetries is stationary itself. The problem is not convex: another start may find a
            better plan.
        tolerance: mass that an iteration has to move for the next one to be made, and error of the
            transport problem of each.
        iterations: bound on their number, at least 1; each makes at most 1,000 of Sinkhorn's.

    Returns:
        Value and cost in the squared unit of the costs, float32 or wider. The gradient of ``value``
        is that of the plan it was found at, by the envelope theorem; no gradient goes through the
        iterations. It is right for a stationary point, as far as ``change`` and ``error`` say.
        Where one space has no valid point all is 0. NaN gives NaN, and so does ``inf`` within a
        space.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``epsilon`` or ``tolerance`` is not positive and finite,
            NumPy masses of valid points are negative or not finite, NumPy costs within a space are
            not finite between valid points, or ``iterations`` is below 1.

    Source: Peyré et al. 2016, ICML, Gromov-Wasserstein averaging, secs. 2 and 3, with the
    entropy relative to the product of the masses, which changes no plan.

    >>> line = jnp.array([0.0, 1.0, 3.0])
    >>> distances = jnp.abs(line[:, None] - line[None])
    >>> found = gromov_wasserstein(distances, distances[::-1, ::-1], epsilon=0.05)
    >>> print(jnp.argmax(found.plan, axis=1))
    [2 1 0]
    """
    return fused_gromov_wasserstein(
        jnp.zeros((*cost_x.shape[:-1], cost_y.shape[-1]), accumulation_dtype(cost_x, cost_y)),
        cost_x,
        cost_y,
        weight=1.0,
        epsilon=epsilon,
        a=a,
        b=b,
        where_x=where_x,
        where_y=where_y,
        start=start,
        tolerance=tolerance,
        iterations=iterations,
    )


@checked
def fused_gromov_wasserstein(
    cost: Float[Array, "*b n m"],
    cost_x: Float[Array, "*b n n"],
    cost_y: Float[Array, "*b m m"],
    *,
    weight: Scalar,
    epsilon: Scalar,
    a: Float[Array, "*b n"] | None = None,
    b: Float[Array, "*b m"] | None = None,
    where_x: Bool[Array, "*b n"] | None = None,
    where_y: Bool[Array, "*b m"] | None = None,
    start: Float[Array, "*b n m"] | None = None,
    tolerance: Scalar = 1e-4,
    iterations: Count = 200,
) -> Matching:
    r"""Entropic fused Gromov-Wasserstein: by distances within the spaces, and costs between them.

    .. math:: \min_{P 1 = a,\, P^\top 1 = b} (1 - \alpha) \langle P, C \rangle + \alpha E(P)
              + \epsilon\, \mathrm{KL}(P \,|\, a b^\top), \qquad
              E(P) = \sum_{ijkl} (C^x_{ik} - C^y_{jl})^2 P_{ij} P_{kl}

    Args:
        cost: of moving a unit of mass from a point of the first space to one of the second; ``inf``
            forbids it.
        cost_x: within the first space.
        cost_y: within the second space.
        weight: :math:`\alpha` in [0, 1]: 0 is :func:`mmjax.alignment.sinkhorn`, 1 is
            :func:`gromov_wasserstein`.
        epsilon: :math:`\epsilon > 0`, in the unit of the objective.
        a: masses of the first space, not negative, equal if None; divided by their sum.
        b: masses of the second space, likewise.
        where_x: valid points of the first space, all if None.
        where_y: valid points of the second space.
        start: first plan, of any sum; that of :math:`a b^\top` if None.
        tolerance: as in :func:`gromov_wasserstein`.
        iterations: bound on their number, at least 1.

    Returns:
        As :func:`gromov_wasserstein`, in the unit of the objective.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: as :func:`gromov_wasserstein`, and if a Python or NumPy ``weight`` is not in
            [0, 1].

    Source: Vayer et al. 2019, arXiv:1805.09114, sec. 2, with costs between the spaces as they are
    given and squared differences within; solved as in Peyré et al. 2016.

    >>> near = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> found = fused_gromov_wasserstein(near, near, near, weight=0.5, epsilon=0.05)
    >>> print(jnp.round(found.plan, 2) + 0.0)
    [[0.5 0. ]
     [0.  0.5]]
    """
    if not isinstance(weight, jax.Array) and not 0 <= float(weight) <= 1:
        raise ValueError(f"weight must be in [0, 1], got {weight}")
    most = as_count("iterations", iterations)
    _check_within("cost_x", cost_x, a, where_x)
    _check_within("cost_y", cost_y, b, where_y)
    dtype = accumulation_dtype(*(z for z in (cost, cost_x, cost_y, a, b, start) if z is not None))
    weight = as_scalar("weight", weight, dtype=dtype)
    epsilon = as_scalar("epsilon", epsilon, dtype=dtype, positive=True)
    tolerance = as_scalar("tolerance", tolerance, dtype=dtype, positive=True)
    first = masses("a", a, where_x, cost.shape[:-1], dtype)
    second = masses("b", b, where_y, (*cost.shape[:-2], cost.shape[-1]), dtype)
    product = first[..., :, None] * second[..., None, :]
    if start is None:
        start = product
    else:  # none between points that are not there, even where it holds NaN
        start = jnp.where(product > 0, jnp.asarray(start).astype(dtype), 0)
        start = start * reciprocal_or_0(jnp.sum(start, axis=(-2, -1), keepdims=True))
    single = functools.partial(_match, weight=weight, epsilon=epsilon, tolerance=tolerance)
    batched = jnp.vectorize(
        lambda *arrays: tuple(single(*arrays, most=most)),
        signature="(n,m),(n,n),(m,m),(n),(m),(n,m)->(),(n,m),(),(),(),()",
    )
    costs = (
        allowed_costs(cost, first, second),
        costs_between(cost_x, first, first),
        costs_between(cost_y, second, second),
    )
    return Matching(*batched(*costs, first, second, start))


def _check_within(name: str, cost: Array, mass: Array | None, where: Array | None) -> None:
    """Refuse costs within a space that can be seen not to be finite between points with mass."""
    known = [z for z in (cost, mass, where) if z is not None]
    if not all(isinstance(z, np.ndarray) for z in known):
        return
    there = np.ones(cost.shape[:-1], bool) if where is None else np.asarray(where)
    if mass is not None:
        there = there & (np.asarray(mass) != 0)
    seen = np.asarray(cost)[there[..., :, None] & there[..., None, :]]
    if not np.isfinite(seen).all():
        raise ValueError(
            f"{name} must be finite between valid points, got {seen[~np.isfinite(seen)][0]}; give"
            " points that nothing connects a finite distance, such as the largest there is"
        )


def _match(cost, cost_x, cost_y, a, b, start, *, weight, epsilon, tolerance, most) -> Matching:
    """One problem."""
    costs = cost, cost_x, cost_y, weight
    constants = jax.lax.stop_gradient(costs)
    fixed_a, fixed_b, fixed_epsilon = jax.lax.stop_gradient((a, b, epsilon))

    def step(state):
        plan, _, y, _, made = state
        linear = jax.grad(_energy)(plan, *constants)
        linear = jnp.where(constants[0] >= far(cost.dtype), far(cost.dtype), linear)
        x, y, _ = iterate(linear, fixed_a, fixed_b, fixed_epsilon, tolerance, y, most=SINKHORN)
        better = plan_of(linear, fixed_a, fixed_b, fixed_epsilon, x, y)
        return better, x, y, jnp.sum(jnp.abs(better - plan)), made + 1

    def unfinished(state):
        *_, change, made = state
        return (made < most) & (change > tolerance)

    never = jnp.full((), jnp.finfo(a.dtype).max)
    state = start, jnp.zeros_like(a), jnp.zeros_like(b), never, jnp.zeros((), jnp.int32)
    plan, x, y, change, made = jax.lax.while_loop(unfinished, step, jax.lax.stop_gradient(state))
    # At a stationary point the plan is a constant, and a mass is worth its potential.
    product = fixed_a[:, None] * fixed_b[None]
    # By differences of shares from 1: of the shares, a large epsilon would multiply the rounding.
    excess = jnp.where(product > 0, plan / jnp.where(product > 0, product, 1) - 1, 0)
    divergence = jnp.sum(product * (jax.scipy.special.xlog1py(1 + excess, excess) - excess))
    worth = jnp.sum((a - fixed_a) * x) + jnp.sum((b - fixed_b) * y)
    energy = _energy(plan, *costs)
    value = energy + epsilon * divergence + worth
    blocked = is_blocked(constants[0], plan)
    value, spent = (jnp.where(blocked, jnp.inf, z) for z in (value, jax.lax.stop_gradient(energy)))
    return Matching(value, plan, spent, change, marginal_error(plan, fixed_a, fixed_b), made)


def _energy(plan, cost, cost_x, cost_y, weight) -> Float[jax.Array, ""]:
    """What a plan costs, without the entropy."""
    rows, columns = jnp.sum(plan, axis=1), jnp.sum(plan, axis=0)
    squares = exact_einsum("i,ik,k->", rows, cost_x**2, rows) + exact_einsum(
        "j,jl,l->", columns, cost_y**2, columns
    )
    within = squares - 2 * exact_einsum("ij,ik,kl,jl->", plan, cost_x, plan, cost_y)
    return (1 - weight) * jnp.sum(plan * cost) + weight * within
