"""The bytes and the JSON of single instructions, written out."""

import pytest

from nxcc.backends.isa.decode import decode
from nxcc.backends.isa.encode import encode
from nxcc.backends.isa.layout import SLOT_BYTES, encoding_reference
from nxcc.backends.isa.program import INSTRUCTIONS, Affine, Engine
from nxcc.backends.isa.templates import queue_sets
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import BF16

from harness.machine import PARTITION, hbm, linear, op, program, reg, sbuf

LOAD = op("dma_copy", source=hbm(reg(1, 512, 4096), 2048, 4), destination=linear(64, PARTITION, 2, dtype=BF16), sizes=(128, 16),
          queue=2, signal=[(3, 16)])


def test_bytes_of_a_memset():
    images, table = encode(program(vector=[op("memset", out=sbuf(16, reg(2, 64, 8)), value=1.5)]))
    raw = images[Engine.VECTOR].binary
    header, pattern = "27 01 00 00 01 01 0100 ffffffff", "01 0b 00 80 01 000000 0800000000000000 0100 1000" + "00" * 12
    value, term = "000000000000f83f", "00 02 4000000000000000"
    assert raw[:SLOT_BYTES] == bytes.fromhex(header + pattern + value + term).ljust(SLOT_BYTES, b"\0")
    assert table["functions"] == [{"name": "main", "entry": True, "streams": {"DVE": [0, 2]}}]
    assert len(raw) == 2 * SLOT_BYTES


def test_template_uses_the_documented_keys():
    images, _ = encode(program(sync=[LOAD]))
    (member,) = images[Engine.SYNC].json["dma"]
    assert {key: value for key, value in member.items() if key != "nxcc"} == {
        "id": 0, "queue": "qSP2", "semaphore": 3, "desc": [{
            "op": "cast", "from": "hbm", "from_off": 4096, "from_steps": [1, 2048], "from_sizes": [64, 128],
            "from_dtype": "float32", "to": "sbuf", "to_off": 64,
            "to_steps": [1, PARTITION], "to_sizes": [32, 128], "to_dtype": "bfloat16"}]}


def test_queue_sets_name_their_owner():
    assert queue_sets(program(sync=[LOAD]), 16) == {"qSP2": {"type": "data", "num_queues": 16, "owner": "sp"}}


def test_documented_keys_must_agree_with_ours():
    images, table = encode(program(sync=[LOAD]))
    images[Engine.SYNC].json["dma"][0]["desc"][0]["from_off"] = 0
    with pytest.raises(CompileError, match=r"NXC0403.*SP 0.*describe another transfer"):
        decode(images, table)


def test_instruction_with_many_terms_takes_more_slots():
    many = Affine(1, tuple((r, -1) for r in range(4)))
    copy = op("nop", wait=[(many, many)] * 4, signal=[(many, 1)] * 4)
    p = program(sync=[copy])
    images, table = encode(p)
    assert table["functions"][0]["streams"] == {"SP": [0, 4]}
    assert decode(images, table) == p


@pytest.mark.parametrize(("instruction", "expected"), [
    (op("memset", out=sbuf(1 << 16)), "out: .*ushort|out: .*0 <= number <= 65535"),
    (op("memset", out=sbuf(4, stride=1 << 15)), "out: .*short|out: .*32767"),
    (op("nop", wait=[(0, Affine(0, tuple((r, 1) for r in range(5))))]), "at most 4"),
    (op("nop", wait=[(0, 1)] * 5), "at most 4"),
    (op("tensor_tensor", a=sbuf(4), b=sbuf(4), out=sbuf(4), op="divide"), "'divide' is none of"),
    (op("tensor_copy", data=sbuf(4)), "out missing"),
], ids=["size", "stride", "terms", "waits", "choice", "operand"])
def test_what_does_not_fit_is_named(instruction, expected):
    with pytest.raises(CompileError, match=expected) as caught:
        encode(program(vector=[op("nop"), instruction]))
    assert caught.value.where == "DVE 1"


def test_reference_lists_every_instruction():
    text = encoding_reference()
    assert all(f"| {spec.name} |" in text for spec in INSTRUCTIONS.values())
