"""Attention over as many places as a head is wide: every operand has the result's sizes, only one of them its order."""

from __future__ import annotations

from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import CompileOptions
from nxcc.ir.hlo.text.reader import read_text

from harness.whole import check_whole

HEADS, PLACES = 2, 8
SPLIT, SWAPPED = f"f32[1,{PLACES},{HEADS},{PLACES}]", f"f32[1,{HEADS},{PLACES},{PLACES}]"
WIDE = f"f32[1,{PLACES},{HEADS * PLACES}]"
BY_HEAD = "lhs_batch_dims={0,1}, lhs_contracting_dims={3}, rhs_batch_dims={0,1}, rhs_contracting_dims={2}"
TEXT = f"""HloModule attention
add {{ a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = f32[] add(a, b) }}
ENTRY main {{
  q = {WIDE} parameter(0)
  k = {WIDE} parameter(1)
  v = {WIDE} parameter(2)
  w = f32[{HEADS * PLACES},5] parameter(3)
  q1 = {SPLIT} reshape(q)
  k1 = {SPLIT} reshape(k)
  v1 = {SPLIT} reshape(v)
  q2 = {SWAPPED} transpose(q1), dimensions={{0,2,1,3}}
  k2 = {SWAPPED} transpose(k1), dimensions={{0,2,3,1}}
  v2 = {SWAPPED} transpose(v1), dimensions={{0,2,1,3}}
  s = {SWAPPED} dot(q2, k2), {BY_HEAD}
  e = {SWAPPED} exponential(s)
  o = {SWAPPED} dot(e, v2), {BY_HEAD}
  zero = f32[] constant(0)
  n = f32[1,{HEADS},{PLACES}] reduce(e, zero), dimensions={{3}}, to_apply=add
  whole = {SWAPPED} broadcast(n), dimensions={{0,1,2}}
  d = {SWAPPED} divide(o, whole)
  t = {SPLIT} transpose(d), dimensions={{0,2,1,3}}
  r = f32[{PLACES},{HEADS * PLACES}] reshape(t)
  ROOT z = f32[{PLACES},5] dot(r, w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}
"""


def test_heads_side_by_side_are_read_as_they_were_written() -> None:
    code = compile_module(read_text(TEXT), CompileOptions()).codes[0]
    assert [region.opcode for region in code.regions if region.opcode in ("reshape", "transpose")] == []


def test_attention_agrees() -> None:
    check_whole(TEXT)
