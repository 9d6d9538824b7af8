"""Short rows of several dimensions: those along the last of them lie on one partition together."""

import pytest

from harness.clocked import microseconds
from harness.whole import check_whole

REDUCTION = """add {
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b)
}
"""


def rotated(batch: int, steps: int, heads: int, width: int, dtype: str = "f32") -> str:
    """Heads turned by angles that depend on the step."""
    shape, angles = f"{dtype}[{batch},{steps},{heads},{width}]", f"{dtype}[{steps},{width}]"
    return f"""HloModule rotated
ENTRY main {{
  a = {shape} parameter(0)
  b = {shape} parameter(1)
  c = {angles} parameter(2)
  s = {angles} parameter(3)
  cs = {shape} broadcast(c), dimensions={{1,3}}
  ss = {shape} broadcast(s), dimensions={{1,3}}
  ac = {shape} multiply(a, cs)
  bs = {shape} multiply(b, ss)
  ROOT out = {shape} subtract(ac, bs)
}}"""


def shares(outer: int, inner: int, width: int) -> str:
    """Each row as parts of its sum, times a factor that the first dimension decides."""
    shape, rows = f"f32[{outer},{inner},{width}]", f"f32[{outer},{inner}]"
    return f"""HloModule shares
{REDUCTION}
ENTRY main {{
  x = {shape} parameter(0)
  f = f32[{outer}] parameter(1)
  g = f32[{inner},{width}] parameter(2)
  zero = f32[] constant(0)
  e = {shape} exponential(x)
  total = {rows} reduce(e, zero), dimensions={{2}}, to_apply=add
  totals = {shape} broadcast(total), dimensions={{0,1}}
  part = {shape} divide(e, totals)
  fs = {shape} broadcast(f), dimensions={{0}}
  gs = {shape} broadcast(g), dimensions={{1,2}}
  scaled = {shape} multiply(part, fs)
  ROOT out = {shape} add(scaled, gs)
}}"""


@pytest.mark.parametrize("text", [
    rotated(2, 70, 16, 64), rotated(1, 130, 12, 32, "bf16"), rotated(3, 50, 7, 100), rotated(2, 65, 48, 48),
    shares(130, 12, 40), shares(200, 9, 7), shares(129, 64, 64),
], ids=range(7))
def test_results(text):
    check_whole(text)


def test_angles_are_loaded_once_for_all_heads():
    moved = 4 * (3 * 4 * 2048 * 16 * 64 + 2 * 4 * 2048 * 64)
    assert microseconds(rotated(4, 2048, 16, 64)) < 1.3 * moved / 272e3 + 20


@pytest.mark.parametrize("mean", [False, True])
def test_sums_of_short_rows_take_many_at_a_time(mean: bool) -> None:
    """Pooling over whole images: rows of 49 elements, which one by one would be a transfer each time."""
    last = """n = f32[] constant(49)
  ns = f32[8,512] broadcast(n), dimensions={}
  ROOT mean = f32[8,512] divide(total, ns)""" if mean else "ROOT both = (f32[8,512]) tuple(total)"
    text = f"""HloModule pooled
{REDUCTION}
ENTRY main {{
  x = f32[8,512,7,7] parameter(0)
  zero = f32[] constant(0)
  total = f32[8,512] reduce(x, zero), dimensions={{2,3}}, to_apply=add
  {last}
}}"""
    check_whole(text, levels=("2",))
    assert mean is False or microseconds(text, "none") < 20
