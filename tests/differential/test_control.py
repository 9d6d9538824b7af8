"""Calls, conditionals and loops on the device against the oracle: nested, with carried tuples, run 0 times or by data."""

from __future__ import annotations

import numpy as np
import pytest

from harness.device import check_text

COUNTED = """
next {
  s = (s32[], f32[5,3]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f32[5,3] get-tuple-element(s), index=1
  one = s32[] constant(1)
  j = s32[] add(i, one)
  y = f32[5,3] add(x, x)
  ROOT t = (s32[], f32[5,3]) tuple(j, y)
}
more {
  s = (s32[], f32[5,3]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(4)
  ROOT c = pred[] compare(i, n), direction=LT
}
"""

COLLATZ = """
halve {
  v = s32[] parameter(0)
  two = s32[] constant(2)
  ROOT r = s32[] divide(v, two)
}
triple {
  v = s32[] parameter(0)
  three = s32[] constant(3)
  one = s32[] constant(1)
  p = s32[] multiply(v, three)
  ROOT r = s32[] add(p, one)
}
next {
  s = (s32[], s32[]) parameter(0)
  v = s32[] get-tuple-element(s), index=0
  n = s32[] get-tuple-element(s), index=1
  one = s32[] constant(1)
  odd = s32[] and(v, one)
  w = s32[] conditional(odd, v, v), branch_computations={halve, triple}
  m = s32[] add(n, one)
  ROOT t = (s32[], s32[]) tuple(w, m)
}
more {
  s = (s32[], s32[]) parameter(0)
  v = s32[] get-tuple-element(s), index=0
  one = s32[] constant(1)
  ROOT c = pred[] compare(v, one), direction=GT
}
"""

NESTED = """
inner_next {
  s = (s32[], s32[], s32[8,8]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  j = s32[] get-tuple-element(s), index=1
  x = s32[8,8] get-tuple-element(s), index=2
  one = s32[] constant(1)
  k = s32[] multiply(i, j)
  u = s32[1,1] reshape(k)
  y = s32[8,8] dynamic-update-slice(x, u, i, j)
  n = s32[] add(j, one)
  ROOT t = (s32[], s32[], s32[8,8]) tuple(i, n, y)
}
inner_more {
  s = (s32[], s32[], s32[8,8]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  j = s32[] get-tuple-element(s), index=1
  ROOT c = pred[] compare(j, i), direction=LT
}
next {
  s = (s32[], s32[8,8]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = s32[8,8] get-tuple-element(s), index=1
  zero = s32[] constant(0)
  one = s32[] constant(1)
  a = (s32[], s32[], s32[8,8]) tuple(i, zero, x)
  w = (s32[], s32[], s32[8,8]) while(a), condition=inner_more, body=inner_next
  y = s32[8,8] get-tuple-element(w), index=2
  n = s32[] add(i, one)
  ROOT t = (s32[], s32[8,8]) tuple(n, y)
}
more {
  s = (s32[], s32[8,8]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(8)
  ROOT c = pred[] compare(i, n), direction=LT
}
"""

SWAP = """
next {
  s = (s32[], f32[4], f32[4]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  x = f32[4] get-tuple-element(s), index=1
  y = f32[4] get-tuple-element(s), index=2
  one = s32[] constant(1)
  j = s32[] add(i, one)
  ROOT t = (s32[], f32[4], f32[4]) tuple(j, y, x)
}
more {
  s = (s32[], f32[4], f32[4]) parameter(0)
  i = s32[] get-tuple-element(s), index=0
  n = s32[] constant(3)
  ROOT c = pred[] compare(i, n), direction=LT
}
"""


@pytest.mark.parametrize("optlevel", (0, 1))
@pytest.mark.parametrize("start", (0, 3, 4, 9))
def test_counted_loop(start: int, optlevel: int) -> None:
    check_text(f"""HloModule test
{COUNTED}
ENTRY main {{
  i = s32[] parameter(0)
  x = f32[5,3] parameter(1)
  s = (s32[], f32[5,3]) tuple(i, x)
  ROOT w = (s32[], f32[5,3]) while(s), condition=more, body=next
}}""", [np.int32(start), np.arange(15, dtype=np.float32).reshape(5, 3)], optlevel=optlevel)


