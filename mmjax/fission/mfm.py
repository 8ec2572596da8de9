"""MFM: factors that generate the modalities, one of them for all and for the label."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array as AnyArray
from jaxtyping import Float, Key

from mmjax.arrays import accumulation_dtype, checked
from mmjax.fission.modalities import fuse, key_of
from mmjax.fission.perceptron import Perceptron
from mmjax.losses import mean_squared_alignment, mmd, rbf_kernel
from mmjax.modalities import Masks, Rows, check_names, read_modalities


class Generation(NamedTuple):
    """Latent codes, the factors that they generate, and what those generate in turn.

    Attributes:
        code: of all modalities of an example together.
        codes: of each modality by itself.
        factor: discriminative, from ``code``; it has to know the label.
        factors: generative, from ``codes``: what is particular to each modality.
        reconstruction: each modality again, from its own factor and the discriminative one.
        prediction: logits or values of the label, from the discriminative factor.
    """

    code: Float[jax.Array, "n c"]
    codes: Mapping[str, Float[jax.Array, "n c"]]
    factor: Float[jax.Array, "n f"]
    factors: Mapping[str, Float[jax.Array, "n f"]]
    reconstruction: Mapping[str, Float[jax.Array, "n _"]]
    prediction: Float[jax.Array, "n k"]


class MFMLosses(NamedTuple):
    r"""The terms beside that of the label.

    The total is :math:`\ell_{\text{label}} + \text{generation} + \lambda\, \text{prior}`.

    Attributes:
        generation: squared error per feature, a sum over the modalities; one value per example.
        prior: discrepancy of the codes from the prior; one value for the batch.
    """

    generation: Float[jax.Array, "n"]
    prior: Float[jax.Array, ""]


@checked
def mfm_losses(
    generation: Generation,
    inputs: Rows,
    *,
    key: Key[AnyArray, ""],
    where: Masks | None = None,
) -> MFMLosses:
    r"""Generate every modality, and keep all codes together close to independent Gaussians.

    .. math:: \ell_{\text{gen}, i} = \sum_{m \in M_i} \frac{1}{d_m}
                  \lVert x_{m,i} - \hat x_{m,i} \rVert^2, \qquad
              \ell_{\text{prior}} = \mathrm{MMD}^2\big([z_y; z_1; \dots; z_M],\,
                  \mathcal N(0, I)\big)

    with the Gaussian kernel :math:`e^{-\lVert u - v \rVert^2 / c}` of c features in all codes, of
    the modalities that occur in the batch.

    Args:
        generation: as :class:`MFM` gives it.
        inputs: the modalities that were to be generated.
        key: random key, for the sample of the prior.
        where: per modality, the examples that have it, :math:`M_i`; all if None. What is missing is
            not generated, and in place of its code there stands what it is compared with, the same
            row of the sample of the prior: it says nothing, and the other codes of the example
            are compared all the same.

    Returns:
        The two terms, float32 or wider; the first in the squared unit of the inputs, the second
        dimensionless.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for modalities that differ between the arguments.

    Source: Tsai et al. 2019, arXiv:1806.06176, eq. 5 and sec. 2.2; the kernel of the released code,
    which compares one code after the other, and so lets them depend on each other.

    >>> rows = {"text": jnp.eye(2)}
    >>> made = Generation(jnp.eye(2), rows, jnp.eye(2), rows, rows, jnp.eye(2))
    >>> terms = mfm_losses(made, {"text": 2 * jnp.eye(2)}, key=jax.random.key(0))
    >>> print(terms.generation, bool(terms.prior > 0))
    [0.5 0.5] True
    """
    for field in ("codes", "factors", "reconstruction"):
        check_names(field, getattr(generation, field), "inputs", inputs)
    targets, masks = read_modalities(inputs, where)
    made, _ = read_modalities(generation.reconstruction, where)
    errors = [
        mean_squared_alignment(made[name], targets[name], where=mask)
        for name, mask in masks.items()
    ]
    return MFMLosses(functools.reduce(jnp.add, errors), _from_prior(generation, masks, key))


def _from_prior(
    generation: Generation, masks: Mapping[str, jax.Array], key: Key[AnyArray, ""]
) -> Float[jax.Array, ""]:
    """Discrepancy of all codes together from the prior."""
    some = functools.reduce(jnp.logical_or, masks.values())
    codes = {"": (generation.code, some)}  # no modality has this name
    codes |= {name: (generation.codes[name], mask) for name, mask in masks.items()}
    dtype = accumulation_dtype(*(x for x, _ in codes.values()))
    sides, features = [], jnp.zeros((), dtype)
    for name, (x, mask) in codes.items():
        occurs = jnp.any(mask)
        # A modality that does not occur at all is to add nothing to a distance of two rows.
        sample = jnp.where(occurs, jax.random.normal(key_of(key, name), x.shape, dtype), 0)
        sides.append((jnp.where(mask[:, None], x.astype(dtype), sample), sample))
        features += jnp.where(occurs, x.shape[1], 0).astype(dtype)
    made, prior = (jnp.concatenate(side, axis=1) for side in zip(*sides, strict=True))
    kernel = functools.partial(rbf_kernel, bandwidth=jnp.sqrt(jnp.maximum(features, 1) / 2))
    return mmd(made, prior, kernel=kernel, where_x=some, where_y=some)


class MFM(nn.Module):
    """Encoders to codes, generators of factors from codes, decoders from factors.

    Attributes:
        fusion: encodes all modalities: called as ``fusion(inputs, where=where)`` with masks for
            every modality, and gives rows of features, as all of :mod:`mmjax.fusion` do.
        outputs: number of logits or values of the label.
        code: features of a code.
        features: features of a factor.
        hidden: features of the hidden layers of every encoder, generator and decoder.

    Source: Tsai et al. 2019, arXiv:1806.06176, fig. 1 and 2; encoders and decoders of vectors where
    the paper's are of sequences.
    """

    fusion: nn.Module
    outputs: int
    code: int = 32
    features: int = 32
    hidden: tuple[int, ...] = (128,)

    @nn.compact
    @checked
    def __call__(
        self,
        inputs: Rows,
        *,
        where: Masks | None = None,
        train: bool = False,
    ) -> Generation:
        """Infer the codes of each example, and generate from them.

        Args:
            inputs: one row per example and modality.
            where: per modality, the examples that have it, all if None.
            train: handed on to a fusion module that takes it: turn dropout on.

        Returns:
            Codes, factors, and all that is generated; of a missing modality it is finite and means
            nothing.
        """
        arrays, masks = read_modalities(inputs, where)
        make = functools.partial(Perceptron, self.hidden)
        code = make(self.code, name="encode_all")(fuse(self.fusion, arrays, masks, train=train))
        factor = make(self.features, name="generate_all")(code)
        codes, factors, reconstruction = {}, {}, {}
        for name, x in arrays.items():
            codes[name] = make(self.code, name=f"encode_{name}")(x)
            factors[name] = make(self.features, name=f"generate_{name}")(codes[name])
            both = jnp.concatenate([factors[name], factor], axis=1)
            reconstruction[name] = make(x.shape[1], name=f"decode_{name}")(both)
        prediction = make(self.outputs, name="decode_label")(factor)
        return Generation(code, codes, factor, factors, reconstruction, prediction)
