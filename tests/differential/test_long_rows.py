"""Row programs whose rows are long and have a matrix for each of many, against the oracle: tiles of rows in several stages."""

from __future__ import annotations

import pytest

from nxcc.backends.lowering.rows import wide_course

from harness.attention import COMBINERS, attention, softmax
from harness.whole import check_whole


@pytest.mark.parametrize(("heads", "rows", "keys", "depth", "turned", "strict"), [
    (1, 1500, 1024, 32, True, False), (2, 300, 1300, 64, False, True), (1, 130, 2176, 130, True, True),
    (1, 64, 1025, 16, True, True)])
def test_attention_over_many_keys(heads: int, rows: int, keys: int, depth: int, turned: bool, strict: bool) -> None:
    check_whole(attention(1, heads, rows, keys, depth, turned), levels=("2",), strict=strict)


SCORES = "lhs_contracting_dims={2}, rhs_contracting_dims={3}"
VALUES = "lhs_contracting_dims={3}, rhs_contracting_dims={0}"


def grouped(rows: int, keys: int, depth: int, dtype: str = "f32") -> str:
    """Two heads of queries for each of two heads of keys; the scores come out with the keys first, as einsum leaves them."""
    s = f"f32[2,2,{rows},{keys}]"
    return f"""HloModule grouped
{COMBINERS}
ENTRY main {{
  %q = {dtype}[{rows},2,2,{depth}] parameter(0)
  %k = {dtype}[{keys},2,{depth}] parameter(1)
  %v = {dtype}[{keys},2,{depth}] parameter(2)
  %dots = f32[2,{keys},{rows},2] dot(%k, %q), lhs_batch_dims={{1}}, rhs_batch_dims={{1}}, {SCORES}
  %turned = {s} transpose(%dots), dimensions={{0,3,2,1}}
  %third = f32[] constant(0.3)
  %thirds = {s} broadcast(%third), dimensions={{}}
  %scores = {s} multiply(%turned, %thirds)
{softmax((2, 2, rows, keys), "scores")}
  %narrow = {dtype}[2,2,{rows},{keys}] convert(%p)
  ROOT %o = {dtype}[2,2,{rows},{depth}] dot(%narrow, %v), lhs_batch_dims={{0}}, rhs_batch_dims={{1}}, {VALUES}
}}
"""


@pytest.mark.parametrize(("rows", "keys", "depth", "dtype"), [(140, 1024, 32, "f32"), (128, 1536, 64, "bf16")])
def test_groups_of_heads(rows: int, keys: int, depth: int, dtype: str) -> None:
    check_whole(grouped(rows, keys, depth, dtype), levels=("2",), strict=True)


def softmax_of_products(rows: int, columns: int, depth: int) -> str:
    m = f"f32[2,{rows},{columns}]"
    return f"""HloModule softmax
{COMBINERS}
ENTRY main {{
  %a = f32[2,{rows},{depth}] parameter(0)
  %b = f32[2,{depth},{columns}] parameter(1)
  %bias = {m} parameter(2)
  %d = {m} dot(%a, %b), lhs_batch_dims={{0}}, rhs_batch_dims={{0}}, lhs_contracting_dims={{2}}, rhs_contracting_dims={{1}}
  %x = {m} add(%d, %bias)
{softmax((2, rows, columns), "x", "ROOT %p")}
}}
"""


@pytest.mark.parametrize(("rows", "columns", "depth"), [(300, 1100, 64), (1300, 1024, 200)])
def test_softmax_of_products(rows: int, columns: int, depth: int) -> None:
    check_whole(softmax_of_products(rows, columns, depth), levels=("2",), strict=rows < 1000)


@pytest.mark.parametrize(("rows", "keys", "depth", "strict"), [
    (1500, 1100, 32, False), (300, 2176, 64, True), (64, 1030, 130, True)])
def test_rows_that_are_too_long_to_keep(monkeypatch: pytest.MonkeyPatch, rows: int, keys: int, depth: int,
                                        strict: bool) -> None:
    monkeypatch.setattr(wide_course, "WORKING_BYTES", 1 << 30)
    check_whole(attention(1, 2, rows, keys, depth), levels=("2",), strict=strict)


def test_masks_of_rows_that_are_too_long_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_course, "WORKING_BYTES", 1 << 30)
    check_whole(masked(200, 1300, 32), levels=("2",), strict=True)


def masked(rows: int, keys: int, depth: int) -> str:
    """Attention with a mask of its own for each row, whose scores are tamed first."""
    s, r = f"f32[2,{rows},{keys}]", f"f32[2,{rows}]"
    by_head = "lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_contracting_dims={1}"
    return f"""HloModule masked
{COMBINERS}
ENTRY main {{
  %q = f32[2,{rows},{depth}] parameter(0)
  %k = f32[2,{depth},{keys}] parameter(1)
  %v = f32[2,{keys},{depth}] parameter(2)
  %mask = f32[{rows},{keys}] parameter(3)
  %residual = f32[2,{rows},{depth}] parameter(4)
  %dots = {s} dot(%q, %k), {by_head}
  %tamed = {s} tanh(%dots)
  %masks = {s} broadcast(%mask), dimensions={{1,2}}
  %scores = {s} add(%tamed, %masks)
  %low = f32[] constant(-inf)
  %zero = f32[] constant(0)
  %most = {r} reduce(%scores, %low), dimensions={{2}}, to_apply=%max
  %mosts = {s} broadcast(%most), dimensions={{0,1}}
  %shifted = {s} subtract(%scores, %mosts)
  %e = {s} exponential(%shifted)
  %total = {r} reduce(%e, %zero), dimensions={{2}}, to_apply=%add
  %o = f32[2,{rows},{depth}] dot(%e, %v), {by_head}
  %totals = f32[2,{rows},{depth}] broadcast(%total), dimensions={{0,1}}
  %p = f32[2,{rows},{depth}] divide(%o, %totals)
  ROOT %sum = f32[2,{rows},{depth}] add(%p, %residual)
}}
"""


def test_masks_of_rows() -> None:
    check_whole(masked(200, 1300, 32), levels=("2",), strict=True)
