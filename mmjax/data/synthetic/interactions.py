"""How signals of two modalities interact: the behavioural taxonomy, as a test bed for fusion."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

from mmjax.data.synthetic.gates import BIT, GATES
from mmjax.data.synthetic.sample import PartialInformation, Synthetic, at_least, one_of

RESPONSES = ("first", "second", "new")  # columns of a response


@dataclasses.dataclass(frozen=True, eq=False)
class Interaction:
    """How a receiver responds to two signals, alone and together.

    Attributes:
        kind: whether the signals alone bring about the same response (redundancy) or different
            ones (non-redundancy).
        alone_1: response to the first signal alone, the intensity of each of three responses.
        alone_2: response to the second signal alone.
        together: response to both. To neither there is none, all zeros.
        pid: what the two modalities say of the response, in nats, if each signal is there in half
            of the examples, independently of the other.
    """

    kind: Literal["redundancy", "non-redundancy"]
    alone_1: tuple[float, float, float]
    alone_2: tuple[float, float, float]
    together: tuple[float, float, float]
    pid: PartialInformation

    def responses(self) -> Float64[np.ndarray, "2 2 3"]:
        """Responses by the presence of the first signal and of the second."""
        return np.array([[(0, 0, 0), self.alone_2], [self.alone_1, self.together]], np.float64)


Start = tuple[Literal["redundancy", "non-redundancy"], tuple, tuple]
_SAME: Start = ("redundancy", (1, 0, 0), (1, 0, 0))
_DIFFERENT: Start = (
    "non-redundancy",
    (1, 0, 0),
    (0, 1, 0),
)
# Four responses tell both signals; what they mean differs in their geometry, not in information.
_ALL_UNIQUE = PartialInformation(0.0, BIT, BIT, 0.0)
INTERACTIONS: Mapping[str, Interaction] = {
    "equivalence": Interaction(*_SAME, (1, 0, 0), GATES["or"].pid),
    "enhancement": Interaction(*_SAME, (2, 0, 0), GATES["sum"].pid),
    "independence": Interaction(*_DIFFERENT, (1, 1, 0), _ALL_UNIQUE),
    "dominance": Interaction(*_DIFFERENT, (1, 0, 0), PartialInformation(0.0, BIT, BIT / 2, 0.0)),
    "modulation": Interaction(*_DIFFERENT, (2, 0, 0), _ALL_UNIQUE),
    "emergence": Interaction(*_DIFFERENT, (0, 0, 1), _ALL_UNIQUE),
}


def interaction(
    name: str, rows: int, *, features: int = 8, noise: float = 1.0, seed: int
) -> Synthetic:
    r"""Two modalities that carry a signal or not, and the response of a receiver to both.

    ==============  =====================  ===================  =============================
    kind            name                   each alone           together
    ==============  =====================  ===================  =============================
    redundancy      ``equivalence``        the same response    that response
    redundancy      ``enhancement``        the same response    that response, twice as strong
    non-redundancy  ``independence``       a response each      both responses
    non-redundancy  ``dominance``          a response each      the response to the first
    non-redundancy  ``modulation``         a response each      that to the first, twice as strong
    non-redundancy  ``emergence``          a response each      a new response
    ==============  =====================  ===================  =============================

    .. math:: x_m = Q_m\, [2 s_m - 1;\; \sigma \epsilon_m], \qquad s_m \in \{0, 1\},
              \qquad r = r(s_1, s_2)

    with random rotations :math:`Q_m`: the signal lies along one direction of its modality, and
    noise along all others.

    Args:
        name: of the interaction, a key of ``INTERACTIONS``.
        rows: how many examples to draw.
        features: of each modality.
        noise: :math:`\sigma \ge 0`, relative to the signal; it does not cover the signal, so that
            the truth does not depend on it.
        seed: of the random numbers, the rotations too.

    Returns:
        Modalities ``x1`` and ``x2``; the label ``response``, numbering the different ones; the
        factors ``x1`` and ``x2`` (whether the signal is there) and ``response`` (the intensities
        of three responses: to regress, since a label does not tell twice from once).

    Raises:
        ValueError: for an unknown name, a count below 1, or a noise that is negative or not finite.

    Source: Partan and Marler 1999, "Communication goes multimodal", Science 283, 1272-1273. The
    numbers are ours: signals in half of the examples, intensities of 1 and 2.

    >>> data = interaction("emergence", 5, seed=0)
    >>> print(data.modalities["x1"].shape, data.factors["response"].shape)
    (5, 8) (5, 3)
    """
    one_of("interaction", name, INTERACTIONS)
    at_least("rows", rows, 1)
    at_least("features", features, 1)
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be at least 0 and finite, got {noise}")
    chosen = INTERACTIONS[name]
    rng = np.random.default_rng(seed)
    present = {modality: rng.integers(0, 2, rows) for modality in ("x1", "x2")}
    modalities = {
        modality: _hidden_signal(signal, features, noise, rng)
        for modality, signal in present.items()
    }
    kinds, numbers = np.unique(chosen.responses().reshape(4, 3), axis=0, return_inverse=True)
    label = numbers.reshape(4)[2 * present["x1"] + present["x2"]]
    factors = present | {"response": kinds[label].astype(np.float32)}
    information = chosen.pid.mutual_information(label="response")
    return Synthetic(
        modalities, {"response": label}, factors, information, {"response": chosen.pid}
    )


def _hidden_signal(
    signal: np.ndarray, features: int, noise: float, rng: np.random.Generator
) -> Float[np.ndarray, "n {features}"]:
    rotation, _ = np.linalg.qr(rng.normal(size=(features, features)))
    parts = noise * rng.normal(size=(len(signal), features))
    parts[:, 0] = 2 * signal - 1
    return (parts @ rotation.T).astype(np.float32)
