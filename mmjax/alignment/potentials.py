"""Potentials of entropic transport: how they are found, and the plan that they stand for."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from mmjax.alignment.arithmetic import exact_einsum


def iterate(
    cost: Float[jax.Array, "n m"],
    a: Float[jax.Array, "n"],
    b: Float[jax.Array, "m"],
    epsilon: Float[jax.Array, ""],
    tolerance: Float[jax.Array, ""],
    start: Float[jax.Array, "m"],
    *,
    most: int,
) -> tuple[Float[jax.Array, "n"], Float[jax.Array, "m"], Int[jax.Array, ""]]:
    """Improve both potentials in turn until the plan's columns sum to what they should.

    Args:
        cost: finite.
        a: masses of the rows.
        b: masses of the columns.
        epsilon: the weight of the entropy.
        tolerance: error of the columns to stop at.
        start: first potential of the columns.
        most: bound on the number of iterations.

    Returns:
        The potentials, those of the rows improved last, and the number of iterations.

    Source: see :func:`mmjax.alignment.sinkhorn`.

    >>> a = jnp.array([0.5, 0.5])
    >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> x, y, _ = iterate(cost, a, a, jnp.float32(1), jnp.float32(1e-6), jnp.zeros(2), most=9)
    >>> print(jnp.sum(plan_of(cost, a, a, jnp.float32(1), x, y)))
    1.0
    """

    def step(state):
        x, y, _, made = state
        better = soft_minimum(cost.T - x[None], a, epsilon)
        # The old plan's columns sum to b exp((y - better) / epsilon): its error comes for free.
        error = jnp.sum(b * jnp.abs(jnp.expm1(jnp.where(b > 0, (y - better) / epsilon, 0))))
        return soft_minimum(cost - better[None], b, epsilon), better, error, made + 1

    def unfinished(state):
        *_, error, made = state
        return (made < most) & (error > tolerance)  # of NaN too there is no improving

    first = soft_minimum(cost - start[None], b, epsilon)
    state = first, start, jnp.full((), jnp.finfo(cost.dtype).max), jnp.zeros((), jnp.int32)
    x, y, _, made = jax.lax.while_loop(unfinished, step, state)
    return jnp.where(a > 0, x, 0), jnp.where(b > 0, y, 0), made


def soft_minimum(
    values: Float[jax.Array, "n m"], weights: Float[jax.Array, "m"], epsilon: Float[jax.Array, ""]
) -> Float[jax.Array, "n"]:
    r"""Weighted soft minimum of every row.

    .. math:: -\epsilon \log \sum_j w_j e^{-v_{ij} / \epsilon}

    Args:
        values: finite where there is weight.
        weights: not negative.
        epsilon: positive.

    Returns:
        One value per row, 0 without any weight.

    Source: no paper.

    >>> print(soft_minimum(jnp.array([[0.0, 7.0]]), jnp.array([1.0, 0.0]), jnp.float32(1)))
    [0.]
    """
    counted = (weights > 0)[None]
    largest = jnp.finfo(values.dtype).max
    least = jax.lax.stop_gradient(jnp.min(values, axis=1, where=counted, initial=largest))
    least = jnp.where(jnp.any(counted), least, 0)
    rises = jnp.where(counted, (least[:, None] - values) / epsilon, 0)
    total = exact_einsum("nm,m->n", jnp.exp(rises), weights)  # twice as fast as a sum on a CPU
    return least - epsilon * jnp.log(jnp.where(total > 0, total, 1))


def plan_of(
    cost: Float[jax.Array, "n m"],
    a: Float[jax.Array, "n"],
    b: Float[jax.Array, "m"],
    epsilon: Float[jax.Array, ""],
    x: Float[jax.Array, "n"],
    y: Float[jax.Array, "m"],
) -> Float[jax.Array, "n m"]:
    """The plan that potentials stand for.

    Args:
        cost: finite.
        a: masses of the rows.
        b: masses of the columns.
        epsilon: the weight of the entropy.
        x: potential of the rows.
        y: potential of the columns.

    Returns:
        Mass that goes from each row to each column.

    Source: see :func:`mmjax.alignment.sinkhorn`.

    >>> one, zero = jnp.ones(1), jnp.zeros(1)
    >>> print(plan_of(jnp.zeros((1, 1)), one, one, jnp.float32(1), zero, zero))
    [[1.]]
    """
    present = (a > 0)[:, None] & (b > 0)[None]
    exponent = jnp.where(present, (x[:, None] + y[None] - cost) / epsilon, 0)
    return a[:, None] * b[None] * jnp.exp(exponent)


def marginal_error(
    plan: Float[jax.Array, "n m"], a: Float[jax.Array, "n"], b: Float[jax.Array, "m"]
) -> Float[jax.Array, ""]:
    """Mass of a plan that is where it should not be, or is missing; a constant.

    Args:
        plan: mass that goes from each row to each column.
        a: masses that the rows should have.
        b: masses that the columns should have.

    Returns:
        The sum of absolute differences of both sides; 0 if one side has no mass at all.

    Source: no paper.

    >>> print(marginal_error(jnp.eye(2) / 2, jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75])))
    0.5
    """
    rows, columns = jnp.sum(plan, axis=1) - a, jnp.sum(plan, axis=0) - b
    error = jnp.sum(jnp.abs(rows)) + jnp.sum(jnp.abs(columns))
    return jax.lax.stop_gradient(jnp.where((jnp.sum(a) > 0) & (jnp.sum(b) > 0), error, 0))
