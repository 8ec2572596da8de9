"""FactorCL: what two modalities share of a task, and what each alone knows of it."""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.arrays import Array, Scalar, as_scalar, checked
from mmjax.fission.critics import SeparableCritic
from mmjax.fission.factor_information import Bounds, shared_information, unique_information
from mmjax.fission.modalities import Factors, embed_each
from mmjax.information.lower_bounds import info_nce_bound
from mmjax.information.scores import same_condition
from mmjax.modalities import Masks, Rows, check_names, name_pairs, read_modalities


class FactorBounds(NamedTuple):
    """What :func:`factorcl_loss` adds up; nats, one per row.

    Attributes:
        factors: lower and upper bounds of shared and unique information.
        critics: lower bounds that the critics of the upper bounds raise; no embedding sees them.
    """

    factors: Bounds
    critics: Float[jax.Array, "n"]


@checked
def factorcl_loss(bounds: FactorBounds, *, weight: Scalar = 1.0) -> Float[jax.Array, "n"]:
    r"""Loss of embeddings and critics together: one gradient step serves both.

    .. math:: \ell_i = -\big(\text{raised}_i - w\, \text{lowered}_i\big) - \text{critics}_i

    Args:
        bounds: as :class:`FactorCL` gives them.
        weight: :math:`w` of what is to be removed; 1 in the paper. InfoNCE never exceeds the
            logarithm of the rows and NCE-CLUB has no such ceiling: with large informations a weight
            of 1 removes more than it should.

    Returns:
        One loss per row, in nats. Reduce with :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: if a Python or NumPy ``weight`` is not finite.

    Source: Liang et al. 2023, arXiv:2306.05268, eqs. 2, 3 and alg. 1, which steps the critics by
    themselves.

    >>> one = jnp.ones(1)
    >>> print(factorcl_loss(FactorBounds(Bounds(5 * one, 2 * one), one), weight=0.5))
    [-5.]
    """
    raised, lowered = bounds.factors
    scale = as_scalar("weight", weight, dtype=raised.dtype)
    return -raised + scale * lowered - bounds.critics


