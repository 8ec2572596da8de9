import concurrent.futures
import io

import numpy as np
import pytest
from PIL import Image

from mmjax.data.augmentation import Augmentation
from mmjax.data.images import UnreadableImage, fit
from mmjax.data.preparation import Preparation
from mmjax.data.records import UnreadableRecord
from mmjax.data.skipped import Skipped
from mmjax.data.tokenizers import END, WordTokenizer

WORDS = WordTokenizer(["one", "two", "three", "four", "five"])
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 3), np.uint8)
RECORD = {"id": "r", "image": PIXELS, "text": ("one two three", "four five")}


def preparation(**options):
    defaults = {"tokenizer": WORDS, "image_size": 6, "channels": 3, "text_length": 5}
    return Preparation(**defaults | options)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_without_a_generator_the_image_is_fitted_and_the_first_text_whole():
    example = preparation(augmentation=Augmentation(flip=1), word_dropout=0.9)(RECORD)
    np.testing.assert_array_equal(example["inputs"]["image"], fit(PIXELS, 6))
    np.testing.assert_array_equal(example["inputs"]["text"], [3, 4, 5, END, 0])
    assert example["where"] == {"image": True, "text": True}


def test_training_draws_every_text_and_augments():
    prepare = preparation(augmentation=Augmentation(flip=1))
    examples = [prepare(RECORD, rng(seed)) for seed in range(40)]
    firsts = [int(example["inputs"]["text"][0]) for example in examples]
    assert 8 < firsts.count(3) < 32  # 20 expected, standard deviation 3.2
    assert set(firsts) == {3, 6}
    np.testing.assert_array_equal(examples[0]["inputs"]["image"], fit(PIXELS, 6)[:, ::-1])


def test_training_follows_from_the_generator():
    prepare = preparation(augmentation=Augmentation(rotation=90), word_dropout=0.5)
    first, again = (prepare(RECORD, rng(7))["inputs"] for _ in range(2))
    for name in ("image", "text"):
        np.testing.assert_array_equal(first[name], again[name])


def test_word_dropout_drops_its_share_in_order_and_leaves_at_least_one_word():
    prepare = preparation(word_dropout=0.5)
    record = {"id": "r", "text": ("one two three",)}
    counts = np.zeros(4, int)
    for seed in range(400):
        tokens = prepare(record, rng(seed))["inputs"]["text"]
        kept = tokens[tokens >= 3]
        assert (np.diff(kept) > 0).all()
        counts[len(kept)] += 1
    assert counts[0] == 0
    # Binomial(3, 1/2), where "none" becomes "one": 1/2, 3/8, 1/8 of 400.
    np.testing.assert_allclose(counts[1:], [200, 150, 50], atol=45)


@pytest.mark.parametrize("generator", [None, rng()], ids=["evaluation", "training"])
@pytest.mark.parametrize("text", [(), None], ids=["empty", "absent"])
def test_a_missing_modality_is_zeros_and_masked(text, generator):
    prepare = preparation(word_dropout=0.5)
    record = {"id": "r"} if text is None else {"id": "r", "text": text}
    example = prepare(record, generator)
    assert example["where"] == {"image": False, "text": False}
    assert example["inputs"]["image"].shape == (6, 6, 3)
    assert not example["inputs"]["image"].any()
    assert not example["inputs"]["text"].any()
    assert not prepare.skipped.reasons  # nothing was there to be read


@pytest.mark.parametrize("generator", [None, rng()], ids=["evaluation", "training"])
@pytest.mark.parametrize("texts", [("  ",), ("", "\n"), ("", "two")], ids=str)
def test_a_blank_text_is_none_and_is_counted(texts, generator):
    prepare = preparation()
    example = prepare({"id": "r", "text": texts}, generator)
    right = "two" in texts
    np.testing.assert_array_equal(
        example["inputs"]["text"], [4, END, 0, 0, 0] if right else [0] * 5
    )
    assert example["where"]["text"] == right
    assert prepare.skipped.causes == {"empty text": 1}
    assert "texts are blank" in prepare.skipped.reasons["r"]


