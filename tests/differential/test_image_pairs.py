"""Convolutions of 32 or 64 output channels, whose result has its rows in pairs on the partitions."""

from __future__ import annotations

import pytest

from nxcc.backends.lowering.images import pairs as image_pairs

from harness.clocked import microseconds
from harness.whole import check_whole


def block(batch: int, channels: int, outputs: int, size: int, stride: int, low: int, high: int, rows: int, columns: int,
          beside: int = 0, added: bool = False) -> str:
    """A convolution over `rows` by `columns` with an offset and a bound; beside: channels of an image joined to the data."""
    made = (rows + low + high - size) // stride + 1, (columns + 2 * (size // 2) - size) // stride + 1
    data, other, out = (f"f32[{batch},{c},{r},{w}]" for c, r, w in (
        (channels, rows, columns), (max(1, beside), rows, columns), (outputs, *made)))
    total = channels + beside
    joined = f"x = f32[{batch},{total},{rows},{columns}] concatenate(x0, x1), dimensions={{1}}" if beside \
        else f"x = {data} copy(x0)"
    return f"""HloModule m
ENTRY main {{
  x0 = {data} parameter(0)
  x1 = {other} parameter(1)
  w = f32[{total},{size},{size},{outputs}] parameter(2)
  offset = f32[{outputs}] parameter(3)
  more = {out} parameter(4)
  {joined}
  c = {out} convolution(x, w), window={{size={size}x{size} stride={stride}x{stride} pad={low}_{high}x{size // 2}_{size // 2}}},
    dim_labels=bf01_i01o->bf01
  offsets = {out} broadcast(offset), dimensions={{1}}
  d = {out} add(c, offsets)
  zero = f32[] constant(0)
  zeros = {out} broadcast(zero), dimensions={{}}
  e = {out} maximum(d, zeros)
  ROOT f = {out} {"add(e, more)" if added else "multiply(e, offsets)"}
}}
"""


CASES = {
    "64 to 64": block(2, 64, 64, 3, 1, 1, 1, 12, 56),
    "64 to 64, long rows, strips": block(2, 64, 64, 3, 1, 1, 1, 40, 140, added=True),
    "32 to 32, an odd number of rows in": block(1, 32, 32, 3, 1, 1, 0, 17, 60, added=True),
    "128 to 64": block(1, 128, 64, 3, 1, 1, 1, 10, 50),
    "192 to 32": block(2, 192, 32, 3, 1, 1, 1, 6, 50),
    "64 beside 64 to 64": block(1, 64, 64, 3, 1, 1, 1, 14, 56, beside=64, added=True),
    "64 beside 96 to 64": block(1, 64, 64, 3, 1, 1, 1, 14, 56, beside=96),
    "3 to 64": block(2, 3, 64, 3, 1, 1, 1, 30, 64, added=True),
    "3 to 64 by 7 windows of stride 2": block(2, 3, 64, 7, 2, 3, 3, 40, 112),
    "5 to 32 by 5": block(1, 5, 32, 5, 1, 0, 0, 34, 70),
    "64 to 64 of stride 2": block(1, 64, 64, 3, 2, 1, 1, 24, 120),
    "64 to 32 by 2": block(1, 64, 32, 2, 1, 0, 1, 16, 130),
    "64 to 64 by 5, much padding": block(1, 64, 64, 5, 1, 4, 4, 12, 140),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_in_pairs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    program = image_pairs.PairedProgram
    monkeypatch.setattr(image_pairs, "PairedProgram", lambda *of: made.append(of) or program(*of))
    check_whole(CASES[name], levels=("2",), strict=True)
    assert made


def test_rows_in_pairs_fill_the_tensor_engine() -> None:
    # the image comes and goes in f32; where half of the columns are empty it takes 247 us
    assert microseconds(block(1, 64, 64, 3, 1, 1, 1, 224, 224)) < 200
