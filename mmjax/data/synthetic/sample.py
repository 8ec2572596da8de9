"""What every generator returns: rows for a model, and what is true of them."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class PartialInformation(NamedTuple):
    r"""What two modalities say of a label, taken apart.

    .. math:: I(X_1; Y) = R + U_1, \qquad I(X_2; Y) = R + U_2, \qquad
              I(X_1, X_2; Y) = R + U_1 + U_2 + S

    Attributes:
        redundancy: :math:`R`, what either modality says; nats.
        unique_1: :math:`U_1`, what only the first says; nats.
        unique_2: :math:`U_2`, what only the second says; nats.
        synergy: :math:`S`, what neither says without the other; nats.

    Source: Williams and Beer 2010, arXiv:1004.2515; the numbers here are those of the measure of
    Bertschinger et al. 2014, arXiv:1311.2852 (BROJA), under which
    :math:`U_1 = \min_q I_q(X_1; Y \mid X_2)` over all q with the pairs of p.
    """

    redundancy: float
    unique_1: float
    unique_2: float
    synergy: float

    def mutual_information(
        self, x1: str = "x1", x2: str = "x2", label: str = "y"
    ) -> dict[str, float]:
        """Mutual information of each modality, and of both, with the label; nats.

        >>> PartialInformation(0.5, 0.25, 0.0, 1.0).mutual_information()
        {'x1;y': 0.75, 'x2;y': 0.5, 'x1,x2;y': 1.75}
        """
        return {
            f"{x1};{label}": self.redundancy + self.unique_1,
            f"{x2};{label}": self.redundancy + self.unique_2,
            f"{x1},{x2};{label}": sum(self),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Synthetic:
    """Rows with a known truth.

    Attributes:
        modalities: one row per example and modality; float32, images uint8.
        labels: integers, one per example, by the name of the label; there may be none.
        factors: what the modalities and labels were made of, one row per example.
        information: true mutual informations in nats, by what they are of: ``"x1;y"`` is that of
            ``x1`` and ``y``, ``"x1,x2;y"`` that of both modalities and ``y``, ``"x;y|z"`` that of
            ``x`` and ``y`` given ``z``.
        pid: for each label what two modalities say of it, in the order of ``modalities``; empty
            where there are no two, or no label.
    """

    modalities: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    factors: Mapping[str, np.ndarray]
    information: Mapping[str, float]
    pid: Mapping[str, PartialInformation] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> np.ndarray:
        """The only label.

        Raises:
            ValueError: if there is none, or more than one.
        """
        if len(self.labels) != 1:
            got = ", ".join(self.labels) or "none"
            raise ValueError(f"label needs exactly one, got {got}: take labels[name]")
        (label,) = self.labels.values()
        return label


def at_least(name: str, value: int, least: int) -> None:
    """Raise ValueError unless ``value``, called ``name``, is ``least`` or more.

    >>> at_least("rows", 0, 1)
    Traceback (most recent call last):
        ...
    ValueError: rows must be at least 1, got 0
    """
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def one_of(name: str, value: str, choices: Mapping[str, object]) -> None:
    """Raise ValueError unless ``value``, called ``name``, is a key of ``choices``.

    >>> one_of("gate", "nand", {"and": 1, "or": 2})
    Traceback (most recent call last):
        ...
    ValueError: gate must be one of and, or, got 'nand'
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
