"""Custom calls that place or split data: what changes a shape or passes a tuple is left to the host, with the reason."""

from __future__ import annotations

import pytest

from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import options_from
from nxcc.ir.hlo.text.reader import read_text

SPLIT = """HloModule m
ENTRY e {
  a = f32[8] parameter(0)
  part = f32[1] custom-call(a), custom_call_target="SPMDFullToShardShape"
  ROOT r = f32[1] add(part, part)
}
"""
TUPLE = """HloModule m
ENTRY e {
  a = f32[8] parameter(0)
  b = f32[4] parameter(1)
  both = (f32[8], f32[4]) tuple(a, b)
  moved = (f32[8], f32[4]) custom-call(both), custom_call_target="MoveToHost"
  x = f32[8] get-tuple-element(moved), index=0
  ROOT r = f32[8] add(x, x)
}
"""


@pytest.mark.parametrize("optlevel", [0, 1])
@pytest.mark.parametrize("text, reason", [
    (SPLIT, "SPMDFullToShardShape turns f32[8] into f32[1]: that takes more than one device"),
    (TUPLE, "MoveToHost of a tuple has no device lowering")])
def test_a_call_that_is_no_plain_copy_is_left_to_the_host(text: str, reason: str, optlevel: int) -> None:
    plan = compile_module(read_text(text), options_from(optlevel=optlevel)).plan
    assert plan is not None
    assert [(row.opcode, row.reason) for row in plan.host] == [("custom-call", reason)]
