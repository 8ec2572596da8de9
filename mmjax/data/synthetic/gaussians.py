"""Gaussians with a given mutual information, plain or conditional."""

import math

import numpy as np

from mmjax.data.synthetic.sample import Synthetic, at_least

MOST = 14.0  # nats of a pair of features


def correlated_gaussians(
    rows: int, *, features: int = 20, mutual_information: float, seed: int
) -> Synthetic:
    r"""Two Gaussian vectors whose features are correlated in pairs.

    .. math:: (x_j, y_j) \sim \mathcal N\Big(0, \begin{pmatrix} 1 & \rho \\ \rho & 1 \end{pmatrix}
              \Big), \qquad \rho = \sqrt{1 - e^{-2 I / d}}

    Args:
        rows: how many examples to draw.
        features: d, of each vector.
        mutual_information: :math:`I \ge 0`, in nats.
        seed: of the random numbers.

    Returns:
        Modalities ``x`` and ``y``; the information ``"x;y"``; no label.

    Raises:
        ValueError: if ``rows`` or ``features`` is below 1, or the information is negative, or above
            14 nats for each pair, which float32 cannot hold.

    Source: Cheng et al. 2020 (CLUB), arXiv:2006.12013, sec. 4.1, after Poole et al. 2019,
    arXiv:1905.06922, sec. 3.

    >>> data = correlated_gaussians(10_000, features=2, mutual_information=1.0, seed=0)
    >>> print(f"{np.corrcoef(data.modalities['x'][:, 0], data.modalities['y'][:, 0])[0, 1]:.1f}")
    0.8
    """
    at_least("rows", rows, 1)
    at_least("features", features, 1)
    if not 0 <= mutual_information < math.inf:
        raise ValueError(
            f"mutual_information must be at least 0 and finite, got {mutual_information}"
        )
    _representable(mutual_information / features)
    correlation = math.sqrt(-math.expm1(-2 * mutual_information / features))
    x, noise = np.random.default_rng(seed).normal(size=(2, rows, features))
    # The deviation of the noise, without the digits that 1 - correlation^2 would lose.
    y = correlation * x + math.exp(-mutual_information / features) * noise
    modalities = {"x": x.astype(np.float32), "y": y.astype(np.float32)}
    return Synthetic(modalities, {}, {}, {"x;y": mutual_information})


def conditional_gaussians(
    rows: int, *, features: int = 1, mutual_information: float, seed: int
) -> Synthetic:
    r"""A signal that is seen shifted by what is known, and through noise.

    .. math:: x \sim \mathcal N(0, 1), \quad z \sim \mathcal U(-\tfrac12, \tfrac12)^d, \quad
              y = x + z_1 + \sigma \epsilon, \qquad
              I(x; y \mid z) = \tfrac12 \log(1 + 1 / \sigma^2)

    All features of ``z`` but the first are distractors.

    Args:
        rows: how many examples to draw.
        features: d, of ``z``.
        mutual_information: :math:`I(x; y \mid z) > 0`, in nats; 2.3076 is :math:`\sigma = 0.1`.
        seed: of the random numbers.

    Returns:
        Modalities ``x``, ``y`` (one feature each) and ``z``; the information ``"x;y|z"``; no label.

    Raises:
        ValueError: if ``rows`` or ``features`` is below 1, or the information is not positive, or
            above 14 nats, which float32 cannot hold.

    Source: Mukherjee et al. 2019 (CCMI), arXiv:1906.01824, model I, which gives the noise instead.

    >>> data = conditional_gaussians(3, features=5, mutual_information=2.32, seed=0)
    >>> print({name: rows.shape for name, rows in data.modalities.items()})
    {'x': (3, 1), 'y': (3, 1), 'z': (3, 5)}
    """
    at_least("rows", rows, 1)
    at_least("features", features, 1)
    if not 0 < mutual_information < math.inf:
        raise ValueError(
            f"mutual_information must be positive and finite, got {mutual_information}"
        )
    _representable(mutual_information)
    noise = 1 / math.sqrt(math.expm1(2 * mutual_information))
    rng = np.random.default_rng(seed)
    x, epsilon = rng.normal(size=(2, rows, 1))
    z = rng.uniform(-0.5, 0.5, (rows, features))
    modalities = {"x": x, "y": x + z[:, :1] + noise * epsilon, "z": z}
    modalities = {name: values.astype(np.float32) for name, values in modalities.items()}
    return Synthetic(modalities, {}, {}, {"x;y|z": mutual_information})


def _representable(nats: float) -> None:
    """Refuse noise that is lost where it is added to a signal in float32."""
    if nats > MOST:
        raise ValueError(
            f"mutual_information must be at most {MOST:g} nats for each pair of features, got "
            f"{nats:g}: float32 has no digits for less noise"
        )
