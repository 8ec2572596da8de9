"""DisentangledSSL: first what modalities share, and no more; then what that leaves out."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array as AnyArray
from jaxtyping import Float, Key

from mmjax.arrays import Array, Scalar, accumulation_dtype, as_scalar, checked
from mmjax.fission.modalities import Arrays, Factors, embed_each, key_of
from mmjax.fission.von_mises_fisher import Number, sample_vmf, vmf_kl
from mmjax.losses import clip_loss, orthogonality, pairwise
from mmjax.losses.samples import unit_length
from mmjax.modalities import Masks, Rows, check_names, read_modalities


@checked
def disentangled_shared_loss(
    means: Mapping[str, Float[Array, "n d"]],
    *,
    key: Key[AnyArray, ""],
    weight: Scalar,
    concentration: Number = 1000.0,
    temperature: Scalar = 0.07,
    where: Masks | None = None,
) -> Float[jax.Array, "n"]:
    r"""Step 1: share as much as possible, and compress what is not shared.

    .. math:: \ell_i = \frac{1}{|P_i|} \sum_{(a, b) \in P_i} \ell_{\mathrm{NCE}}(z_a, z_b)_i
              + \beta\, \mathrm{KL}\big(\mathrm{vMF}(\mu_{a,i}, \kappa) \,\|\,
              \mathrm{vMF}(\mu_{b,i}, \kappa)\big), \qquad z \sim \mathrm{vMF}(\mu, \kappa)

    over the pairs :math:`P_i` of modalities that an example has, with
    :math:`\ell_{\mathrm{NCE}}` of :func:`mmjax.losses.clip_loss`.

    Args:
        means: mean directions :math:`\mu_m` of each modality, of any length; two or more.
        key: random key, for the samples z.
        weight: :math:`\beta \ge 0`, per nat. The released code multiplies
            :math:`1 - \mu_a \cdot \mu_b` instead: its value is :math:`\kappa A_d(\kappa)` times
            this one, see :func:`mean_resultant_length`.
        concentration: :math:`\kappa > 0`.
        temperature: :math:`\tau > 0` of the contrast, dimensionless.
        where: per modality, the examples that have it, all if None. One with fewer than two has a
            loss and gradient of 0, even where it holds NaN.

    Returns:
        One loss per example, in nats. Reduce over the examples that have a pair; see
        :func:`mmjax.losses.has_pair`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for fewer than two modalities, names that differ, or an option out of its range.

    Source: Wang et al. 2025, arXiv:2410.23996, eqs. 4 and 5; the mean over pairs is ours for
    more than two modalities.

    >>> rows = {"image": jnp.eye(2), "text": jnp.eye(2)[::-1]}
    >>> loss = disentangled_shared_loss(
    ...     rows, key=jax.random.key(0), weight=1.0, concentration=1e6, temperature=1.0
    ... )
    >>> print(f"{loss.mean() / 1e6:.3f}")
    1.000
    """
    arrays, masks = read_modalities(means, where, at_least=2)
    dtype = accumulation_dtype(*arrays.values())
    scaled = as_scalar("weight", weight, dtype=dtype)
    if not isinstance(weight, jax.Array) and weight < 0:
        raise ValueError(f"weight must be at least 0, got {weight}")
    samples = {
        name: sample_vmf(rows, concentration=concentration, key=key_of(key, name))
        for name, rows in arrays.items()
    }
    scale = 1 / as_scalar("temperature", temperature, dtype=dtype, positive=True)
    contrast = pairwise(functools.partial(clip_loss, logit_scale=scale), samples, masks)
    divergence = pairwise(functools.partial(vmf_kl, concentration=concentration), arrays, masks)
    return contrast + scaled * divergence


class UniqueLosses(NamedTuple):
    r"""The terms of step 2, whose total is :math:`\text{contrast} + \lambda\, \text{overlap}`.

    Attributes:
        contrast: conditional InfoNCE, a mean over the modalities of an example; nats, one value
            per example.
        overlap: of unique and shared embeddings, a mean over the M modalities that occur in the
            batch; one value for the batch.
    """

    contrast: Float[jax.Array, "n"]
    overlap: Float[jax.Array, ""]


@checked
def disentangled_unique_losses(
    first: Factors,
    second: Factors,
    *,
    temperature: Scalar = 0.07,
    where: Masks | None = None,
) -> UniqueLosses:
    r"""Step 2: recognise a view of a modality by what is shared and what is unique together.

    .. math:: \ell_i = \frac{1}{|M_i|} \sum_{m \in M_i}
              \ell_{\mathrm{NCE}}([u_m; \hat c_m], [u'_m; \hat c'_m])_i, \qquad
              \ell_\perp = \frac{1}{2M} \sum_m \ell_\perp(u_m, \hat c_m)
                         + \ell_\perp(u'_m, \hat c'_m)

    with :math:`\ell_{\mathrm{NCE}}` of :func:`mmjax.losses.clip_loss` on unit rows and
    :math:`\ell_\perp` of :func:`mmjax.losses.orthogonality`. The shared embeddings
    :math:`\hat c` are constants: what they know already, the unique ones need not.

    Args:
        first: embeddings of one view.
        second: of another.
        temperature: :math:`\tau > 0`, dimensionless.
        where: per modality, the examples that have it, :math:`M_i`; all if None.

    Returns:
        The two terms, float32 or wider. An example without a modality has a contrast of 0.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for names that differ, or a Python or NumPy ``temperature`` that is not positive
            and finite.

    Source: Wang et al. 2025, arXiv:2410.23996, eqs. 6 and 7. The shared embedding beside a unique
    one is that of its own modality, which the released code offers beside that of the other. The
    overlap is that of :func:`mmjax.losses.orthogonality`: squared, of centred rows, and independent
    of the number of rows.

    >>> rows = {"text": jnp.eye(2)}
    >>> terms = disentangled_unique_losses(Factors(rows, rows), Factors(rows, rows))
    >>> print(f"{terms.contrast.sum():.4f} {terms.overlap:.1f}")
    0.0000 1.0
    """
    for factors in (first, second):
        check_names("shared", factors.shared, "unique", factors.unique)
    views = []
    for factors in (first, second):
        unique, masks = read_modalities(factors.unique, where)
        views.append((jax.lax.stop_gradient(read_modalities(factors.shared, where)[0]), unique))
    check_names("first", views[0][1], "second", views[1][1])
    dtype = accumulation_dtype(*views[0][1].values(), *views[0][0].values())
    scale = 1 / as_scalar("temperature", temperature, dtype=dtype, positive=True)
    total, overlap = jnp.zeros((), dtype), jnp.zeros((), dtype)
    for name, valid in masks.items():
        together = [_together(unique[name], shared[name], dtype) for shared, unique in views]
        total += clip_loss(together[0], together[1], logit_scale=scale, where=valid)
        overlap += sum(orthogonality(u[name], s[name], where=valid) for s, u in views) / 2
    counts = sum(valid.astype(dtype) for valid in masks.values())
    occurring = sum(jnp.any(valid).astype(dtype) for valid in masks.values())
    return UniqueLosses(total / jnp.maximum(counts, 1), overlap / jnp.maximum(occurring, 1))


class DisentangledSSL(nn.Module):
    """A shared encoder of each modality, and a unique one that sees what the shared one found.

    Train the shared encoders with :func:`disentangled_shared_loss` of :meth:`shared_means`, then
    the unique ones with :func:`disentangled_unique_losses` of a call; no gradient of the second
    step reaches the encoders of the first.

    Attributes:
        shared: per modality, a module from its rows to rows of features; the same number for all.
        unique: per modality, a module from its rows beside its shared embedding to rows of
            features.

    Source: Wang et al. 2025, arXiv:2410.23996, sec. 4, alg. 1.
    """

    shared: Mapping[str, nn.Module]
    unique: Mapping[str, nn.Module]

    def shared_means(self, inputs: Rows, *, where: Masks | None = None) -> Arrays:
        """Embed what modalities share.

        Args:
            inputs: one row per example and modality.
            where: per modality, the examples that have it, all if None.

        Returns:
            Unit rows, the mean directions; 0 for a missing modality.
        """
        arrays, masks = read_modalities(inputs, where)
        return {
            name: unit_length(rows) for name, rows in embed_each(self.shared, arrays, masks).items()
        }

    def __call__(self, inputs: Rows, *, where: Masks | None = None) -> Factors:
        """Embed what modalities share, held fixed, and what each has beside it.

        Args:
            inputs: one row per example and modality.
            where: per modality, the examples that have it, all if None.

        Returns:
            The mean directions, without gradient, and the unique embeddings; 0 for a missing
            modality.
        """
        arrays, masks = read_modalities(inputs, where)
        means = jax.lax.stop_gradient(self.shared_means(arrays, where=masks))
        beside = {
            name: jnp.concatenate([x.astype(means[name].dtype), means[name]], axis=1)
            for name, x in arrays.items()
        }
        return Factors(means, embed_each(self.unique, beside, masks))


def _together(unique: jax.Array, shared: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return unit_length(jnp.concatenate([unique.astype(dtype), shared.astype(dtype)], axis=1))
