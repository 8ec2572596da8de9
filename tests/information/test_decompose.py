"""What representations know: codes, clusters, Gaussians, chance, and what is refused."""

import jax
import numpy as np
import pytest

from mmjax.data.synthetic import logic_gate, sample_joint
from mmjax.information import decompose, gaussian_pid

KEY = jax.random.key(0)
EVEN = np.full((2, 2, 2), 1 / 8)
RNG = np.random.default_rng(0)


def noisy(codes, seed):
    """Rows near one of two corners, in many features."""
    rng = np.random.default_rng(seed)
    corners = rng.normal(size=(2, 6)) * 4
    return (corners[codes] + 0.3 * rng.normal(size=(len(codes), 6))).astype(np.float32)


@pytest.mark.parametrize("gate", ["xor", "redundant", "unique_2"])
def test_continuous_representations_of_a_gate_know_what_the_gate_says(gate):
    data = logic_gate(gate, 200, seed=1)
    rows = {"sound": noisy(data.factors["x1"], 1), "image": noisy(data.factors["x2"], 2)}
    found = decompose(rows, data.labels["y"], key=KEY, clusters=2, shuffles=4, unit="bits")
    truth = data.pid["y"]
    wanted = [truth.redundancy, truth.unique_1, truth.unique_2, truth.synergy]
    corrected = found.corrected
    parts = [corrected.redundancy, corrected.unique["sound"], corrected.unique["image"]]
    np.testing.assert_allclose([*parts, corrected.synergy], np.array(wanted) / np.log(2), atol=0.03)
    assert found.gap < 1e-9


def test_parts_are_those_of_the_frequencies_and_add_up():
    x1, x2, y = sample_joint(EVEN, 200, seed=0)
    found = decompose({"a": x1, "b": x2}, y, key=KEY, shuffles=4, unit="bits")
    narrow = {"a": x1.astype(np.uint8), "b": x2.astype(np.int8)}
    assert decompose(narrow, y.astype(np.uint8), key=KEY, shuffles=4, unit="bits") == found
    counts = np.zeros((4, 2))
    np.add.at(counts, (2 * x1 + x2, y), 1 / 200)
    independent = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0)
    some = counts > 0
    wanted = np.sum(counts[some] * np.log(counts[some] / independent[some]))
    assert found.measured.total == pytest.approx(wanted / np.log(2), abs=1e-5)


def test_neither_the_order_of_the_names_nor_the_numbers_of_the_codes_matter():
    joint = np.random.default_rng(3).dirichlet(np.ones(8)).reshape(2, 2, 2)
    x1, x2, y = sample_joint(joint, 200, seed=0)
    swapped = {"b": 7 - 5 * x2, "a": 100 * x1}
    found, swapped = (
        decompose(codes, labels, key=KEY, shuffles=4, unit="bits")
        for codes, labels in (({"a": x1, "b": x2}, y), (swapped, 3 * y - 9))
    )
    assert list(found.measured.unique) == ["a", "b"]
    np.testing.assert_allclose(found.measured.total, swapped.measured.total, atol=1e-6)
    for name, part in found.measured.unique.items():
        assert swapped.measured.unique[name] == pytest.approx(part, abs=1e-6)


def test_chance_is_what_is_measured_where_nothing_is_known():
    """The bias is that of the frequencies: some (cells - 1)(classes - 1) / 2n nats, Miller 1955."""
    sizes = (4, 4, 2)
    x1, x2, y = sample_joint(np.full(sizes, 1 / 32), 300, seed=1)
    found = decompose({"a": x1, "b": x2}, y, key=KEY, shuffles=40)
    assert found.chance.total == pytest.approx(15 / 600, rel=0.25)
    assert found.measured.total > 0.01
    for part, spread in zip(
        [found.corrected.redundancy, *found.corrected.unique.values(), found.corrected.synergy],
        [found.spread.redundancy, *found.spread.unique.values(), found.spread.synergy],
        strict=True,
    ):
        assert abs(part) < 4 * spread + 1e-6


def test_invalid_rows_are_as_if_deleted_whatever_they_hold():
    data = logic_gate("and", 200, seed=2)
    rows = {"a": noisy(data.factors["x1"], 1), "b": noisy(data.factors["x2"], 2)}
    where = RNG.random(200) < 0.8
    deleted = {name: x[where] for name, x in rows.items()}
    broken = {name: np.where(where[:, None], x, np.nan) for name, x in rows.items()}
    labels = np.where(where, data.labels["y"], -99)
    options = {"key": KEY, "clusters": 2, "shuffles": 4, "unit": "bits"}
    found = decompose(broken, labels, where=where, **options)
    wanted = decompose(deleted, labels[where], **options)
    assert found == wanted


