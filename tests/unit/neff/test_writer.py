"""The writer: order, reproducibility, streaming, and that a file appears whole or not at all."""

import io
import resource
import tarfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nxcc.ir.diagnostics import FILE_UNWRITABLE, CompileError
from nxcc.neff.header import HEADER_BYTES
from nxcc.neff.members import Variable
from nxcc.neff.package import Chunks, Package, RawData, RawMember, Subgraph, data_bytes, data_pieces
from nxcc.neff.reader import open_neff
from nxcc.neff.writer import write_neff

from harness.small_neff import small_neff, small_package


def with_constant(data: RawData) -> Package:
    """A package whose device program has this one constant."""
    package = small_package()
    variables = {**package.subgraphs[0].variables, "big": Variable("file", 9, data_bytes(data), file_name="w9.bin")}
    subgraph = replace(package.subgraphs[0], variables=variables,
                       files=(*package.subgraphs[0].files, RawMember("w9.bin", data)))
    return replace(package, subgraphs=(subgraph,))


def joined(data: RawData) -> bytes:
    return b"".join(bytes(piece) for piece in data_pieces(data))


def test_members_come_in_documented_order(tmp_path: Path) -> None:
    data = small_neff(tmp_path / "a.neff", replace(small_package(), metrics={"total_us": 5}))
    with tarfile.open(fileobj=io.BytesIO(data[HEADER_BYTES:])) as tar:
        assert tar.getnames() == [
            "neff.json", "info.json", "hlo_stats.json", "metrics.json", "kelf-0.json",
            "sg00/def.json", "sg00/PE.json", "sg00/SP.json", "sg00/PE.bin", "sg00/SP.bin",
            "sg00/w4.bin", "sg00/a5.bin", "host/1.hlo", "host/1.c9.bin", "debug_info/map.json",
        ]


@pytest.mark.parametrize("compress", [False, True])
def test_same_package_gives_same_bytes(tmp_path: Path, compress: bool) -> None:
    subgraph = small_package().subgraphs[0]
    reordered = replace(subgraph, variables=dict(reversed(subgraph.variables.items())), files=subgraph.files[::-1],
                        engines=dict(reversed(subgraph.engines.items())))
    first = small_neff(tmp_path / "a.neff", compress=compress)
    assert small_neff(tmp_path / "b.neff", compress=compress) == first
    assert small_neff(tmp_path / "c.neff", replace(small_package(), subgraphs=(reordered,)), compress) == first


def test_returned_header_is_the_one_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.neff"
    header = write_neff(path, small_package())
    assert path.read_bytes()[:HEADER_BYTES] == header.pack()
    assert (header.num_tpb, header.tpb_per_node, header.feature_bits) == (1, (1,), 3 << 61)


def test_file_without_host_regions_has_bit_62_alone(tmp_path: Path) -> None:
    package = small_package()
    device = package.nodes[0]
    result = replace(device.outputs[0], index=(0,))
    package = replace(package, nodes=(replace(device, outputs=(result,)),), outputs=(result,), aliases=())
    assert write_neff(tmp_path / "a.neff", package).feature_bits == 1 << 62


def test_gzip_header_is_fixed(tmp_path: Path) -> None:
    assert small_neff(tmp_path / "a.neff", compress=True)[HEADER_BYTES:HEADER_BYTES + 10].hex() == "1f8b08000000000000ff"


@pytest.mark.parametrize("data", [
    b"", b"abc", bytearray(b"abc"), memoryview(b"abcdef")[1:4], memoryview(np.arange(6, dtype=np.int32)),
    Chunks(5, lambda: iter((b"ab", b"", memoryview(b"cde")))),
], ids=["empty", "bytes", "bytearray", "slice", "words", "chunks"])
def test_raw_data_is_written_as_it_is(data: RawData) -> None:
    expected = b"abcde" if isinstance(data, Chunks) else bytes(data)
    assert joined(data) == expected
    assert data_bytes(data) == len(expected)


@pytest.mark.parametrize("array", [
    np.arange(24, dtype=np.int16).reshape(2, 3, 4),
    np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(2, 0, 1),
    np.arange(24, dtype=np.float32)[::-2],
    np.broadcast_to(np.float64(1.5), (7, 5)),
    np.arange(12).reshape(3, 4).T.astype(ml_dtypes.bfloat16, order="F"),
    np.array(3, dtype=np.uint8), np.zeros((0, 4)), np.zeros((4, 0)).T, np.array([True, False]),
], ids=["plain", "transposed", "reversed", "splat", "bf16", "scalar", "empty", "empty_t", "bool"])
def test_arrays_are_written_in_c_order(array: np.ndarray[Any, Any]) -> None:
    assert joined(array) == array.tobytes()


