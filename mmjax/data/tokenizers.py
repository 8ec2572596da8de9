"""Texts to token numbers: words, or byte pairs trained on the data itself.

Three numbers mean the same in every tokenizer: ``PAD`` fills the row, ``UNKNOWN`` stands for what
the training texts did not hold, ``END`` closes every text, also a truncated one.
"""

import collections
import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int32

from mmjax.atomic import replacing

PAD, UNKNOWN, END = 0, 1, 2
FIRST = 3  # number of the first token that stands for text

_WORD = re.compile(r"\w+|[^\w\s]")
_FORMAT = "mmjax tokenizer"


class Tokenizer(Protocol):
    """What a preparation asks of a tokenizer. Safe to use from many threads."""

    @property
    def vocab_size(self) -> int:
        """Count of token numbers, the three special ones included."""
        ...

    def encode(self, texts: Sequence[str], length: int) -> Int32[np.ndarray, "n t"]:
        """Return one row of ``length`` token numbers per text.

        A text ends with ``END`` and is padded with ``PAD``; one that is too long loses its tail
        but not its ``END``, so that the last token is always the summary of a row.

        Args:
            texts: any strings; an empty one becomes ``END`` alone.
            length: tokens a row, at least 1.

        Returns:
            int32 token numbers in [0, ``vocab_size``).

        Raises:
            ValueError: if ``length`` is less than 1.
        """
        ...

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that :func:`load_tokenizer` needs to one JSON file."""
        ...


class WordTokenizer:
    """Lower-case words and single punctuation marks, each with a number of its own.

    Args:
        words: distinct words; the first gets the number 3.

    Raises:
        ValueError: if a word comes twice.

    >>> tokenizer = WordTokenizer.train(["A red fox.", "a red hen"])
    >>> tokenizer.encode(["a red fox", "a blue fox"], length=5)
    array([[3, 4, 6, 2, 0],
           [3, 1, 6, 2, 0]], dtype=int32)
    """

    def __init__(self, words: Sequence[str]):
        self._numbers = {word: number for number, word in enumerate(words, FIRST)}
        if len(self._numbers) != len(words):
            raise ValueError("the words of a tokenizer must be distinct")

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int | None = None, min_count: int = 1
    ) -> "WordTokenizer":
        """Number the words of ``texts``, the most frequent first, ties in alphabetical order.

        Args:
            texts: training texts.
            vocab_size: at most so many numbers, the three special ones included; None is no limit.
            min_count: a rarer word is left out and becomes ``UNKNOWN``.

        Raises:
            ValueError: if no word remains.
        """
        counts = collections.Counter(word for text in texts for word in _words(text))
        words = [word for word, count in counts.items() if count >= min_count]
        words.sort(key=lambda word: (-counts[word], word))
        words = words if vocab_size is None else words[: max(vocab_size - FIRST, 0)]
        if not words:
            raise ValueError(
                f"no word to learn: {len(counts)} distinct ones in the texts, "
                f"min_count={min_count}, vocab_size={vocab_size}"
            )
        return cls(words)

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> "WordTokenizer":
        """Rebuild the tokenizer from what :meth:`save` wrote."""
        return cls(content["words"])

    @property
    def vocab_size(self) -> int:
        """Count of token numbers, the three special ones included."""
        return FIRST + len(self._numbers)

    def encode(self, texts: Sequence[str], length: int) -> Int32[np.ndarray, "n t"]:
        """Return one row of ``length`` token numbers per text; see :class:`Tokenizer`."""
        get = self._numbers.get
        return _rows([[get(w, UNKNOWN) for w in _words(text)] for text in texts], length)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the words to a JSON file."""
        _save(path, "word", words=list(self._numbers))


