"""What a run learned, as one HTML file that opens anywhere: :func:`write_report`."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.atomic import replacing
from mmjax.data.records import Source
from mmjax.evaluation.answers import answer, sample_queries, worst_queries
from mmjax.evaluation.curves import COLOURS, Line, chart, smoothed
from mmjax.evaluation.embed import Embedded
from mmjax.evaluation.gallery import Gallery
from mmjax.evaluation.page import escape, page
from mmjax.evaluation.retrieval import chance_recall_at_1, directions, ranks_between

EXAMPLES = 9  # queries shown for each set and direction
MISTAKES = 6
SKIPPED = 100  # skipped records that are listed; all are counted


@dataclasses.dataclass(frozen=True)
class ReportSet:
    """One evaluation set of a report.

    Attributes:
        source: the records; images and texts are read from it again.
        embedded: its embeddings.
        metrics: from :func:`~mmjax.evaluation.retrieval.retrieval_metrics`, perhaps with
            ``zero_shot_accuracy@<k>``; one that is missing is shown as a dash. Retrieval metrics
            of a part of the queries have its name in front, as in ``<part>/<metric>``.
        note: one or two sentences on what the set is.
    """

    source: Source
    embedded: Embedded
    metrics: Mapping[str, float]
    note: str


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    history: Sequence[Mapping[str, float]],
    sets: Mapping[str, ReportSet],
    skipped: Mapping[str, str],
    configuration: Mapping[str, Any] | None = None,
) -> None:
    """Write a self-contained page: numbers, curves, examples, mistakes, skipped records.

    It needs no script and no network, and the same arguments give the same bytes.

    Args:
        path: the HTML file, replaced as a whole.
        title: of the page; as every other text, it may hold anything.
        summary: what was trained, for how long, on what; shown in this order.
        history: the lines of ``metrics.jsonl``: ``step``, ``loss`` (nats), and whatever else
            that line has of ``learning_rate``, ``logit_scale``, ``logit_bias``, ``grad_norm``
            and ``eval/<set>/<metric>``.
        sets: evaluation sets by name.
        skipped: the id of every record that could not be read, and why.
        configuration: of the run; None leaves the section out.

    Raises:
        ValueError: if a set's source does not hold the records that were embedded.
        OSError: if the file cannot be written; an older one then stays.
    """
    body = [_header(title, sets), _figures(sets), _summary(summary), _curves(history, sets)]
    body += [_retrieval(sets), _zero_shot(sets)]
    for number, (name, shown) in enumerate(sets.items()):
        body.append(_examples(f"set-{number}", name, shown))
    body += [_skipped(skipped), _configuration(configuration)]
    document = page(title, "\n".join(part for part in body if part))
    with replacing(path) as file:
        file.write(document.encode())


def _header(title: str, sets: Mapping[str, ReportSet]) -> str:
    places = {"curves": "Learning curves", "retrieval": "Retrieval"}
    places |= {f"set-{number}": f"Examples: {name}" for number, name in enumerate(sets)}
    places |= {"skipped": "Skipped records"}
    links = "".join(f'<a href="#{place}">{escape(name)}</a>' for place, name in places.items())
    return (
        f'<header><div class="eyebrow">mmjax · training report</div><h1>{escape(title)}</h1>'
        f'<nav aria-label="Sections">{links}</nav></header>'
    )


def _figures(sets: Mapping[str, ReportSet]) -> str:
    """Recall@1 of every set and direction, large."""
    cards = ""
    for name, shown in sets.items():
        for query, candidate in directions(shown.embedded):
            value = shown.metrics.get(f"{query}_to_{candidate}_recall@1")
            if value is not None:
                chance = chance_recall_at_1(shown.embedded, query, candidate)
                cards += (
                    f'<div class="card"><b>{_percent(value)}</b><span>{escape(name)}: '
                    f"{escape(query)} → {escape(candidate)}</span>"
                    f"<small>recall@1 · chance {_percent(chance)}</small></div>"
                )
    return f'<div class="figures">{cards}</div>' if cards else ""


def _summary(summary: Mapping[str, str]) -> str:
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in summary.items()
    )
    return f'<dl class="card">{rows}</dl>' if rows else ""


def _curves(history: Sequence[Mapping[str, float]], sets: Mapping[str, ReportSet]) -> str:
    charts = [_loss(*_series(history, "loss"))]
    arrows = [pair for shown in sets.values() for pair in directions(shown.embedded)]
    for query, candidate in dict.fromkeys(arrows):
        lines = [
            Line(f"{name}, recall@{k}", x, y, number % COLOURS, dashed=dashed, dots=len(x) <= 40)
            for number, name in enumerate(sets)
            for k, dashed in ((1, False), (10, True))
            for x, y in [_series(history, f"eval/{name}/{query}_to_{candidate}_recall@{k}")]
        ]
        charts.append(chart(f"{query} → {candidate}", lines, unit="%", zero=True))
    rate = Line("", *_series(history, "learning_rate"))
    charts.append(chart("Learning rate", [rate], zero=True))
    scale, bias = _series(history, "logit_scale"), _series(history, "logit_bias")
    charts.append(chart("Logit scale (1 / temperature)", [Line("", *scale)]))
    if len(set(bias[1])) > 1:  # Only a sigmoid loss moves it.
        charts.append(chart("Logit bias", [Line("", *bias)]))
    charts.append(_noisy("Gradient norm", *_series(history, "grad_norm"), unit=""))
    drawn = "".join(charts) or "<p>The history holds no finite number.</p>"
    return (
        f'<section id="curves"><h2>Learning curves</h2><div class="charts">{drawn}</div></section>'
    )


def _loss(x: list[float], y: list[float]) -> str:
    return _noisy("Loss", x, y, unit="nats")


def _noisy(title: str, x: list[float], y: list[float], *, unit: str) -> str:
    """A value that jumps from step to step: faint as it is, and its moving mean."""
    if len(x) < 20:
        return chart(title, [Line("", x, y)], unit=unit)
    window = max(5, len(x) // 40)
    mean = Line(f"moving mean of {2 * (window // 2) + 1}", x, smoothed(y, window).tolist())
    return chart(title, [Line("each step", x, y, faint=True), mean], unit=unit)


def _series(history: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    rows = [(line["step"], line[name]) for line in history if name in line]
    rows = [(step, value) for step, value in rows if value is not None and np.isfinite(value)]
    return [step for step, _ in rows], [value for _, value in rows]


def _retrieval(sets: Mapping[str, ReportSet]) -> str:
    heads = ["set", "direction", "R@1", "R@5", "R@10", "median rank", "MRR", "chance R@1"]
    rows = notes = ""
    for name, shown in sets.items():
        embedded = shown.embedded
        if shown.note:
            notes += f'<p class="note"><strong>{escape(name)}.</strong> {escape(shown.note)}</p>'
        parts = [metric.rpartition("/")[0] for metric in shown.metrics if "_to_" in metric]
        for part in dict.fromkeys(["", *parts]):
            for query, candidate in directions(embedded):
                cells = _retrieval_cells(shown, part, query, candidate)
                rows += (
                    f'<tr><th scope="row" class="text wrap">{escape(name)}'
                    f"{f'<small> / {escape(part)}</small>' if part else ''}</th>"
                    f'<td class="text">{escape(query)} → {escape(candidate)}</td>{cells}</tr>'
                )
    table = _table([*heads, "queries → candidates"], rows, left=2)
    return (
        f'<section id="retrieval"><h2>Retrieval</h2>{notes}{table}<p class="note">R@k: share of '
        "queries with a right answer among the k nearest. Ties count as misses. Chance: the "
        "average R@1 of a random order.</p></section>"
    )


def _retrieval_cells(shown: ReportSet, part: str, query: str, candidate: str) -> str:
    prefix = f"{part}/" * bool(part) + f"{query}_to_{candidate}"
    cells = "".join(_share(shown.metrics.get(f"{prefix}_recall@{k}")) for k in (1, 5, 10))
    cells += _cell(shown.metrics.get(f"{prefix}_median_rank"), "{:,.10g}")
    cells += _cell(shown.metrics.get(f"{prefix}_mrr"), "{:.3f}")
    embedded = shown.embedded
    if part:  # Which of the queries it counts is not known here.
        return f"{cells}{_cell(None, '')}{_cell(None, '')}"
    asked, searched = len(embedded.owners[query]), len(embedded.owners[candidate])
    cells += _cell(chance_recall_at_1(embedded, query, candidate), "{:.3%}")
    return f"{cells}<td>{asked:,} → {searched:,}</td>"


def _zero_shot(sets: Mapping[str, ReportSet]) -> str:
    prefix = "zero_shot_accuracy@"
    found = {
        int(m.removeprefix(prefix))
        for s in sets.values()
        for m in s.metrics
        if m.startswith(prefix)
    }
    if not found:
        return ""
    rows = ""
    for name, shown in sets.items():
        cells = "".join(_share(shown.metrics.get(f"{prefix}{k}")) for k in sorted(found))
        rows += f'<tr><th scope="row" class="text wrap">{escape(name)}</th>{cells}</tr>'
    table = _table(["set", *(f"accuracy@{k}" for k in sorted(found))], rows, left=1, small=True)
    return f'<section id="zero-shot"><h2>Zero-shot classification</h2>{table}</section>'


def _table(heads: Sequence[str], rows: str, *, left: int, small: bool = False) -> str:
    """A table that scrolls sideways on a narrow screen; its first ``left`` columns are words."""
    head = "".join(
        f'<th scope="col"{_WORDS * (column < left)}>{escape(name)}</th>'
        for column, name in enumerate(heads)
    )
    return (
        f'<div class="scroll card{" small" * small}" role="region" aria-label="Table" '
        'tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


_WORDS = ' class="text"'


def _examples(place: str, name: str, shown: ReportSet) -> str:
    embedded, gallery = shown.embedded, Gallery(shown.source, shown.embedded)
    parts = [f'<section id="{place}"><h2>Examples: {escape(name)}</h2>']
    parts.append(
        '<p class="note">Queries evenly spaced over the set, each with the five nearest '
        "candidates and their cosine. ✓ marks the right answer; where it is not among the five "
        "it stands apart, with its rank.</p>"
    )
    mistakes = []
    for query, candidate in directions(embedded):
        arrow = f"{escape(query)} → {escape(candidate)}"
        ranks = ranks_between(embedded, query, candidate)
        rows = sample_queries(embedded, query, candidate, count=EXAMPLES)
        answers = answer(embedded, query, candidate, rows=rows, ranks=ranks)
        parts.append(f"<h3>{arrow}</h3>{gallery.answers(query, candidate, answers)}")
        rows = worst_queries(embedded, query, candidate, ranks=ranks, count=MISTAKES)
        answers = answer(embedded, query, candidate, rows=rows, ranks=ranks)
        cards = gallery.mistakes(query, candidate, answers) if rows else _FAULTLESS
        mistakes.append(f"<h3>Worst mistakes, {arrow}</h3>{cards}")
    return "".join([*parts, *mistakes, "</section>"])


_FAULTLESS = '<p class="note">None: every right answer came first.</p>'


def _skipped(skipped: Mapping[str, str]) -> str:
    head = '<section id="skipped"><h2>Skipped records</h2><p class="note">'
    if not skipped:
        return f"{head}None: every record could be read.</p></section>"
    listed = list(skipped.items())[:SKIPPED]
    rows = "".join(
        f'<tr><th scope="row" class="text wrap">{escape(name)}</th>'
        f'<td class="text wrap">{escape(reason)}</td></tr>'
        for name, reason in listed
    )
    first = f"; the first {SKIPPED} are listed" if len(skipped) > SKIPPED else ""
    count = f"{len(skipped):,} record{'s' * (len(skipped) > 1)} could not be read{first}."
    return f"{head}{count}</p>{_table(['record', 'reason'], rows, left=2)}</section>"


def _configuration(configuration: Mapping[str, Any] | None) -> str:
    if configuration is None:
        return ""
    text = json.dumps(configuration, indent=2, default=str, ensure_ascii=False)
    return (
        '<section id="configuration"><h2>Configuration</h2><details class="card">'
        f"<summary>Show all of it</summary><pre>{escape(text, limit=len(text))}</pre>"
        "</details></section>"
    )


def _share(value: float | None) -> str:
    """A fraction as a percentage with a bar below it."""
    if value is None or not np.isfinite(value):
        return "<td>—</td>"
    width = 100 * min(max(value, 0.0), 1.0)
    bar = f'<i aria-hidden="true"><b style="width:{width:.1f}%"></b></i>'
    return f'<td class="bar">{_percent(value)}{bar}</td>'


def _cell(value: float | None, form: str) -> str:
    missing = value is None or not np.isfinite(value)
    return f"<td>{'—' if missing else form.format(value)}</td>"


def _percent(value: float) -> str:
    return f"{value:.1%}"
