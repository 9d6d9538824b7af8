"""Mapped files, and output files that appear whole or not at all."""

import os

import pytest

from nxcc.ir.diagnostics import FILE_UNWRITABLE, CompileError
from nxcc.ir.files import check_writable, whole_file, write_whole


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(str(path)) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def test_a_link_is_followed(tmp_path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_whole(str(tmp_path / "link"), "new")
    assert (tmp_path / "real").read_text() == "new" and (tmp_path / "link").is_symlink()


def test_a_missing_folder_is_found_before_the_work(tmp_path) -> None:
    with pytest.raises(CompileError, match="does not exist") as caught:
        check_writable(str(tmp_path / "none" / "f"))
    assert caught.value.code is FILE_UNWRITABLE
    with pytest.raises(CompileError, match="it is a folder"):
        check_writable(str(tmp_path))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_one_error() -> None:
    with pytest.raises(CompileError, match="No space left") as caught:
        write_whole("/dev/full", b"x" * (1 << 20))
    assert caught.value.code is FILE_UNWRITABLE
