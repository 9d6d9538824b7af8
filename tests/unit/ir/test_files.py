"""Mapped files, and output files that appear whole or not at all."""

import os
import threading

import pytest

from nxcc.ir.diagnostics import FILE_UNWRITABLE, LIMIT_EXCEEDED, CompileError
from nxcc.ir.files import check_writable, map_file, whole_file, write_whole
from nxcc.ir.streams import streams_kept


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


@pytest.fixture
def pipe(tmp_path):
    """A named pipe into which b"words" is written once."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"words"))
    writer.start()
    yield str(tmp_path / "pipe")
    writer.join()


def test_a_pipe_that_is_read_twice_gives_the_same_bytes(pipe) -> None:
    with streams_kept():
        assert [bytes(map_file(pipe)) for _ in range(2)] == [b"words"] * 2


def test_a_stream_without_an_end_is_not_read_for_ever(monkeypatch, pipe) -> None:
    monkeypatch.setattr("nxcc.ir.streams.MAX_PIPE_BYTES", 3)
    with pytest.raises(CompileError, match="more than 3 bytes") as caught:
        map_file(pipe)
    assert caught.value.code is LIMIT_EXCEEDED


def test_a_pipe_gets_all_bytes_when_they_are_complete(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    with whole_file(str(tmp_path / "pipe")) as file:
        file.write(b"....")
        file.seek(0)
        file.write(b"ab")
        assert not found
    reader.join()
    assert found == [b"ab.."]
