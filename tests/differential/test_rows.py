"""Row programs against the oracle, in the strict simulator: schedules at sizes that fill, overflow and leave parts of tiles."""

from __future__ import annotations

import pytest

from harness.attention import COMBINERS as ADD
from harness.attention import attention
from harness.clocked import microseconds
from harness.device import check_text
from harness.whole import check_whole


@pytest.mark.parametrize(("batch", "heads", "rows", "keys", "depth", "turned"), [
    (2, 4, 128, 128, 64, True), (1, 3, 37, 37, 32, True), (1, 2, 150, 197, 64, True), (2, 5, 1, 40, 16, True),
    (1, 1, 20, 600, 80, True), (2, 2, 16, 130, 64, False)])
def test_attention(batch: int, heads: int, rows: int, keys: int, depth: int, turned: bool) -> None:
    check_whole(attention(batch, heads, rows, keys, depth, turned), levels=("2",), strict=True)


def dense(rows: int, depth: int, columns: int, turned: bool) -> str:
    """A projection with bias and a function, whose columns do not depend on each other."""
    of_weights = f"""%w0 = f32[{columns},{depth}] parameter(1)
  %w = f32[{depth},{columns}] transpose(%w0), dimensions={{1,0}}""" if turned else f"%w = f32[{depth},{columns}] parameter(1)"
    return f"""HloModule dense
ENTRY main {{
  %x = f32[{rows},{depth}] parameter(0)
  {of_weights}
  %b = f32[{columns}] parameter(2)
  %d = f32[{rows},{columns}] dot(%x, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  %bs = f32[{rows},{columns}] broadcast(%b), dimensions={{1}}
  %s = f32[{rows},{columns}] add(%d, %bs)
  ROOT %t = f32[{rows},{columns}] tanh(%s)
}}
"""


@pytest.mark.parametrize(("rows", "depth", "columns", "turned"), [
    (300, 256, 700, False), (130, 200, 130, True), (1, 384, 1500, False), (1030, 64, 40, True), (20, 5000, 600, False),
    (700, 64, 3000, False), (1, 1, 1, False), (300, 1, 40, False), (5, 1, 700, True), (300, 40, 1, False),
    (900, 384, 1536, False), (300, 256, 2304, False)])
def test_dense(rows: int, depth: int, columns: int, turned: bool) -> None:
    check_whole(dense(rows, depth, columns, turned), levels=("2",), strict=True)


def normed(rows: int, depth: int, columns: int) -> str:
    """A projection, a residual sum and a layer norm over whole rows."""
    m, c = f"f32[{rows},{columns}]", f"f32[{rows}]"
    return f"""HloModule normed
{ADD}
ENTRY main {{
  %x = f32[{rows},{depth}] parameter(0)
  %w = f32[{depth},{columns}] parameter(1)
  %y = {m} parameter(2)
  %g = f32[{columns}] parameter(3)
  %b = f32[{columns}] parameter(4)
  %d = {m} dot(%x, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  %s = {m} add(%d, %y)
  %zero = f32[] constant(0)
  %sum = {c} reduce(%s, %zero), dimensions={{1}}, to_apply=%add
  %count = f32[] constant({columns})
  %counts = {c} broadcast(%count), dimensions={{}}
  %mean = {c} divide(%sum, %counts)
  %means = {m} broadcast(%mean), dimensions={{0}}
  %centred = {m} subtract(%s, %means)
  %squares = {m} multiply(%centred, %centred)
  %spread = {c} reduce(%squares, %zero), dimensions={{1}}, to_apply=%add
  %variance = {c} divide(%spread, %counts)
  %small = f32[] constant(1e-5)
  %smalls = {c} broadcast(%small), dimensions={{}}
  %safe = {c} add(%variance, %smalls)
  %root = {c} rsqrt(%safe)
  %roots = {m} broadcast(%root), dimensions={{0}}
  %unit = {m} multiply(%centred, %roots)
  %gs = {m} broadcast(%g), dimensions={{1}}
  %scaled = {m} multiply(%unit, %gs)
  %bs = {m} broadcast(%b), dimensions={{1}}
  ROOT %r = {m} add(%scaled, %bs)
}}
"""


@pytest.mark.parametrize(("rows", "depth", "columns"), [(300, 256, 384), (64, 130, 768), (1, 128, 1100), (129, 640, 1280)])
def test_norm_behind_a_product(rows: int, depth: int, columns: int) -> None:
    check_whole(normed(rows, depth, columns), levels=("2",), strict=True)


