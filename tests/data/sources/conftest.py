"""The same five records as every kind of shard."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

COUNT = 5


def jpeg(number):
    """A grey image whose level tells its number."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (40 * number,) * 3).save(file, "JPEG")
    return file.getvalue()


def texts(number):
    return [f"text {number}", "another"]


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_tar(path, samples, **options):
    """Write samples, each a key and its files by extension."""
    with tarfile.open(path, "w", **options) as tar:
        for key, files in samples:
            for extension, content in files.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def samples(count=COUNT):
    return [
        (
            f"{number:04d}",
            {
                "jpg": jpeg(number),
                "txt": f"{texts(number)[0]}\n".encode(),
                "json": json.dumps(
                    {"more": texts(number)[1:], "photo": f"p{number // 2}"}
                ).encode(),
                "audio.npy": npy(np.full((2, 3), number, np.float16)),
            },
        )
        for number in range(count)
    ]


def table(count=COUNT):
    """As Hugging Face stores an image, a list and a class."""
    numbers = range(count)
    noted = {"info": {"features": {"kind": {"_type": "ClassLabel", "names": ["even", "odd"]}}}}
    return pa.table(
        {
            "image": [{"bytes": jpeg(n), "path": None} for n in numbers],
            "captions": [texts(n) for n in numbers],
            "kind": [n % 2 for n in numbers],
            "photo": [f"p{n // 2}" for n in numbers],
            "audio": pa.array([[float(n)] * 3 for n in numbers], pa.list_(pa.float32())),
        }
    ).replace_schema_metadata({"huggingface": json.dumps(noted)})


COLUMNS = {
    "image": "image", "text": "captions", "label": "kind", "group": "photo", "audio": "audio",
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No index reaches the user's own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmjax"


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "all.parquet"
    pq.write_table(table(), path, row_group_size=2)
    return path


def write_arrow(path, content=None, size=2, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = table() if content is None else content
    options = pa.ipc.IpcWriteOptions(**options)
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, content.schema, options=options) as stream,
    ):
        stream.write_table(content, max_chunksize=size)
    return path
