import collections
import io

import numpy as np
import pytest
from PIL import Image

from mmjax.data.preparation import Preparation
from mmjax.data.skipped import Skipped, TooManyUnreadable
from mmjax.data.tokenizers import WordTokenizer
from mmjax.evaluation.embed import Embedded, embed_source, load_embeddings, save_embeddings

WORDS = ("red", "green", "blue", "dark", "bright")


def png(level):
    buffer = io.BytesIO()
    Image.new("L", (4, 4), level).save(buffer, "png")
    return buffer.getvalue()


def records():
    """Six records; the third is broken, the fifth has no text, the sixth no image."""
    source = [
        {"id": f"r{i}", "image": png(40 * i), "text": WORDS[: 1 + i % 3], "label": f"l{i % 2}"}
        for i in range(4)
    ]
    source[2]["image"] = png(80)[:-20]
    source += [{"id": "silent", "image": png(200), "text": ()}, {"id": "blind", "text": ("dark",)}]
    return source


def prepare(**options):
    tokenizer = WordTokenizer.train(WORDS)
    return Preparation(tokenizer=tokenizer, image_size=4, channels=1, text_length=3, **options)


class Encoder:
    """Rows that show what was encoded: (mean grey, 1) of an image, (first token, 0) of a text."""

    def __init__(self):
        self.calls = collections.defaultdict(list)

    def __call__(self, inputs):
        ((modality, x),) = inputs.items()
        self.calls[modality].append(x.shape)
        first = x.mean((1, 2, 3)) if modality == "image" else x[:, 0].astype(np.float64)
        return {modality: np.stack([first, np.full(len(x), modality == "image")], 1)}


@pytest.fixture
def embedded():
    return embed_source(Encoder(), records(), prepare(), modalities=("image", "text"), batch_size=4)


def test_every_value_of_every_readable_record_has_a_row(embedded):
    assert embedded.ids == ("r0", "r1", "r3", "silent", "blind")
    np.testing.assert_array_equal(embedded.positions, [0, 1, 3, 4, 5])
    assert embedded.labels == ("l0", "l1", "l1", "", "")
    np.testing.assert_array_equal(embedded.owners["image"], [0, 1, 2, 3])
    np.testing.assert_array_equal(embedded.embeddings["image"][:, 0], [0, 40, 120, 200])
    # r0 has one text, r1 two, r3 one, silent none, blind one.
    np.testing.assert_array_equal(embedded.owners["text"], [0, 1, 1, 2, 4])
    texts = ("red", "red", "green", "red", "dark")
    tokens = prepare().texts(texts)[:, 0]
    np.testing.assert_array_equal(embedded.embeddings["text"][:, 0], tokens)
    assert len(set(tokens.tolist())) == 3


def test_an_unreadable_image_is_named_with_its_reason_and_counted():
    ledger = prepare()
    embedded = embed_source(
        Encoder(), records(), ledger, modalities=("image", "text"), batch_size=4
    )
    assert list(embedded.skipped) == ["r2"]
    assert embedded.skipped["r2"]
    assert ledger.skipped.reasons == dict(embedded.skipped)


def test_too_many_unreadable_images_are_an_error():
    strict = prepare(skipped=Skipped(max_share=0.1, grace=4))
    with pytest.raises(TooManyUnreadable, match="r2"):
        embed_source(Encoder(), records(), strict, modalities=("image",), batch_size=4)


def test_every_batch_has_one_shape_so_that_the_encoder_compiles_once():
    encoder = Encoder()
    embed_source(encoder, records(), prepare(), modalities=("image", "text"), batch_size=3)
    assert encoder.calls == {"image": [(3, 4, 4, 1)] * 2, "text": [(3, 3)] * 2}


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_batch_size_changes_nothing(embedded, batch_size):
    other = embed_source(
        Encoder(), records(), prepare(), modalities=("image", "text"), batch_size=batch_size
    )
    assert_same(other, embedded)


def assert_same(a, b):
    assert (a.ids, a.labels, dict(a.skipped)) == (b.ids, b.labels, dict(b.skipped))
    assert list(a.embeddings) == list(b.embeddings)
    np.testing.assert_array_equal(a.positions, b.positions)
    for name in a.embeddings:
        assert a.embeddings[name].dtype == np.float32
        np.testing.assert_array_equal(a.embeddings[name], b.embeddings[name])
        np.testing.assert_array_equal(a.owners[name], b.owners[name])


