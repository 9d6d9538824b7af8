"""The reader: what it returns for a sound file, and the rule it names for a broken one."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nxcc.ir.diagnostics import (
    EMPTY_INPUT,
    FILE_UNREADABLE,
    FILE_UNWRITABLE,
    NEFF_INVALID,
    NEFF_TARGET,
    NEFF_VERSION,
    CompileError,
)
from nxcc.ir.dtypes import F32
from nxcc.neff.header import HEADER_BYTES, unpack_header
from nxcc.neff.members import NEURON_CORE, Variable
from nxcc.neff.package import EngineCode, RawMember, Subgraph
from nxcc.neff.reader import Neff, is_neff, open_neff, read_neff
from nxcc.neff.writer import archive_pieces, write_neff

from harness.small_neff import DMA, VARIABLES, WEIGHTS, small_neff, small_package


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return small_neff(tmp_path_factory.mktemp("neff") / "a.neff")


def rebuilt(data: bytes, members: dict[str, bytes | None], **fields: Any) -> bytes:
    """A file with some members replaced (None: removed) and header fields changed; size and digest are right."""
    neff = read_neff(data, "x")
    contents = {name: bytes(neff.data(name)) for name in neff.members} | members
    rows = [RawMember(name, content) for name, content in contents.items() if content is not None]
    payload = b"".join(archive_pieces(rows))
    header = replace(unpack_header(data, "x"), data_size=len(payload), digest=hashlib.sha256(payload).digest(), **fields)
    return header.pack() + payload


def edited(data: bytes, name: str, edit: Callable[[Any], object]) -> bytes:
    """A file with one JSON member edited, and without digests of members."""
    neff = read_neff(data, "x")
    graph = neff.json("neff.json")
    graph["nxcc"]["members_sha256"] = {}
    value = graph if name == "neff.json" else neff.json(name)
    edit(value)
    members = {"neff.json": graph, name: value}
    return rebuilt(data, {key: json.dumps(member).encode() for key, member in members.items()})


def refusal(data: bytes, **options: Any) -> CompileError:
    with pytest.raises(CompileError) as caught:
        read_neff(data, "x.neff", **options).check_engines()
    assert caught.value.where.startswith("x.neff")
    return caught.value


@pytest.mark.parametrize("compress", [False, True])
def test_what_was_written_is_read(tmp_path: Path, compress: bool) -> None:
    package = small_package()
    write_neff(tmp_path / "a.neff", package, compress)
    neff = open_neff(tmp_path / "a.neff")
    graph = neff.require_runnable("v2")
    assert (graph.nodes, graph.inputs, graph.outputs, graph.aliases) == (
        package.nodes, package.inputs, package.outputs, package.aliases)
    provenance = graph.nxcc
    assert (provenance.compiler, provenance.target, provenance.options, provenance.extra) == (
        "nxcc 0.1.0", "v2", {"optlevel": 1}, {"arena_bytes": 24})
    assert neff.statistics == package.statistics
    assert neff.debug_map() == package.debug_map
    assert neff.info is not None and neff.info.flags == package.flags
    assert neff.header.name == package.name and not neff.info_only and not neff.warnings
    (device,) = neff.subgraphs
    assert device.definition == package.subgraphs[0].definition
    assert device.engines == ("pe", "sp")
    assert device.engine_json("sp") == {"dma": [DMA]}
    assert device.engine_extras("sp").dma[0].desc[1].variables == ("sb0", "w2", "input1")
    assert bytes(device.engine_binary("pe")) == b"\x07" * 600
    assert device.file("a5.bin") == b"hello"
    assert neff.text("host/1.hlo") == "HloModule host"
    assert is_neff(tmp_path / "a.neff")


def test_constant_is_a_read_only_view_of_the_map(tmp_path: Path) -> None:
    write_neff(tmp_path / "a.neff", small_package())
    neff = open_neff(tmp_path / "a.neff")
    array = neff.array("sg00/w4.bin", F32, (2, 3))
    del neff
    np.testing.assert_array_equal(array, WEIGHTS)
    assert not array.flags.owndata and not array.flags.writeable
    assert array.ctypes.data % 512 == 0


def test_array_of_another_size_is_refused(sound: bytes) -> None:
    with pytest.raises(CompileError, match="24 bytes is no f32"):
        read_neff(sound, "x").array("sg00/w4.bin", F32, (2, 4))


def test_empty_constant_is_an_empty_array(tmp_path: Path) -> None:
    subgraph = Subgraph(VARIABLES | {"e": Variable("file", 9, 0, file_name="e.bin")},
                        files=(*small_package().subgraphs[0].files, RawMember("e.bin", b"")))
    write_neff(tmp_path / "a.neff", replace(small_package(), subgraphs=(subgraph,)))
    assert open_neff(tmp_path / "a.neff").array("sg00/e.bin", F32, (0, 4)).shape == (0, 4)


def test_several_cores_of_one_node(tmp_path: Path) -> None:
    package = small_package()
    stages = (package.subgraphs[0], Subgraph(VARIABLES, files=package.subgraphs[0].files), Subgraph(kelf=1))
    extra = replace(package.nodes[0], id=7, name="n2", kelf="kelf-1.json", outputs=())
    write_neff(tmp_path / "a.neff", replace(package, subgraphs=stages, nodes=(*package.nodes, extra)))
    neff = open_neff(tmp_path / "a.neff")
    assert (neff.header.num_tpb, neff.header.tpb_per_node) == (3, (2, 1))
    assert [row.name for row in neff.subgraphs] == ["sg00", "sg01", "sg02"]
    assert [[graph.name for graph in kelf.graphs] for kelf in neff.kelfs] == [["sg00", "sg01"], ["sg02"]]


def test_other_target_is_refused(sound: bytes) -> None:
    with pytest.raises(CompileError) as caught:
        read_neff(sound, "x").require_runnable("v1")
    assert caught.value.code is NEFF_TARGET
    assert caught.value.what == "compiled for v2, not for v1"
    read_neff(sound, "x").require_runnable("v2")


def test_vendor_file_is_for_showing_only(sound: bytes) -> None:
    definition = b'{"pe":"PE0.json","unknown":1,"var":{"s":{"type":"state-buffer","var_id":1,"ops":[]}},"dma_queue":{}}'
    data = rebuilt(sound, {"neff.json": b"[]", "sg00/def.json": definition, "sg01/def.json": b"?"},
                   feature_bits=0x80000000000000FF, version_major=1, lnc_size=0)
    neff = read_neff(data[:1023] + b"\1" + data[1024:], "x")
    assert neff.info_only and neff.graph is None
    assert neff.subgraphs[0].definition.var["s"].type == "state-buffer"
    assert len(neff.warnings) == 2 and "padding" in neff.warnings[0] and "sg01/def.json" in neff.warnings[1]
    with pytest.raises(CompileError) as caught:
        neff.require_runnable()
    assert caught.value.code is NEFF_VERSION


@pytest.mark.parametrize(("offset", "code"), [(0x18, NEFF_VERSION), (0x220, NEFF_VERSION), (0xB0, NEFF_INVALID),
                                              (0x10, NEFF_INVALID), (0x1E0, NEFF_INVALID)])
def test_changed_header_is_refused(sound: bytes, offset: int, code: object) -> None:
    data = bytearray(sound)
    data[offset] ^= 4
    assert refusal(bytes(data)).code is code


def test_changed_payload_is_refused_unless_hash_is_skipped(sound: bytes) -> None:
    data = bytearray(sound)
    data[sound.index(b"hello")] ^= 1
    assert "sha256" in refusal(bytes(data)).what
    assert read_neff(bytes(data), "x", verify_hash=False).data("sg00/a5.bin") == b"iello"


def test_digest_of_a_member_is_checked(sound: bytes) -> None:
    error = refusal(rebuilt(sound, {"sg00/PE.bin": b"\x08" * 600}))
    assert error.where == "x.neff: sg00/PE.bin"
    assert "SHA-256" in error.what


def test_bytes_after_the_payload_are_refused(sound: bytes) -> None:
    assert "appended" in refusal(sound + b"\0").why
    assert "truncated" in refusal(sound[:-1]).why


@pytest.mark.parametrize(("members", "text", "member"), [
    ({"info.json": None}, "missing", "info.json"),
    ({"neff.json": None}, "missing", "neff.json"),
    ({"hlo_stats.json": None}, "missing", "hlo_stats.json"),
    ({"kelf-0.json": None}, "missing", "kelf-0.json"),
    ({"sg00/def.json": None}, "missing", "sg00/def.json"),
    ({"sg01/def.json": b"{}"}, "beyond num_tpb", "sg01/def.json"),
    ({"kelf-1.json": b"{}"}, "not known", "kelf-1.json"),
    ({"evil.so": b""}, "not known", "evil.so"),
    ({"neff.json": b"{"}, "not plain JSON", "neff.json"),
    ({"host/1.hlo": None}, "host/1.hlo", "neff.json"),
    ({"host/1.c9.bin": b"1"}, "c.9", "neff.json"),
    ({"sg00/PE.bin": None}, "PE.bin", "neff.json"),
])
def test_missing_and_unknown_members_are_named(sound: bytes, members: dict[str, bytes | None], text: str,
                                               member: str) -> None:
    error = refusal(rebuilt(sound, members))
    assert error.code is NEFF_INVALID
    assert text in error.what
    assert error.where == f"x.neff: {member}"


@pytest.mark.parametrize(("name", "edit", "where", "text"), [
    ("neff.json", lambda v: v.update(extra=1), "", "no key 'extra'"),
    ("neff.json", lambda v: v.pop("nodes"), "", "a key 'nodes'"),
    ("neff.json", lambda v: v["inputs"][1].update(shape=[2, -3]), "inputs[1].shape[1]", "0 or more"),
    ("neff.json", lambda v: v["inputs"][1].update(shape=[1] * 65), "inputs[1].shape", "at most 64"),
    ("neff.json", lambda v: v["inputs"][1].update(size=23), "inputs[1]", "size 24"),
    ("neff.json", lambda v: v["inputs"][1].update(size=24.0), "inputs[1].size", "an integer"),
    ("neff.json", lambda v: v["inputs"][1].update(param=True), "inputs[1].param", "an integer"),
    ("neff.json", lambda v: v["inputs"][1].update(dtype="tuple"), "inputs[1].dtype", "data type"),
    ("neff.json", lambda v: v["inputs"][1].update(role="x"), "inputs[1].role", "input, state, weight"),
    ("neff.json", lambda v: v["inputs"][1].update(name="input0"), "", "made twice"),
    ("neff.json", lambda v: v["nodes"].reverse(), "", "before it is made"),
    ("neff.json", lambda v: v["nodes"][1].update(id=0), "", "do not ascend"),
    ("neff.json", lambda v: v["nodes"][1].update(executor="GPU"), "nodes[1].executor", "NeuronCore, CPU"),
    ("neff.json", lambda v: v["nodes"][1].update(executor=NEURON_CORE), "nodes[1]", "kelf"),
    ("neff.json", lambda v: v["nodes"][1].update(executor=NEURON_CORE, kelf="kelf-0.json"), "", "feature bit 61"),
    ("neff.json", lambda v: v["nodes"][0].update(kelf="kelf-3.json"), "", "kelf-3.json"),
    ("neff.json", lambda v: v["nodes"][1]["inputs"][0].update(shape=[3, 2]), "", "not for host1"),
    ("neff.json", lambda v: v["aliases"][0].update(param=9), "", "alias of output [0] with parameter 9"),
    ("neff.json", lambda v: v["nxcc"]["members_sha256"].update(x=""), "", "missing member 'x'"),
    ("neff.json", lambda v: v["nxcc"].update(target=2), "nxcc.target", "a text"),
    ("kelf-0.json", lambda v: v["graphs"].append(v["graphs"][0]), "", "tpb_per_node says 1"),
    ("kelf-0.json", lambda v: v["graphs"][0].update(name="sg01"), "", "where sg00 is due"),
    ("kelf-0.json", lambda v: v["graphs"][0].update(definition="../def.json"), "", "where sg00 is due"),
    ("sg00/def.json", lambda v: v.update(pe="../neff.json"), "", "'../neff.json'"),
    ("sg00/def.json", lambda v: v.update(gpu="PE.json"), "", "no key 'gpu'"),
    ("sg00/def.json", lambda v: v.pop("pe_instr"), "", "both files of engine ['pe']"),
    ("sg00/def.json", lambda v: v["var"]["w2"].update(file_name="../info.json"), "", "../info.json"),
    ("sg00/def.json", lambda v: v["var"]["w2"].update(size=25), "", "has 24 bytes"),
    ("sg00/def.json", lambda v: v["var"]["w2"].update(var_id=0), "", "different var_id"),
    ("sg00/def.json", lambda v: v["var"]["w2"].update(alignment=3), "var.w2", "power of two"),
    ("sg00/def.json", lambda v: v["var"]["w2"].update(list=[1]), "var.w2", "keys of type file"),
    ("sg00/def.json", lambda v: v["var"].update(p={"type": "pointer", "var_id": 99, "size": 8,
                                                   "referenced_var_id": 77}), "", "77"),
    ("sg00/def.json", lambda v: v["dma_queue"]["qIn"].update(type="x"), "dma_queue.qIn.type", "embedding_update"),
    ("sg00/SP.json", lambda v: v["dma"][0].update(queue="q9"), "", "dma[0]: no queue set 'q9'"),
    ("sg00/SP.json", lambda v: v["dma"][0].update(instance_name="q9"), "", "no queue instance 'q9'"),
    ("sg00/SP.json", lambda v: v["dma"][0].pop("queue"), "dma[0]", "queue or instance_name"),
    ("sg00/SP.json", lambda v: v["dma"][0].update(desc=[]), "dma[0].desc", "at least one"),
    ("sg00/SP.json", lambda v: v["dma"][0]["desc"][0].update(to="nowhere"), "", "no variables ['nowhere']"),
    ("sg00/SP.json", lambda v: v["dma"][0]["desc"][0].update(to_sizes=[1] * 5), "dma[0].desc[0].to_sizes", "at most 4"),
    ("sg00/SP.json", lambda v: v["dma"][0]["desc"][0].update(to_sizes=[1]), "dma[0].desc[0]", "as long as"),
    ("sg00/SP.json", lambda v: v["dma"][0]["desc"][0].pop("from"), "dma[0].desc[0]", "either from or from_arr"),
    ("sg00/SP.json", lambda v: v["dma"][0]["desc"][1].update(from_arr=[{"from": "w2"}] * 17), "dma[0].desc[1].from_arr",
     "at most 16"),
    ("info.json", lambda v: v.pop("tool_version"), "", "tool_version"),
    ("hlo_stats.json", lambda v: v.update(macs="1"), "macs", "an integer"),
])
def test_broken_rule_is_named_with_its_place(sound: bytes, name: str, edit: Callable[[Any], object], where: str,
                                             text: str) -> None:
    error = refusal(edited(sound, name, edit))
    assert error.code is NEFF_INVALID
    assert text in error.what
    assert error.where == f"x.neff: {name}" + (f": {where}" if where else "")


@pytest.mark.parametrize("edit", [lambda v: v.update(version="nxcc-2", more=1), lambda v: v["nxcc"].update(format=2)])
def test_newer_format_is_called_newer(sound: bytes, edit: Callable[[Any], object]) -> None:
    assert refusal(edited(sound, "neff.json", edit)).code is NEFF_VERSION


def test_debug_range_beyond_its_table_is_refused(sound: bytes) -> None:
    data = edited(sound, "debug_info/map.json", lambda v: v["ranges"].append(["pe", 4, 5, 1]))
    with pytest.raises(CompileError, match="hlo index below 1"):
        read_neff(data, "x").debug_map()


def test_single_transfer_may_stand_without_an_array(sound: bytes) -> None:
    data = edited(sound, "sg00/SP.json", lambda v: v["dma"][0].update(desc=v["dma"][0]["desc"][0]))
    assert len(read_neff(data, "x").subgraphs[0].engine_extras("sp").dma[0].desc) == 1


@pytest.mark.parametrize("cut", [1, 9, 500])
def test_damaged_gzip_is_refused(tmp_path: Path, cut: int) -> None:
    data = small_neff(tmp_path / "a.neff", compress=True)
    header = unpack_header(data, "x")
    shorter = replace(header, data_size=header.data_size - cut).pack() + data[HEADER_BYTES:-cut]
    assert "gzip data ends early" in refusal(shorter, verify_hash=False).what
    longer = replace(header, data_size=header.data_size + cut).pack() + data[HEADER_BYTES:] + bytes(cut)
    assert "bytes follow" in refusal(longer, verify_hash=False).what
    flipped = bytearray(data)
    flipped[-5] ^= 1
    assert "gzip data is damaged" in refusal(bytes(flipped), verify_hash=False).what


def test_unpacked_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_neff(tmp_path / "a.neff", compress=True)
    monkeypatch.setattr("nxcc.neff.reader.MAX_UNPACKED_BYTES", 10239)
    assert "unpacks to more than" in refusal(data).what


def test_unreadable_paths_are_reported(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for name, code in (("missing", FILE_UNREADABLE), (".", FILE_UNREADABLE), ("empty", EMPTY_INPUT)):
        with pytest.raises(CompileError) as caught:
            open_neff(tmp_path / name)
        assert caught.value.code is code


def test_other_files_do_not_look_like_a_neff(tmp_path: Path, sound: bytes) -> None:
    for name, data in {"text": b"HloModule m\n" * 300, "short": sound[:2000], "longer": sound + b"\0"}.items():
        (tmp_path / name).write_bytes(data)
        assert not is_neff(tmp_path / name)
    assert not is_neff(tmp_path / "missing")


def extracted(neff: Neff, folder: Path) -> dict[str, bytes]:
    neff.extract(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_extract_writes_all_members(tmp_path: Path, sound: bytes) -> None:
    neff = read_neff(sound, "x")
    assert extracted(neff, tmp_path / "a" / "b") == {name: bytes(neff.data(name)) for name in neff.members}


def test_extract_wants_an_empty_folder(tmp_path: Path, sound: bytes) -> None:
    (tmp_path / "sg00").symlink_to("/")
    with pytest.raises(CompileError) as caught:
        read_neff(sound, "x").extract(tmp_path)
    assert caught.value.code is FILE_UNWRITABLE


def test_engine_without_extras_has_empty_dma_by_default(tmp_path: Path) -> None:
    package = small_package()
    engines = {"act": EngineCode({"activation_function_sets": ["gelu"]}, b"")}
    write_neff(tmp_path / "a.neff", replace(package, subgraphs=(replace(package.subgraphs[0], engines=engines),)))
    extras = open_neff(tmp_path / "a.neff").subgraphs[0].engine_extras("act")
    assert (extras.dma, extras.activation_function_sets) == ((), ("gelu",))
