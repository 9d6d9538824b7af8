"""Tar headers out, bounded tar in, against Python's tarfile as the other party."""

import io
import mmap
import tarfile
from pathlib import Path

import pytest

from nxcc.ir.diagnostics import NEFF_INVALID, CompileError
from nxcc.neff.archive import Entry, archive_end, member_header, name_fault, padding_bytes, read_archive
from nxcc.neff.package import RawMember
from nxcc.neff.writer import archive_pieces


def archive(*members: tuple[str, bytes]) -> bytes:
    return b"".join(archive_pieces([RawMember(name, data) for name, data in members]))


def by_tarfile(*members: tarfile.TarInfo, format: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return file.getvalue()


def info(name: str, size: int = 3, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size, found.type = size, kind
    for key, value in fields.items():
        setattr(found, key, value)
    return found


LONG_SPLIT = "a" * 120 + "/" + "b" * 90
LONG_WHOLE = "c" * 200 + ".bin"


def test_tarfile_reads_what_we_write() -> None:
    members = [("a.json", b"1" * 513), ("é/b", b""), (LONG_SPLIT, b"2"), (LONG_WHOLE, b"3" * 512)]
    data = archive(*members)
    assert len(data) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = [(row.name, tar.extractfile(row).read()) for row in tar]  # type: ignore[union-attr]
        assert found == members
        assert {(row.mode, row.uid, row.gid, row.mtime, row.uname, row.gname) for row in tar} == {(0o644, 0, 0, 0, "", "")}


def test_plain_names_give_the_bytes_of_tarfile_in_ustar_format() -> None:
    row = info("sg00/PE.bin")
    row.mode = 0o644
    assert archive(("sg00/PE.bin", b"xxx")) == by_tarfile(row, format=tarfile.USTAR_FORMAT)


def test_reader_finds_the_members_and_their_aligned_data() -> None:
    members = [("a.json", b"1" * 513), (LONG_SPLIT, b"2"), (LONG_WHOLE, b"3" * 512),
               ("é" * 51 + "-" * 199, b"4"), ("-" + "é" * 50, b"")]
    data = archive(*members)
    entries = read_archive(memoryview(data), "x")
    assert [(name, data[row.offset:row.offset + row.size]) for name, row in entries.items()] == members
    assert all(row.offset % 512 == 0 for row in entries.values())


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reader_takes_other_writers_archives(format: int) -> None:
    folder = info("sg00", 0, tarfile.DIRTYPE, mode=0o755)
    data = by_tarfile(info("./neff.json"), folder, info("sg00/def.json", mtime=1.5, uname="me"), format=format)
    assert list(read_archive(memoryview(data), "x")) == ["neff.json", "sg00/def.json"]


def test_reader_takes_long_names_of_gnu_and_pax() -> None:
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert list(read_archive(memoryview(by_tarfile(info(LONG_WHOLE), format=format)), "x")) == [LONG_WHOLE]


def test_member_of_eight_gib_has_a_pax_size(tmp_path: Path) -> None:
    """A sparse file, of which only headers are touched."""
    size = 8 << 30
    front = member_header("big", size)
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.write(front)
        end = len(front) + size
        file.truncate(end)
        file.seek(end)
        file.write(archive_end(end))
    with open(path, "rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    assert read_archive(view, "x") == {"big": Entry("big", len(front), size)}
    with tarfile.open(path) as tar:
        assert [(row.name, row.size) for row in tar] == [("big", size)]


@pytest.mark.parametrize("name", ["", "/a", "a//b", "a/", "../a", "a/../b", "./a", "a/.", "a\\b", "a\0b", "a\x1bb",
                                  "a" * 1025])
def test_unsafe_names_have_a_fault(name: str) -> None:
    assert name_fault(name)


@pytest.mark.parametrize(("data", "text"), [
    (by_tarfile(info("../a")), "`..`"),
    (by_tarfile(info("/a")), "absolute"),
    (by_tarfile(info("a\\b")), "backslash"),
    (by_tarfile(info("a"), info("a")), "duplicate member"),
    (by_tarfile(info("a"), info("./a")), "duplicate member"),
    (by_tarfile(info("a"), info("a/b/c")), "both a file and a folder"),
    (by_tarfile(info("a", 0, tarfile.SYMTYPE, linkname="b")), "neither a file nor a folder"),
    (by_tarfile(info("a", 0, tarfile.LNKTYPE, linkname="b")), "neither a file nor a folder"),
    (by_tarfile(info("a", 0, tarfile.CHRTYPE)), "neither a file nor a folder"),
    (by_tarfile(info("a", 0, tarfile.FIFOTYPE)), "neither a file nor a folder"),
    (by_tarfile(info("../d", 0, tarfile.DIRTYPE)), "folder name"),
    (by_tarfile(info("a", pax_headers={"GNU.sparse.major": "1"}), format=tarfile.PAX_FORMAT), "pax key"),
    (by_tarfile(info("a", pax_headers={"size": "x"}), format=tarfile.PAX_FORMAT), "damaged pax record"),
    (archive(("a", b"x" * 9000))[:5120], "runs past the end"),
    (archive(("a", b"x"))[:1024], "without its end mark"),
    (archive(("a", b"x"))[:1536], "two zero blocks"),
    (archive(("a", b"x"))[:-1] + b"!", "two zero blocks"),
    (archive(("a", b"x")) + bytes(2 << 20), "two zero blocks"),
    (b"", "without its end mark"),
    (b"\x01" * 1024, "no tar header"),
    (archive(("a", b"x")).replace(b"0000644", b"0000645", 1), "no tar header with a right checksum"),
])
def test_bad_archive_is_refused_with_reason(data: bytes, text: str) -> None:
    with pytest.raises(CompileError) as caught:
        read_archive(memoryview(data), "x.neff")
    assert caught.value.code is NEFF_INVALID
    assert text in caught.value.what
    assert "x.neff" in caught.value.where


def test_padding_reaches_the_next_multiple() -> None:
    assert [padding_bytes(size) for size in (0, 1, 511, 512, 513)] == [0, 511, 1, 0, 511]
