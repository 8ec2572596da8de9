"""The reproduction on CMU-MOSI, at small size on utterances that are made up."""

import re

import jax
import numpy as np
import pytest

from experiments.reproduce import mosi_fusion
from experiments.reproduce.mosi_fusion import (
    COLUMNS,
    MODALITIES,
    OPERATORS,
    held_out,
    logistic,
    measured,
    read,
    report,
    weighted_f1,
)
from mmjax.fusion import FUSIONS, SEQUENCE_FUSIONS
from mmjax.fusion.late import RULES

VIDEOS, EACH = 12, 8


@pytest.fixture
def promotion():
    """The bias correction of optax mixes integers and floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Text tells the sign, audio half of the time, video never; test videos are the last four."""
    rng = np.random.default_rng(0)
    count = VIDEOS * EACH
    label = rng.integers(2, size=count)
    sign = 2.0 * label - 1
    x = {"text": sign, "audio": np.where(rng.random(count) < 0.5, sign, rng.normal(size=count))}
    x["video"] = rng.normal(size=count)
    features = {
        name: np.stack([side, *rng.normal(size=(2, count))], axis=1).astype(np.float32) * 10 + 3
        for name, side in x.items()
    }
    ids = np.array([f"a_video_{i // EACH}_{i % EACH}" for i in range(count)])
    split = np.where(np.arange(count) // EACH < 8, "train", "test")
    path = tmp_path_factory.mktemp("mosi") / "mosi_utterances.npz"
    np.savez(path, ids=ids, label=label, bc_split=split, **features)
    return path


def test_utterances_are_standardised_by_the_training_videos(path):
    train, test = read(path)
    assert set(train.features) == set(test.features) == set(MODALITIES)
    assert len(train.labels) == 8 * EACH
    assert not set(train.videos) & set(test.videos)
    for x in train.features.values():
        np.testing.assert_allclose([x.mean(axis=0), x.std(axis=0)], [[0] * 3, [1] * 3], atol=1e-5)


def test_each_seed_holds_out_whole_videos_of_its_own(path):
    train, _ = read(path)
    dev = held_out(train.videos, 5)
    for row in dev:
        assert row.sum() == EACH  # one video of eight
        assert len(set(train.videos[row])) == 1
        assert not set(train.videos[row]) & set(train.videos[~row])
    assert len({row.tobytes() for row in dev}) > 1
    np.testing.assert_array_equal(dev, held_out(train.videos, 5))


@pytest.mark.parametrize("seed", range(3))
def test_weighted_f1_is_that_of_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    labels, predicted = np.random.default_rng(seed).integers(2, size=(2, 50))
    want = metrics.f1_score(labels, predicted, average="weighted")
    np.testing.assert_allclose(weighted_f1(predicted, labels), want)


def test_weighted_f1_by_hand():
    labels, predicted = np.array([0, 0, 1]), np.array([0, 1, 1])
    np.testing.assert_allclose(weighted_f1(predicted, labels), 2 / 3)  # 2/3 of each class


@pytest.mark.usefixtures("promotion")
def test_an_operator_learns_what_there_is_and_misses_what_is_masked(path):
    row = measured("low_rank", read(path), seeds=3, looks=8, updates=25)
    assert set(row) == set(COLUMNS)
    share = {name: float(cell.split()[0]) for name, cell in row.items() if "±" in cell}
    assert share["accuracy"] > 85
    assert share["weighted F1"] > 85
    assert share["without video"] > 85
    assert share["without text"] < share["accuracy"] - 10


def test_the_logistic_regression_is_that_of_scikit_learn(path, monkeypatch):
    linear_model = pytest.importorskip("sklearn.linear_model")
    monkeypatch.setattr(mosi_fusion, "RIDGES", (10.0,))
    train, test = read(path)
    found = []
    for dev in held_out(train.videos, 2):
        x, y = np.concatenate([*train.at(~dev).features.values()], axis=1), train.labels[~dev]
        mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
        fitted = linear_model.LogisticRegression(C=0.1, tol=1e-8).fit((x - mean) / spread, y)
        rows = (np.concatenate([*test.features.values()], axis=1) - mean) / spread
        found.append(100 * fitted.score(rows, test.labels))
    want = f"{np.mean(found):.1f} ± {np.std(found, ddof=1):.1f}"
    assert logistic((train, test), seeds=2) == {"accuracy": want}


def test_the_ridge_is_chosen_on_the_held_out_videos(path, monkeypatch):
    train, test = read(path)
    monkeypatch.setattr(mosi_fusion, "RIDGES", (1e9, 1.0))
    strong = logistic((train.of(("text",)), test.of(("text",))), seeds=2)
    assert float(strong["accuracy"].split()[0]) > 95


def test_the_table_holds_the_published_and_ours(path, capsys, monkeypatch):
    asked = []

    def row(operator, parts, **options):
        asked.append((operator, *sorted(parts[0].features), options))
        return dict.fromkeys(COLUMNS, "12.3 ± 4.5")

    monkeypatch.setattr(mosi_fusion, "measured", row)
    options = {"seeds": 2, "looks": 1, "updates": 2}
    report(path, ["attention"], **options)
    assert asked == [
        *(("additive", m, options) for m in MODALITIES),
        ("attention", *MODALITIES, options),
    ]
    table = capsys.readouterr().out
    for name in (
        "bc-LSTM, all",
        "larger class",
        "logistic, text",
        "ours, text alone",
        "ours, attention",
    ):
        assert f"| {name}" in table
    assert "80.3" in table
    assert table.count("12.3 ± 4.5") == 4 * len(COLUMNS)
    widths = {len(row) for row in re.findall(r"^\|.*\|$", table, re.MULTILINE)}
    assert len(widths) == 1


def test_every_operator_of_the_library_is_in_it():
    names = {name.removesuffix(f"_{rule}") for name in OPERATORS for rule in RULES}
    assert set(FUSIONS) <= names
    assert set(SEQUENCE_FUSIONS) - {"depth"} <= names
    assert {"early", "intermediate", "progressive"} <= names  # depths of fusion


def test_an_unknown_operator_is_refused(path):
    with pytest.raises(ValueError, match="unknown operators"):
        report(path, ["adition"], seeds=2, looks=1, updates=1)


def test_without_data_it_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("MMJAX_DATA", raising=False)
    with pytest.raises(SystemExit, match="set MMJAX_DATA to the folder that holds mosi_utterances"):
        mosi_fusion.main([])
