r"""What two modalities say of a label, sample by sample: redundant, unique and synergistic."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.information.codes import as_codes
from mmjax.information.discrete import as_probabilities
from mmjax.information.log_ratio import categorical_log_density
from mmjax.information.units import in_unit
from mmjax.reduction import masked_mean


class SampleInteraction(NamedTuple):
    """Pointwise information, one value per row each; their means are those of the data set.

    Attributes:
        redundancy: what either modality says of this row's label.
        unique_1: what only the first one says.
        unique_2: what only the second one says.
        synergy: what only both together say.
    """

    redundancy: Float[jax.Array, "n"]
    unique_1: Float[jax.Array, "n"]
    unique_2: Float[jax.Array, "n"]
    synergy: Float[jax.Array, "n"]


@checked
def sample_wise_interaction(
    surprisal_1: Float[Array, "n"],
    surprisal_2: Float[Array, "n"],
    information_1: Float[Array, "n"],
    information_2: Float[Array, "n"],
    information_12: Float[Array, "n"],
    *,
    where: Bool[Array, "n"] | None = None,
    unit: str = "nats",
) -> SampleInteraction:
    r"""Lightweight sample-wise multimodal interaction (LSMI).

    .. math:: r &= \min(h(x_1), h(x_2)) - \min(h(x_1 \mid y), h(x_2 \mid y)), \qquad
              h(x_m \mid y) = h(x_m) - i(x_m; y) \\
              u_m &= i(x_m; y) - r, \qquad s = i(x_1, x_2; y) - r - u_1 - u_2

    An information :math:`i = h(x) - h(x \mid y)` may be negative; its two parts are not (for a
    discrete x), and the smaller of each is what both modalities have in common. For densities h
    depends on the unit of the features, and so does r: bring both modalities to one scale and one
    number of features.

    Args:
        surprisal_1: :math:`h(x_1) = -\log p(x_1)`, in nats, such as ``-knife_log_density(...)``.
        surprisal_2: :math:`h(x_2)`.
        information_1: :math:`i(x_1; y) = \log \frac{p(y \mid x_1)}{p(y)}`, in nats, such as
            :func:`pointwise_information`.
        information_2: :math:`i(x_2; y)`.
        information_12: :math:`i(x_1, x_2; y)`.
        where: valid rows, all if None. The values and gradients of an invalid row are 0 even where
            it holds NaN.
        unit: of the result, "nats" or "bits".

    Returns:
        One of each per row, of either sign. They add up: ``redundancy + unique_1`` is
        ``information_1``, and all four are ``information_12``.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit.

    Source: Yang et al. 2025, arXiv:2506.17248, sec. 3, after Finn and Lizier 2018,
    arXiv:1801.09010. Means may be negative, as that of what is unique in a logical AND is, -0.25
    bits; what the paper tabulates went through :func:`non_negative_means`.

    >>> h, i = jnp.full(1, 3.0), jnp.full(1, 0.7)  # two copies of one variable
    >>> print(f"{sample_wise_interaction(h, h, i, i, i).redundancy[0]:.4f}")
    0.7000
    """
    given = (surprisal_1, surprisal_2, information_1, information_2, information_12)
    dtype = accumulation_dtype(*given)
    valid = jnp.ones(len(surprisal_1), bool) if where is None else jnp.asarray(where)
    h_1, h_2, i_1, i_2, i_12 = (jnp.where(valid, jnp.asarray(z).astype(dtype), 0) for z in given)
    redundancy = jnp.minimum(h_1, h_2) - jnp.minimum(h_1 - i_1, h_2 - i_2)
    parts = (redundancy, i_1 - redundancy, i_2 - redundancy, i_12 - i_1 - i_2 + redundancy)
    return SampleInteraction(*(in_unit(part, unit) for part in parts))


@checked
def non_negative_means(
    interaction: SampleInteraction, *, where: Bool[Array, "n"] | None = None
) -> SampleInteraction:
    r"""Move one constant between the parts, so that the means of a data set are not negative.

    .. math:: (r, u_1, u_2, s) \to (r + c, u_1 - c, u_2 - c, s + c), \qquad
              c = \begin{cases} -\min(\bar r, \bar s) & \min(\bar r, \bar s) < 0 \\
              \min(\bar u_1, \bar u_2, 0) & \text{otherwise} \end{cases}

    What each modality says, and what both do, stays as it is.

    Args:
        interaction: of the rows of a data set.
        where: valid rows, all if None.

    Returns:
        The same parts, moved; rows that are invalid stay 0. Where no constant serves all four, a
        mean stays negative.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: Yang et al. 2025, arXiv:2506.17248, the released code.

    >>> part = SampleInteraction(*jnp.array([[0.5], [-0.25], [-0.25], [0.75]]))
    >>> print([float(z[0]) for z in non_negative_means(part)])
    [0.25, 0.0, 0.0, 0.5]
    """
    valid = jnp.ones(len(interaction.synergy), bool) if where is None else jnp.asarray(where)
    r, u_1, u_2, s = (masked_mean(part, valid) for part in interaction)
    shared = jnp.minimum(r, s)
    shift = jnp.where(shared < 0, -shared, jnp.minimum(jnp.minimum(u_1, u_2), 0))
    signs = (1, -1, -1, 1)
    return SampleInteraction(
        *(
            jnp.where(valid, part + sign * shift, 0)
            for part, sign in zip(interaction, signs, strict=True)
        )
    )


@checked
def pointwise_information(
    logits: Float[Array, "n c"],
    labels: Integer[Array, "n"],
    prior: Float[Array, "c"],
    *,
    where: Bool[Array, "n"] | None = None,
    unit: str = "nats",
) -> Float[jax.Array, "n"]:
    r"""How much a classifier's input says of this row's label.

    .. math:: i(x; y) = \log \frac{q(y \mid x)}{p(y)}

    Its mean over fresh rows is a lower bound of the mutual information (Barber and Agakov), tight
    for a classifier that knows the posterior; over the rows that trained it, it is none.

    Args:
        logits: of the classifier :math:`q(y \mid x)`, before the softmax.
        labels: classes in [0, c). A row with another label, or with one that ``prior`` holds for
            impossible, is as one that is invalid.
        prior: probabilities :math:`p(y)` of the classes, such as their frequencies, which sum to
            one.
        where: valid rows, all if None. The value and gradient of an invalid row are 0 even where it
            holds NaN.
        unit: "nats" or "bits".

    Returns:
        One value per row, of either sign, at most :math:`-\log p(y)`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit; outside of jit, if ``prior`` is negative or does not sum to
            one.

    Source: Yang et al. 2025, arXiv:2506.17248, sec. 3; Barber and Agakov 2003. The released code
    has :math:`\log c` for :math:`-\log p(y)`, which supposes classes of one size.

    >>> logits = jnp.array([[9.0, -9.0], [0.0, 0.0]])
    >>> print(pointwise_information(logits, jnp.array([0, 1]), jnp.full(2, 0.5), unit="bits"))
    [1. 0.]
    """
    own = as_codes(labels)[:, None] == jnp.arange(logits.shape[1], dtype=jnp.int32)[None]
    prior = as_probabilities(prior, 1).astype(accumulation_dtype(logits, prior))
    possible = jnp.any(own & (prior > 0)[None], axis=1)
    valid = possible if where is None else possible & jnp.asarray(where)
    log_q = categorical_log_density(logits, labels, where=valid).astype(prior.dtype)
    log_prior = jnp.log(jnp.where(prior > 0, prior, 1))
    log_p = jnp.sum(jnp.where(own, log_prior[None], 0), axis=1)
    return in_unit(jnp.where(valid, log_q - log_p, 0), unit)