@pytest.mark.parametrize("optlevel", (0, 1))
@pytest.mark.parametrize("start", (1, 6, 27))
def test_loop_whose_end_depends_on_data(start: int, optlevel: int) -> None:
    check_text(f"""HloModule test
{COLLATZ}
ENTRY main {{
  v = s32[] parameter(0)
  n = s32[] constant(0)
  s = (s32[], s32[]) tuple(v, n)
  ROOT w = (s32[], s32[]) while(s), condition=more, body=next
}}""", [np.int32(start)], optlevel=optlevel)


@pytest.mark.parametrize("optlevel", (0, 1))
def test_nested_loops_that_update_in_place(optlevel: int) -> None:
    check_text(f"""HloModule test
{NESTED}
ENTRY main {{
  x = s32[8,8] parameter(0)
  i = s32[] constant(0)
  s = (s32[], s32[8,8]) tuple(i, x)
  ROOT w = (s32[], s32[8,8]) while(s), condition=more, body=next
}}""", optlevel=optlevel)


@pytest.mark.parametrize("optlevel", (0, 1))
def test_carried_values_that_trade_places(optlevel: int) -> None:
    check_text(f"""HloModule test
{SWAP}
ENTRY main {{
  x = f32[4] parameter(0)
  y = f32[4] parameter(1)
  i = s32[] constant(0)
  s = (s32[], f32[4], f32[4]) tuple(i, x, y)
  ROOT w = (s32[], f32[4], f32[4]) while(s), condition=more, body=next
}}""", optlevel=optlevel)


@pytest.mark.parametrize("optlevel", (0, 1))
@pytest.mark.parametrize("branch", (-1, 0, 1, 2, 7))
def test_branch_by_number(branch: int, optlevel: int) -> None:
    """Numbers without a branch mean the last one."""
    check_text("""HloModule test
first { a = (f32[4], f32[4]) parameter(0) ROOT r = f32[4] get-tuple-element(a), index=1 }
second { a = f32[4] parameter(0) ROOT r = f32[4] negate(a) }
third { a = f32[4] parameter(0) ROOT r = f32[4] multiply(a, a) }
ENTRY main {
  i = s32[] parameter(0)
  x = f32[4] parameter(1)
  y = f32[4] parameter(2)
  t = (f32[4], f32[4]) tuple(x, y)
  ROOT r = f32[4] conditional(i, t, x, y), branch_computations={first, second, third}
}""", [np.int32(branch), np.arange(4, dtype=np.float32), np.arange(4, 8, dtype=np.float32)], optlevel=optlevel)


@pytest.mark.parametrize("optlevel", (0, 1))
@pytest.mark.parametrize("chosen", (False, True))
def test_branch_by_predicate(chosen: bool, optlevel: int) -> None:
    check_text("""HloModule test
yes { a = f32[] parameter(0) z = f32[] constant(1) s = f32[] add(a, z) ROOT r = (f32[], f32[]) tuple(s, a) }
no { a = f32[] parameter(0) ROOT r = (f32[], f32[]) tuple(a, a) }
ENTRY main {
  p = pred[] parameter(0)
  x = f32[] parameter(1)
  ROOT r = (f32[], f32[]) conditional(p, x, x), true_computation=yes, false_computation=no
}""", [np.bool_(chosen), np.float32(3)], optlevel=optlevel)


def test_a_computation_called_twice() -> None:
    check_text("""HloModule test
square { a = f32[7] parameter(0) ROOT r = f32[7] multiply(a, a) }
ENTRY main {
  x = f32[7] parameter(0)
  y = f32[7] call(x), to_apply=square
  z = f32[7] call(y), to_apply=square
  ROOT r = (f32[7], f32[7]) tuple(y, z)
}""")
