"""The reconstruction objective: fill in the patches that were hidden."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from mmjax.arrays import Array, accumulation_dtype, checked

# Added to a patch's variance, so that a patch of one colour has a finite normalised value.
_VARIANCE_FLOOR = 1e-6


@checked
def masked_reconstruction(
    prediction: Float[Array, "n p d"],
    target: Float[Array, "n p d"],
    *,
    masked: Bool[Array, "n p"],
    normalize_target: bool = False,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Mean squared error over the patches that the encoder did not see.

    .. math:: \ell_i = \frac{1}{|M_i|\, d} \sum_{p \in M_i} \lVert \hat x_{ip} - x_{ip} \rVert^2

    and, with ``normalize_target``, :math:`(x_{ip} - \mu_{ip}) / \sqrt{\sigma_{ip}^2 + 10^{-6}}` in
    place of :math:`x_{ip}`, for the patch's own mean :math:`\mu` and unbiased variance
    :math:`\sigma^2` over its ``d`` values.

    Each row is on its own: no ``axis_name`` is needed, under any sharding of the rows. A gradient
    flows into both arguments: where the target is itself computed, such as the features of a
    teacher, stop it with ``jax.lax.stop_gradient``.

    Args:
        prediction: :math:`\hat x`, ``d`` values for each of ``p`` patches, in any unit.
        target: :math:`x`, in the same unit.
        masked: the patches :math:`M_i` that were hidden. What the others hold counts nowhere, and
            their gradient is 0 even where they hold NaN.
        normalize_target: compare with patches of mean 0 and variance 1; the prediction is then
            dimensionless.
        where: valid rows, all if None. The loss and gradient of an invalid row are 0 even where
            it holds NaN.

    Returns:
        One loss per row, in the squared unit of ``prediction``, float32; 0 for a row without a
        masked patch. Reduce with :func:`mmjax.reduction.masked_mean`.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.

    Source: He et al. 2021, arXiv:2111.06377, sec. 3, "Reconstruction target". Means are per row,
    and so equal the paper's wherever all rows hide equally many patches. The paper names neither
    the divisor of the variance nor the floor under it: here d - 1 (1 if d is 1) and 1e-6.

    >>> x = jnp.array([[[0.0, 2.0], [5.0, 5.0]]])
    >>> print(masked_reconstruction(jnp.zeros_like(x), x, masked=jnp.array([[True, False]])))
    [2.]
    """
    counted = jnp.asarray(masked)
    if where is not None:
        counted &= jnp.asarray(where)[:, None]
    dtype = accumulation_dtype(prediction, target)
    # Zero before anything is computed: a mask applied after it would let NaN gradients through.
    prediction, target = (
        jnp.where(counted[..., None], jnp.asarray(z).astype(dtype), 0) for z in (prediction, target)
    )
    if normalize_target:
        target = _standardised(target)
    costs = jnp.mean(jnp.square(prediction - target), axis=-1)
    total = jnp.sum(costs, axis=1, where=counted)
    return total / jnp.maximum(jnp.sum(counted, axis=1, dtype=dtype), 1)


def _standardised(patches: Float[jax.Array, "n p d"]) -> Float[jax.Array, "n p d"]:
    centred = patches - jnp.mean(patches, axis=-1, keepdims=True)
    freedom = max(patches.shape[-1] - 1, 1)
    variance = jnp.sum(jnp.square(centred), axis=-1, keepdims=True) / freedom
    return centred / jnp.sqrt(variance + _VARIANCE_FLOOR)
