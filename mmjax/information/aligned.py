"""Joint distributions of the rows of a batch and classes, with the posteriors of either side."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.discrete import slack

IMPOSSIBLE = -1e4  # nats, of a class without probability: exp of it is 0, differences are finite


@checked
def aligned_joint(
    scores: Float[Array, "n m y"],
    log_posterior_1: Float[Array, "n y"],
    log_posterior_2: Float[Array, "m y"],
    *,
    iterations: int = 50,
    where_1: Bool[Array, "n"] | None = None,
    where_2: Bool[Array, "m"] | None = None,
) -> tuple[Float[jax.Array, "n m y"], Float[jax.Array, ""]]:
    r"""A joint distribution of rows, columns and classes with given posteriors of either.

    .. math:: q_{ijy} = e^{s_{ijy} + f_{iy} + g_{jy}}, \qquad
              \sum_j q_{ijy} = \frac{p(y \mid i)}{n} \frac{\pi_y}{\pi^1_y}, \quad
              \sum_i q_{ijy} = \frac{p(y \mid j)}{m} \frac{\pi_y}{\pi^2_y}

    where :math:`\pi^1, \pi^2` are the mean posteriors of rows and columns, and :math:`\pi` is the
    mean of both: without the ratios, no distribution would have both marginals.

    Args:
        scores: of rows, columns and classes; any numbers.
        log_posterior_1: logarithms of the probabilities of the classes for each row, minus infinity
            for one that cannot be.
        log_posterior_2: for each column.
        iterations: how often columns and rows are rescaled; gradients go through all of it.
        where_1: valid rows, all if None. An invalid one has no probability.
        where_2: valid columns.

    Returns:
        The probabilities, and the sum of the absolute errors of the marginal of the columns (that
        of the rows is exact).

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if ``iterations`` is below 1; outside of jit, if the probabilities of a valid
            row or column do not sum to one.

    Source: Liang et al. 2023, arXiv:2302.12247, sec. 3.2, with Cuturi 2013, arXiv:1306.0895, in the
    logarithmic domain. That the marginals are made to agree on the classes is ours.

    >>> even = jnp.log(jnp.full((2, 2), 0.5))
    >>> joint, error = aligned_joint(jnp.zeros((2, 2, 2)), even, even)
    >>> print(joint.sum(), joint[0, 0])
    1.0 [0.125 0.125]
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    (log_row, row), (log_column, column) = _targets(
        (log_posterior_1, log_posterior_2), (where_1, where_2)
    )
    valid = row[:, None] & column[None]
    scores = jnp.where(valid[..., None], jnp.asarray(scores).astype(log_row.dtype), 0)

    def rescale(potential: jax.Array, _: None) -> tuple[jax.Array, None]:
        of_row = log_row - _log_sum(scores + potential[None], axis=1, where=column[None, :, None])
        of_column = log_column - _log_sum(
            scores + of_row[:, None], axis=0, where=row[:, None, None]
        )
        return of_column, None

    potential, _ = jax.lax.scan(rescale, jnp.zeros_like(log_column), None, length=iterations)
    shifted = scores + potential[None]
    of_row = log_row - _log_sum(shifted, axis=1, where=column[None, :, None])
    joint = jnp.where(valid[..., None], jnp.exp(shifted + of_row[:, None]), 0)
    wanted = jnp.where(column[:, None], jnp.exp(log_column), 0)
    return joint, jnp.sum(jnp.abs(jnp.sum(joint, axis=0) - wanted))


def _targets(posteriors: tuple, masks: tuple) -> list[tuple[jax.Array, jax.Array]]:
    """Logarithms of both marginals, 0 where there is none, and what is valid."""
    for number, (p, where) in enumerate(zip(posteriors, masks, strict=True), 1):
        _check_posterior(f"log_posterior_{number}", p, where)
    dtype = accumulation_dtype(*posteriors)
    valid = [
        jnp.ones(len(p), bool) if where is None else jnp.asarray(where)
        for p, where in zip(posteriors, masks, strict=True)
    ]
    # Finite also where there is no probability, or a class without any would be NaN.
    logs = [
        jnp.where(v[:, None], jnp.maximum(jnp.asarray(p).astype(dtype), IMPOSSIBLE), 0)
        for p, v in zip(posteriors, valid, strict=True)
    ]
    counts = [jnp.log(jnp.maximum(jnp.sum(v, dtype=dtype), 1)) for v in valid]
    means = [
        _log_sum(p, axis=0, where=v[:, None]) - count
        for p, v, count in zip(logs, valid, counts, strict=True)
    ]
    shared = jnp.logaddexp(*means) - jnp.log(jnp.array(2, dtype))
    return [
        (jnp.where(v[:, None], p - count + (shared - mean)[None], 0), v)
        for p, v, count, mean in zip(logs, valid, counts, means, strict=True)
    ]


def _check_posterior(name: str, p: Array, where: Array | None) -> None:
    """Refuse logits, and what else is no logarithm of probabilities, where that can be seen."""
    if isinstance(p, jax.core.Tracer) or isinstance(where, jax.core.Tracer):
        return
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.sum(np.exp(np.asarray(p, np.float64)), axis=1)
    valid = np.ones(len(total), bool) if where is None else np.asarray(where)
    wrong = valid & ~(np.abs(total - 1) <= slack(p, p.shape[1]))
    if wrong.any():
        raise ValueError(
            f"the probabilities of a row of {name} must sum to one, got {total[wrong][0]:.6g}: "
            "take jax.nn.log_softmax of logits"
        )


def _log_sum(x: jax.Array, *, axis: int, where: jax.Array) -> jax.Array:
    """Logarithm of a sum of exponentials; 0 where nothing is summed."""
    some = jnp.any(where, axis=axis, keepdims=True)
    total = jax.nn.logsumexp(x, axis=axis, where=where | ~some)
    return jnp.where(jnp.squeeze(some, axis), total, 0)
