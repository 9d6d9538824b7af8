"""Which combiners mind the grouping of what they combine."""

from __future__ import annotations

import pytest

from nxcc.ir.hlo.associativity import takes_any_grouping
from nxcc.ir.hlo.text.reader import read_text

ONE = """HloModule m
f {{ a = {dtype}[] parameter(0)
  b = {dtype}[] parameter(1)
  half = {dtype}[] constant({number})
  {body} }}
ENTRY e {{ x = {dtype}[4] parameter(0)
  z = {dtype}[] constant({zero})
  ROOT r = {dtype}[] reduce(x, z), dimensions={{0}}, to_apply=f }}
"""


@pytest.mark.parametrize(("dtype", "body", "expected"), [
    ("f32", "ROOT r = f32[] add(a, b)", True),
    ("bf16", "ROOT r = bf16[] add(a, b)", True),
    ("s8", "ROOT r = s8[] multiply(a, b)", True),
    ("u4", "ROOT r = u4[] maximum(a, b)", True),
    ("pred", "ROOT r = pred[] xor(a, b)", True),
    ("f32", "p = pred[] compare(a, b), direction=GT\n ROOT r = f32[] select(p, a, b)", True),
    ("f32", "m = f32[] maximum(a, b)\n s = f32[] subtract(a, m)\n t = f32[] subtract(b, m)\n e = f32[] exponential(s)\n"
            " g = f32[] exponential(t)\n u = f32[] add(e, g)\n l = f32[] log(u)\n ROOT r = f32[] add(m, l)", True),
    ("f32", "x = f32[] multiply(a, a)\n y = f32[] multiply(b, b)\n s = f32[] add(x, y)\n ROOT r = f32[] sqrt(s)", True),
    ("f32", "ROOT r = f32[] subtract(a, b)", False),
    ("s32", "ROOT r = s32[] subtract(b, a)", False),
    ("f32", "h = f32[] multiply(a, half)\n ROOT r = f32[] add(h, b)", False),
    ("bf16", "h = bf16[] multiply(a, half)\n ROOT r = bf16[] add(h, b)", False),
    ("f8e4m3", "ROOT r = f8e4m3[] subtract(a, b)", False),
    ("f8e4m3", "ROOT r = f8e4m3[] multiply(b, a)", True),
    ("f32", "h = f32[] abs(b)\n ROOT r = f32[] add(a, h)", False),
    ("s32", "ROOT r = s32[] add(a, half)", False),
    ("c64", "ROOT r = c64[] multiply(a, b)", True),
    ("c64", "ROOT r = c64[] subtract(a, b)", False),
])
def test_grouping(dtype: str, body: str, expected: bool) -> None:
    number = {"f32": "0.5", "bf16": "0.5", "pred": "true", "c64": "(1, 0)"}.get(dtype, "1")
    module = read_text(ONE.format(dtype=dtype, body=body, number=number, zero="(0, 0)" if dtype == "c64" else "0"))
    assert takes_any_grouping(module.entry.root.called[0]) == expected


def test_places_of_the_largest_take_any_grouping_and_mixed_types_do_not() -> None:
    module = read_text("""HloModule m
f { a = f32[] parameter(0)
  i = s32[] parameter(1)
  b = f32[] parameter(2)
  j = s32[] parameter(3)
  p = pred[] compare(a, b), direction=GE
  v = f32[] select(p, a, b)
  k = s32[] select(p, i, j)
  ROOT t = (f32[], s32[]) tuple(v, k) }
g { a = f32[] parameter(0)
  b = bf16[] parameter(1)
  c = f32[] convert(b)
  ROOT r = f32[] add(a, c) }
ENTRY e { x = f32[4] parameter(0)
  i = s32[4] iota(), iota_dimension=0
  y = bf16[4] parameter(1)
  z = f32[] constant(0)
  k = s32[] constant(0)
  s = f32[] reduce(y, z), dimensions={0}, to_apply=g
  ROOT r = (f32[], s32[]) reduce(x, i, z, k), dimensions={0}, to_apply=f }
""")
    largest, mixed = module.entry.root, next(i for i in module.entry.instructions if i.name == "s")
    assert takes_any_grouping(largest.called[0])
    assert not takes_any_grouping(mixed.called[0])
