import concurrent.futures
import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from mmjax.data.images import decode
from mmjax.data.sources.flickr8k import load_flickr8k


def photo(level):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (level, level, level)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def root(tmp_path):
    """Four photos in two lists, and a fifth that only the captions know."""
    folder = tmp_path / "flickr8k_128"
    folder.mkdir()
    with tarfile.open(folder / "images.tar", "w") as tar:
        for number in range(4):
            content = photo(40 * number)
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    rows = [f'{n}.jpg,"photo {n}, caption {c} "' for n in range(5) for c in range(5)]
    (folder / "captions.csv").write_text("\n".join(["image,caption", *rows, ""]))
    (folder / "train.txt").write_text("3.jpg\n0.jpg\n1.jpg\n")
    (folder / "dev.txt").write_text("2.jpg\n")
    return folder


def test_photos_come_in_the_order_of_the_list_with_their_captions(root):
    source = load_flickr8k("train", root=root)
    assert [source[i]["id"] for i in range(len(source))] == ["3.jpg", "0.jpg", "1.jpg"]
    record = source[0]
    assert record["text"] == tuple(f"photo 3, caption {c}" for c in range(5))
    assert abs(int(decode(record["image"], 1)[8, 8, 0]) - 120) <= 2
    assert len(load_flickr8k("dev", root=root)) == 1


def test_many_threads_read_the_right_bytes(root):
    source = load_flickr8k("train", root=root)
    expected = [photo(120), photo(0), photo(40)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: source[i % 3]["image"] == expected[i % 3], range(600)))
    assert all(read)


def test_the_variable_names_the_folder(root, monkeypatch):
    monkeypatch.setenv("MMJAX_DATA", str(root.parent))
    assert len(load_flickr8k("train")) == 3
    monkeypatch.delenv("MMJAX_DATA")
    with pytest.raises(FileNotFoundError, match=r"MMJAX_DATA.*flickr8k_128"):
        load_flickr8k("train")


def test_an_incomplete_folder_says_what_is_not_there(root):
    (root / "images.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"flickr8k_128: images\.tar not there"):
        load_flickr8k("train", root=root)


def test_an_unknown_split_lists_those_there_are(root):
    with pytest.raises(ValueError, match=r"\['train', 'dev'\], got 'test'"):
        load_flickr8k("test", root=root)


def test_a_listed_photo_without_an_image_is_named(root):
    (root / "dev.txt").write_text("2.jpg\n4.jpg\n")
    with pytest.raises(ValueError, match=r"1 of the 2 .*no image: \['4\.jpg'\]"):
        load_flickr8k("dev", root=root)


def test_a_listed_photo_without_captions_is_named(root):
    (root / "captions.csv").write_text("image,caption\n3.jpg,a photo\n")
    with pytest.raises(ValueError, match=r"2 of the 3 .*no caption: \['0\.jpg', '1\.jpg'\]"):
        load_flickr8k("train", root=root)


def test_captions_of_another_layout_are_refused(root):
    (root / "captions.csv").write_text("0.jpg#0\ta photo\n")
    with pytest.raises(ValueError, match="image,caption"):
        load_flickr8k("train", root=root)


@pytest.mark.skipif("MMJAX_DATA" not in os.environ, reason="MMJAX_DATA is not set")
def test_the_real_photos():
    train, dev = (load_flickr8k(split) for split in ("train", "dev"))
    assert (len(train), len(dev)) == (6000, 1000)
    assert not {train[i]["id"] for i in range(6000)} & {dev[i]["id"] for i in range(1000)}
    for index in range(0, 1000, 50):
        record = dev[index]
        assert decode(record["image"], 3).shape == (128, 128, 3)
        assert len(record["text"]) == 5
        assert all(record["text"])
    assert np.std([decode(dev[i]["image"], 3).mean() for i in range(20)]) > 5
