import concurrent.futures
import io

import numpy as np
import pytest
from PIL import Image

from mmjax.data.augmentation import Augmentation
from mmjax.data.images import UnreadableImage, fit
from mmjax.data.preparation import Preparation, Skipped, TooManyUnreadable
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
def test_a_blank_text_is_a_text(generator):
    example = preparation(word_dropout=0.5)({"id": "r", "text": ("  ",)}, generator)
    np.testing.assert_array_equal(example["inputs"]["text"], [END, 0, 0, 0, 0])
    assert example["where"]["text"]


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
    [{"channels": 2}, {"image_size": 0}, {"text_length": 0}, {"word_dropout": 1.0}],
    ids=str,
)
def test_numbers_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        preparation(**wrong)


def test_the_ledger_names_each_record_once():
    ledger = Skipped()
    assert ledger.summary() == "no record skipped"
    for identity in ("a", "b", "a", "c", "d"):
        ledger.count(identity, "broken")
    ledger.count("e")
    assert ledger.reasons == dict.fromkeys("abcd", "broken")
    assert ledger.summary() == "4 records skipped: a (broken); b (broken); c (broken) and 1 more"


def test_the_ledger_raises_past_its_share_and_not_before():
    ledger = Skipped(max_share=0.05)
    for number in range(95):
        ledger.count(str(number))
    for number in range(5):  # 5 of 100 are the share, not past it
        ledger.count(f"bad{number}", "broken")
    with pytest.raises(TooManyUnreadable, match=r"6 of the 101 .*5\.9%.*5\.0%.*bad0 \(broken\)"):
        ledger.count("bad5", "broken")


def test_the_share_does_not_count_before_enough_images_were_read():
    ledger = Skipped(max_share=0.0)
    for number in range(99):
        ledger.count(str(number), "broken")
    with pytest.raises(TooManyUnreadable, match="99 of the 100"):
        ledger.count("good")


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_a_share(share):
    with pytest.raises(ValueError, match="max_share"):
        Skipped(max_share=share)


def test_many_threads_lose_no_count():
    prepare = preparation(skipped=Skipped(max_share=0.5))
    records = [RECORD | {"id": str(n), "image": PIXELS if n % 4 else b"x"} for n in range(400)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        examples = list(pool.map(prepare, records))
    assert sum(not example["where"]["image"] for example in examples) == 100
    assert len(prepare.skipped.reasons) == 100
