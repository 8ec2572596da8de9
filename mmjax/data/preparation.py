"""A record becomes an example of fixed shapes; what cannot be read is masked out and counted."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from mmjax.data.augmentation import Augmentation
from mmjax.data.images import UnreadableImage, decode, fit
from mmjax.data.records import NAMES, Record, UnreadableRecord, check_record
from mmjax.data.skipped import Skipped
from mmjax.data.tokenizers import PAD, Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """Callable that turns a record into an example. Safe to use from many threads.

    Args:
        tokenizer: for the texts.
        image_size: side of the square images, in pixels.
        channels: 1 for grey, 3 for RGB.
        text_length: tokens a text.
        augmentation: random changes of training images.
        word_dropout: probability with which a word of a training text is left out; at least one
            word stays.
        arrays: further modalities by name, each with the shape of its array; they become float32
            and are not changed otherwise.
        distinct: the key of a record, "id", "group" or "label", that tells what it shows: two
            records of one value in it should not be each other's negatives. Examples then carry
            ``group``; None leaves it out.
        skipped: ledger of the records that could not be read, or not in full.

    Raises:
        ValueError: if a number is outside its range, or a name is not one of those.
    """

    tokenizer: Tokenizer
    image_size: int
    channels: int
    text_length: int
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    word_dropout: float = 0.0
    arrays: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    distinct: str | None = None
    skipped: Skipped = dataclasses.field(default_factory=Skipped, repr=False)

    def __post_init__(self):
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {self.channels}")
        if self.image_size < 1 or self.text_length < 1:
            raise ValueError(
                f"image_size and text_length must be at least 1, got {self.image_size} and "
                f"{self.text_length}"
            )
        if not 0 <= self.word_dropout < 1:
            raise ValueError(f"word_dropout must lie in [0, 1), got {self.word_dropout}")
        if self.distinct not in (None, *NAMES):
            raise ValueError(f"distinct must be None or one of {NAMES}, got {self.distinct!r}")
        taken = sorted(self.arrays.keys() & {*NAMES, "image", "text"})
        if taken:
            raise ValueError(f"arrays are modalities beside image and text, got {taken}")

    def __call__(
        self, record: Record | UnreadableRecord, rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Prepare one record.

        Args:
            record: any of its modalities may be missing. The reason why a source could not read
                it stands for a record without any.
            rng: given for training: the image is augmented, one of the right texts is drawn and
                loses words. None is deterministic: the image fitted, the first text whole.

        Returns:
            ``{"inputs": {"image": uint8[h, w, c], "text": int32[t], and per array float32},
            "where": {modality: bool[]}}``; an input that is missing or unreadable is zeros, and
            False in ``where``. With ``distinct`` also ``"group": int32[]``, equal for two records
            if that key is (and for two others with probability 2**-32).

        Raises:
            ValueError: if the record is malformed.
            TooManyUnreadable: see :class:`mmjax.data.skipped.Skipped`.
        """
        problems: list[UnreadableImage | UnreadableRecord] = []
        if isinstance(record, UnreadableRecord):
            problems.append(record)
            record = {"id": record.identity}
        check_record(record)
        values = {"image": self._image_of(record, rng, problems)}
        values["text"] = self._text_of(record, rng, problems)
        values |= {name: self._array_of(record, name, problems) for name in self.arrays}
        cause = " and ".join(problem.cause for problem in problems)
        reason = "; ".join(problem.reason for problem in problems)
        self.skipped.count(record["id"], reason or None, cause=cause)
        example = {
            "inputs": {k: self._blank(k) if x is None else x for k, x in values.items()},
            "where": {k: np.bool_(x is not None) for k, x in values.items()},
        }
        return example if self.distinct is None else example | {"group": self._group_of(record)}

    def image(self, value: bytes | os.PathLike[str] | np.ndarray) -> UInt8[np.ndarray, "h w c"]:
        """Decode and fit one image, without any augmentation.

        Raises:
            UnreadableImage: saying why; the ledger is not told.
        """
        pixels = decode(value, self.channels, shortest=self.image_size)
        return fit(pixels, self.image_size)

    def texts(self, texts: Sequence[str]) -> Int32[np.ndarray, "n t"]:
        """Return the tokens of whole texts, one row each."""
        return self.tokenizer.encode(texts, self.text_length)

    def array(self, record: Record, name: str) -> Float32[np.ndarray, "..."]:
        """Return one of the further modalities of a record.

        Raises:
            UnreadableRecord: if it has another shape, or a number that is not finite; the ledger
                is not told.
        """
        value, wanted = record[name], tuple(self.arrays[name])
        if value.shape != wanted:
            raise UnreadableRecord(
                record["id"], f"wrong shape of {name}", f"{value.shape}, expected {wanted}"
            )
        array = value.astype(np.float32)
        if not np.isfinite(array).all():
            raise UnreadableRecord(record["id"], f"{name} not finite", "it holds NaN or infinity")
        return array

    def _blank(self, modality: str) -> np.ndarray:
        if modality == "image":
            return np.zeros((self.image_size, self.image_size, self.channels), np.uint8)
        if modality == "text":
            return np.full(self.text_length, PAD, np.int32)
        return np.zeros(self.arrays[modality], np.float32)

    def _image_of(
        self, record: Record, rng: np.random.Generator | None, problems: list
    ) -> np.ndarray | None:
        if "image" not in record:
            return None
        try:
            if rng is None:
                return self.image(record["image"])
            shortest = self.augmentation.shortest_needed(self.image_size)
            pixels = decode(record["image"], self.channels, shortest=shortest)
            return self.augmentation(pixels, self.image_size, rng)
        except UnreadableImage as problem:
            problems.append(problem)
            return None

    def _text_of(
        self, record: Record, rng: np.random.Generator | None, problems: list
    ) -> np.ndarray | None:
        given = record.get("text", ())
        texts = said(given)
        if len(texts) < len(given):
            blank = f"{len(given) - len(texts)} of {len(given)} texts are blank"
            problems.append(UnreadableRecord(record["id"], "empty text", blank))
        if not texts:
            return None
        text = texts[0] if rng is None else texts[rng.integers(len(texts))]
        return self.texts([text if rng is None else self._drop_words(text, rng)])[0]

    def _drop_words(self, text: str, rng: np.random.Generator) -> str:
        if not self.word_dropout:
            return text
        words = text.split()
        kept = rng.random(len(words)) >= self.word_dropout
        if not kept.any():
            kept[rng.integers(len(words))] = True
        return " ".join(word for word, keep in zip(words, kept, strict=True) if keep)

    def _array_of(self, record: Record, name: str, problems: list) -> np.ndarray | None:
        if name not in record:
            return None
        try:
            return self.array(record, name)
        except UnreadableRecord as problem:
            problems.append(problem)
            return None

    def _group_of(self, record: Record) -> np.int32:
        """Hash the key; a record without it is in a group of its own."""
        assert self.distinct is not None
        name, value = (self.distinct, record.get(self.distinct))
        if value is None:
            name, value = "alone", record["id"]
        digest = hashlib.blake2b(f"{name} {value}".encode(), digest_size=4).digest()
        return np.frombuffer(digest, "<i4")[0]


def said(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the texts that are not blank.

    >>> said(("a cat", "  "))
    ('a cat',)
    """
    return tuple(text for text in texts if text.strip())
