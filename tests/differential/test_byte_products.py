"""Products of 8-bit integers, to the last bit: short sums, long ones, convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.hlo.text.reader import read_text

from harness.clocked import microseconds
from harness.whole import check_whole


def product(left: str, right: str, m: int, k: int, n: int) -> str:
    return f"""HloModule m
ENTRY main {{
  x = {left}[{m},{k}] parameter(0)
  w = {right}[{k},{n}] parameter(1)
  ROOT d = s32[{m},{n}] dot(x, w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}
"""


CONVOLUTION = """HloModule m
ENTRY main {
  x = s8[2,9,9,20] parameter(0)
  w = s8[3,3,20,12] parameter(1)
  ROOT d = s32[2,9,9,12] convolution(x, w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
}
"""


@pytest.mark.parametrize("text", [
    product("s8", "s8", 40, 300, 70), product("u8", "u8", 33, 700, 9), product("s8", "u8", 5, 1500, 130), CONVOLUTION],
    ids=["signed", "unsigned", "both", "convolution"])
def test_every_bit(text: str) -> None:
    module = read_text(text)
    random = np.random.default_rng(4)
    values = []
    for parameter in module.entry.parameters:
        limits = np.iinfo(parameter.shape.dtype.numpy)
        value = random.integers(limits.min, limits.max + 1, parameter.shape.dims).astype(parameter.shape.dtype.numpy)
        value.reshape(-1)[::2] = limits.max  # sums near the largest
        values.append(value)
    check_whole(text, values, levels=("0", "2"), strict=True)


def test_time() -> None:
    """512 x 1024 x 1024 took 2.2 ms, byte by byte."""
    assert microseconds(product("s8", "s8", 512, 1024, 1024)) < 200