def test_a_file_holds_everything_and_needs_no_pickle(embedded, tmp_path):
    path = tmp_path / "embeddings.npz"
    save_embeddings(path, embedded)
    assert_same(load_embeddings(path), embedded)
    with np.load(path, allow_pickle=False) as file:
        assert file["ids"].tolist() == list(embedded.ids)
        assert file["embeddings/text"].shape == (5, 2)


def test_strange_ids_survive_the_file(tmp_path):
    ids = ("", "a/b", "naïve \U0001f600", "line\nbreak", "x" * 500)
    rows = np.zeros((0, 2), np.float32)
    strange = Embedded(
        ids, np.arange(5), {"image": rows}, {"image": np.zeros(0, int)}, ids, {"<b>": "odd"}
    )
    save_embeddings(tmp_path / "e.npz", strange)
    assert_same(load_embeddings(tmp_path / "e.npz"), strange)


def test_an_id_that_an_array_cannot_hold_is_refused_and_the_old_file_stays(embedded, tmp_path):
    path = tmp_path / "e.npz"
    save_embeddings(path, embedded)
    bad = Embedded(("a\0",), np.arange(1), {}, {}, ("",))
    with pytest.raises(ValueError, match="NUL"):
        save_embeddings(path, bad)
    assert_same(load_embeddings(path), embedded)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("not a zip file")
    with pytest.raises(ValueError, match=r"text\.npz is not an \.npz file"):
        load_embeddings(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", **{"embeddings/image": np.zeros((1, 2))})
    with pytest.raises(ValueError, match=r"lacks .*'owners/image'"):
        load_embeddings(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        load_embeddings(tmp_path / "nowhere.npz")


def embed(source, encoder=None, **options):
    options = {"modalities": ("image",), "batch_size": 2} | options
    return embed_source(encoder or Encoder(), source, prepare(), **options)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (records(), {"modalities": ("sound",)}, "sound"),
        (records(), {"modalities": ()}, "must be of .'image', 'text'.*got"),
        (records(), {"batch_size": 0}, "batch_size 0"),
        (records()[:1] * 2, {}, "'r0' comes twice"),
        (records()[2:3], {}, "no record of the source has a readable 'image'"),
        ([{"text": ()}], {}, "must have an 'id'"),
        (records(), {"encoder": lambda x: {"image": np.zeros((7, 2))}}, r"\[2, d\].*\(7, 2\)"),
    ],
)
def test_what_cannot_work_says_so(source, options, message):
    with pytest.raises(ValueError, match=message):
        embed(source, **options)


def test_an_error_while_reading_reaches_the_caller():
    class Broken(list):
        def __getitem__(self, index):
            raise PermissionError("the disk is locked")

    with pytest.raises(PermissionError, match="locked"):
        embed(Broken(records()))


def test_reading_stays_a_bounded_number_of_records_ahead():
    read = []

    class Watched(list):
        def __getitem__(self, index):
            read.append(index)
            return {"id": str(index), "image": np.full((4, 4, 1), index, np.uint8)}

    def encode(inputs):
        seen.append(len(read))
        return {"image": inputs["image"].reshape(2, -1).astype(np.float32)}

    seen: list[int] = []
    embed(Watched(range(40)), encode, threads=2)
    # When the batch of records 0 and 1 is encoded, at most batch_size + 1 more were submitted.
    assert seen[0] <= 2 + 2 + 1
    assert len(read) == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ()}, "one position and one label per id"),
        ({"owners": {"text": np.arange(2)}}, "embeddings are of"),
        ({"owners": {"image": np.arange(1)}}, "2 embeddings have 1 owners"),
        ({"owners": {"image": np.array([1, 0])}}, "ascend"),
        ({"owners": {"image": np.array([0, 2])}}, "ascend"),
    ],
)
def test_embeddings_that_do_not_fit_together_are_refused(changes, message):
    fields = {
        "ids": ("a", "b"),
        "positions": np.arange(2),
        "embeddings": {"image": np.zeros((2, 3), np.float32)},
        "owners": {"image": np.arange(2)},
        "labels": ("", ""),
    }
    with pytest.raises(ValueError, match=message):
        Embedded(**(fields | changes))
