"""A record becomes an example of fixed shapes; what cannot be read is masked out and counted."""

import dataclasses
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from mmjax.data.augmentation import Augmentation
from mmjax.data.images import UnreadableImage, decode, fit
from mmjax.data.records import Record, check_record
from mmjax.data.tokenizers import PAD, Tokenizer


class TooManyUnreadable(RuntimeError):
    """More of the images than allowed cannot be read: the data is broken, not a few files of it."""


class Skipped:
    """Ledger of the records whose image could not be read. Safe to use from many threads.

    Args:
        max_share: largest share of unreadable images among those read so far.
        grace: how many images have to be read before the share counts.

    Raises:
        ValueError: if ``max_share`` is outside [0, 1].
    """

    def __init__(self, max_share: float = 0.05, grace: int = 100):
        if not 0 <= max_share <= 1:
            raise ValueError(f"max_share must lie in [0, 1], got {max_share}")
        self.max_share, self.grace = max_share, grace
        self._lock = threading.Lock()
        self._read = self._failed = 0
        self._reasons: dict[str, str] = {}

    @property
    def reasons(self) -> dict[str, str]:
        """Why each record was skipped, by id; a copy."""
        with self._lock:
            return dict(self._reasons)

    def count(self, identity: str, reason: str | None = None) -> None:
        """Count one image that was read, or, with a reason, one that was not.

        Raises:
            TooManyUnreadable: past ``max_share``, with the numbers and the first reasons.
        """
        with self._lock:
            self._read += 1
            if reason is not None:
                self._failed += 1
                self._reasons.setdefault(identity, reason)
            if self._read >= self.grace and self._failed > self.max_share * self._read:
                raise TooManyUnreadable(
                    f"{self._failed} of the {self._read} images read so far are unreadable, "
                    f"{self._failed / self._read:.1%}; at most {self.max_share:.1%} may be "
                    f"(max_share). The first: {self._first(3)}"
                )

    def summary(self) -> str:
        """Say in one line how many records were skipped, which and why.

        >>> ledger = Skipped()
        >>> ledger.count("cat.jpg", "no bytes at all")
        >>> ledger.summary()
        '1 record skipped: cat.jpg (no bytes at all)'
        """
        with self._lock:
            count = len(self._reasons)
            if not count:
                return "no record skipped"
            more = f" and {count - 3} more" if count > 3 else ""
            return f"{count} record{'s'[: count > 1]} skipped: {self._first(3)}{more}"

    def _first(self, count: int) -> str:
        first = list(self._reasons.items())[:count]
        return "; ".join(f"{identity} ({reason})" for identity, reason in first)


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
        skipped: ledger of the images that could not be read.

    Raises:
        ValueError: if a number is outside its range.
    """

    tokenizer: Tokenizer
    image_size: int
    channels: int
    text_length: int
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    word_dropout: float = 0.0
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

    def __call__(self, record: Record, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Prepare one record.

        Args:
            record: any of its modalities may be missing.
            rng: given for training: the image is augmented, one of the right texts is drawn and
                loses words. None is deterministic: the image fitted, the first text whole.

        Returns:
            ``{"inputs": {"image": uint8[h, w, c], "text": int32[t]},
            "where": {"image": bool[], "text": bool[]}}``; an input that is missing or unreadable
            is zeros, and False in ``where``.

        Raises:
            ValueError: if the record is malformed.
            TooManyUnreadable: see :class:`Skipped`.
        """
        check_record(record)
        image = self._image_of(record, rng)
        text = self._text_of(record, rng)
        blank = np.zeros((self.image_size, self.image_size, self.channels), np.uint8)
        tokens = np.full(self.text_length, PAD, np.int32) if text is None else self.texts([text])[0]
        return {
            "inputs": {"image": blank if image is None else image, "text": tokens},
            "where": {"image": np.bool_(image is not None), "text": np.bool_(text is not None)},
        }

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

    def _image_of(self, record: Record, rng: np.random.Generator | None) -> np.ndarray | None:
        if "image" not in record:
            return None
        try:
            if rng is None:
                image = self.image(record["image"])
            else:
                shortest = self.augmentation.shortest_needed(self.image_size)
                pixels = decode(record["image"], self.channels, shortest=shortest)
                image = self.augmentation(pixels, self.image_size, rng)
        except UnreadableImage as error:
            self.skipped.count(record["id"], str(error))
            return None
        self.skipped.count(record["id"])
        return image

    def _text_of(self, record: Record, rng: np.random.Generator | None) -> str | None:
        texts = record.get("text", ())
        if not texts or rng is None:
            return texts[0] if texts else None
        text = texts[rng.integers(len(texts))]
        if not self.word_dropout:
            return text
        words = text.split()
        kept = rng.random(len(words)) >= self.word_dropout
        if words and not kept.any():
            kept[rng.integers(len(words))] = True
        return " ".join(word for word, keep in zip(words, kept, strict=True) if keep)
