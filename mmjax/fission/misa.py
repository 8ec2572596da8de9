"""MISA: each modality into a space that all share and a space of its own."""

import functools
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from mmjax.arrays import accumulation_dtype, checked
from mmjax.fission.perceptron import Perceptron
from mmjax.losses import cmd, mean_squared_alignment, orthogonality
from mmjax.modalities import Masks, Rows, check_names, read_modalities

MOMENTS = 5


class SharedAndPrivate(NamedTuple):
    """Two embeddings of each modality, and what they were made from and give back.

    Attributes:
        shared: rows in a space that all modalities share, in (0, 1).
        private: rows in the modality's own space, in (0, 1).
        target: rows of the modality, of as many features as those.
        reconstruction: the target again, from the sum of the two embeddings.
    """

    shared: Mapping[str, Float[jax.Array, "n d"]]
    private: Mapping[str, Float[jax.Array, "n d"]]
    target: Mapping[str, Float[jax.Array, "n d"]]
    reconstruction: Mapping[str, Float[jax.Array, "n d"]]


class MISALosses(NamedTuple):
    r"""The three terms beside that of the task, to be weighted.

    The total of the paper is :math:`\ell_{\text{task}} + \alpha \ell_{\text{diff}}
    + \beta \ell_{\text{sim}} + \gamma \ell_{\text{recon}}`; its released code starts from
    :math:`\alpha = 0.3, \beta = \gamma = 1`.

    Attributes:
        similarity: how far apart the modalities are in the shared space; one value for the batch.
        difference: how much the spaces overlap; one value for the batch.
        reconstruction: squared error per feature, one value per example.
    """

    similarity: Float[jax.Array, ""]
    difference: Float[jax.Array, ""]
    reconstruction: Float[jax.Array, "n"]


@checked
def misa_losses(factors: SharedAndPrivate, *, where: Masks | None = None) -> MISALosses:
    r"""Similarity of shared embeddings, difference of private ones, and reconstruction.

    .. math:: \ell_{\text{sim}} &= \frac{1}{|P|} \sum_{(a, b) \in P}
                  \mathrm{CMD}_5(h^c_a, h^c_b) \\
              \ell_{\text{diff}} &= \sum_m \ell_\perp(h^c_m, h^p_m)
                  + \sum_{(a, b) \in P} \ell_\perp(h^p_a, h^p_b) \\
              \ell_{\text{recon}, i} &= \frac{1}{|M_i|} \sum_{m \in M_i}
                  \frac1d \lVert u_{m,i} - \hat u_{m,i} \rVert^2

    over the pairs P of modalities that occur in the batch, with :func:`mmjax.losses.cmd` on (0, 1)
    and :math:`\ell_\perp` of :func:`mmjax.losses.orthogonality`.

    Args:
        factors: as :class:`MISA` gives them.
        where: per modality, the examples that have it, :math:`i \in V_m`; all if None. What a row
            holds in place of a modality that it lacks, NaN included, reaches no value and no
            gradient.

    Returns:
        The three terms, dimensionless but for the last one, which has the squared unit of the
        target; float32 or wider. Of a single modality the similarity is 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for modalities that differ between the arguments.

    Source: Hazarika et al. 2020, arXiv:2005.03545, eqs. 8 to 13. The overlap is that of
    :func:`mmjax.losses.orthogonality`, which does not grow with the batch.

    >>> rows = {"text": jnp.array([[0.1, 0.9], [0.9, 0.1]]), "audio": jnp.full((2, 2), 0.5)}
    >>> terms = misa_losses(SharedAndPrivate(rows, rows, rows, rows))
    >>> print(f"{terms.difference:.2f} {terms.reconstruction.sum():.2f}")
    1.00 0.00
    """
    names = sorted(factors.shared)
    read = {}
    for field, rows in factors._asdict().items():
        check_names(field, rows, "shared", factors.shared)
        read[field], masks = read_modalities(rows, where)
    shared, private = read["shared"], read["private"]
    dtype = accumulation_dtype(*shared.values())
    pairs = list(itertools.combinations(names, 2))
    apart = [
        cmd(
            shared[a],
            shared[b],
            interval=(0.0, 1.0),
            moments=MOMENTS,
            where_x=masks[a],
            where_y=masks[b],
        )
        for a, b in pairs
    ]
    overlaps = [orthogonality(shared[m], private[m], where=masks[m]) for m in names]
    overlaps += [orthogonality(private[a], private[b], where=masks[a] & masks[b]) for a, b in pairs]
    errors = [
        mean_squared_alignment(read["reconstruction"][m], read["target"][m], where=masks[m])
        for m in names
    ]
    counts = sum(masks[m].astype(dtype) for m in names)
    occurs = {m: jnp.any(masks[m]) for m in names}
    met = sum(((occurs[a] & occurs[b]).astype(dtype) for a, b in pairs), jnp.zeros((), dtype))
    return MISALosses(
        similarity=sum(apart, jnp.zeros((), dtype)) / jnp.maximum(met, 1),
        difference=sum(overlaps, jnp.zeros((), dtype)),
        reconstruction=functools.reduce(jnp.add, errors) / jnp.maximum(counts, 1),
    )


class MISA(nn.Module):
    """Owns the projections, the private encoders, the common encoder and the common decoder.

    Attributes:
        features: of every embedding.

    Source: Hazarika et al. 2020, arXiv:2005.03545, sec. 3.3: encoders with a sigmoid, one common
    encoder and one common decoder; utterance vectors first go through a dense layer, a ReLU and a
    layer normalisation, as in the released code.

    >>> rows = {"text": jnp.ones((2, 5)), "audio": jnp.zeros((2, 3))}
    >>> factors, _ = MISA(4).init_with_output(jax.random.key(0), rows)
    >>> factors.shared["audio"].shape
    (2, 4)
    """

    features: int

    @nn.compact
    @checked
    def __call__(self, inputs: Rows, *, where: Masks | None = None) -> SharedAndPrivate:
        """Split each modality into what is shared and what is its own.

        Args:
            inputs: one vector per example and modality.
            where: per modality, the examples that have it, all if None.

        Returns:
            The embeddings; rows of a missing modality are finite and mean nothing.
        """
        arrays, _ = read_modalities(inputs, where)
        encoder = Perceptron((), self.features, name="shared")
        decoder = Perceptron((), self.features, name="decoder")
        target, shared, private, reconstruction = {}, {}, {}, {}
        for name, x in arrays.items():
            x = nn.relu(Perceptron((), self.features, name=f"project_{name}")(x))
            x = nn.LayerNorm(dtype=x.dtype, name=f"norm_{name}")(x)
            own = Perceptron((), self.features, name=f"private_{name}")(x)
            target[name] = x
            shared[name], private[name] = nn.sigmoid(encoder(x)), nn.sigmoid(own)
            reconstruction[name] = decoder(shared[name] + private[name])
        return SharedAndPrivate(shared, private, target, reconstruction)