def test_a_record_that_a_source_could_not_read_is_masked_and_counted():
    prepare = preparation(arrays={"audio": (2,)})
    example = prepare(UnreadableRecord("a.tar, sample 3", "record too large", "300 bytes"), rng())
    assert example["where"] == {"image": False, "text": False, "audio": False}
    assert prepare.skipped.causes == {"record too large": 1}
    assert prepare.skipped.reasons == {"a.tar, sample 3": "300 bytes"}


def test_a_record_is_counted_once_whatever_is_wrong_with_it():
    prepare = preparation()
    prepare({"id": "r", "image": b"", "text": ("",)})
    assert prepare.skipped.causes == {"empty image and empty text": 1}


def test_any_number_of_further_modalities_and_any_of_them_missing():
    prepare = preparation(arrays={"audio": (2, 3), "depth": (1,)})
    record = {"id": "r", "audio": np.arange(6, dtype=np.int16).reshape(2, 3)}
    example = prepare(record, rng())
    assert example["where"] == {"image": False, "text": False, "audio": True, "depth": False}
    np.testing.assert_array_equal(example["inputs"]["audio"], [[0, 1, 2], [3, 4, 5]])
    assert example["inputs"]["audio"].dtype == np.float32
    np.testing.assert_array_equal(example["inputs"]["depth"], [0])
    assert prepare.skipped.summary() == "no record skipped"


@pytest.mark.parametrize(
    ("array", "cause"),
    [(np.zeros(3), "wrong shape of audio"), (np.array([0, np.nan]), "audio not finite")],
)
def test_an_array_that_does_not_fit_is_masked_and_counted(array, cause):
    prepare = preparation(arrays={"audio": (2,)})
    example = prepare({"id": "r", "audio": array})
    assert not example["where"]["audio"]
    assert not example["inputs"]["audio"].any()
    assert prepare.skipped.causes == {cause: 1}


def test_records_of_one_group_can_be_told_from_others():
    prepare = preparation(distinct="group")
    records = [
        {"id": "a", "group": "g"}, {"id": "b", "group": "g"}, {"id": "c", "group": "h"},
        {"id": "g"}, {"id": "d"},
    ]  # fmt: skip
    groups = [prepare(record)["group"] for record in records]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 4  # without a group: alone, also if the id is a group's name
    assert groups[0].dtype == np.int32
    assert "group" not in preparation()(records[0])
    ids = [preparation(distinct="id")(record)["group"] for record in records]
    assert len(set(ids)) == 5


@pytest.mark.parametrize("generator", [None, rng()], ids=["evaluation", "training"])
def test_an_unreadable_image_is_zeros_and_masked_and_written_down(generator):
    prepare = preparation()
    example = prepare(RECORD | {"image": b"no image"}, generator)
    assert example["where"] == {"image": False, "text": True}
    assert example["inputs"]["image"].shape == (6, 6, 3)
    assert not example["inputs"]["image"].any()
    assert "no image" in prepare.skipped.reasons["r"]


def test_an_image_and_texts_can_be_prepared_by_themselves():
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    prepare = preparation(channels=1)
    assert prepare.image(file.getvalue()).shape == (6, 6, 1)
    np.testing.assert_array_equal(prepare.texts(["five", ""]), [[7, 2, 0, 0, 0], [2, 0, 0, 0, 0]])
    with pytest.raises(UnreadableImage):
        prepare.image(b"no image")
    assert not prepare.skipped.reasons


def test_a_malformed_record_is_an_error_not_a_skip():
    with pytest.raises(ValueError, match="'r': 'text'"):
        preparation()({"id": "r", "text": "one"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": 2},
        {"image_size": 0},
        {"text_length": 0},
        {"word_dropout": 1.0},
        {"distinct": "image"},
        {"arrays": {"text": (2,)}},
    ],
    ids=str,
)
def test_numbers_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        preparation(**wrong)


def test_many_threads_lose_no_count():
    prepare = preparation(skipped=Skipped(max_share=0.5))
    records = [RECORD | {"id": str(n), "image": PIXELS if n % 4 else b"x"} for n in range(400)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        examples = list(pool.map(prepare, records))
    assert sum(not example["where"]["image"] for example in examples) == 100
    assert len(prepare.skipped.reasons) == 100
