"""The von Mises-Fisher distribution: a Gaussian of directions."""

import functools
import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as AnyArray
from jaxtyping import Bool, Float, Key

from mmjax.arrays import Array, accumulation_dtype, checked
from mmjax.losses import cosine_alignment
from mmjax.losses.samples import unit_length

Number: TypeAlias = float | int | np.floating | np.integer  # known before anything is traced

STEPS = 1000  # of the continued fraction: 1e-12 of its value is wrong, whatever the concentration


@functools.cache
def mean_resultant_length(features: int, concentration: Number) -> float:
    r"""Length of the mean of directions, :math:`A_d(\kappa) = I_{d/2}(\kappa) / I_{d/2-1}(\kappa)`.

    Args:
        features: d, at least 2.
        concentration: :math:`\kappa > 0`.

    Returns:
        A number in (0, 1): near 0 for directions all over the sphere, near 1 for a single one.

    Raises:
        ValueError: for fewer features than 2, or a concentration that is not positive and finite.

    Source: Mardia and Jupp 2000, Directional Statistics, eq. 10.3.5 and app. 1; the continued
    fraction of Gauss, from its tail on, for which there stands a number between the bounds of Amos
    1974 (Computation of modified Bessel functions and their ratios), Mathematics of Computation 28.

    >>> print(f"{mean_resultant_length(3, 2.0):.6f} {1 / math.tanh(2) - 1 / 2:.6f}")
    0.537315 0.537315
    """
    kappa = _checked_concentration(features, concentration)
    order = features / 2 + STEPS
    ratio = kappa / (order - 0.5 + math.hypot(math.sqrt(order**2 - 0.25), kappa))
    for k in range(STEPS, 0, -1):  # each step shrinks the error
        ratio = 1 / ((features - 2 + 2 * k) / kappa + ratio)
    return ratio


@checked
def vmf_kl(
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    *,
    concentration: Number,
    where: Bool[Array, "n"] | None = None,
) -> Float[jax.Array, "n"]:
    r"""Kullback-Leibler divergence of two von Mises-Fisher distributions of one concentration.

    .. math:: \mathrm{KL}(\mathrm{vMF}(x_i, \kappa) \,\|\, \mathrm{vMF}(y_i, \kappa))
              = \kappa A_d(\kappa)\, (1 - x_i \cdot y_i)

    with :math:`A_d` of :func:`mean_resultant_length`. It is the same in both directions.

    Args:
        x: mean directions, of any length; ``x[i]`` is paired with ``y[i]``.
        y: mean directions.
        concentration: :math:`\kappa > 0`.
        where: valid rows, all if None. The value and gradient of an invalid row are 0 even where it
            holds NaN.

    Returns:
        One divergence per row, in nats, float32 or wider.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for fewer features than 2, or a concentration that is not positive and finite.

    Source: Mardia and Jupp 2000, Directional Statistics, sec. 9.3.2 and 10.3: the normalising
    constants cancel, and the mean of x is :math:`A_d(\kappa)\, x`.

    >>> print(f"{vmf_kl(jnp.eye(2), jnp.eye(2)[::-1], concentration=3.0).sum():.4f}")
    4.8599
    """
    scale = float(concentration) * mean_resultant_length(x.shape[1], concentration)
    return scale * cosine_alignment(x, y, where=where)


@checked
def sample_vmf(
    mean: Float[Array, "n d"], *, concentration: Number, key: Key[AnyArray, ""]
) -> Float[jax.Array, "n d"]:
    r"""Draw a direction around each mean direction; gradients reach the mean.

    .. math:: z_i = w_i \mu_i + \sqrt{1 - w_i^2}\, v_i, \qquad
              p(w) \propto e^{\kappa w} (1 - w^2)^{(d - 3) / 2}, \qquad v_i \perp \mu_i

    Args:
        mean: mean directions :math:`\mu_i`, of any length.
        concentration: :math:`\kappa > 0`.
        key: random key.

    Returns:
        Unit rows, float32 or wider.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for fewer features than 2, or a concentration that is not positive and finite.

    Source: Wood 1994, "Simulation of the von Mises Fisher distribution", algorithm VM*; written in
    :math:`1 - w`, which keeps its digits at large concentrations.

    >>> rows = sample_vmf(jnp.eye(3), concentration=100.0, key=jax.random.key(0))
    >>> print((rows.argmax(axis=1) == jnp.arange(3)).all())
    True
    """
    kappa = _checked_concentration(mean.shape[1], concentration)
    dtype = accumulation_dtype(mean)
    direction = unit_length(jnp.asarray(mean).astype(dtype))
    along, across = jax.random.split(key)
    below = _one_minus_cosine(along, direction, kappa)[:, None]
    noise = jax.random.normal(across, direction.shape, dtype)
    noise -= jnp.sum(noise * direction, axis=1, keepdims=True) * direction
    rows = (1 - below) * direction + jnp.sqrt(below * (2 - below)) * unit_length(noise)
    return unit_length(rows)  # what is left of noise along the mean is a rounding away from 0


def _one_minus_cosine(
    key: Key[AnyArray, ""], direction: Float[jax.Array, "n d"], concentration: float
) -> Float[jax.Array, "n"]:
    """Draw 1 - w by rejection, all rows together until each has been accepted once."""
    n, d = direction.shape
    dtype = direction.dtype
    b = (d - 1) / (2 * concentration + math.hypot(2 * concentration, d - 1))
    edge = 2 * b / (1 + b)  # one minus the point where the envelope touches
    point = 1 - edge

    def draw(
        state: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        key, found, done = state
        key, first, second = jax.random.split(key, 3)
        # A coordinate of a uniform direction is 2 beta - 1, to be kept in [-1, 1] by hand.
        uniform = unit_length(jax.random.normal(first, (n, d), dtype))
        beta = (1 + jnp.clip(uniform[:, 0], -1, 1)) / 2
        below = 2 * b * beta / (1 - (1 - b) * beta)
        slack = concentration * (edge - below) + (d - 1) * jnp.log(
            (edge + point * below) / (edge * (1 + point))
        )
        chance = jax.random.uniform(second, (n,), dtype, minval=jnp.finfo(dtype).tiny)
        accepted = slack >= jnp.log(chance)
        return key, jnp.where(done, found, below), done | accepted

    start = (key, jnp.zeros(n, dtype), jnp.zeros(n, bool))
    return jax.lax.while_loop(lambda state: ~jnp.all(state[2]), draw, start)[1]


def _checked_concentration(features: int, concentration: Number) -> float:
    if features < 2:
        raise ValueError(f"directions need at least 2 features, got {features}")
    if not 0 < concentration < math.inf:
        raise ValueError(f"concentration must be positive and finite, got {concentration}")
    return float(concentration)
