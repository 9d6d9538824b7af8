"""Intervals of integer values: tight where it matters, and never too small."""

from __future__ import annotations

import pytest

from nxcc.ir.dtypes import S64
from nxcc.passes.dtypes.intervals import Interval, Intervals, full_range

from harness.hlo_text import module_of

S32_RANGE = (-(2**31), 2**31 - 1)
COUNT_TO_FIVE = """
body { s = (s64[]) parameter(0) i = s64[] get-tuple-element(s), index=0 k = s64[] constant(2) j = s64[] add(i, k)
  ROOT t = (s64[]) tuple(j) }
condition { s = (s64[]) parameter(0) i = s64[] get-tuple-element(s), index=0 n = s64[] constant(5)
  ROOT c = pred[] compare(i, n), direction=LT }
without_end { s = (s64[]) parameter(0) ROOT c = pred[] constant(true) }
"""
X = "x = s64[4] parameter(0)\n"
CASES: list[tuple[str, Interval | None]] = [
    (X + "ROOT r = s64[4] negate(x)", (-(2**31) + 1, 2**31)),
    (X + "ROOT r = s64[4] multiply(x, x)", (-(2**62) + 2**31, 2**62)),
    (X + "y = s64[4] multiply(x, x)\n ROOT r = s64[4] multiply(y, y)", full_range(S64)),
    (X + "c = s64[4] constant({3, -4, 7, 0})\n ROOT r = s64[4] maximum(x, c)", (-4, 2**31 - 1)),
    (X + "z = s64[4] broadcast(s64[] constant(0)), dimensions={}\n k = s64[4] broadcast(s64[] constant(9)), dimensions={}\n"
     "p = pred[4] compare(x, z), direction=LT\n a = s64[4] add(x, k)\n ROOT r = s64[4] select(p, a, x)",
     (-(2**31) + 9, 2**31 - 1)),
    ("i = s64[3,7] iota(), iota_dimension=1\n z = s64[] constant(0)\n"
     "ROOT r = s64[3] reduce(i, z), dimensions={1}, to_apply=add_s64", (0, 42)),
    (X + "k = s64[4] broadcast(s64[] constant(10)), dimensions={}\n ROOT r = s64[4] remainder(x, k)", (-9, 9)),
    (X + "k = s64[4] broadcast(s64[] constant(255)), dimensions={}\n ROOT r = s64[4] and(x, k)", (0, 255)),
    ("z = s64[] constant(0)\n t = (s64[]) tuple(z)\n w = (s64[]) while(t), body=body, condition=condition\n"
     "ROOT r = s64[] get-tuple-element(w), index=0", (0, 6)),
    ("z = s64[] constant(0)\n t = (s64[]) tuple(z)\n w = (s64[]) while(t), body=body, condition=without_end\n"
     "ROOT r = s64[] get-tuple-element(w), index=0", full_range(S64)),
]
ADD = "add_s64 { a = s64[] parameter(0) b = s64[] parameter(1) ROOT r = s64[] add(a, b) }\n"


@pytest.mark.parametrize(("text", "wanted"), CASES)
def test_interval(text: str, wanted: Interval | None) -> None:
    module = module_of(text, ADD + COUNT_TO_FIVE)
    assert Intervals(module, {0: S32_RANGE})[module.entry.root] == wanted