class FactorCL(nn.Module):
    """A shared and a unique encoder of each modality, and the critics that hold them to it.

    Of more than two modalities the bounds are means over the pairs that an example has.

    Attributes:
        shared: per modality, a module from its rows to rows of features.
        unique: likewise; of any number of features.
        critic: makes a critic, such as ``functools.partial(ConcatenatedCritic, hidden=(512,))``;
            see :mod:`mmjax.fission.critics`.

    Source: Liang et al. 2023, arXiv:2306.05268, sec. 3. Departures: the embeddings of a factor are
    what all of its terms see (the released code has a projection for every term, which lets the
    upper bounds be lowered by a projection alone, and gives neither factor); what is unique is so
    with respect to all that the other modality's embeddings know.
    """

    shared: Mapping[str, nn.Module]
    unique: Mapping[str, nn.Module]
    critic: Callable[..., nn.Module] = SeparableCritic

    def setup(self) -> None:
        """Make the critics of each pair of modalities."""
        check_names("shared", self.shared, "unique", self.unique)
        names = sorted(self.shared)
        pairs = name_pairs(itertools.combinations(names, 2), "_").values()
        ordered = name_pairs(itertools.permutations(names, 2), "_").values()
        self.task = {name: self.critic() for name in names}
        self.shared_by = {pair: self.critic() for pair in pairs}
        self.shared_given = {pair: self.critic() for pair in pairs}
        self.unique_from = {pair: self.critic() for pair in ordered}
        self.unique_given = {pair: self.critic() for pair in ordered}

    def __call__(self, inputs: Rows, *, where: Masks | None = None) -> Factors:
        """Embed each modality twice: what it shares on the task, and what it alone knows.

        Args:
            inputs: one row per example and modality.
            where: per modality, the examples that have it, all if None.

        Returns:
            The embeddings; those of a missing modality are 0.
        """
        arrays, masks = read_modalities(inputs, where)
        return Factors(
            embed_each(self.shared, arrays, masks), embed_each(self.unique, arrays, masks)
        )

    @checked
    def supervised(
        self,
        inputs: Rows,
        labels: Int[Array, "n"],
        *,
        classes: int,
        where: Masks | None = None,
    ) -> FactorBounds:
        """Bound the factors with labels for the task.

        Args:
            inputs: one row per example and modality; two modalities or more.
            labels: from 0 to ``classes`` less 1.
            classes: how many there are.
            where: per modality, the examples that have it, all if None.

        Returns:
            One value per example; 0 for one with a single modality, but for what that knows of the
            task.

        Raises:
            jaxtyping.TypeCheckError: on a wrong shape or dtype.
            ValueError: for a label out of its range, unless it is traced.
        """
        _check_labels(labels, classes)
        arrays, masks = read_modalities(inputs, where, at_least=2)
        factors = self(arrays, where=masks)
        task = jax.nn.one_hot(labels, classes, dtype=factors.dtype)
        tasks = dict.fromkeys(arrays, task)
        everyone = jnp.ones((len(labels), len(labels)), bool)
        return self._bounds(factors, masks, tasks, task, jnp.asarray(labels), everyone)

    def self_supervised(
        self,
        first: Rows,
        second: Rows,
        *,
        where: Masks | None = None,
    ) -> FactorBounds:
        """Bound the factors with a second view of each example for the task.

        The task is to know the example again: rows are views, those of one example share their
        condition, and what is left to share given the condition is what augmentations of two
        modalities have in common. In the paper critics of the condition are given both views, and
        take any other row for a negative; here that is the other view of the same example.

        Args:
            first: one view of each example and modality; two modalities or more.
            second: another view, augmented so that it keeps what matters.
            where: per modality, the examples that have it, all if None.

        Returns:
            One value per view: n of the first, then n of the second. Masks of rows are to be
            repeated likewise.
        """
        check_names("first", first, "second", second)
        once, masks = read_modalities(first, where, at_least=2)
        again, _ = read_modalities(second, where)
        stacked = {name: jnp.concatenate([once[name], again[name]]) for name in once}
        masks = {name: jnp.tile(mask, 2) for name, mask in masks.items()}
        factors = self(stacked, where=masks)
        tasks = {
            name: jnp.roll(rows, len(rows) // 2, axis=0) for name, rows in factors.unique.items()
        }
        examples = jnp.tile(jnp.arange(len(next(iter(once.values())))), 2)
        nothing = jnp.zeros((len(examples), 0), factors.dtype)  # which example it is says enough
        apart = (examples[:, None] != examples[None]) | jnp.eye(len(examples), dtype=bool)
        return self._bounds(factors, masks, tasks, nothing, examples, apart)

    def _bounds(
        self,
        factors: Factors,
        masks: Mapping[str, jax.Array],
        tasks: Mapping[str, jax.Array],
        condition: Float[jax.Array, "n c"],
        conditions: Int[jax.Array, "n"],
        apart: Bool[jax.Array, "n n"],
    ) -> FactorBounds:
        """Average over the modalities and pairs of modalities that a row has."""
        modalities = sum(mask.astype(factors.dtype) for mask in masks.values())
        known = sum(
            info_nce_bound(
                self.task[name](factors.unique[name], tasks[name]), where=apart & _both(mask, mask)
            )
            for name, mask in masks.items()
        )
        found = []
        for a, b in itertools.combinations(sorted(masks), 2):
            valid = masks[a] & masks[b]
            where = apart & _both(valid, valid)
            given = same_condition(conditions, where=valid)
            found.append(self._pair(factors, (a, b), condition, where, given))
        pairs = jnp.maximum(modalities * (modalities - 1) / 2, 1)
        raised, lowered, critics = (sum(rows) / pairs for rows in zip(*found, strict=True))
        # Every pair has the task term of its two modalities; a modality by itself has its own.
        known *= jnp.minimum(modalities, 2) / jnp.maximum(modalities, 1)
        return FactorBounds(Bounds(raised + known, lowered), critics)

    def _pair(
        self,
        factors: Factors,
        pair: tuple[str, str],
        condition: jax.Array,
        where: jax.Array,
        given: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Bounds of one pair, and those that its critics raise."""
        a, b = pair
        x, y = factors.shared[a], factors.shared[b]
        by, told = self.shared_by[f"{a}_{b}"], self.shared_given[f"{a}_{b}"]
        conditioned = _beside(x, condition)
        bounds = [
            shared_information(
                by(x, y), told(conditioned, y, frozen=True), where=where, given=given
            )
        ]
        critics = [info_nce_bound(told(_still(conditioned), _still(y)), where=given)]
        for one, other in ((a, b), (b, a)):
            z = factors.unique[one]
            rest = _still(_beside(factors.shared[other], factors.unique[other]))
            frm, told = self.unique_from[f"{one}_{other}"], self.unique_given[f"{one}_{other}"]
            bounds.append(
                unique_information(
                    frm(z, rest, frozen=True),
                    told(_beside(z, condition), rest),
                    where=where,
                    given=given,
                )
            )
            critics.append(info_nce_bound(frm(_still(z), rest), where=where))
        raised, lowered = (functools.reduce(jnp.add, rows) for rows in zip(*bounds, strict=True))
        return raised, lowered, functools.reduce(jnp.add, critics)


def _check_labels(labels: Int[Array, "n"], classes: int) -> None:
    if isinstance(labels, jax.core.Tracer):
        return
    known = np.unique(np.asarray(labels))
    if np.any((known < 0) | (known >= classes)):
        raise ValueError(
            f"labels must be from 0 to classes less 1, got {known[0]} to {known[-1]} and {classes=}"
        )


_still = jax.lax.stop_gradient


def _both(x: Bool[jax.Array, "n"], y: Bool[jax.Array, "n"]) -> Bool[jax.Array, "n n"]:
    return x[:, None] & y[None]


def _beside(x: Float[jax.Array, "n d"], y: Float[jax.Array, "n e"]) -> Float[jax.Array, "n f"]:
    return jnp.concatenate([x, y], axis=1)
