"""CoMM: what modalities say together is aligned with what they say together in another view."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, AxisName, Scalar, checked
from mmjax.fission.modalities import fuse
from mmjax.fission.perceptron import Perceptron
from mmjax.losses import nt_xent
from mmjax.losses.samples import unit_length
from mmjax.modalities import Masks, check_names, read_modalities


class Projections(NamedTuple):
    """Unit rows of one view of each example.

    Attributes:
        joint: of all modalities that the example has, together.
        alone: of each modality by itself.
    """

    joint: Float[jax.Array, "n d"]
    alone: Mapping[str, Float[jax.Array, "n d"]]


@checked
def comm_loss(
    first: Projections,
    second: Projections,
    *,
    temperature: Scalar = 0.1,
    where: Masks | None = None,
    axis_name: AxisName | None = None,
) -> Float[jax.Array, "n"]:
    r"""Contrast the joint embedding of one view with joint and single ones of the other.

    .. math:: \ell_i = \frac{1}{1 + |M_i|} \Big[ \ell(z', z'')_i + \sum_{m \in M_i}
              \tfrac12 \big( \ell(z'_m, z'')_i + \ell(z''_m, z')_i \big) \Big]

    with :math:`\ell` of :func:`mmjax.losses.nt_xent` and the modalities :math:`M_i` of example i.
    The first term bounds :math:`R + U_1 + U_2 + S`, what the modalities say together; those of a
    single modality bound :math:`R + U_m`. Exact under sharding where ``nt_xent`` is, and under the
    same condition.

    Args:
        first: projections of one view; see :class:`CoMM`.
        second: projections of the other.
        temperature: :math:`\tau > 0`, dimensionless.
        where: per modality, the examples that have it, all if None. One that lacks a modality takes
            part in the terms that it has, and in no other; without any its loss and gradient are 0,
            even where it holds NaN.
        axis_name: mesh axis or axes that shard the examples.

    Returns:
        One loss per example, in nats, float32 or wider. Reduce with
        :func:`mmjax.reduction.masked_mean` over the examples that have a modality.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for modalities that differ between the arguments, or a Python or NumPy
            ``temperature`` that is not positive and finite.

    Source: Dufumier et al. 2025, arXiv:2409.07402, eqs. 7 and 8. A mean over the terms of an
    example instead of their sum, as in the released code, which drops the padding mask in training.

    >>> view = Projections(jnp.eye(2), {"image": jnp.eye(2), "text": jnp.eye(2)})
    >>> print(f"{comm_loss(view, view, temperature=1.0).mean():.4f}")
    0.5514
    """
    check_names("first", first.alone, "second", second.alone)
    views = [read_modalities(view.alone, where) for view in (first, second)]
    have = views[0][1]
    joint = jnp.any(jnp.stack(list(have.values())), axis=0)

    def contrast(x: Array, y: Array, valid: Array) -> jax.Array:
        return nt_xent(x, y, temperature=temperature, where=valid, axis_name=axis_name)

    total = contrast(first.joint, second.joint, joint)
    for name, valid in have.items():
        pairs = (views[0][0][name], second.joint), (views[1][0][name], first.joint)
        total += sum(contrast(x, y, valid) for x, y in pairs) / 2
    terms = 1 + sum(valid.astype(total.dtype) for valid in have.values())
    return total / terms


class CoMM(nn.Module):
    """A fusion module that is run on all modalities and on each alone, and a projector.

    Attributes:
        fusion: called as ``fusion(inputs, where=where)`` with masks for every modality, and gives
            rows of features. What it gives for a masked modality has to be what it would give
            without it, as all of :mod:`mmjax.fusion` do.
        hidden: features of the hidden layers of the projector.
        features: features of a projection.

    Source: Dufumier et al. 2025, arXiv:2409.07402, fig. 3. Departure: no batch normalisation in the
    projector, so that an example does not see its neighbours.
    """

    fusion: nn.Module
    hidden: tuple[int, ...] = (512, 512)
    features: int = 256

    def setup(self) -> None:
        """Build the projector."""
        self.projector = Perceptron(self.hidden, self.features)

    def __call__(
        self,
        inputs: Mapping[str, Float[Array, "n *t _"]],
        *,
        where: Mapping[str, Bool[Array, "n *t"]] | None = None,
        train: bool = False,
    ) -> Float[jax.Array, "n k"]:
        """Embed all modalities together: the representation for what comes after.

        Args:
            inputs: vectors or sequences of each modality, as the fusion module takes them.
            where: which rows, or which tokens of the sequences, are valid; all if None. Padding is
                masked in training as in use.
            train: handed on to a fusion module that takes it: turn dropout on.

        Returns:
            One row per example.
        """
        arrays, masks = read_modalities(inputs, where)
        return fuse(self.fusion, arrays, masks, train=train)

    def project(
        self,
        inputs: Mapping[str, Float[Array, "n *t _"]],
        *,
        where: Mapping[str, Bool[Array, "n *t"]] | None = None,
        train: bool = False,
    ) -> Projections:
        """Project the joint embedding and that of each modality alone, for :func:`comm_loss`.

        Args:
            inputs: one view of each modality.
            where: as for a call.
            train: as for a call; each of the fusions draws its own dropout.

        Returns:
            Unit rows.
        """
        arrays, masks = read_modalities(inputs, where)

        def projected(kept: Mapping[str, jax.Array]) -> jax.Array:
            return unit_length(self.projector(fuse(self.fusion, arrays, kept, train=train)))

        alone = {}
        for name in arrays:
            only = {m: mask if m == name else jnp.zeros_like(mask) for m, mask in masks.items()}
            alone[name] = projected(only)
        return Projections(projected(masks), alone)