class BytePairTokenizer:
    """Lower-case byte pairs trained on the data: any text has an encoding, none is unknown.

    Needs the package ``tokenizers``. Make one with :meth:`train` or :func:`load_tokenizer`.

    Args:
        model: the model of the ``tokenizers`` package as it serialises itself to JSON.

    Source: Sennrich et al. 2016, arXiv:1508.07909, on bytes as in Radford et al. 2019 (GPT-2).
    """

    def __init__(self, model: str):
        self._model = _tokenizers_package().Tokenizer.from_str(model)
        # Some of the package's own models pad or truncate; the row is our business.
        self._model.no_padding()
        self._model.no_truncation()

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None = None) -> "BytePairTokenizer":
        """Learn the merges of ``texts``.

        Args:
            texts: training texts.
            vocab_size: at most so many numbers: 3 special ones, 256 bytes, the rest merges; None
                is 8,192.

        Raises:
            ValueError: if ``vocab_size`` has no room for the bytes.
            ImportError: without the package ``tokenizers``, naming the command that installs it.
        """
        vocab_size = 8192 if vocab_size is None else vocab_size
        if vocab_size < FIRST + 256:
            raise ValueError(
                f"vocab_size must be at least {FIRST + 256} (special numbers and bytes), "
                f"got {vocab_size}"
            )
        hf = _tokenizers_package()
        model = hf.Tokenizer(hf.models.BPE())
        model.normalizer = hf.normalizers.Sequence(
            [hf.normalizers.NFKC(), hf.normalizers.Lowercase(), hf.normalizers.Strip()]
        )
        # A space in front makes the first word equal to the same word further on.
        model.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=True)
        # No special tokens: a caption that spells one out would be taken for it.
        trainer = hf.trainers.BpeTrainer(
            vocab_size=vocab_size - FIRST,
            initial_alphabet=hf.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        model.train_from_iterator(texts, trainer)
        return cls(model.to_str())

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> "BytePairTokenizer":
        """Rebuild the tokenizer from what :meth:`save` wrote."""
        return cls(json.dumps(content["model"]))

    @property
    def vocab_size(self) -> int:
        """Count of token numbers, the three special ones included."""
        return FIRST + self._model.get_vocab_size()

    def encode(self, texts: Sequence[str], length: int) -> Int32[np.ndarray, "n t"]:
        """Return one row of ``length`` token numbers per text; see :class:`Tokenizer`."""
        # One by one: the package's own batches would start threads inside the pipeline's threads.
        # An empty text would get a token for the space in front of it.
        encode = self._model.encode
        numbers = [[FIRST + n for n in encode(t).ids] if t.strip() else [] for t in texts]
        return _rows(numbers, length)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the merges to a JSON file."""
        _save(path, "byte_pair", model=json.loads(self._model.to_str()))


TOKENIZERS: dict[str, Any] = {"word": WordTokenizer, "byte_pair": BytePairTokenizer}


def train_tokenizer(kind: str, texts: Iterable[str], **options: Any) -> Tokenizer:
    """Train a tokenizer of a named kind.

    Args:
        kind: a key of ``TOKENIZERS``.
        texts: training texts; see :func:`mmjax.data.records.all_texts`.
        options: those of the ``train`` method of that class.

    Raises:
        ValueError: if there is no such kind.
    """
    return _of_kind(kind, "kind").train(texts, **options)


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer that was saved to a JSON file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not one that a tokenizer of this package wrote.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no tokenizer: not JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path} is no tokenizer: its 'format' is not {_FORMAT!r}")
    kind = _of_kind(content.get("kind"), f"{path}: kind")
    try:
        return kind.from_content(content)
    except ImportError:
        raise
    except Exception as error:  # The tokenizers package raises nothing narrower.
        raise ValueError(f"{path} holds a broken tokenizer: {error!r}") from error


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def _rows(numbers: Sequence[Sequence[int]], length: int) -> Int32[np.ndarray, "n t"]:
    if length < 1:
        raise ValueError(f"length must be at least 1 to hold the end of a text, got {length}")
    rows = np.full((len(numbers), length), PAD, np.int32)
    for row, kept in zip(rows, (text[: length - 1] for text in numbers), strict=True):
        row[: len(kept)] = kept
        row[len(kept)] = END
    return rows


def _save(path: str | os.PathLike[str], kind: str, **content: Any) -> None:
    text = json.dumps({"format": _FORMAT, "kind": kind} | content, ensure_ascii=False)
    with replacing(path) as file:
        file.write(text.encode())


def _of_kind(kind: Any, what: str) -> Any:
    if kind not in TOKENIZERS:
        raise ValueError(f"{what} must be one of {sorted(TOKENIZERS)}, got {kind!r}")
    return TOKENIZERS[kind]


def _tokenizers_package() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "byte-pair tokens need the package 'tokenizers': pip install 'mmjax[text]', "
            "or from a checkout: pip install -e '.[text]'"
        ) from error
    return tokenizers
