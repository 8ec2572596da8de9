import importlib.util
import sys

import numpy as np
import pytest

from mmjax.data.sources.icons import (
    HELD_OUT,
    components,
    correlated_pairs,
    icon_families,
    load_icons,
    split_by_family,
    stem,
)

SPLITS = ("train", "random", "family")


@pytest.fixture(scope="module")
def splits():
    return {split: load_icons(split, size=16) for split in SPLITS}


def records(source):
    return [source[index] for index in range(len(source))]


def test_the_splits_have_their_sizes_and_share_no_icon(splits):
    assert {name: len(icons) for name, icons in splits.items()} == {
        "train": 5367, "random": HELD_OUT, "family": HELD_OUT,
    }  # fmt: skip
    names = {record["id"] for icons in splits.values() for record in records(icons)}
    assert len(names) == 7367


def test_no_family_reaches_into_the_family_split(splits):
    groups = {name: {r["group"] for r in records(icons)} for name, icons in splits.items()}
    assert not groups["family"] & (groups["train"] | groups["random"])
    assert groups["random"] & groups["train"]  # what makes the random split the easier one


def test_no_drawing_or_stem_of_the_family_split_is_in_training(splits):
    """The oracle: no union-find, straight from the definition of a sibling."""
    stems = {name: {stem(r["id"]) for r in records(icons)} for name, icons in splits.items()}
    assert not stems["family"] & stems["train"]
    coarse = {}
    for name in ("family", "train"):
        images = np.stack([r["image"] for r in records(load_icons(name, size=64))])
        blocks = images.reshape(-1, 16, 4, 16, 4).mean((2, 4)).reshape(len(images), -1)
        blocks = blocks - blocks.mean(1, keepdims=True)
        blocks = blocks[np.ptp(blocks, axis=1) > 0]  # constants correlate with nothing
        coarse[name] = blocks / np.linalg.norm(blocks, axis=1, keepdims=True)
    assert (coarse["family"] @ coarse["train"].T).max() <= 0.98 + 1e-6


def test_a_record_is_a_drawing_and_its_designers_name(splits):
    found = {r["id"]: r for icons in splits.values() for r in records(icons)}
    icon = found["alarm-bell"]
    assert icon["text"] == ("alarm bell",)
    assert icon["label"] == "alarm"
    assert icon["image"].shape == (16, 16, 1)
    assert icon["image"].dtype == np.uint8
    assert found["account"]["group"] == found["account-outline"]["group"]
    assert found["account"]["group"] != found["cat"]["group"]


def test_drawings_are_white_on_black_and_centred_by_the_box(splits):
    found = {r["id"]: r["image"][..., 0] for icons in splits.values() for r in records(icons)}
    square = found["checkbox-blank"].astype(int)  # a filled square of 18 of the box's 24 units
    assert square[8, 8] == 255
    assert square[0, 0] == 0
    np.testing.assert_allclose(square, square[::-1, ::-1], atol=8)
    np.testing.assert_allclose(square.sum() / 255, (16 * 18 / 24) ** 2, rtol=0.05)
    # This one is a bar along the lower sixth, and stays there: its own box is not what is centred.
    bar = found["color-helper"]
    assert (bar[14:] > 200).all()
    assert not bar[:13].any()
    assert all(image.any() for image in found.values())


def test_the_split_is_stable_and_follows_the_seed(splits):
    again, other = load_icons("random", size=16), load_icons("random", size=16, seed=1)
    names = [[r["id"] for r in records(icons)] for icons in (splits["random"], again, other)]
    assert names[0] == names[1] == sorted(names[0])
    assert set(names[0]) != set(names[2])


def test_the_size_does_not_change_the_split(splits):
    larger = load_icons("family", size=20)
    assert larger[0]["image"].shape == (20, 20, 1)
    assert [r["id"] for r in records(larger)] == [r["id"] for r in records(splits["family"])]


def test_the_package_is_found_without_importing_it(splits):
    assert "qtawesome" not in sys.modules


def test_writing_to_a_drawing_changes_no_other_source():
    load_icons("train", size=16)[0]["image"][...] = 7
    assert (load_icons("train", size=16)[0]["image"] != 7).any()


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("dev", {}, r"\['family', 'random', 'train'\], got 'dev'"),
        ("train", {"size": 0}, "size"),
        ("train", {"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_named(splits, split, options, message):
    with pytest.raises(ValueError, match=message):
        load_icons(split, **options)


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'mmjax\[quickstart\]'.*-e '\.\[quickstart"):
        load_icons("train")


def test_a_package_of_another_version_names_the_right_one(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("qtawesome", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ImportError, match=r"qtawesome>=1\.4,<1\.5"):
        load_icons("train")


def test_families_are_numbered_by_their_first_icon():
    families = icon_families()
    _, first = np.unique(families, return_index=True)
    assert (np.diff(first) > 0).all()
    assert len(families) == 7367


def test_components_match_a_search_of_the_graph():
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 60, (35, 2)).tolist()
    near = np.eye(60, dtype=bool)
    for a, b in pairs:
        near[a, b] = near[b, a] = True
    for _ in range(6):  # six squarings reach 64 steps
        near = near @ near
    numbers = components(60, pairs)
    np.testing.assert_array_equal(numbers[:, None] == numbers[None], near)


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_correlated_pairs_match_the_definition(chunk_size):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(9, 4, 4))
    images[5] = 3 * images[1] + 7 + 0.01 * images[2]  # neither scale nor offset matter
    images[8] = images[0]
    images[3] = images[4] = 0.1  # constants correlate with nothing, not even each other
    varied = [i for i in range(9) if i not in (3, 4)]
    correlation = np.corrcoef(images[varied].reshape(len(varied), -1))
    expected = {(varied[i], varied[j]) for i, j in np.argwhere(np.triu(correlation, 1) > 0.98)}
    assert expected == {(1, 5), (0, 8)}
    assert set(correlated_pairs(images, 0.98, chunk_size=chunk_size)) == expected


def test_a_split_that_cannot_be_exact_is_refused():
    with pytest.raises(ValueError, match="whole families came to 0"):
        split_by_family(np.zeros(10, int), 3, seed=0)
    with pytest.raises(ValueError, match="do not split"):
        split_by_family(np.arange(6), 3, seed=0)


def test_held_out_families_are_whole_and_the_rest_is_split_at_random():
    families = np.repeat(np.arange(40), [3, 1] * 20)
    split = split_by_family(families, 20, seed=0)
    assert {name: len(rows) for name, rows in split.items()} == {
        "family": 20, "random": 20, "train": 40,
    }  # fmt: skip
    np.testing.assert_array_equal(np.sort(np.concatenate(list(split.values()))), np.arange(80))
    inside = np.isin(families, families[split["family"]])
    assert inside.sum() == 20
