import html.parser
import io
import os
import re

import numpy as np
import pytest
from PIL import Image

from mmjax.evaluation.embed import Embedded
from mmjax.evaluation.report import ReportSet, write_report
from mmjax.evaluation.retrieval import retrieval_metrics

VOID = {"meta", "img", "line", "polyline"}
NASTY = "</p><script>alert('x')</script> & \"quotes\" \x00 \ud800"


class Page(html.parser.HTMLParser):
    """Checks that every tag is closed in order, and keeps what was read."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self._see(tag, attrs)
        assert tag not in VOID, f"<{tag}> is not closed"
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._see(tag, attrs)
        assert tag in VOID, f"<{tag}/> would stay open"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def _see(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((tag, name, value) for name, value in attrs)

    def all(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


def icons(count):
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = np.zeros((16, 16, 1), np.uint8)
        pixels[2:14, 2:14, 0] = 255 * rng.integers(0, 2, (12, 12))
        yield {"id": f"id{i}", "text": (f"icon number {i}",), "image": pixels}


def report_set(source, image, text, text_owners=None, note="held out"):
    count = len(source)
    rows = np.arange(count, dtype=np.int32)
    owners = rows if text_owners is None else np.asarray(text_owners, np.int32)
    image, text = (
        (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (image, text)
    )
    embedded = Embedded(
        tuple(record["id"] for record in source),
        rows,
        {"image": image, "text": text},
        {"image": rows, "text": owners},
        ("",) * count,
    )
    return ReportSet(source, embedded, retrieval_metrics(embedded), note)


def shifted(count=8):
    """Text i is nearest to icon i + 1, and next to its own; icon i to text i - 1."""
    image = np.eye(count)
    return report_set(list(icons(count)), image, 0.8 * image + np.roll(image, -1, axis=0))


def written(tmp_path, **changes):
    contents = {
        "title": "A run",
        "summary": {"model": "two towers"},
        "history": [{"step": 1, "loss": 2.5}],
        "sets": {"held-out": shifted()},
        "skipped": {},
    }
    write_report(tmp_path / "report.html", **(contents | changes))
    return (tmp_path / "report.html").read_text()


def history(steps):
    for step in range(1, steps + 1):
        line = {"step": step, "loss": 5 / step, "learning_rate": 1e-3, "logit_scale": 14.0}
        if step % 10 == 0:
            line["eval/held-out/image_to_text_recall@1"] = step / steps
        yield line


def cards(text):
    return re.findall(r"<article.*?</article>", text, re.DOTALL)


def test_numbers_of_the_table(tmp_path):
    text = written(tmp_path)
    page = Page(re.findall(r"<table>.*?</table>", text)[0])
    cells = [x for x in page.text if x.strip()]
    # Every right answer is second: recall 0 and 100 %, median rank 2, MRR 1/2, chance 1/8.
    row = ["0.0%", "100.0%", "100.0%", "2", "0.500", "12.500%", "8 → 8"]
    assert cells[9:] == [
        *["held-out", "image → text", *row],
        *["held-out", "text → image", *row],
    ]
    assert page.all("scope") == ["col"] * 9 + ["row"] * 2


def test_right_answers_are_marked_by_more_than_colour(tmp_path):
    found = [card for card in cards(written(tmp_path)) if "mistake" not in card]
    assert len(found) == 8 + 8  # a set smaller than the nine that are wanted: each icon, each text
    for card in found:
        hits = re.findall(r"<li.*?</li>", card, re.DOTALL)
        assert ["✓" in hit for hit in hits] == [False, True, False, False, False]
        assert ['class="right"' in hit for hit in hits] == [False, True, False, False, False]
        assert "right answer at rank 2" in card


def test_a_query_shows_its_own_hits_with_scores(tmp_path):
    first = next(card for card in cards(written(tmp_path)) if 'alt="icon number 0"' in card)
    hits = re.findall(r'<span dir="auto">(.*?)</span><small>(.*?)</small>', first)
    # Text 7 is (0.8 e7 + e0) / |.|, text 0 is (0.8 e0 + e1) / |.|.
    norm = np.hypot(0.8, 1)
    assert hits[0] == ("icon number 7", f"{1 / norm:.2f}")
    assert hits[1] == ("icon number 0", f"{0.8 / norm:.2f}")


def test_a_right_answer_far_down_stands_apart_with_its_rank(tmp_path):
    count = 12
    image = np.eye(count) + np.linspace(0.1, 0.5, count)[:, None]
    opposite = report_set(list(icons(count)), image, -image)
    found = cards(written(tmp_path, sets={"held-out": opposite}))
    apart = [card for card in found if "apart" in card]
    assert len(apart) == 18
    assert all(f"rank {count}" in card for card in apart)
    assert any(f"✓ #{count}<" in card for card in apart)


def test_mistakes_show_what_was_picked_and_what_was_right(tmp_path):
    image = np.eye(3)
    one_wrong = report_set(list(icons(3)), image, image[[0, 1, 1]] + 0.1 * image)
    found = [c for c in cards(written(tmp_path, sets={"s": one_wrong})) if "mistake" in c]
    asked, picked, right = re.findall(r"<div.*?</div>", found[-1], re.DOTALL)
    assert "icon number 2" in asked
    assert 'alt="icon number 1"' in picked
    assert 'alt="icon number 2"' in right
    assert "rank 2" in right


def test_no_mistake_is_said(tmp_path):
    perfect = report_set(list(icons(3)), np.eye(3), np.eye(3))
    assert written(tmp_path, sets={"s": perfect}).count("every right answer came first") == 2


def test_every_tag_is_closed_and_nothing_is_loaded(tmp_path):
    text = written(
        tmp_path,
        history=list(history(100)),
        skipped={"a.jpg": "truncated"},
        configuration={"steps": 3},
    )
    page = Page(text)
    assert "script" not in page.tags
    assert not re.search(r"https?:|@import|url\(|//[a-z]", text.replace("</", ""))
    assert all(source.startswith("data:image/") for source in page.all("src"))
    assert all(link.removeprefix("#") in page.all("id") for link in page.all("href"))
    images = page.tags.count("img")
    assert images == len([alt for alt in page.all("alt") if alt]) > 0


def test_names_may_be_anything(tmp_path):
    source = [dict(record, id=f"{NASTY}{i}", text=(NASTY,)) for i, record in enumerate(icons(3))]
    nasty = report_set(source, np.eye(3), np.ones((3, 3)), note=NASTY)
    text = written(
        tmp_path,
        title=NASTY,
        summary={NASTY: NASTY},
        history=[{"step": 1, "loss": 1.0, f"eval/{NASTY}/image_to_text_recall@1": 0.5}],
        sets={NASTY: nasty},
        skipped={NASTY: NASTY},
        configuration={NASTY: NASTY},
    )
    page = Page(text)
    assert "script" not in page.tags
    assert "<script>alert" in "".join(page.text)
    assert "\0" not in text


def test_photos_with_several_captions(tmp_path):
    rng = np.random.default_rng(0)
    source = []
    for i in range(4):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(buffer, "jpeg")
        texts = tuple(f"caption {i}{letter}" for letter in "abcde")
        source.append({"id": f"{i}.jpg", "text": texts, "image": buffer.getvalue()})
    owners = np.repeat(np.arange(4), 5)
    captions = np.eye(4)[owners] + 0.01 * rng.normal(size=(20, 4))
    text = written(tmp_path, sets={"s": report_set(source, np.eye(4), captions, owners)})
    first = cards(text)[0]
    assert "data:image/jpeg" in first
    names = re.findall(r'<span dir="auto">caption (\d)[a-e]</span>', first)
    assert names == ["0"] * 5  # all five captions of the photo, all right
    assert first.count('class="right"') == 5


def test_parts_zero_shot_and_missing_metrics_have_their_rows(tmp_path):
    shown = shifted()
    metrics = {
        "image_to_text_recall@1": 0.25,
        "related/image_to_text_recall@1": 0.75,
        "zero_shot_accuracy@1": 0.375,
        "text_to_image_mrr": float("nan"),
    }
    partial = ReportSet(shown.source, shown.embedded, metrics, "")
    text = written(tmp_path, sets={"one": partial, "two": shown})
    assert "<small> / related</small>" in text
    assert "75.0%" in text
    zero_shot = text[text.index('id="zero-shot"') :].split("</section>")[0]
    assert [x for x in Page(zero_shot).text if x.strip()][-4:] == ["one", "37.5%", "two", "—"]


def test_curves_are_drawn_for_what_the_history_has(tmp_path):
    lines = [line | {"logit_bias": 0.1 * line["step"]} for line in history(100)]
    text = written(tmp_path, history=lines)
    for title in ("Loss", "image → text", "Learning rate", "Logit scale", "Logit bias"):
        assert f"<strong>{title}" in text
    assert "Gradient norm" not in text
    bare = written(tmp_path, history=[{"step": 1, "loss": float("nan"), "logit_bias": 0.0}])
    assert "The history holds no finite number" in bare


def test_skipped_records_are_counted_and_listed(tmp_path):
    text = written(tmp_path, skipped={f"file {i}": f"reason {i}" for i in range(150)})
    assert "150 records could not be read; the first 100 are listed" in text
    assert "reason 99" in text
    assert "reason 100" not in text
    assert "None: every record could be read" in written(tmp_path)


def test_the_configuration_is_shown_whole(tmp_path):
    long = {"names": [f"field {i}" for i in range(500)]}
    text = written(tmp_path, configuration=long)
    assert "<details" in text
    assert "field 499" in text
    assert "<details" not in written(tmp_path)


def test_the_same_run_gives_the_same_bytes(tmp_path):
    assert written(tmp_path) == written(tmp_path)


def test_another_source_is_refused_and_the_old_report_stays(tmp_path):
    before = written(tmp_path)
    shown = shifted()
    other = [dict(record, id="other " + record["id"]) for record in shown.source]
    wrong = ReportSet(other, shown.embedded, shown.metrics, "")
    with pytest.raises(ValueError, match="these are not its embeddings"):
        written(tmp_path, sets={"held-out": wrong})
    assert (tmp_path / "report.html").read_text() == before
    assert os.listdir(tmp_path) == ["report.html"]


def test_an_image_that_vanished_is_said_in_its_place(tmp_path):
    shown = shifted()
    gone = [dict(record, image=b"no image any more") for record in shown.source]
    text = written(tmp_path, sets={"s": ReportSet(gone, shown.embedded, shown.metrics, "")})
    assert "no longer readable: icon number 0" in text


def test_a_thousand_photos_with_five_captions_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (128, 128, 3), np.uint8)).save(buffer, "jpeg")
    source = [
        {"id": f"{i}.jpg", "text": ("a caption of some length",) * 5, "image": buffer.getvalue()}
        for i in range(1000)
    ]
    image, text = rng.normal(size=(1000, 32)), rng.normal(size=(5000, 32))
    large = report_set(source, image, text, np.repeat(np.arange(1000), 5))
    lines = [{"step": step, "loss": rng.normal()} for step in range(20_000)]
    page = written(tmp_path, sets={"dev": large}, history=lines)
    assert len(page) < 3_000_000
