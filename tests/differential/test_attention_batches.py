"""Attention over batches: runs of heads follow each other from tile to tile and from batch to batch."""

from __future__ import annotations

import pytest

from nxcc.backends.isa.program import Engine
from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import CompileOptions
from nxcc.ir.hlo.text.reader import read_text

from harness.whole import check_whole


def attention(batch: int, heads: int, rows: int, keys: int, depth: int) -> str:
    """softmax(q k + mask) v, as a fusion makes one region of it."""
    scores, out = f"f32[{batch},{heads},{rows},{keys}]", f"f32[{batch},{heads},{rows},{depth}]"
    by_head = "lhs_batch_dims={0,1}, lhs_contracting_dims={3}, rhs_batch_dims={0,1}, rhs_contracting_dims={2}"
    return f"""HloModule attention
add {{ a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = f32[] add(a, b) }}
max {{ a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT r = f32[] maximum(a, b) }}
ENTRY main {{
  q = {out} parameter(0)
  k = f32[{batch},{heads},{depth},{keys}] parameter(1)
  v = f32[{batch},{heads},{keys},{depth}] parameter(2)
  mask = f32[{batch},{keys}] parameter(3)
  s = {scores} dot(q, k), {by_head}
  m = {scores} broadcast(mask), dimensions={{0,3}}
  t = {scores} add(s, m)
  low = f32[] constant(-inf)
  top = f32[{batch},{heads},{rows}] reduce(t, low), dimensions={{3}}, to_apply=max
  tops = {scores} broadcast(top), dimensions={{0,1,2}}
  c = {scores} subtract(t, tops)
  e = {scores} exponential(c)
  zero = f32[] constant(0)
  n = f32[{batch},{heads},{rows}] reduce(e, zero), dimensions={{3}}, to_apply=add
  ns = {scores} broadcast(n), dimensions={{0,1,2}}
  p = {scores} divide(e, ns)
  ROOT o = {out} dot(p, v), {by_head}
}}
"""


@pytest.mark.parametrize(("sizes", "strict"), [((5, 6, 40, 40, 16), True), ((2, 9, 130, 33, 32), False),
                                               ((1, 3, 260, 70, 64), False), ((4, 1, 20, 150, 24), True),
                                               ((1, 12, 128, 128, 64), False)], ids=str)
def test_attention_over_batches(sizes: tuple[int, int, int, int, int], strict: bool) -> None:
    check_whole(attention(*sizes), levels=("1", "2"), strict=strict)


def test_batches_have_tiles_of_their_own() -> None:
    """Two batches in turn: the next one loads while this one is worked on, so that its tiles lie elsewhere."""
    code = compile_module(read_text(attention(8, 4, 64, 64, 32)), CompileOptions(optlevel=2)).codes[0]
    stream = next(f.streams[Engine.SCALAR]
                  for f in code.program.functions)
    places = {i.operands["out"].offset.constant for i in stream if i.fields.get("function") == "exp"}
    assert len(places) >= 2
