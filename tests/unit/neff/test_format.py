"""What a compile writes, read back by struct, tarfile and json alone and held against the published description of a NEFF.

Source: CLI and NEFF reference, section 7 (7.1 offsets, 7.2 members and engine names, 7.3 keys, 7.4 bits, 7.5 order).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nxcc.cli import main

CONSTANT = ", ".join("{" + ", ".join(str(row * 16 + column) for column in range(16)) + "}" for row in range(16))
TEXT = f"""HloModule small, input_output_alias={{ {{1}}: (2, {{}}, must-alias) }}
ENTRY main {{
  x = f32[4,8] parameter(0)
  w = f32[8,16] parameter(1)
  state = f32[4,16] parameter(2)
  y = f32[4,16] dot(x, w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  new = f32[4,16] add(y, state)
  t = f32[4,16] tanh(new)
  big = f32[16,16] constant({{{CONSTANT}}})
  z = f32[4,16] dot(t, big), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT r = (f32[4,16], f32[4,16]) tuple(z, new)
}}
"""

CASES = {"v2": "", "compressed": "--compress", "host": "--keep-on-host ^t$", "weights": "--weight-params 1 --auto-cast all",
         "pipeline": "--target v1 --neuroncore-pipeline-cores 2"}
ENGINES = {"v1": {"pe": "PE", "act": "Activation", "pool": "Pool", "sp": "SP"},
           "v2": {"pe": "PE", "act": "Activation", "dve": "DVE", "pool": "Pool", "sp": "SP"}}
VARIABLE_TYPES = {"state-buffer", "input", "output", "file", "tmp-buf", "virtual", "pointer", "dge-table"}
DTYPES = {"float8e3", "float8e4", "float8e5", "float16", "float32", "float32r", "bfloat16",
          *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}


@dataclass
class File:
    """header: fields by name; payload: as stored; names: members in order; members: their content."""

    header: dict[str, Any]
    payload: bytes
    names: list[str]
    members: dict[str, bytes]

    def json(self, name: str) -> Any:
        return json.loads(self.members[name])


FIELDS = (("pkg_version", 0, "<Q"), ("header_size", 8, "<Q"), ("data_size", 16, "<Q"), ("major", 24, "<Q"), ("minor", 32, "<Q"),
          ("build", 40, "128s"), ("num_tpb", 168, "<I"), ("hash", 172, "32s"), ("uuid", 204, "16s"), ("name", 220, "256s"),
          ("requested", 476, "<I"), ("per_node", 480, "64s"), ("features", 544, "<Q"), ("lnc", 552, "<I"), ("pad", 556, "468s"))


@pytest.fixture(scope="module", params=list(CASES))
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> File:
    folder: Path = tmp_path_factory.mktemp("format")
    (folder / "m.hlo").write_text(TEXT)
    assert main(["compile", str(folder / "m.hlo"), "-q", "-o", str(folder / "m.neff"), *CASES[request.param].split()]) == 0
    data = (folder / "m.neff").read_bytes()
    header = {name: struct.unpack_from(form, data, offset)[0] for name, offset, form in FIELDS}
    payload = data[1024:]
    inner = gzip.decompress(payload) if payload[:2] == b"\x1f\x8b" else payload
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        rows = archive.getmembers()
        members = {row.name: archive.extractfile(row).read() for row in rows}  # type: ignore[union-attr]
    assert all(row.isreg() and (row.mode, row.uid, row.gid, row.mtime, row.uname, row.gname) == (0o644, 0, 0, 0, "", "")
               and row.offset_data % 512 == 0 for row in rows)
    assert len(inner) % 10240 == 0 and inner[257:262] == b"ustar"
    return File(header, payload, [row.name for row in rows], members)


def test_header_has_the_documented_fields_at_their_offsets(file: File) -> None:
    h = file.header
    assert (h["header_size"], h["data_size"], h["major"], h["minor"], h["lnc"]) == (1024, len(file.payload), 2, 0, 1)
    assert h["build"].rstrip(b"\0").decode().startswith("nxcc ") and h["name"].rstrip(b"\0") == b"small"
    assert h["pad"] == bytes(468)
    digest = hashlib.sha256(file.payload).digest()
    if h["pkg_version"] == 2:
        assert file.payload[:2] == b"\x1f\x8b" and h["hash"] == hashlib.md5(file.payload).digest() + bytes(16)
    else:
        assert h["pkg_version"] == 1 and h["hash"] == digest
    raw = bytearray(hashlib.sha256(b"nxcc-neff-uuid\0" + h["build"].rstrip(b"\0") + b"\0" + digest).digest()[:16])
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
    assert h["uuid"] == bytes(raw)


def test_cores_and_feature_bits_follow_from_the_members(file: File) -> None:
    h, graph = file.header, file.json("neff.json")
    cores = sorted({name.split("/")[0] for name in file.names if name.startswith("sg")})
    assert cores == [f"sg{n:02}" for n in range(h["num_tpb"])]
    assert sum(h["per_node"]) == h["num_tpb"] and h["requested"] == graph["nxcc"]["options"]["neuroncore-pipeline-cores"]
    has_host = any(node["executor"] == "CPU" for node in graph["nodes"])
    assert h["features"] == 1 << 62 | has_host << 61


def test_members_come_in_the_documented_order(file: File) -> None:
    engines = ENGINES[file.json("neff.json")["nxcc"]["target"]]
    kelfs = [name for name in file.names if name.startswith("kelf-")]
    expected = ["neff.json", "info.json", "hlo_stats.json", *sorted(kelfs)]
    for core in range(file.header["num_tpb"]):
        files = [name for name in file.names if name.startswith(f"sg{core:02}/w")]
        assert files == sorted(files, key=lambda name: int(name.rpartition("w")[2].removesuffix(".bin")))
        expected += [f"sg{core:02}/def.json", *(f"sg{core:02}/{member}.json" for member in engines.values()),
                     *(f"sg{core:02}/{member}.bin" for member in engines.values()), *files]
    rest = [name for name in file.names if name.startswith("host/")] + [
        name for name in file.names if name.startswith("debug_info/")]
    assert file.names == expected + rest


def test_json_is_canonical_and_named_by_its_digest(file: File) -> None:
    digests = file.json("neff.json")["nxcc"]["members_sha256"]
    for name, content in file.members.items():
        if name.endswith(".json"):
            text = json.dumps(json.loads(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
            assert content.decode() == text, name
        if name in digests:
            assert hashlib.sha256(content).hexdigest() == digests[name], name
    assert {name for name in file.names if name.endswith(".bin") and "/w" not in name} <= digests.keys()


def test_neff_json_info_and_kelf_have_the_documented_keys(file: File) -> None:
    graph, info = file.json("neff.json"), file.json("info.json")
    assert graph["version"] == "nxcc-1" and graph["nxcc"]["format"] == 1 and graph["nxcc"]["encoding"] == "nxcc-isa-1"
    assert graph["aliases"] == [{"output": [1], "param": 2, "kind": "must"}]
    assert [row["name"] for row in graph["outputs"]] == ["output0", "output1"]
    for node in graph["nodes"]:
        assert node["executor"] in ("NeuronCore", "CPU") and ("kelf" in node) == (node["executor"] == "NeuronCore")
        assert node["executor"] == "NeuronCore" or node["hlo"] in file.names
    for row in graph["inputs"]:
        size = 4
        for dim in row["shape"]:
            size *= dim
        assert row["dtype"] == "float32" and row["size"] == size and row["param"] in (0, 1, 2)
    assert {"tool", "tool_version", "flags", "target", "name"} <= info.keys() and info["tool"] == "nxcc"
    assert file.json("hlo_stats.json").keys() == {"macs", "flops", "bytes_in", "bytes_out", "weights_bytes", "instructions"}
    for name in (name for name in file.names if name.startswith("kelf-")):
        kelf = file.json(name)
        assert kelf["version"] == "0.5" and all(row["definition"] == f"{row['name']}/def.json" for row in kelf["graphs"])


def test_definitions_have_the_documented_keys(file: File) -> None:
    target = file.json("neff.json")["nxcc"]["target"]
    for core in range(file.header["num_tpb"]):
        body = file.json(f"sg{core:02}/def.json")
        assert body["name"] == "definition"
        for word, member in ENGINES[target].items():
            assert (body[word], body[f"{word}_instr"]) == (f"{member}.json", f"{member}.bin")
        for queue in body["dma_queue"].values():
            assert queue["type"] in ("in", "out", "data", "embedding_update", "dynamic")
            assert queue.get("num_queues", 1) == 1 if target == "v1" else 1 <= queue.get("num_queues", 1) <= 16
            assert target == "v1" or not queue.get("pinned", False)
        identities = [row["var_id"] for row in body["var"].values()]
        assert len(set(identities)) == len(identities)
        for row in body["var"].values():
            assert row["type"] in VARIABLE_TYPES and isinstance(row["size"], int)
            if row["type"] == "file":
                assert len(file.members[f"sg{core:02}/{row['file_name']}"]) == row["size"]
                assert row["file_name"] == f"w{row['var_id']}.bin"


def test_descriptors_keep_the_documented_rules(file: File) -> None:
    target, seen = file.json("neff.json")["nxcc"]["target"], 0
    for core in range(file.header["num_tpb"]):
        body = file.json(f"sg{core:02}/def.json")
        for member in ENGINES[target].values():
            for row in file.json(f"sg{core:02}/{member}.json")["dma"]:
                assert isinstance(row["id"], int) and row["queue"] in body["dma_queue"] and isinstance(row["desc"], list)
                for part in row["desc"]:
                    seen += 1
                    assert part["to"] in body["var"] and part["from"] in body["var"]
                    assert part.get("op", "copy") in ({"copy"} if target == "v1" else {
                        "fma", "cast", "add", "min", "max", "transpose", "copy"})
                    for side in ("from", "to"):
                        steps, sizes = part[f"{side}_steps"], part[f"{side}_sizes"]
                        assert len(steps) == len(sizes) <= 4 and steps[0] == 1
                        assert part.get(f"{side}_dtype", "uint8") in DTYPES
    assert seen


def test_debug_map_leads_from_code_to_instructions(file: File) -> None:
    body = file.json("debug_info/map.json")
    assert all(row["name"] and row.keys() <= {"name", "op", "source", "layer"} for row in body["hlo"])
    assert all(0 <= row[3] < len(body["hlo"]) and row[1] <= row[2] for row in body["ranges"]) and body["ranges"]
