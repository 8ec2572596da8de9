"""Entropic optimal transport between weighted points, by Sinkhorn's iterations of logarithms."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mmjax.alignment.arithmetic import exact_einsum, reciprocal_or_0, root_or_0
from mmjax.alignment.counts import Count, as_count
from mmjax.alignment.marginals import allowed_costs, is_blocked, masses
from mmjax.alignment.potentials import iterate, marginal_error, plan_of, soft_minimum
from mmjax.arrays import Array, Scalar, accumulation_dtype, as_scalar, checked


class Transport(NamedTuple):
    """An entropic transport plan and what is known of it.

    Attributes:
        value: the regularised cost, to be differentiated.
        plan: mass that goes from each point to each.
        cost: what the plan costs, without the entropy.
        x: potential of the points of the first side, 0 for an invalid one.
        y: potential of the second side; only sums of an ``x`` and a ``y`` are determined.
        error: mass that the plan puts where it should not, summed over both sides.
        iterations: how many were made.
    """

    value: Float[jax.Array, "*b"]
    plan: Float[jax.Array, "*b n m"]
    cost: Float[jax.Array, "*b"]
    x: Float[jax.Array, "*b n"]
    y: Float[jax.Array, "*b m"]
    error: Float[jax.Array, "*b"]
    iterations: Int[jax.Array, "*b"]


@checked
def sinkhorn(
    cost: Float[Array, "*b n m"],
    *,
    epsilon: Scalar,
    a: Float[Array, "*b n"] | None = None,
    b: Float[Array, "*b m"] | None = None,
    where_x: Bool[Array, "*b n"] | None = None,
    where_y: Bool[Array, "*b m"] | None = None,
    tolerance: Scalar = 1e-4,
    iterations: Count = 2000,
) -> Transport:
    r"""Optimal transport with entropic regularisation.

    .. math:: \mathrm{OT}_\epsilon = \min_{P 1 = a,\, P^\top 1 = b} \langle P, C \rangle
              + \epsilon\, \mathrm{KL}(P \,|\, a b^\top), \qquad
              P_{ij} = a_i b_j\, e^{(f_i + g_j - C_{ij}) / \epsilon}

    The potentials are iterated, :math:`f_i \leftarrow -\epsilon \log \sum_j b_j e^{(g_j - C_{ij}) /
    \epsilon}` and likewise :math:`g`, and never the scalings :math:`e^{f / \epsilon}`, which would
    overflow for a small :math:`\epsilon`.

    No gradient goes through the iterations. That of ``value`` is the plan and the potentials, by
    the envelope theorem; those of ``plan``, ``cost``, ``x`` and ``y`` are implicit ones, of the
    equations that the potentials solve, for which one symmetric matrix of the size of the second
    side is decomposed. All are those of the converged plan: they are off by what ``error`` says.
    Where a plan falls into parts that exchange nothing (forbidden pairs, or within rounding for a
    small :math:`\epsilon`), only the potentials within each part are determined, and those of
    different parts have no gradient against each other. Second derivatives are not those of the
    problem: they take the potentials for constants.

    Args:
        cost: of moving a unit of mass from a point of the first side to one of the second; ``inf``
            forbids it. Leading axes are problems of their own.
        epsilon: :math:`\epsilon > 0`, in the unit of the costs. A hundredth of the typical cost
            gives plans that are close to the unregularised ones, in hundreds of iterations.
        a: masses of the first side, not negative, equal if None; divided by their sum.
        b: masses of the second side, likewise.
        where_x: valid points of the first side, all if None. An invalid one has no mass, and its
            gradient is 0 even where costs or masses are NaN. A point of mass 0 is as good as
            absent, and no gradient asks it in.
        where_y: valid points of the second side, likewise.
        tolerance: error below which a problem stops. Rounding limits what can be reached to about
            the precision of the dtype times the largest cost over :math:`\epsilon`.
        iterations: bound on their number, at least 1; a problem that needs more says so in
            ``error``.

    Returns:
        Value and cost in the unit of the costs, plan and error as shares of the mass, float32 or
        wider. Potentials are rounded in proportion to :math:`\epsilon`, where that is larger than
        the costs; nothing else is. Where one side has no valid point all is 0. Where all partners
        of a point are forbidden, value and cost are ``inf``; where what is allowed leaves no plan
        otherwise, ``error`` stays large. NaN gives NaN.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``epsilon`` or ``tolerance`` is not positive and finite,
            NumPy masses of valid points are negative or not finite, or ``iterations`` is below 1.

    Source: Cuturi 2013, arXiv:1306.0895; in logarithms, with the entropy relative to the product of
    the masses: Feydy et al. 2019, arXiv:1810.08278, secs. 1 and 3; implicit gradients: Cuturi et
    al. 2020, arXiv:2002.03229.

    >>> transport = sinkhorn(jnp.array([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.1)
    >>> print(f"{transport.cost:.4f} {transport.plan[0, 0]:.4f}")
    0.0000 0.5000
    """
    most = as_count("iterations", iterations)
    given = [mass for mass in (a, b) if mass is not None]
    dtype = accumulation_dtype(cost, *given)
    scalars = [
        as_scalar(name, value, dtype=dtype, positive=True)
        for name, value in (("epsilon", epsilon), ("tolerance", tolerance))
    ]
    first = masses("a", a, where_x, cost.shape[:-1], dtype)
    second = masses("b", b, where_y, (*cost.shape[:-2], cost.shape[-1]), dtype)
    single = functools.partial(_transport, epsilon=scalars[0], tolerance=scalars[1], most=most)
    signature = "(n,m),(n),(m)->(),(n,m),(),(n),(m),(),()"
    batched = jnp.vectorize(lambda *arrays: tuple(single(*arrays)), signature=signature)
    return Transport(*batched(allowed_costs(cost, first, second), first, second))


@checked
def sinkhorn_divergence(
    cost_xy: Float[Array, "*b n m"],
    cost_xx: Float[Array, "*b n n"],
    cost_yy: Float[Array, "*b m m"],
    *,
    epsilon: Scalar,
    a: Float[Array, "*b n"] | None = None,
    b: Float[Array, "*b m"] | None = None,
    where_x: Bool[Array, "*b n"] | None = None,
    where_y: Bool[Array, "*b m"] | None = None,
    tolerance: Scalar = 1e-4,
    iterations: Count = 2000,
) -> Float[jax.Array, "*b"]:
    r"""Entropic optimal transport without its bias: 0 between equal point clouds.

    .. math:: S_\epsilon = \mathrm{OT}_\epsilon(x, y) - \tfrac12 \mathrm{OT}_\epsilon(x, x)
              - \tfrac12 \mathrm{OT}_\epsilon(y, y)

    Args:
        cost_xy: of moving a unit of mass from ``x`` to ``y``, see
            :func:`mmjax.alignment.squared_costs`.
        cost_xx: within ``x``.
        cost_yy: within ``y``.
        epsilon: :math:`\epsilon > 0`, in the unit of the costs.
        a: masses of ``x``, not negative, equal if None; divided by their sum.
        b: masses of ``y``, likewise.
        where_x: valid points of ``x``, all if None; see :func:`sinkhorn`.
        where_y: valid points of ``y``.
        tolerance: error below which the iterations stop.
        iterations: bound on their number, at least 1.

    Returns:
        One value per problem, in the unit of the costs, float32 or wider: not negative for costs
        such as squared Euclidean ones, and 0 for equal clouds, up to the tolerance. Where one side
        has no valid point it is 0. The gradients are those of :func:`sinkhorn`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: as :func:`sinkhorn`.

    Source: Genevay et al. 2018, arXiv:1706.00292, sec. 3; Feydy et al. 2019,
    arXiv:1810.08278, eq. 3.

    >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> print(f"{sinkhorn_divergence(cost, cost, cost, epsilon=0.1):.4f}")
    0.0000
    """
    solve = functools.partial(sinkhorn, epsilon=epsilon, tolerance=tolerance, iterations=iterations)
    given = [mass for mass in (a, b) if mass is not None]
    dtype = accumulation_dtype(cost_xy, cost_xx, cost_yy, *given)
    first = masses("a", a, where_x, cost_xx.shape[:-1], dtype)
    second = masses("b", b, where_y, cost_yy.shape[:-1], dtype)
    both, own, other = (
        solve(cost, a=rows, b=columns).value
        for cost, rows, columns in (
            (cost_xy, first, second),
            (cost_xx, first, first),
            (cost_yy, second, second),
        )
    )
    present = jnp.any(first != 0, axis=-1) & jnp.any(second != 0, axis=-1)
    return jnp.where(present, both - (own + other) / 2, 0)


def _transport(cost, a, b, *, epsilon, tolerance, most) -> Transport:
    """One problem."""
    fixed = jax.lax.stop_gradient((cost, a, b, epsilon))
    x, y, made = iterate(*fixed, jax.lax.stop_gradient(tolerance), jnp.zeros_like(b), most=most)
    value = _envelope(cost, a, b, epsilon, x, y)
    x, y = _implicit(cost, a, b, epsilon, x, y)
    plan = plan_of(cost, a, b, epsilon, x, y)
    blocked = is_blocked(cost, plan)
    value, spent = (jnp.where(blocked, jnp.inf, z) for z in (value, jnp.sum(plan * cost)))
    return Transport(value, plan, spent, x, y, marginal_error(plan, a, b), made)


def _envelope(cost, a, b, epsilon, x, y) -> Float[jax.Array, ""]:
    """The dual objective with its potentials as constants: at their optimum, their slope is 0."""
    present = (a > 0)[:, None] & (b > 0)[None]
    sums = x[:, None] + y[None]
    exponent = jnp.where(present, (sums - cost) / epsilon, 0)
    # What a pair adds is sums - epsilon expm1(exponent), which drowns in the rounding of the sums
    # for a large epsilon; sums are cost + epsilon exponent, of which the cost is as it was given.
    flat = jnp.abs(exponent) < 1
    change = jnp.where(flat, exponent, 0)
    close = cost - epsilon * (jnp.expm1(change) - change)
    worth = jnp.where(flat, close, sums - epsilon * jnp.expm1(jnp.where(flat, 0, exponent)))
    return jnp.sum(a[:, None] * b[None] * worth)


@jax.custom_jvp
def _implicit(cost, a, b, epsilon, x, y) -> tuple[Float[jax.Array, "n"], Float[jax.Array, "m"]]:
    """The potentials, as functions of what they solve their equations for."""
    return x, y


@_implicit.defjvp
def _implicit_jvp(primals, tangents):
    """Differentiate x = min_eps(cost - y) and y = min_eps(cost' - x), and solve for the changes."""
    *given, x, y = primals

    def improved(cost, a, b, epsilon, x, y):
        rows = soft_minimum(cost - y[None], b, epsilon)
        columns = soft_minimum(cost.T - x[None], a, epsilon)
        return jnp.where(a > 0, rows, 0), jnp.where(b > 0, columns, 0)

    def of_the_given(cost, a, b, epsilon):
        return improved(cost, a, b, epsilon, x, y)

    _, (rows, columns) = jax.jvp(of_the_given, tuple(given), tuple(tangents[:4]))
    cost, a, b, epsilon = given
    # What potentials do to each other: averages with the shares of the plan as weights.
    plan = plan_of(cost, a, b, epsilon, x, y)
    across, down = jnp.sum(plan, axis=1), jnp.sum(plan, axis=0)
    from_columns = plan * reciprocal_or_0(across)[:, None]
    from_rows = plan.T * reciprocal_or_0(down)[:, None]
    # dx = rows - from_columns dy, dy = columns - from_rows dx; with dy = dz / root the system of dz
    # is symmetric. A constant may go from one side to the other in each part of the plan that
    # exchanges nothing with the rest: eigenvalues of 0, of which dz takes nothing.
    root = root_or_0(down)
    half = from_columns * root_or_0(across)[:, None] * reciprocal_or_0(root)[None]
    system = jnp.eye(len(b), dtype=b.dtype) - exact_einsum("ij,ik->jk", half, half)
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(system))
    floor = 4 * len(b) * jnp.finfo(b.dtype).eps
    inverse = reciprocal_or_0(jnp.where(values <= floor, 0, values))
    right = root * (columns - exact_einsum("ji,i->j", from_rows, rows))
    dz = exact_einsum("jk,k,lk,l->j", vectors, inverse, vectors, right)
    dy = reciprocal_or_0(root) * dz
    return (x, y), (rows - exact_einsum("ij,j->i", from_columns, dy), dy)
