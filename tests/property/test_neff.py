"""Damage of every kind to a small NEFF: one kind of error or a sound object; and what is written is read."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nxcc.ir.diagnostics import CompileError
from nxcc.neff.archive import name_fault, read_archive
from nxcc.neff.canonical_json import dump_json, load_json
from nxcc.neff.header import HEADER_BYTES, unpack_header
from nxcc.neff.members import Variable
from nxcc.neff.package import RawMember
from nxcc.neff.reader import Neff, read_neff
from nxcc.neff.writer import archive_pieces

from harness.small_neff import small_neff, small_package

# Header bytes that only describe: minor version, build version, uuid, name, requested cores.
DESCRIPTIVE = {*range(0x20, 0xA8), *range(0xCC, 0x1E0)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return small_neff(tmp_path_factory.mktemp("neff") / "a.neff")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return small_neff(tmp_path_factory.mktemp("neff") / "a.neff", compress=True)


def use(neff: Neff) -> None:
    """Ask an opened file for everything that it has."""
    neff.check_engines()
    neff.debug_map()
    for name in neff.members:
        assert len(neff.data(name)) == neff.members[name].size
    for subgraph in neff.subgraphs:
        for engine in subgraph.engines:
            subgraph.engine_binary(engine)


def opens(data: bytes, verify_hash: bool) -> bool:
    """Whether a file opens and can be used; any error but CompileError fails the test."""
    try:
        use(read_neff(data, "x.neff", verify_hash))
    except CompileError as error:
        assert str(error)
        return False
    return True


def flipped(data: bytes, *bits: int) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


def test_every_byte_is_guarded(plain: bytes) -> None:
    """A flip anywhere is refused, but for the header's descriptive bytes; clearing bit 62 makes it a vendor's file."""
    bit_62 = 8 * 0x227 + 6
    for offset in [*range(HEADER_BYTES), *range(HEADER_BYTES, len(plain), 37)]:
        bit = 8 * offset + offset % 8
        assert not opens(flipped(plain, bit), verify_hash=True) or offset in DESCRIPTIVE or bit == bit_62


def test_every_truncation_is_refused(plain: bytes) -> None:
    for size in [*range(1030), *range(1030, len(plain), 97)]:
        assert not opens(plain[:size], verify_hash=False)


@settings(max_examples=150, deadline=None)
@given(bits=st.lists(st.integers(0, 1 << 20), min_size=1, max_size=4))
def test_flips_without_hash_never_crash(plain: bytes, packed: bytes, bits: list[int]) -> None:
    for data in (plain, packed):
        opens(flipped(data, *bits), verify_hash=False)


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(1, 20_000), data=st.binary(max_size=600), offset=st.integers(0, 20_000))
def test_payload_cut_and_overwritten_never_crashes(plain: bytes, cut: int, data: bytes, offset: int) -> None:
    """The header is right about the size, so that the archive parser itself meets the damage."""
    payload = bytearray(plain[HEADER_BYTES:])
    payload[offset:offset + len(data)] = data
    payload = payload[:max(0, len(payload) - cut)]
    opens(replace(unpack_header(plain, "x"), data_size=len(payload)).pack() + payload, verify_hash=False)


JSON_MEMBERS = ("neff.json", "sg00/def.json", "sg00/SP.json", "kelf-0.json", "info.json", "debug_info/map.json")
ANY_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
                        max_leaves=8)


def containers(value: Any) -> list[Any]:
    found = [value]
    for item in found:
        found += [part for part in (item.values() if isinstance(item, dict) else item) if isinstance(part, dict | list)]
    return found


@settings(max_examples=250, deadline=None)
@given(member=st.sampled_from(JSON_MEMBERS), where=st.integers(0, 1000), which=st.integers(0, 1000), value=ANY_JSON)
def test_any_value_in_place_of_another_never_crashes(plain: bytes, member: str, where: int, which: int, value: Any) -> None:
    """One value of one JSON member becomes another; the archive around it is right."""
    neff = read_neff(plain, "x")
    parsed = neff.json(member)
    choices = [row for row in containers(parsed) if row]
    chosen = choices[where % len(choices)]
    keys = list(chosen) if isinstance(chosen, dict) else list(range(len(chosen)))
    chosen[keys[which % len(keys)]] = value
    rows = [RawMember(name, dump_json(parsed, frozenset(("scale",))) if name == member else neff.data(name))
            for name in neff.members]
    payload = b"".join(archive_pieces(rows))
    opens(replace(neff.header, data_size=len(payload)).pack() + payload, verify_hash=False)


NAMES = st.text(st.characters(blacklist_categories=("Cs",)), max_size=300).filter(lambda name: not name_fault(name))


@settings(max_examples=100, deadline=None)
@given(members=st.dictionaries(NAMES, st.binary(max_size=1200), max_size=5))
@example(members={"a": b"", "b" * 101: b"1", "c" * 99 + "/" + "d" * 100: b"2"})
def test_archive_is_read_as_it_was_written(members: dict[str, bytes]) -> None:
    if any(other.startswith(name + "/") for name in members for other in members):
        return
    data = b"".join(archive_pieces([RawMember(name, content) for name, content in members.items()]))
    entries = read_archive(memoryview(data), "x")
    assert [(name, data[row.offset:row.offset + row.size]) for name, row in entries.items()] == list(members.items())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(row.name, row.offset_data, row.size) for row in tar] == [
            (row.name, row.offset, row.size) for row in entries.values()]


@settings(max_examples=100, deadline=None)
@given(value=st.dictionaries(st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8), ANY_JSON, max_size=4))
def test_canonical_json_is_a_fixed_point(value: dict[str, Any]) -> None:
    data = dump_json(value)
    assert dump_json(load_json(data, "x")) == data


CONTENTS = st.binary(max_size=3000)


@settings(max_examples=40, deadline=None)
@given(files=st.lists(CONTENTS, max_size=4), binary=CONTENTS, compress=st.booleans(), name=st.text(max_size=400),
       extra=st.dictionaries(st.text("abc", min_size=1, max_size=3), ANY_JSON.filter(lambda value: value is not None)))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, files: list[bytes], binary: bytes,
                                 compress: bool, name: str, extra: dict[str, Any]) -> None:
    package = small_package()
    name = name.encode("utf-8", "replace").decode()
    added = {f"v{index}": Variable("file", 100 + index, len(data), file_name=f"w{100 + index}.bin")
             for index, data in enumerate(files)}
    old = package.subgraphs[0]
    subgraph = replace(
        old, variables=dict(old.variables) | added,
        files=(*old.files, *(RawMember(f"w{100 + index}.bin", data) for index, data in enumerate(files))),
        engines={key: replace(row, binary=binary) for key, row in old.engines.items()},
    )
    package = replace(package, name=name, subgraphs=(subgraph,), nxcc=extra)
    folder: Path = tmp_path_factory.mktemp("neff")
    data = small_neff(folder / "a.neff", package, compress)
    assert small_neff(folder / "b.neff", package, compress) == data
    neff = read_neff(data, "x")
    use(neff)
    assert neff.subgraphs[0].definition == subgraph.definition
    assert [bytes(neff.subgraphs[0].file(f"w{100 + index}.bin")) for index in range(len(files))] == files
    assert bytes(neff.subgraphs[0].engine_binary("pe")) == binary
    with tarfile.open(fileobj=io.BytesIO(data[HEADER_BYTES:])) as tar:
        assert tar.getnames() == list(neff.members)
