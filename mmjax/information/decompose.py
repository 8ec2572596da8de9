"""How much of what representations know of a label is redundant, unique or synergistic."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer

from mmjax.arrays import Array, checked
from mmjax.information.broja import broja
from mmjax.information.codes import joint_probabilities, k_means, principal_components
from mmjax.information.gaussian_pid import gaussian_pid
from mmjax.information.pid import PID

CLUSTERS = 8  # of a representation, where nothing is said


class Parts(NamedTuple):
    """The parts of a decomposition, by the names of the modalities."""

    redundancy: float
    unique: dict[str, float]
    synergy: float

    @property
    def total(self) -> float:
        """What both modalities together say of the labels."""
        return self.redundancy + sum(self.unique.values()) + self.synergy


class Knowledge(NamedTuple):
    """What representations know of labels, and what they would seem to know by chance.

    Attributes:
        measured: the decomposition of the sample as it is. It is biased: of few rows, codes seem to
            know labels that they know nothing of, above all synergistically.
        chance: the mean of the same over shuffled labels, which nothing knows anything of.
        spread: the standard deviation of the same over the shuffled labels.
        corrected: ``measured`` less ``chance``: without bias where nothing is known, and too low
            by less than ``chance`` where much is. What is not some ``spread`` above 0 is nothing.
        gap: upper bound of the error of the largest of the programs that were solved.
    """

    measured: Parts
    chance: Parts
    spread: Parts
    corrected: Parts
    gap: float


@checked
def decompose(
    representations: Mapping[str, Float[Array, "_ _"] | Integer[Array, "_"]],
    labels: Integer[Array, "n"] | Float[Array, "n k"],
    *,
    key: jax.Array,
    clusters: int | None = None,
    components: int = 8,
    shuffles: int = 20,
    unit: str = "nats",
    where: Bool[Array, "n"] | None = None,
) -> Knowledge:
    r"""What two modalities' representations say of labels: shared, unique to either, synergistic.

    .. math:: \hat R = R(\hat p) - \frac1s \sum_{j=1}^s R(\hat p_{\pi_j}), \qquad
              \hat p = \text{frequencies of } (c_1, c_2, y)

    and the same for the other parts, where :math:`\pi_j` shuffles the labels. Continuous
    representations are reduced to their principal components and to the nearest of ``clusters``
    centres, neither of which sees the labels; of the information of a representation, only that of
    its code is seen. Integers are codes already, such as predicted classes, which have to come from
    a model that was not trained on these rows. The codes are decomposed by
    :func:`mmjax.information.broja`. Continuous labels are not cut into codes: they, and the
    components, are taken for Gaussians, and decomposed by
    :func:`mmjax.information.gaussian_pid.gaussian_pid`, which sees linear relations alone.

    It looks at its arguments, and is not for use inside jit. The order of the names does not
    matter.

    Args:
        representations: of two modalities, by name: rows of features, or a code for each row.
        labels: a class for each row, any integers; or rows of continuous labels.
        key: random key, of the clusters and of the shuffling.
        clusters: codes of a representation, 8 if None; for classes alone. Keep cells,
            ``clusters ** 2 * classes``, well below the rows, or ``chance`` is most of what is
            measured.
        components: principal components that are kept of a representation.
        shuffles: how often to shuffle the labels.
        unit: "nats" or "bits".
        where: valid rows, all if None: those that have both modalities and a label. An invalid row
            counts nowhere, whatever it holds.

    Returns:
        The decomposition as measured, by chance, and corrected.

    Raises:
        jaxtyping.TypeCheckError: on a wrong shape or dtype.
        ValueError: for another unit; unless there are two modalities, with a row for each label,
            and a valid row; for values that are not finite in a valid row; for numbers that are
            not positive; for ``clusters`` or integer representations beside continuous labels; for
            infinite information.

    Source: Liang et al. 2023, arXiv:2302.12247, secs. 3.1 and 4.2 (representations quantised, then
    decomposed). The correction by shuffling is ours; it is Miller's of 1955 to first order where
    nothing is known.

    >>> x1, x2 = jnp.array([0, 0, 1, 1] * 50), jnp.array([0, 1, 0, 1] * 50)
    >>> known = decompose({"a": x1, "b": x2}, x1 ^ x2, key=jax.random.key(0), unit="bits")
    >>> print(f"{known.measured.synergy:.4f}")
    1.0000
    """
    names = _two(representations)
    if min(components, shuffles, 1 if clusters is None else clusters) < 1:
        raise ValueError(
            "components, shuffles and clusters must be positive, got "
            f"{components}, {shuffles} and {clusters}"
        )
    valid = np.ones(len(labels), bool) if where is None else np.asarray(where)
    if not valid.any():
        raise ValueError("no row is valid: nothing can be said of what is known")
    rows = {name: _valid_rows(name, representations[name], valid) for name in names}
    target = _finite("labels", np.asarray(labels)[valid])
    continuous = jnp.issubdtype(target.dtype, jnp.floating)
    if continuous and (clusters is not None or any(x.ndim == 1 for x in rows.values())):
        raise ValueError("continuous labels need continuous representations, and no clusters")
    coding, shuffling = jax.random.split(key)
    orders = _orders(shuffling, len(target), shuffles)
    if continuous:
        parts = _of_gaussians(rows, target[orders], components, unit)
    else:
        coded = _codes(rows, coding, clusters or CLUSTERS, components)
        _, target = np.unique(target, return_inverse=True)
        parts = _of_codes(coded, target[orders], unit)
    return _against_chance(names, parts)


def _two(representations: Mapping[str, Array]) -> list[str]:
    names = sorted(representations)
    if len(names) != 2:
        raise ValueError(
            f"representations must be of two modalities, got {len(names)}: {', '.join(names)}; "
            "take two of them, or concatenate some"
        )
    return names


def _valid_rows(name: str, values: Array, valid: np.ndarray) -> np.ndarray:
    """The valid rows; each modality is looked at, unlike by annotations of a mapping."""
    kind = {1: jnp.integer, 2: jnp.floating}.get(values.ndim)
    if kind is None or not jnp.issubdtype(values.dtype, kind) or len(values) != len(valid):
        raise ValueError(
            f"{name} must be floating-point rows [n, d] or integers [n] for the n = {len(valid)} "
            f"labels, got {values.dtype} {list(values.shape)}"
        )
    return _finite(name, np.asarray(values)[valid])


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name} must be finite in every valid row: mask what is not, by where")
    return values


def _orders(key: jax.Array, n: int, shuffles: int) -> np.ndarray:
    """The rows as they are, then in random orders."""
    shuffled = jax.vmap(lambda k: jax.random.permutation(k, n))(jax.random.split(key, shuffles))
    return np.concatenate([np.arange(n)[None], np.asarray(shuffled)])


def _codes(
    rows: Mapping[str, np.ndarray], key: jax.Array, clusters: int, components: int
) -> list[np.ndarray]:
    """Codes from 0 on, without gaps."""
    found = []
    for x, k in zip(rows.values(), jax.random.split(key), strict=True):
        if x.ndim == 2:
            kept = principal_components(x, min(components, x.shape[1]))
            x = np.asarray(k_means(kept, clusters=clusters, key=k)[0])
        found.append(np.unique(x, return_inverse=True)[1])
    return found


def _of_codes(codes: list[np.ndarray], labels: np.ndarray, unit: str) -> PID:
    """Decompositions of the frequencies, one for each order of the labels."""
    sizes = [int(code.max()) + 1 for code in (*codes, labels)]
    first, second = (jnp.asarray(code) for code in codes)
    tables = jax.vmap(lambda y: joint_probabilities(first, second, y, sizes=sizes))
    return broja(tables(jnp.asarray(labels)), unit=unit)


def _of_gaussians(
    rows: Mapping[str, np.ndarray], labels: np.ndarray, components: int, unit: str
) -> PID:
    """Decompositions of the covariance, one for each order of the labels."""
    kept = [principal_components(x, min(components, x.shape[1])) for x in rows.values()]
    sizes = (kept[0].shape[1], kept[1].shape[1], labels.shape[2])
    features = jnp.concatenate(kept, axis=1)

    def covariance(y: jax.Array) -> jax.Array:
        joint = jnp.concatenate([features, y.astype(features.dtype)], axis=1)
        joint -= jnp.mean(joint, axis=0, keepdims=True)
        return jnp.matmul(joint.T, joint, precision=jax.lax.Precision.HIGHEST) / len(joint)

    return gaussian_pid(jax.vmap(covariance)(jnp.asarray(labels)), sizes=sizes, unit=unit)


def _against_chance(names: list[str], parts: PID) -> Knowledge:
    """Sort the first of the decompositions out from the shuffled ones."""
    values = np.stack([np.asarray(part, np.float64) for part in parts[:4]], axis=1)
    chance = values[1:].mean(axis=0)

    def named(row: np.ndarray) -> Parts:
        redundancy, *unique, synergy = (float(x) for x in row)
        return Parts(redundancy, dict(zip(names, unique, strict=True)), synergy)

    return Knowledge(
        measured=named(values[0]),
        chance=named(chance),
        spread=named(values[1:].std(axis=0)),
        corrected=named(values[0] - chance),
        gap=float(np.max(parts.gap)),
    )
