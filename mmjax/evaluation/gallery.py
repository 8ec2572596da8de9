"""Queries beside what they found, as HTML: right answers marked by shape, word and colour."""

import contextlib
import functools
from collections.abc import Sequence

import numpy as np

from mmjax.data.images import UnreadableImage
from mmjax.data.preparation import said
from mmjax.data.records import Record, Source
from mmjax.evaluation.answers import Answer
from mmjax.evaluation.embed import Embedded
from mmjax.evaluation.page import escape
from mmjax.evaluation.thumbnails import Thumbnail, is_drawing, thumbnail


class Gallery:
    """Shows values of an embedded source.

    Args:
        source: what was embedded.
        embedded: its embeddings.

    Raises:
        ValueError: from any method, if a record of ``source`` is not the one that was embedded.
    """

    def __init__(self, source: Source, embedded: Embedded):
        self._source, self._embedded = source, embedded
        # One thumbnail a record, however often it is found.
        self._record = functools.cache(self._read)
        self._thumbnail = functools.cache(self._shrink)

    def answers(self, query: str, candidate: str, answers: Sequence[Answer]) -> str:
        """Every query with its nearest candidates, and the right one if it is not among them.

        Args:
            query: the modality that asked.
            candidate: the modality that was searched.
            answers: what to show.

        Returns:
            A grid of cards.
        """
        cards = "".join(self._answer(query, candidate, answer) for answer in answers)
        return f'<div class="answers">{cards}</div>'

    def mistakes(self, query: str, candidate: str, answers: Sequence[Answer]) -> str:
        """Every query beside what it found first and what it should have found.

        Args:
            query: the modality that asked.
            candidate: the modality that was searched.
            answers: what to show; the first hit of each is wrong.

        Returns:
            A grid of cards.
        """
        cards = ""
        for answer in answers:
            asked = self._large(query, answer.query)
            picked = self._large(candidate, answer.hits[0].value)
            right = self._large(candidate, answer.right.value)
            cards += (
                f'<article class="answer card mistake"><div><h4>asked</h4>{asked}</div>'
                f"<div><h4>picked · {_score(answer.hits[0].score)}</h4>{picked}</div>"
                f'<div class="right"><h4>✓ right · {_score(answer.right.score)}'
                f"<small>rank {answer.rank:,}</small></h4>{right}</div></article>"
            )
        return f'<div class="answers">{cards}</div>'

    def _answer(self, query: str, candidate: str, answer: Answer) -> str:
        found = self._tiles if candidate == "image" else self._lines
        verdict = f'<span class="verdict{" yes" * (answer.rank == 1)}">'
        verdict += (
            "✓ found first</span>"
            if answer.rank == 1
            else f"right answer at rank {answer.rank:,}</span>"
        )
        hits = found(candidate, answer)
        if query != "image":
            asked = f'<q dir="auto">{escape(self._text(query, answer.query))}</q>'
            return (
                f'<article class="answer card"><div class="asked">{asked}{verdict}</div>'
                f"{hits}</article>"
            )
        tile = self._tile(answer.query)
        return (
            f'<article class="answer card reading"><div>{tile}</div>'
            f'<div><div class="asked">{verdict}</div>{hits}</div></article>'
        )

    def _tiles(self, candidate: str, answer: Answer) -> str:
        tiles = ""
        for hit in answer.hits:
            mark = "✓ " * hit.right
            tiles += (
                f"<li{_RIGHT * hit.right}>{self._tile(hit.value)}"
                f"<small>{mark}{_score(hit.score)}</small></li>"
            )
        if not any(hit.right for hit in answer.hits):
            tiles += (
                f'<li class="right apart">{self._tile(answer.right.value)}'
                f"<small>✓ #{answer.rank:,}</small></li>"
            )
        return f'<ol class="tiles">{tiles}</ol>'

    def _lines(self, candidate: str, answer: Answer) -> str:
        lines = ""
        for hit in answer.hits:
            text = escape(self._text(candidate, hit.value), limit=160)
            lines += (
                f"<li{_RIGHT * hit.right}>{_MARK[hit.right]}"
                f'<span dir="auto">{text}</span><small>{_score(hit.score)}</small></li>'
            )
        if not any(hit.right for hit in answer.hits):
            text = escape(self._text(candidate, answer.right.value), limit=160)
            lines += (
                f'<li class="right apart">{_MARK[True]}<span dir="auto">{text}</span>'
                f"<small>rank {answer.rank:,} · {_score(answer.right.score)}</small></li>"
            )
        return f'<ol class="found">{lines}</ol>'

    def _large(self, modality: str, value: int) -> str:
        text = f'<p dir="auto">{escape(self._text(modality, value), limit=200)}</p>'
        return self._tile(value) + text if modality == "image" else text

    def _tile(self, value: int) -> str:
        row = int(self._embedded.owners["image"][value])
        name = escape(self._text("image", value), limit=200)
        image = self._thumbnail(row)
        if image is None:
            return f'<span class="tile missing">no longer readable: {name}</span>'
        kind = "drawing" if image.drawing else "photo"
        return (
            f'<span class="tile {kind}">'
            f'<img src="{image.address}" alt="{name}" title="{name}"/></span>'
        )

    def _text(self, modality: str, value: int) -> str:
        """The value itself if it is a text; else what its record is called."""
        owners = self._embedded.owners[modality]
        record = self._record(int(owners[value]))
        if modality == "text":
            # Values of one record stand together, in the record's order.
            return said(record["text"])[value - int(np.searchsorted(owners, owners[value]))]
        return record["text"][0] if record.get("text") else record["id"]

    def _read(self, row: int) -> Record:
        position = int(self._embedded.positions[row])
        record = self._source[position] if position < len(self._source) else {"id": None}
        if record["id"] != self._embedded.ids[row]:
            raise ValueError(
                f"record {position} of the source is {record['id']!r}, but "
                f"{self._embedded.ids[row]!r} was embedded: these are not its embeddings"
            )
        return record

    def _shrink(self, row: int) -> Thumbnail | None:
        try:
            return thumbnail(self._record(row)["image"], drawing=self._drawings)
        except UnreadableImage:  # The file was there when it was embedded, and is gone now.
            return None

    @functools.cached_property
    def _drawings(self) -> bool:
        """Whether most of a few images, evenly spaced over the set, are drawings."""
        rows = np.unique(self._embedded.owners["image"])
        votes = []
        for row in rows[:: -(-len(rows) // 15)].tolist():
            with contextlib.suppress(UnreadableImage):
                votes.append(is_drawing(self._record(row)["image"]))
        return sum(votes) * 2 > len(votes)


_RIGHT = ' class="right"'
_MARK = ("<span></span>", '<span title="right answer">✓</span>')


def _score(score: float) -> str:
    return f"{score:.2f}".replace("-", "\N{MINUS SIGN}")
