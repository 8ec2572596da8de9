"""Gates and interactions: their truth solves the definition, their rows follow it."""

import itertools

import numpy as np
import pytest
import scipy.optimize

from mmjax.data.synthetic import GATES, INTERACTIONS, interaction, logic_gate, sample_joint

ROWS = 20_000


def entropy(p):
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def mutual_information(joint):
    """Of the first axis with the second."""
    return entropy(joint.sum(1)) + entropy(joint.sum(0)) - entropy(joint.ravel())


def joint_of(*codes):
    """Frequencies of the outcomes."""
    shape = [int(code.max()) + 1 for code in codes]
    flat = np.ravel_multi_index(codes, shape)
    return np.bincount(flat, minlength=np.prod(shape)).reshape(shape) / len(flat)


def decompose(p):
    """BROJA by definition: the least joint information of all q that agree with p in pairs.

    The directions that keep all pairs are, for each label, the alternating signs on a rectangle.
    """
    n1, n2, labels = p.shape
    moves = []
    for i, j, y in itertools.product(range(1, n1), range(1, n2), range(labels)):
        move = np.zeros(p.shape)
        move[0, 0, y] = move[i, j, y] = 1
        move[i, 0, y] = move[0, j, y] = -1
        moves.append(move.ravel())
    moves = np.array(moves)

    def joint_information(q):
        q = np.maximum(q.reshape(n1 * n2, labels), 0)
        return mutual_information(q)

    found = scipy.optimize.minimize(
        lambda steps: joint_information(p.ravel() + steps @ moves),
        np.zeros(len(moves)),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda steps: p.ravel() + steps @ moves},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    least = min(found.fun, joint_information(p.ravel()))
    first, second = mutual_information(p.sum(1)), mutual_information(p.sum(0))
    whole = joint_information(p.ravel())
    return first + second - least, least - second, least - first, whole - least


def joint_of_interaction(name):
    responses = INTERACTIONS[name].responses().reshape(4, 3)
    _, label = np.unique(responses, axis=0, return_inverse=True)
    joint = np.zeros((2, 2, label.max() + 1))
    for (a, b), y in zip(itertools.product(range(2), repeat=2), label.reshape(4), strict=True):
        joint[a, b, y] = 1 / 4
    return joint


EXACT = {f"gate {name}": (gate.joint, gate.pid) for name, gate in GATES.items()} | {
    f"interaction {name}": (joint_of_interaction(name), INTERACTIONS[name].pid)
    for name in INTERACTIONS
}
BITS = {
    "and": (0.311278, 0, 0, 0.5),
    "or": (0.311278, 0, 0, 0.5),
    "xor": (0, 0, 0, 1),
    "unique_1": (0, 1, 0, 0),
    "redundant": (1, 0, 0, 0),
    "copy": (0, 1, 1, 0),
    "sum": (0.5, 0, 0, 1),
    "redundant_and_unique_1": (0.311278, 0.5, 0, 0),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_truth_solves_the_definition(name):
    joint, pid = EXACT[name]
    np.testing.assert_allclose(joint.sum(), 1)
    np.testing.assert_allclose(pid, decompose(joint), atol=2e-5)
    told = pid.mutual_information()
    np.testing.assert_allclose(told["x1;y"], mutual_information(joint.sum(1)), atol=1e-12)
    np.testing.assert_allclose(told["x2;y"], mutual_information(joint.sum(0)), atol=1e-12)
    whole = mutual_information(joint.reshape(-1, joint.shape[2]))
    np.testing.assert_allclose(told["x1,x2;y"], whole, atol=1e-12)


@pytest.mark.parametrize("name", BITS)
def test_gates_have_the_published_bits(name):
    np.testing.assert_allclose(np.array(GATES[name].pid) / np.log(2), BITS[name], atol=1e-6)


@pytest.mark.parametrize("name", GATES)
def test_gates_draw_from_their_joint_distribution(name):
    data = logic_gate(name, ROWS, seed=0)
    joint = GATES[name].joint
    found = joint_of(data.factors["x1"], data.factors["x2"], data.label)
    assert found.shape == joint.shape
    assert not found[joint == 0].any()
    np.testing.assert_allclose(found, joint, atol=0.015)
    for modality, rows in data.modalities.items():
        np.testing.assert_array_equal(rows.argmax(axis=1), data.factors[modality])


@pytest.mark.parametrize(
    "joint", [np.full((2, 2, 2), 0.2), np.array([[[1.5, -0.5]]]), np.full((1, 1, 1), np.nan)]
)
def test_what_is_no_distribution_is_refused(joint):
    with pytest.raises(ValueError, match="joint must hold probabilities that sum to 1"):
        sample_joint(joint, 3, seed=0)


@pytest.mark.parametrize("name", INTERACTIONS)
def test_receivers_respond_as_the_taxonomy_says(name):
    data = interaction(name, 400, features=5, seed=0)
    response = data.factors["response"]
    signals = list(zip(data.factors["x1"], data.factors["x2"], strict=True))
    seen = {}
    for signal, row in zip(signals, response, strict=True):
        seen.setdefault(signal, row)
        np.testing.assert_array_equal(seen[signal], row)
    none, second, first, both = (seen[signal] for signal in sorted(seen))
    assert not none.any()
    same = np.array_equal(first, second)
    assert same == (INTERACTIONS[name].kind == "redundancy")
    wanted = {
        "equivalence": first,
        "enhancement": 2 * first,
        "independence": first + second,
        "dominance": first,
        "modulation": 2 * first,
        "emergence": np.array([0, 0, 1]),
    }
    np.testing.assert_array_equal(both, wanted[name])
    # The label numbers the different responses.
    _, numbers = np.unique(response, axis=0, return_inverse=True)
    np.testing.assert_array_equal(data.label, numbers.reshape(-1))


@pytest.mark.parametrize("features", [1, 6])
def test_a_signal_lies_along_one_direction_of_its_modality(features):
    data = interaction("dominance", 500, features=features, noise=3.0, seed=1)
    for name, rows in data.modalities.items():
        signal = 2.0 * data.factors[name] - 1
        direction, *_ = np.linalg.lstsq(rows, signal, rcond=None)
        np.testing.assert_allclose(rows @ direction, signal, atol=1e-4)
