"""Whatever the bytes are, reading a serialized module gives a module or one CompileError."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.proto.reader import read_module
from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.writer import module_bytes

from harness.hlo_text import module_of

SMALL = module_bytes(module_of("""
  p = f32[2,3]{1,0} parameter(0), sharding={devices=[2,1]<=[2]}, metadata={op_name="a" source_file="b" source_line=3}
  c = s32[3] constant({1,-2,300})
  t = (f32[2], (pred[2])) constant(({1, 2}, ({1, 0})))
  z = f32[] constant(0)
  r = f32[2] reduce(p, z), dimensions={1}, to_apply=add_f32, frontend_attributes={k="v"}
  n = f32[2] tanh(r), result_accuracy={mode=highest}, origin={{"x"}}
  ROOT o = (f32[2], f32[2]) tuple(r, n)
"""))


def survives(content: bytes) -> bool:
    """Read all there is to read; False if it was refused."""
    try:
        module = read_module(content)
        for instruction in module.instructions():
            literal = instruction.attributes.get("literal")
            if literal is not None and not literal.shape.is_tuple:
                assert literal.array.shape == literal.shape.dims
    except CompileError as error:
        assert error.where or error.what
        return False
    return True


def test_the_small_module_is_read() -> None:
    assert survives(SMALL)


def test_truncation_at_every_byte_is_refused() -> None:
    """A cut between two fields of the module leaves a valid message, which then lacks its computations."""
    assert [end for end in range(len(SMALL)) if survives(SMALL[:end])] == []


def test_truncation_of_an_hlo_proto_is_refused() -> None:
    content = message_type("HloProto")(hlo_module=message_type("HloModuleProto").FromString(SMALL)).SerializeToString()
    assert survives(content)
    assert [end for end in range(len(content)) if survives(content[:end])] == []


@pytest.mark.parametrize("bit", range(8))
def test_flip_of_one_bit_at_every_byte(bit: int) -> None:
    for place in range(len(SMALL)):
        flipped = bytearray(SMALL)
        flipped[place] ^= 1 << bit
        survives(bytes(flipped))


EDITS = st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(EDITS, st.integers(0, len(SMALL)), st.integers(0, 60))
def test_edited_and_spliced_bytes(edits: list[tuple[int, int]], place: int, length: int) -> None:
    content = bytearray(SMALL)
    for at, value in edits:
        content[at] = value
    content[place:place] = content[place // 2:place // 2 + length]
    survives(bytes(content))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    survives(content)
