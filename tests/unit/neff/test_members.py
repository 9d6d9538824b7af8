"""JSON members as text: keys and defaults as the NEFF reference, section 7.3, has them."""

from pathlib import Path

import pytest

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import DTYPES
from nxcc.neff.canonical_json import dump_json
from nxcc.neff.members import EngineExtras, InputTensor, Kelf, KelfGraph, QueueSet, Statistics, engine_files
from nxcc.neff.reader import read_neff
from nxcc.neff.records import DTYPE, read_record, record_to_json

from harness.small_neff import DMA, small_neff, small_package

DEFINITION = (
    '{"dma_queue":{"qIn":{"num_queues":16,"owner":"sp","semaphore_set":[2],"type":"in"}},"name":"definition",'
    '"nxcc":{"functions":["main"],"psum_banks":3},"pe":"PE.json","pe_instr":"PE.bin","sp":"SP.json",'
    '"sp_instr":"SP.bin","var":{"dot3":{"size":24,"type":"output","var_id":2},'
    '"input0":{"size":24,"type":"input","var_id":0},"input1":{"size":24,"type":"input","var_id":1},'
    '"sb0":{"type":"state-buffer","var_id":3},'
    '"scratch":{"backing_variable_off":128,"size":64,"type":"virtual","var_id":6},'
    '"w1":{"file_name":"a5.bin","size":5,"type":"file","var_id":5},'
    '"w2":{"alignment":64,"file_name":"w4.bin","size":24,"type":"file","var_id":4}}}\n'
)


@pytest.mark.parametrize(("name", "expected"), [
    ("sg00/def.json", DEFINITION),
    ("kelf-0.json", '{"graphs":[{"definition":"sg00/def.json","name":"sg00"}],"version":"0.5"}\n'),
    ("info.json", '{"flags":["--auto-cast","none"],"name":"jit_modèle","target":"v2","tool":"nxcc",'
                  '"tool_version":"0.1.0"}\n'),
    ("hlo_stats.json", '{"bytes_in":0,"bytes_out":0,"flops":36,"instructions":0,"macs":18,"weights_bytes":0}\n'),
    ("debug_info/map.json", '{"hlo":[{"layer":"layer/0","name":"dot.3","op":"jit(f)/dot","source":"m.py:4"}],'
                            '"ranges":[["pe",0,3,0]]}\n'),
    ("sg00/PE.json", '{"dma":[]}\n'),
])
def test_member_has_this_text(tmp_path: Path, name: str, expected: str) -> None:
    assert read_neff(small_neff(tmp_path / "a.neff"), "x").text(name) == expected


def test_tensors_of_the_graph_have_documented_keys(tmp_path: Path) -> None:
    node = read_neff(small_neff(tmp_path / "a.neff"), "x").json("neff.json")["nodes"][0]
    assert node["inputs"] == [{"name": "input0", "var": "input0", "dtype": "float32", "shape": [2, 3], "size": 24,
                               "param": 0, "hlo": "p.1", "role": "input"}]
    assert node["outputs"] == [{"name": "dot.3", "var": "dot3", "dtype": "float32", "shape": [2, 3], "size": 24,
                                "index": None, "alias_of": None}]


def test_every_array_dtype_has_a_name_of_its_own() -> None:
    rows = [row for row in DTYPES if row.is_array]
    assert [DTYPE.read(DTYPE.write(row), True) for row in rows] == rows


def test_engine_files_are_named_as_documented() -> None:
    assert engine_files(("act", "dve", "pool")) == {
        "act": "Activation.json", "act_instr": "Activation.bin", "dve": "DVE.json", "dve_instr": "DVE.bin",
        "pool": "Pool.json", "pool_instr": "Pool.bin",
    }


@pytest.mark.parametrize("value", [
    Statistics(1, 2, 3, 4, 5, 6), Kelf((KelfGraph("a", "b"),)), QueueSet("data", semaphore=0, pinned=True),
    read_record(EngineExtras, {"dma": [DMA]}, "x"), *small_package().nodes,
], ids=lambda value: type(value).__name__)
def test_record_survives_its_json(value: object) -> None:
    assert read_record(type(value), record_to_json(value), "x") == value


def test_descriptor_at_defaults_is_written_short() -> None:
    assert dump_json(record_to_json(read_record(EngineExtras, {"dma": [DMA]}, "x")), frozenset(("scale",))) == dump_json(
        {"dma": [DMA]}, frozenset(("scale",)))


def test_vendor_keys_are_skipped_only_when_asked() -> None:
    value = {"type": "in", "vendor": 1}
    assert read_record(QueueSet, value, "x", strict=False) == QueueSet("in")
    with pytest.raises(CompileError, match="no key 'vendor' in QueueSet"):
        read_record(QueueSet, value, "x")


def test_size_of_a_tensor_follows_dtype_and_shape() -> None:
    value = {"name": "a", "dtype": "bfloat16", "shape": [3, 5], "size": 30}
    assert read_record(InputTensor, value, "x").dtype.name == "bf16"
    with pytest.raises(CompileError, match="size 30 for bfloat16"):
        read_record(InputTensor, value | {"size": 15}, "x")
