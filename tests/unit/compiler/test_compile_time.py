"""A small module is compiled at once, when the interpreter and the compiler's tables are warm."""

from __future__ import annotations

import time
from pathlib import Path

from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import CompileOptions
from nxcc.ir.hlo.proto.writer import module_bytes
from nxcc.ir.hlo.text.reader import read_text

TEXT = """HloModule small
sum { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b) }
ENTRY e { x = f32[64,128] parameter(0)
  w = f32[128,32] parameter(1)
  d = f32[64,32] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  t = f32[64,32] tanh(d)
  e = f32[64,32] exponential(t)
  z = f32[] constant(0)
  r = f32[64] reduce(e, z), dimensions={1}, to_apply=sum
  b = f32[64,32] broadcast(r), dimensions={0}
  q = f32[64,32] divide(e, b)
  ROOT o = f32[32,64] transpose(q), dimensions={1,0} }"""
LIMIT_SECONDS = 0.05
"""CPU seconds from bytes to NEFF for 10 instructions."""
RUNS = 7


def test_ten_instructions_take_less_than_50_ms(tmp_path: Path) -> None:
    path = tmp_path / "small.pb"
    path.write_bytes(module_bytes(read_text(TEXT)))
    options = CompileOptions(output=str(tmp_path / "small.neff"))
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        compile_file(Request(str(path), options))
        times.append(time.process_time() - start)
    assert min(times) < LIMIT_SECONDS, times
