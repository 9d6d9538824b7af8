"""What only looks as if the host had to do it: other forms of what the device runs."""

from __future__ import annotations

import pytest

from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import options_from
from nxcc.ir.hlo.text.reader import read_text

from harness.whole import check_whole

MODULES = {
    "bits-read-as-floats-in-another-order": """
ENTRY e {
  u = u32[2,4]{0,1} parameter(0)
  f = f32[4,2]{1,0} bitcast(u)
  ROOT r = f32[4,2]{1,0} add(f, f)
}""",
    "scan-in-a-fusion": """
step { c = f32[] parameter(0)
  x = f32[] parameter(1)
  s = f32[] add(c, x)
  ROOT t = (f32[], f32[]) tuple(s, s) }
body { a = f32[16] parameter(0)
  b = f32[] parameter(1)
  s = (f32[16], f32[]) scan(a, b), dimensions={0}, num_carries=1, to_apply=step
  ROOT g = f32[16] get-tuple-element(s), index=0 }
ENTRY e {
  a = f32[16] parameter(0)
  b = f32[] parameter(1)
  ROOT r = f32[16] fusion(a, b), kind=kLoop, calls=body
}""",
    "several-values-reduced-asynchronously": """
add { x = f32[] parameter(0)
  y = f32[] parameter(1)
  ROOT s = f32[] add(x, y) }
ENTRY e {
  a = f32[2,3] parameter(0)
  b = f32[2,3] parameter(1)
  s = (f32[2,3], f32[2,3]) all-reduce-start(a, b), replica_groups={}, to_apply=add
  ROOT d = (f32[2,3], f32[2,3]) all-reduce-done(s)
}""",
    "dead-code-in-a-combiner": """
add { x = s32[] parameter(0)
  y = s32[] parameter(1)
  c = s32[3,3] constant({{1,2,3},{4,5,6},{7,8,9}})
  unread = s32[3,3] add(c, c)
  ROOT s = s32[] add(x, y) }
ENTRY e {
  a = s32[12] parameter(0)
  zero = s32[] constant(0)
  ROOT r = s32[] reduce(a, zero), dimensions={0}, to_apply=add
}""",
}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_it_runs_on_the_device(name: str) -> None:
    text = f"HloModule m\n{MODULES[name]}\n"
    check_whole(text)
    for level in (0, 1):
        plan = compile_module(read_text(text), options_from(optlevel=level, placement="support")).plan
        assert plan is not None and not plan.host
