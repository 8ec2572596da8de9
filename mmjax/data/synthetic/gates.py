"""Logic gates: the textbook cases of redundant, unique and synergistic information."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float64, Int64

from mmjax.data.synthetic.sample import PartialInformation, Synthetic, at_least, one_of

BIT = float(np.log(2))  # nats
# What one input of an AND says of its output: H(1/4) - 1/2 bits.
_ONE_OF_AND = float(np.log(8) / 2 - 3 * np.log(3) / 4)


@dataclasses.dataclass(frozen=True, eq=False)
class Gate:
    """Two inputs, an output, and what the inputs say of it.

    Attributes:
        joint: probability of each (first input, second input, output).
        pid: the truth, in nats.
    """

    joint: Float64[np.ndarray, "x1 x2 y"]
    pid: PartialInformation


def _gate(output: Callable[[int, int], int], *truth: float) -> Gate:
    """Two fair bits in."""
    joint = np.zeros((2, 2, 4))
    for a, b in itertools.product(range(2), repeat=2):
        joint[a, b, output(a, b)] = 1 / 4
    return Gate(joint[:, :, joint.any(axis=(0, 1))], PartialInformation(*truth))


def _redundant() -> Gate:
    """Both inputs are the same fair bit, and so is the output."""
    joint = np.zeros((2, 2, 2))
    joint[0, 0, 0] = joint[1, 1, 1] = 1 / 2
    return Gate(joint, PartialInformation(BIT, 0.0, 0.0, 0.0))


def _redundant_and_unique() -> Gate:
    """The first input is two fair bits, the second one of them, the output their AND."""
    joint = np.zeros((4, 2, 2))
    for a, b in itertools.product(range(2), repeat=2):
        joint[2 * a + b, a, a & b] = 1 / 4
    return Gate(joint, PartialInformation(_ONE_OF_AND, BIT / 2, 0.0, 0.0))


GATES: Mapping[str, Gate] = {
    "and": _gate(lambda a, b: a & b, _ONE_OF_AND, 0.0, 0.0, BIT / 2),
    "or": _gate(lambda a, b: a | b, _ONE_OF_AND, 0.0, 0.0, BIT / 2),
    "xor": _gate(lambda a, b: a ^ b, 0.0, 0.0, 0.0, BIT),
    "unique_1": _gate(lambda a, b: a, 0.0, BIT, 0.0, 0.0),
    "unique_2": _gate(lambda a, b: b, 0.0, 0.0, BIT, 0.0),
    "redundant": _redundant(),
    "copy": _gate(lambda a, b: 2 * a + b, 0.0, BIT, BIT, 0.0),
    "sum": _gate(lambda a, b: a + b, BIT / 2, 0.0, 0.0, BIT),
    "redundant_and_unique_1": _redundant_and_unique(),
}


def sample_joint(
    joint: Float64[np.ndarray, "x1 x2 y"], rows: int, *, seed: int
) -> Int64[np.ndarray, "3 n"]:
    """Draw outcomes from a joint distribution.

    Args:
        joint: probabilities of (x1, x2, y); they sum to 1.
        rows: how many outcomes to draw.
        seed: of the random numbers.

    Returns:
        The numbers of the outcomes of x1, of x2 and of y, one per row.

    Raises:
        ValueError: if ``rows`` is below 1, or the probabilities are negative or do not sum to 1.

    >>> x1, x2, y = sample_joint(GATES["xor"].joint, 1000, seed=0)
    >>> print((x1 ^ x2 == y).all(), x1.shape)
    True (1000,)
    """
    at_least("rows", rows, 1)
    if np.any(joint < 0) or not np.isclose(np.sum(joint), 1, rtol=0, atol=1e-9):
        raise ValueError(
            f"joint must hold probabilities that sum to 1, got {np.min(joint)} as the lowest and "
            f"{np.sum(joint)} as the sum"
        )
    cells = np.random.default_rng(seed).choice(joint.size, rows, p=joint.ravel() / joint.sum())
    return np.stack(np.unravel_index(cells, joint.shape)).astype(np.int64)


def logic_gate(name: str, rows: int, *, seed: int) -> Synthetic:
    """Inputs of a logic gate as two modalities, its output as the label.

    ==========================  =======================  =============================  ==========
    name                        inputs                   R, U1, U2, S in bits           output
    ==========================  =======================  =============================  ==========
    ``and``, ``or``             two fair bits            .311278, 0, 0, .5              a AND b
    ``xor``                     two fair bits            0, 0, 0, 1                     a XOR b
    ``unique_1``, ``unique_2``  two fair bits            0, 1, 0, 0 and 0, 0, 1, 0      a, b
    ``redundant``               one fair bit, twice      1, 0, 0, 0                     a
    ``copy``                    two fair bits            0, 1, 1, 0                     (a, b)
    ``sum``                     two fair bits            .5, 0, 0, 1                    a + b
    ``redundant_and_unique_1``  (a, b) and a             .311278, .5, 0, 0              a AND b
    ==========================  =======================  =============================  ==========

    Args:
        name: of the gate, a key of ``GATES``.
        rows: how many examples to draw.
        seed: of the random numbers.

    Returns:
        Modalities ``x1`` and ``x2``, one-hot rows; the label ``y``; the factors ``x1`` and ``x2``,
        the numbers of the inputs.

    Raises:
        ValueError: for an unknown gate, or fewer rows than 1.

    Source: Bertschinger et al. 2014, arXiv:1311.2852, table 1 (and, xor, redundant, unique, copy);
    sum: both sums of two bits leave only "one of them" open, so that no q differs from p in what
    x1 alone says. The last one adds to an AND the input that the other lacks.

    >>> data = logic_gate("xor", 4, seed=0)
    >>> print(data.modalities["x1"].shape, f"{data.pid['y'].synergy / BIT:.1f} bits")
    (4, 2) 1.0 bits
    """
    one_of("gate", name, GATES)
    gate = GATES[name]
    x1, x2, y = sample_joint(gate.joint, rows, seed=seed)
    inputs = {"x1": x1, "x2": x2}
    sizes = dict(zip(inputs, gate.joint.shape, strict=False))
    one_hot = {name: np.eye(sizes[name], dtype=np.float32)[x] for name, x in inputs.items()}
    information = gate.pid.mutual_information()
    return Synthetic(one_hot, {"y": y}, inputs, information, {"y": gate.pid})
