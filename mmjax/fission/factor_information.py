"""Bounds of the information on a task that modalities share, and that each alone has."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, checked
from mmjax.information.lower_bounds import info_nce_bound
from mmjax.information.upper_bounds import nce_club
from mmjax.reduction import masked_mean

Pairs = Bool[Array, "n n"]


class Bounds(NamedTuple):
    """Information that is to be raised, information that is to be lowered; nats, one per row.

    Attributes:
        raised: a sum of lower bounds, InfoNCE.
        lowered: a sum of upper bounds, NCE-CLUB.
    """

    raised: Float[jax.Array, "n"]
    lowered: Float[jax.Array, "n"]


@checked
def shared_information(
    scores: Float[Array, "n n"],
    scores_given: Float[Array, "n n"],
    *,
    where: Pairs,
    given: Pairs,
) -> Bounds:
    r"""Bound the information on the task that two modalities share.

    .. math:: S = I(X_1; X_2; Y) = I(X_1; X_2) - I(X_1; X_2 \mid Y)
              \ge I_{\mathrm{NCE}}(X_1; X_2) - I_{\mathrm{CLUB}}(X_1; X_2 \mid Y)

    Args:
        scores: of shared embeddings, by a critic that learns with them.
        scores_given: the same, by a critic that is held fixed here and knows the condition.
        where: pairs of rows that are valid and independent of each other, and the diagonal.
        given: pairs that have the same condition, the diagonal among them; see
            :func:`mmjax.information.same_condition`.

    Returns:
        The two bounds; the information is the first less the second. An upper bound whose mean over
        the batch is negative is 0, and so is its gradient: the critic is at fault.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Liang et al. 2023, arXiv:2306.05268, eqs. 2, 6 and 8. Departures: negatives given the
    task have the same task, as in eq. 7 (the released code takes any); the upper bound is cut.

    >>> same, all_pairs = jnp.eye(4, dtype=bool), jnp.ones((4, 4), bool)
    >>> bounds = shared_information(9 * jnp.eye(4), jnp.eye(4), where=all_pairs, given=same)
    >>> print([f"{rows.mean():.3f}" for rows in bounds])
    ['1.386', '0.000']
    """
    return Bounds(
        info_nce_bound(scores, where=where), _cut(nce_club(scores_given, where=given), given)
    )


@checked
def unique_information(
    scores: Float[Array, "n n"],
    scores_given: Float[Array, "n n"],
    *,
    where: Pairs,
    given: Pairs,
) -> Bounds:
    r"""Bound what another modality takes away from the information on the task that is unique.

    .. math:: U_1 = I(X_1; Y \mid X_2) = I(X_1; Y) - I(X_1; X_2) + I(X_1; X_2 \mid Y)
              \ge I_{\mathrm{NCE}}(X_1; Y) - I_{\mathrm{CLUB}}(X_1; X_2)
                  + I_{\mathrm{NCE}}(X_1; X_2 \mid Y)

    These are the last two terms; :math:`I(X_1; Y)` is
    :func:`mmjax.information.info_nce_bound` of the unique embedding and the task.

    Args:
        scores: of the unique embedding of one modality with the other modality, by a critic that is
            held fixed here.
        scores_given: the same, by a critic that learns with the embedding and knows the condition.
        where: pairs of rows that are valid and independent of each other, and the diagonal.
        given: pairs that have the same condition, the diagonal among them.

    Returns:
        The two bounds, of which the second is cut at 0 as in :func:`shared_information`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Liang et al. 2023, arXiv:2306.05268, eqs. 3, 6 and 8, with the departures of
    :func:`shared_information`.

    >>> all_pairs = jnp.ones((4, 4), bool)
    >>> bounds = unique_information(3 * jnp.eye(4), jnp.eye(4), where=all_pairs, given=all_pairs)
    >>> print([f"{rows.mean():.3f}" for rows in bounds])
    ['0.643', '3.000']
    """
    return Bounds(
        info_nce_bound(scores_given, where=given), _cut(nce_club(scores, where=where), where)
    )


def _cut(rows: Float[jax.Array, "n"], pairs: Pairs) -> Float[jax.Array, "n"]:
    """Rows of an upper bound, or 0 where their mean is negative, as no information is."""
    mean = masked_mean(rows, jnp.sum(pairs, axis=1) > 1)
    return jnp.where(jax.lax.stop_gradient(mean) > 0, rows, 0)
