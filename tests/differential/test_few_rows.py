"""Elementwise work on few rows takes all partitions: its columns lie beside each other."""

import pytest

from harness.device import check_text

FEW_ROWS = """
HloModule m
ENTRY main {
  x = f32[6,2048] parameter(0)
  row = f32[2048] parameter(1)
  column = f32[6] parameter(2)
  b = f32[6,2048] broadcast(row), dimensions={1}
  c = f32[6,2048] broadcast(column), dimensions={0}
  p = f32[6,2048] multiply(x, b)
  s = f32[6,2048] add(p, c)
  ROOT t = f32[6,2048] tanh(s)
}
"""
HALVES = """
HloModule m
ENTRY main {
  x = f32[64,1100] parameter(0)
  u = f32[32,1100] slice(x), slice={[0:32], [0:1100]}
  v = f32[32,1100] slice(x), slice={[32:64], [0:1100]}
  p = f32[32,1100] multiply(u, v)
  d = f32[32,1100] subtract(u, p)
  ROOT t = (f32[32,1100], f32[32,1100]) tuple(d, p)
}
"""
LONG_ROWS = """
HloModule m
ENTRY main {
  x = f32[3,40,384] parameter(0)
  row = f32[40,384] parameter(1)
  b = f32[3,40,384] broadcast(row), dimensions={1,2}
  ROOT s = f32[3,40,384] add(x, b)
}
"""


@pytest.mark.parametrize("text", [FEW_ROWS, HALVES, LONG_ROWS],
                         ids=["rows and columns repeat", "halves of a matrix", "a matrix for each of few"])
@pytest.mark.parametrize("optlevel", [1, 2])
def test_few_rows_match(text: str, optlevel: int) -> None:
    check_text(text, tolerance=1e-5, optlevel=optlevel)

SHORT_ROWS = """
HloModule m
add { a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT c = f32[] add(a, b) }
ENTRY main {
  x = f32[1500,6] parameter(0)
  column = f32[1500] parameter(1)
  row = f32[6] parameter(2)
  c = f32[1500,6] broadcast(column), dimensions={0}
  r = f32[1500,6] broadcast(row), dimensions={1}
  p = f32[1500,6] multiply(x, c)
  t = f32[1500,6] tanh(p)
  q = f32[1500,6] multiply(t, r)
  w = f32[1500,6] multiply(q, q)
  zero = f32[] constant(0)
  s = f32[1500] reduce(w, zero), dimensions={1}, to_apply=add
  sb = f32[1500,6] broadcast(s), dimensions={0}
  ROOT d = f32[1500,6] multiply(q, sb)
}
"""
ONE_DIMENSION = """
HloModule m
ENTRY main {
  x = f32[70001] parameter(0)
  y = f32[70001] parameter(1)
  t = f32[70001] tanh(x)
  ROOT z = f32[70001] multiply(t, y)
}
"""


@pytest.mark.parametrize("text", [SHORT_ROWS, ONE_DIMENSION], ids=["short rows", "one dimension"])
@pytest.mark.parametrize("optlevel", [1, 2])
def test_short_rows_share_partitions(text: str, optlevel: int) -> None:
    check_text(text, tolerance=1e-5, optlevel=optlevel)

A_COLUMN = """
HloModule m
ENTRY main {
  x = f32[3,70,40] parameter(0)
  c = f32[3,70] parameter(1)
  b = f32[3,70,40] broadcast(c), dimensions={0,1}
  ROOT d = f32[3,70,40] divide(x, b)
}
"""
TWO_COLUMNS = """
HloModule m
ENTRY main {
  c = f32[300] parameter(0)
  e = f32[300] parameter(1)
  b = f32[300,40] broadcast(c), dimensions={0}
  f = f32[300,40] broadcast(e), dimensions={0}
  ROOT d = f32[300,40] multiply(b, f)
}
"""


@pytest.mark.parametrize("text", [A_COLUMN, TWO_COLUMNS], ids=["one", "two"])
@pytest.mark.parametrize("optlevel", [0, 1, 2])
def test_columns_repeat(text: str, optlevel: int) -> None:
    check_text(text, tolerance=1e-5, optlevel=optlevel)
