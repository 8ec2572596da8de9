"""Modalities that are mixed from factors which they share and factors of their own."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from mmjax.data.synthetic.sample import PartialInformation, Synthetic, at_least

VARIANCE = 0.5  # of every factor, in both recipes


def shared_and_unique_factors(
    rows: int,
    *,
    shared: int = 10,
    unique: Mapping[str, int] = MappingProxyType({"x1": 6, "x2": 6}),
    labelled: Mapping[str, int] | None = None,
    observed: int = 100,
    seed: int,
) -> Synthetic:
    r"""Any number of modalities, each a linear map of shared and of its own factors.

    .. math:: x_m = [w_s; w_m]\, T_m, \qquad w \sim \mathcal N(0, \tfrac12 I), \qquad
              T_m \sim \mathcal U(0, 1), \qquad y = \Big[\sum_j w_j^y \ge 0\Big]

    where :math:`w^y` are the factors that enter the label. A modality that sees a share
    :math:`\rho^2` of them knows :math:`\log 2 - \mathbb E_{t \sim \mathcal N(0, 1)}
    h(\Phi(\rho t / \sqrt{1 - \rho^2}))` of the label, with the binary entropy h. The modality that
    sees a smaller share is a noisier version of the other, so that it has nothing unique.

    Args:
        rows: how many examples to draw.
        shared: number of factors :math:`w_s` in every modality.
        unique: number of factors :math:`w_m` by the name of the modality.
        labelled: how many of the factors enter the label, by ``"shared"`` or the name of the
            modality; all of them if None.
        observed: features of each modality, at least as many as it has factors: the factors can
            then be told from it.
        seed: of the random numbers, the maps :math:`T_m` too.

    Returns:
        The modalities; the label ``y``; the factors ``shared`` and one of each modality's name;
        the information of each modality, and of all of them, with ``y``; ``pid`` for two
        modalities.

    Raises:
        ValueError: for a count that does not fit, a name in ``labelled`` that is none, or a label
            without a factor.

    Source: Liang et al. 2023 (FactorCL), arXiv:2306.05268, sec. 3.1, with the dimensions, maps and
    label of the released experiment. The truth follows from the Gaussians; for the PID, Blackwell's
    order (Bertschinger et al. 2014, arXiv:1311.2852, sec. 2).

    >>> data = shared_and_unique_factors(5, seed=0)
    >>> print(data.modalities["x1"].shape, [f"{value:.3f}" for value in data.pid["y"]])
    (5, 100) ['0.321', '0.000', '0.000', '0.373']
    """
    at_least("rows", rows, 1)
    dimensions = {"shared": shared, **unique}
    if "shared" in unique or not unique:
        got = ", ".join(unique) or "none"
        raise ValueError(f"unique must name a modality, and none of them 'shared'; got {got}")
    for name, count in dimensions.items():
        at_least(name, count, 0)
    for name, count in unique.items():
        at_least(f"observed, for the factors of {name},", observed, max(shared + count, 1))
    used = _labelled(dimensions, labelled)
    rng = np.random.default_rng(seed)
    factors = {
        name: rng.normal(0, math.sqrt(VARIANCE), (rows, count))
        for name, count in dimensions.items()
    }
    maps = {name: rng.uniform(0, 1, (shared + count, observed)) for name, count in unique.items()}
    modalities = {
        name: np.concatenate([factors["shared"], factors[name]], axis=1) @ maps[name]
        for name in unique
    }
    scores = [factors[name][:, :count].sum(axis=1) for name, count in used.items()]
    label = np.sum(scores, axis=0) >= 0
    total = sum(used.values())
    known = {name: sign_information((used["shared"] + used[name]) / total) for name in unique}
    information = {f"{name};y": value for name, value in known.items()}
    if len(unique) > 1:
        information[f"{','.join(unique)};y"] = math.log(2)
    return Synthetic(
        {name: rows.astype(np.float32) for name, rows in modalities.items()},
        {"y": label.astype(np.int64)},
        {name: rows.astype(np.float32) for name, rows in factors.items()},
        information,
        {"y": _noisier_and_clearer(*known.values())} if len(unique) == 2 else {},
    )


def disentangled_factors(
    rows: int,
    *,
    shared: int = 50,
    unique: int = 50,
    observed: int = 100,
    noise: float = 0.1,
    seed: int,
) -> Synthetic:
    r"""Two modalities, and one label of each group of factors: shared, first's and second's.

    .. math:: x_m = [w_m; w_s]\, T_m, \qquad T_m \sim \mathcal U(-1, 1), \qquad
              y_g = [f_g(w_g) + \sigma \epsilon \ge \text{median}]

    where :math:`f_g` is a random network with one hidden layer of 100 ReLU, standardised.

    Args:
        rows: how many examples to draw.
        shared: number of factors :math:`w_s`.
        unique: number of factors :math:`w_1`, and of :math:`w_2`.
        observed: features of each modality, at least as many as it has factors.
        noise: :math:`\sigma \ge 0`, per standard deviation of the network's output.
        seed: of the random numbers, the maps and networks too.

    Returns:
        Modalities ``x1`` and ``x2``; labels and factors ``shared``, ``x1`` and ``x2``; the
        decomposition of each label: what the factors say of the first label is all redundant, of
        the others all unique. How much that is (log 2 without noise) is averaged over the rows.

    Raises:
        ValueError: for a count that does not fit, or a noise that is negative or not finite.

    Source: Wang et al. 2025 (DisentangledSSL), arXiv:2410.23996, sec. 5.1, with the dimensions of
    the released experiment. Departure: the output of the network is standardised, so that the noise
    means the same for every seed.

    >>> data = disentangled_factors(200, noise=0.0, seed=0)
    >>> print([f"{value:.3f}" for value in data.pid["x1"]])
    ['0.000', '0.693', '0.000', '0.000']
    """
    at_least("rows", rows, 2)  # a median between them
    at_least("shared", shared, 1)
    at_least("unique", unique, 1)
    at_least("observed", observed, shared + unique)
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be at least 0 and finite, got {noise}")
    rng = np.random.default_rng(seed)
    dimensions = {"shared": shared, "x1": unique, "x2": unique}
    factors = {
        name: rng.normal(0, math.sqrt(VARIANCE), (rows, count))
        for name, count in dimensions.items()
    }
    modalities = {
        name: np.concatenate([factors[name], factors["shared"]], axis=1)
        @ rng.uniform(-1, 1, (shared + unique, observed))
        for name in ("x1", "x2")
    }
    labels, known = {}, {}
    for name, group in factors.items():
        clean = _random_network(group, rng)
        noisy = clean + noise * rng.normal(size=rows)
        middle = np.median(noisy)
        labels[name] = (noisy >= middle).astype(np.int64)
        # Without noise the rows at both sides of the median are certain.
        chance = _normal_cdf((clean - middle) / noise) if noise else labels[name].astype(float)
        known[name] = math.log(2) - float(np.mean(_binary_entropy(chance)))
    pid = {
        "shared": PartialInformation(known["shared"], 0.0, 0.0, 0.0),
        "x1": PartialInformation(0.0, known["x1"], 0.0, 0.0),
        "x2": PartialInformation(0.0, 0.0, known["x2"], 0.0),
    }
    return Synthetic(
        {name: rows.astype(np.float32) for name, rows in modalities.items()},
        labels,
        {name: rows.astype(np.float32) for name, rows in factors.items()},
        {k: v for name, parts in pid.items() for k, v in _named(parts, name).items()},
        pid,
    )


def sign_information(share: float) -> float:
    r"""What a part of a Gaussian sum says of the sign of the sum.

    .. math:: I = \log 2 - \mathbb E_{t \sim \mathcal N(0, 1)}\,
              h\big(\Phi(\rho t / \sqrt{1 - \rho^2})\big)

    Args:
        share: :math:`\rho^2`, the share of the sum's variance that is known, in [0, 1].

    Returns:
        The information, in nats.

    Source: no paper; P(sum >= 0 | part) is the normal distribution function of the part.

    >>> print([f"{sign_information(share):.4f}" for share in (0.0, 0.5, 1.0)])
    ['0.0000', '0.1931', '0.6931']
    """
    if share >= 1:
        return math.log(2)
    t = np.linspace(-10, 10, 4001)
    density = np.exp(-(t**2) / 2)  # the trapezoidal rule is exact to rounding for such integrands
    chance = _normal_cdf(t * math.sqrt(share / (1 - share)))
    return math.log(2) - float(np.sum(density * _binary_entropy(chance)) / np.sum(density))


def _labelled(dimensions: Mapping[str, int], wanted: Mapping[str, int] | None) -> dict[str, int]:
    """How many factors of each group enter the label."""
    wanted = dimensions if wanted is None else wanted
    if not set(wanted) <= set(dimensions):
        raise ValueError(
            f"labelled must name groups of factors, {', '.join(dimensions)}; got "
            f"{', '.join(wanted)}"
        )
    used = {name: wanted.get(name, 0) for name in dimensions}
    for name, count in used.items():
        if not 0 <= count <= dimensions[name]:
            raise ValueError(
                f"labelled must ask for 0 to {dimensions[name]} factors of {name}, got {count}"
            )
    at_least("the number of factors in the label", sum(used.values()), 1)
    return used


def _noisier_and_clearer(first: float, second: float) -> PartialInformation:
    """Decompose what two modalities say of the sign of a sum that they know together."""
    redundancy = min(first, second)
    synergy = math.log(2) - max(first, second)
    return PartialInformation(redundancy, first - redundancy, second - redundancy, synergy)


def _named(parts: PartialInformation, label: str) -> dict[str, float]:
    """Name the label apart from the modality of the same name."""
    return parts.mutual_information(label=f"label {label}")


def _random_network(x: np.ndarray, rng: np.random.Generator, hidden: int = 100) -> np.ndarray:
    first = rng.normal(0, math.sqrt(2 / x.shape[1]), (x.shape[1], hidden))
    out = np.maximum(x @ first + rng.normal(0, 0.1, hidden), 0) @ rng.normal(size=hidden)
    return (out - out.mean()) / out.std()


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in x])


def _binary_entropy(p: np.ndarray) -> np.ndarray:
    """Entropy in nats; 0 where the outcome is certain."""
    terms = [np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0) for q in (p, 1 - p)]
    return -(terms[0] + terms[1])
