import os

import pytest

from mmjax.atomic import replacing


def test_the_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new folder" / "result.bin"
    with replacing(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert os.listdir(path.parent) == ["result.bin"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(b"old")

    def write_half():
        with replacing(path) as file:
            file.write(b"ne")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["result.bin"]


def test_others_may_read_it_as_the_umask_says(tmp_path):
    umask = os.umask(0o027)
    try:
        with replacing(tmp_path / "result.bin") as file:
            file.write(b"x")
    finally:
        os.umask(umask)
    assert (tmp_path / "result.bin").stat().st_mode & 0o777 == 0o640