def test_constant_of_many_pieces_is_never_held_whole(tmp_path: Path) -> None:
    splat = np.broadcast_to(np.float32(2), (8 << 20, 2))
    package = with_constant(splat)
    tracemalloc.start()
    try:
        write_neff(tmp_path / "a.neff", package)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert splat.nbytes == 64 << 20
    assert peak < 32 << 20
    data = open_neff(tmp_path / "a.neff").data("sg00/w9.bin")
    assert len(data) == splat.nbytes and data[-4:] == np.float32(2).tobytes()


def failing(error: BaseException) -> Callable[[], Iterator[bytes]]:
    def start() -> Iterator[bytes]:
        yield b"x" * 100
        raise error
    return start


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), SystemExit()], ids=repr)
def test_error_while_writing_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.neff"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        write_neff(path, with_constant(Chunks(1000, failing(error))))
    assert [row.name for row in tmp_path.iterdir()] == ["a.neff"]
    assert path.read_bytes() == b"old"


def test_chunks_of_another_size_than_announced_leave_nothing(tmp_path: Path) -> None:
    for size in (2, 4):
        with pytest.raises(AssertionError, match=f"3 bytes of data announced as {size}"):
            write_neff(tmp_path / "a.neff", with_constant(Chunks(size, lambda: [b"abc"])))
    assert not list(tmp_path.iterdir())


def test_disk_that_runs_full_is_reported(tmp_path: Path) -> None:
    """A limit on file sizes fails the write as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(CompileError) as caught:
            write_neff(tmp_path / "a.neff", with_constant(np.zeros(2 << 20, np.uint8)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code is FILE_UNWRITABLE
    assert caught.value.why == "File too large"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["missing/a.neff", "folder", "file/a.neff", "n" * 300])
def test_impossible_target_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CompileError) as caught:
        write_neff(tmp_path / name, small_package())
    assert caught.value.code is FILE_UNWRITABLE
    assert sorted(tmp_path.iterdir()) == before


def test_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.neff").symlink_to("folder/a.neff")
    write_neff(tmp_path / "link.neff", small_package())
    assert (tmp_path / "link.neff").is_symlink()
    assert open_neff(tmp_path / "folder" / "a.neff").graph is not None


def test_writers_of_one_path_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.neff"
    packages = [replace(with_constant(np.full(3 << 20, number, np.uint8)), name=f"m{number}") for number in range(4)]
    threads = [threading.Thread(target=write_neff, args=(path, package)) for package in packages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    neff = open_neff(path)
    number = int(neff.header.name[1:])
    assert set(bytes(neff.data("sg00/w9.bin"))) == {number}
    assert [row.name for row in tmp_path.iterdir()] == ["a.neff"]


def test_open_file_survives_its_replacement(tmp_path: Path) -> None:
    write_neff(tmp_path / "a.neff", with_constant(np.full(1000, 1, np.uint8)))
    old = open_neff(tmp_path / "a.neff")
    write_neff(tmp_path / "a.neff", with_constant(np.full(1000, 2, np.uint8)))
    assert old.data("sg00/w9.bin")[0] == 1


@pytest.mark.parametrize(("change", "text"), [
    ({"subgraphs": (Subgraph({"a": Variable("file", 0, 4, file_name="w0.bin")}),)}, "is missing"),
    ({"subgraphs": (Subgraph({"a": Variable("input", 0, 4), "b": Variable("input", 0, 4)}),)}, "different var_id"),
    ({"subgraphs": (Subgraph({"a": Variable("input", 0)}),)}, "a size"),
    ({"host_modules": ()}, "missing member 'host/1.hlo'"),
    ({"nodes": ()}, "before it is made"),
    ({"nxcc": {"target": "v1"}}, "reserved key"),
    ({"nxcc": {"a": 0.5}}, "float"),
])
def test_package_that_could_not_be_read_is_not_written(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        write_neff(tmp_path / "a.neff", replace(small_package(), **change))
    assert not list(tmp_path.iterdir())
