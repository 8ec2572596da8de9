import builtins
import json

import numpy as np
import pytest

from mmjax.data.tokenizers import (
    END,
    FIRST,
    PAD,
    TOKENIZERS,
    UNKNOWN,
    BytePairTokenizer,
    WordTokenizer,
    load_tokenizer,
    train_tokenizer,
)

TEXTS = ["A dog runs.", "a dog, a cat", "The cat sleeps", "naïve café 東京 🐕"] * 3
OPTIONS = {"word": {}, "byte_pair": {"vocab_size": 300}}


@pytest.fixture(params=sorted(TOKENIZERS))
def tokenizer(request):
    return train_tokenizer(request.param, TEXTS, **OPTIONS[request.param])


def test_every_row_is_text_then_end_then_padding(tokenizer):
    rows = tokenizer.encode([*TEXTS, ""], 64)
    assert rows.dtype == np.int32
    assert rows.shape == (len(TEXTS) + 1, 64)
    ends = np.argmax(rows == END, axis=1)
    for row, end in zip(rows, ends, strict=True):
        assert row[end] == END
        assert (row[:end] >= FIRST).all()
        assert (row[end + 1 :] == PAD).all()
    assert ends[-1] == 0
    assert rows.max() < tokenizer.vocab_size


def test_a_text_that_is_too_long_keeps_its_end(tokenizer):
    whole, cut = (tokenizer.encode(["a dog runs a dog sleeps"], length)[0] for length in (40, 4))
    np.testing.assert_array_equal(cut, [*whole[:3], END])
    np.testing.assert_array_equal(tokenizer.encode(["a dog"], 1), [[END]])


def test_no_texts_are_no_rows(tokenizer):
    assert tokenizer.encode([], 5).shape == (0, 5)


def test_a_row_without_room_for_the_end_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"length must be at least 1.*got 0"):
        tokenizer.encode(["a"], 0)


def test_case_and_unicode_form_do_not_matter(tokenizer):
    rows = tokenizer.encode(["NAÏVE CAFÉ", "nai\u0308ve cafe\u0301"], 32)
    np.testing.assert_array_equal(rows[0], rows[1])


def test_saved_and_loaded_it_encodes_alike(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = load_tokenizer(path)
    assert type(loaded) is type(tokenizer)
    assert loaded.vocab_size == tokenizer.vocab_size
    texts = [*TEXTS, "an unseen zebra!"]
    np.testing.assert_array_equal(loaded.encode(texts, 40), tokenizer.encode(texts, 40))
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]


def test_training_is_deterministic_and_blind_to_the_order_of_the_texts(tokenizer, tmp_path):
    kind = next(k for k, c in TOKENIZERS.items() if isinstance(tokenizer, c))
    saved = []
    for number, texts in enumerate((TEXTS, TEXTS[::-1])):
        train_tokenizer(kind, texts, **OPTIONS[kind]).save(tmp_path / str(number))
        saved.append((tmp_path / str(number)).read_text())
    assert saved[0] == saved[1]


def test_words_are_numbered_by_frequency_and_then_alphabet():
    words = WordTokenizer.train(["b a b", "c, a"])
    assert words.vocab_size == FIRST + 4
    np.testing.assert_array_equal(words.encode(["a b , c d"], 6), [[3, 4, 5, 6, UNKNOWN, END]])


def test_rare_words_and_words_past_the_size_are_unknown():
    row = WordTokenizer.train(["b a b a c"], min_count=2).encode(["a b c"], 4)
    np.testing.assert_array_equal(row, [[3, 4, UNKNOWN, END]])
    small = WordTokenizer.train(["b a b"], vocab_size=4)
    assert small.vocab_size == 4
    np.testing.assert_array_equal(small.encode(["b a"], 3), [[3, UNKNOWN, END]])


@pytest.mark.parametrize("options", [{"min_count": 5}, {"vocab_size": 3}], ids=str)
def test_a_vocabulary_without_words_is_refused(options):
    with pytest.raises(ValueError, match="no word to learn: 2 distinct"):
        WordTokenizer.train(["a b"], **options)


def test_a_word_twice_is_refused():
    with pytest.raises(ValueError, match="distinct"):
        WordTokenizer(["a", "a"])


def test_byte_pairs_know_every_text_and_tell_texts_apart():
    pairs = BytePairTokenizer.train(TEXTS, vocab_size=280)
    assert pairs.vocab_size == 280
    rows = pairs.encode(["zebra", "Ωmega", "\x00", "dog"], 20)
    assert not (rows == UNKNOWN).any()
    assert len({row.tobytes() for row in rows}) == 4
    # Merges were learnt: a frequent word is far shorter than its bytes.
    assert np.count_nonzero(pairs.encode(["a dog"], 20)) == 2 + 1


def test_a_text_cannot_spell_a_special_number():
    pairs = BytePairTokenizer.train(TEXTS, vocab_size=300)
    for text in ("<pad>", "<unk>", "<end>", "</s>"):
        row = pairs.encode([text], 20)[0]
        assert np.count_nonzero(row == END) == 1
        assert np.count_nonzero(row) >= len(text) + 1


def test_byte_pairs_need_room_for_the_bytes():
    with pytest.raises(ValueError, match=r"at least 259.*got 200"):
        BytePairTokenizer.train(TEXTS, vocab_size=200)


def test_a_missing_package_names_the_command(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'mmjax\[text\]'"):
        BytePairTokenizer.train(TEXTS)


def test_an_unknown_kind_lists_the_known():
    with pytest.raises(ValueError, match=r"\['byte_pair', 'word'\], got 'sentence'"):
        train_tokenizer("sentence", TEXTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "not JSON"),
        ("[]", "'format'"),
        ('{"words": ["a"]}', "'format'"),
        (json.dumps({"format": "mmjax tokenizer", "kind": "x"}), "kind must be one of.*'x'"),
        (json.dumps({"format": "mmjax tokenizer", "kind": "word"}), "broken.*words"),
        (json.dumps({"format": "mmjax tokenizer", "kind": "byte_pair", "model": 1}), "broken"),
    ],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"file\.json.*{message}"):
        load_tokenizer(path)