def test_continuous_labels_are_taken_for_gaussians():
    half = np.random.default_rng(5).normal(size=(5, 6))
    x = (np.random.default_rng(6).normal(size=(2000, 6)) @ half.T).astype(np.float32)
    found = decompose({"a": x[:, :2], "b": x[:, 2:4]}, x[:, 4:], key=KEY, shuffles=3)
    with jax.enable_x64(True):
        wanted = gaussian_pid(np.cov(np.float64(x), rowvar=False), sizes=(2, 2, 1))
    parts = [found.measured.redundancy, *found.measured.unique.values(), found.measured.synergy]
    np.testing.assert_allclose(parts, wanted[:4], atol=1e-3)
    assert found.chance.total < 0.02


def test_a_single_row_knows_nothing():
    found = decompose({"a": np.array([1]), "b": np.array([2])}, np.array([0]), key=KEY, shuffles=1)
    assert found.measured.total == pytest.approx(0, abs=1e-6)
    rows = {"a": np.ones((1, 2), np.float32), "b": np.ones((1, 2), np.float32)}
    found = decompose(rows, np.ones((1, 1), np.float32), key=KEY, shuffles=1)
    assert found.measured.total == pytest.approx(0, abs=1e-6)


def test_constant_features_know_nothing_and_change_nothing():
    data = logic_gate("unique_1", 200, seed=3)
    rows = {"a": noisy(data.factors["x1"], 1), "b": np.full((200, 6), 7, np.float32)}
    found = decompose(rows, data.labels["y"], key=KEY, clusters=2, shuffles=4, unit="bits")
    assert found.measured.unique["a"] == pytest.approx(1, abs=0.01)
    others = [found.measured.redundancy, found.measured.unique["b"], found.measured.synergy]
    np.testing.assert_allclose(others, 0, atol=1e-6)
    padded = rows | {"a": np.concatenate([rows["a"], rows["b"]], axis=1)}
    again = decompose(padded, data.labels["y"], key=KEY, clusters=2, shuffles=4, unit="bits")
    assert again.measured.unique["a"] == pytest.approx(found.measured.unique["a"], abs=1e-6)


THREE = dict.fromkeys("bca", np.zeros(4, int))
ROWS = np.zeros((4, 2), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"representations": {"a": np.zeros(4, int)}}, "of two modalities, got 1: a; take two"),
        ({"representations": THREE}, "of two modalities, got 3: a, b, c; take two"),
        (
            {"representations": {"a": ROWS, "b": ROWS[:3]}},
            r"b must be .* for the n = 4 labels, got float32 \[3, 2\]",
        ),
        (
            {"representations": {"a": ROWS[:3], "b": ROWS}},
            r"a must be .* for the n = 4 labels, got float32 \[3, 2\]",
        ),
        ({"representations": {"a": ROWS, "b": ROWS[:, 0]}}, r"b must be .* got float32 \[4\]"),
        ({"where": np.zeros(4, bool)}, "no row is valid"),
        ({"shuffles": 0}, "must be positive, got 8, 0 and None"),
        ({"labels": np.zeros((4, 1), np.float32)}, "continuous labels need continuous"),
        ({"unit": "bans"}, "unit must be 'nats' or 'bits'"),
    ],
    ids=["one", "three", "lengths", "first", "floats", "nothing", "shuffles", "gaussian", "unit"],
)
def test_what_cannot_be_decomposed_is_refused(change, message):
    codes = {"a": np.array([0, 1, 0, 1]), "b": np.array([0, 0, 1, 1])}
    arguments = {"representations": codes, "labels": codes["a"], "key": KEY} | change
    representations, labels = arguments.pop("representations"), arguments.pop("labels")
    with pytest.raises(ValueError, match=message):
        decompose(representations, labels, **arguments)


def test_values_that_are_not_finite_are_refused():
    rows = {"a": np.full((4, 2), np.nan, np.float32), "b": np.zeros((4, 2), np.float32)}
    with pytest.raises(ValueError, match="a must be finite in every valid row"):
        decompose(rows, np.zeros(4, int), key=KEY)