REPEATED_LEFT = """HloModule repeated
ENTRY main {
  x = f32[5] parameter(0)
  p = f32[3,5,4] parameter(1)
  q = f32[3,2,4] parameter(2)
  b = f32[3,2,5] broadcast(x), dimensions={2}
  d = f32[3,2,4] dot(b, p), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}
  ROOT a = f32[3,2,4] add(d, q)
}
"""
CONSTANT_LEFT = """HloModule constant
ENTRY main {
  p = f32[258,1] parameter(0)
  c = f32[] constant(-1.25)
  b = f32[3,1] broadcast(c), dimensions={}
  d = f32[3,258] dot(b, p), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  ROOT t = f32[3,258] tanh(d)
}
"""


@pytest.mark.parametrize("text", [REPEATED_LEFT, CONSTANT_LEFT], ids=["a row for all batches", "a number"])
def test_left_sides_that_repeat(text: str) -> None:
    check_whole(text, levels=("1", "2"), strict=True)


BOTH_SIDES = """HloModule both
ENTRY main {
  p = f32[2,1,2,3] parameter(0)
  c = f32[2,3,2,3] parameter(1)
  r = f32[2,2,1,3] reshape(p)
  d = f32[2,2,1,3] dot(r, c), lhs_batch_dims={0,1}, rhs_batch_dims={0,2}, lhs_contracting_dims={3}, rhs_contracting_dims={3}
  t = f32[2,2,3,1] reshape(p)
  ROOT e = f32[2,2,1,1] dot(d, t), lhs_batch_dims={0,1}, rhs_batch_dims={0,1}, lhs_contracting_dims={3},
    rhs_contracting_dims={2}
}
"""


def test_a_view_that_is_read_as_rows_and_as_a_matrix() -> None:
    check_whole(BOTH_SIDES, levels=("1", "2"))
    check_whole(BOTH_SIDES.replace("2,1,2,3", "2,1,2,1").replace("2,3,2,3", "2,1,2,1").replace("2,2,1,3", "2,2,1,1").replace(
        "2,2,3,1", "2,2,1,1"), levels=("1", "2"))


ONE_MATRIX = """HloModule one
rows { w = f32[1,1,2,4] parameter(0)
  x = f32[1,1,3,2] parameter(1)
  t = f32[1,1,3,2] tanh(x)
  d = f32[1,1,3,4] dot(t, w), lhs_batch_dims={0,1}, lhs_contracting_dims={3}, rhs_batch_dims={0,1}, rhs_contracting_dims={2}
  v = f32[1,3,4] reshape(d)
  ROOT n = f32[1,3,4] negate(v) }
ENTRY e { x = f32[1,1,3,2] parameter(0)
  w = f32[1,1,2,4] parameter(1)
  ROOT r = f32[1,3,4] fusion(w, x), kind=kCustom, calls=rows, frontend_attributes={nxcc.rows="2"} }
"""


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_batch_of_one_is_no_row(level: int) -> None:
    """The product's second batch dimension has one element, where the region's second row dimension has three."""
    check_text(ONE_MATRIX, optlevel=level)


MEANS = """HloModule means
add { a = T[] parameter(0)
  b = T[] parameter(1)
  ROOT s = T[] add(a, b) }
ENTRY e { x = T[2,3,8] parameter(0)
  p = T[2,3,K,16] parameter(1)
  t = T[2,3,8] tanh(x)
  b = T[2,3,8,K] broadcast(t), dimensions={0,1,2}
  d = T[2,3,8,16] dot(b, p), lhs_batch_dims={0,1}, lhs_contracting_dims={3}, rhs_batch_dims={0,1}, rhs_contracting_dims={2}
  ROOT n = T[2,3,8,16] negate(d) }
"""


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("depth", [64, 128, 256])
def test_a_number_repeated_along_what_is_summed(depth: int, dtype: str) -> None:
    text = MEANS.replace("T[", f"{dtype}[").replace("K]", f"{depth}]").replace("K,", f"{depth},")
    check_whole(text, levels=("1", "2"), strict=True)


COLUMN_WEIGHTS = """HloModule m
ENTRY e {
  a = f32[24,14,14,32] parameter(0)
  b = f32[24,14,14,32] parameter(1)
  WEIGHT
  row = f32[24,14] parameter(3)
  rows = f32[24,14,14,32] broadcast(row), dimensions={0,1}
  m = f32[24,14,14,32] multiply(a, w)
  s = f32[24,14,14,32] add(m, b)
  ROOT r = f32[24,14,14,32] multiply(s, rows)
}"""
REPEATED = "c = f32[24,14] parameter(2)   w = f32[24,14,14,32] broadcast(c), dimensions={0,2}"


def test_operand_that_repeats_along_its_columns_comes_once() -> None:
    """A weight for each of 14 columns of 32 channels: read as it is repeated, each element is a transfer of its own."""
    repeated = COLUMN_WEIGHTS.replace("WEIGHT", REPEATED)
    check_whole(repeated, strict=True)
    assert microseconds(repeated) < 1.5 * microseconds(COLUMN_WEIGHTS.replace("WEIGHT", "w = f32[24,14,14,32] parameter(2)"))
