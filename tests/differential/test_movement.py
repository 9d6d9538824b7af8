"""Padding, index patterns, concatenation and reversal on the device against the oracle, for every dtype that memory holds."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.dtypes import dtype as named
from nxcc.ir.hlo.text.reader import read_text

from harness.clocked import microseconds
from harness.device import check_text, random_inputs
from harness.whole import check_whole

DTYPES = ("f32", "bf16", "f16", "s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64")
PADS = (((3, 5), "1_2_1x-1_2_0", (8, 6)), ((3, 5), "0_0x-3_-2", (3, 0)), ((0, 5), "1_1x0_0", (2, 5)), ((4,), "-1_2_2", (11,)),
        ((300, 7), "-3_-200_3x5_-2_1", (994, 16)), ((1,), "-2_5_0", (4,)))
PATTERNS = (((300,), 0), ((3, 0, 4), 2), ((2, 300, 3), 1), ((9001,), 0), ((5, 7), 0), ((5, 7), 1), ((700, 2), 0))


def text(dims: tuple[int, ...]) -> str:
    return ",".join(map(str, dims))


def numbers(dtype: str, *dims: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(0).integers(0, 2 if dtype == "pred" else 100, dims)).astype(named(dtype).numpy)


@pytest.mark.parametrize("optlevel", (0, 1))
@pytest.mark.parametrize("dtype", (*DTYPES, "pred"))
def test_pad(dtype: str, optlevel: int) -> None:
    for dims, padding, out in PADS:
        check_text(f"""HloModule test
ENTRY main {{
  x = {dtype}[{text(dims)}] parameter(0)
  v = {dtype}[] parameter(1)
  ROOT r = {dtype}[{text(out)}] pad(x, v), padding={padding}
}}""", [numbers(dtype, *dims), numbers(dtype)], optlevel=optlevel)


@pytest.mark.parametrize("dtype", DTYPES)
def test_iota(dtype: str) -> None:
    for dims, dim in PATTERNS:
        check_text(f"HloModule test\nENTRY main {{ ROOT r = {dtype}[{text(dims)}] iota(), iota_dimension={dim} }}", [])


@pytest.mark.parametrize("dtype", (*DTYPES, "pred"))
def test_concatenate_and_reverse(dtype: str) -> None:
    check_text(f"""HloModule test
ENTRY main {{
  x = {dtype}[3,5] parameter(0)
  y = {dtype}[3,0] parameter(1)
  z = {dtype}[3,200] parameter(2)
  back = {dtype}[3,200] reverse(z), dimensions={{0,1}}
  all = {dtype}[3,205] concatenate(x, y, back), dimensions={{1}}
  ROOT r = {dtype}[205,3] transpose(all), dimensions={{1,0}}
}}""", [numbers(dtype, 3, 5), numbers(dtype, 3, 0), numbers(dtype, 3, 200)])


TURNED = [("f32", (3, 50, 70), (0, 2, 1)), ("bf16", (200, 33), (1, 0)), ("s32", (40, 700), (1, 0)),
          ("f32", (17, 5, 129), (2, 1, 0)), ("u16", (64, 3, 512), (2, 0, 1)), ("f32", (1500, 16), (1, 0)),
          ("f32", (3, 40, 5, 28), (0, 2, 3, 1)), ("bf16", (70, 37, 33), (1, 2, 0))]


@pytest.mark.parametrize(("dtype", "sizes", "order"), TURNED, ids=str)
def test_copies_that_turn_keep_every_bit(dtype: str, sizes: tuple[int, ...], order: tuple[int, ...]) -> None:
    """Beside each other, so that the transposes are no views of the result; infinities stay where they are."""
    turned = [sizes[d] for d in order]
    text = f"""HloModule m
ENTRY main {{
  x = {dtype}[{",".join(map(str, sizes))}] parameter(0)
  y = {dtype}[{",".join(map(str, turned))}] parameter(1)
  t = {dtype}[{",".join(map(str, turned))}] transpose(x), dimensions={{{",".join(map(str, order))}}}
  ROOT c = {dtype}[{2 * turned[0]},{",".join(map(str, turned[1:]))}] concatenate(y, t), dimensions={{0}}
}}
"""
    module = read_text(text)
    values = random_inputs(module)
    if not dtype.startswith(("s", "u")):
        values[0][..., 3] = np.inf
        values[0][..., 1] = np.nan
    check_whole(text, values, ("1", "2"), strict=True)
    check_whole(text, values, ("2",), target="v1")


def test_copies_that_turn_take_long_transfers() -> None:
    text = """HloModule m
ENTRY main {
  x = f32[768,196] parameter(0)
  y = f32[1,768] parameter(1)
  t = f32[196,768] transpose(x), dimensions={1,0}
  ROOT c = f32[197,768] concatenate(y, t), dimensions={0}
}
"""
    assert microseconds(text) < 25


def test_short_rows_that_turn_go_through_the_chip_together() -> None:
    """An image by channels becomes one by places with zeros around: 224 rows of 28 places, one after another 700 us."""
    assert microseconds("""HloModule m
ENTRY main {
  x = f32[128,8,28,28] parameter(0)
  zero = f32[] constant(0)
  t = f32[8,28,28,128] transpose(x), dimensions={1,2,3,0}
  ROOT p = f32[8,30,30,128] pad(t, zero), padding=0_0x1_1x1_1x0_0
}
""") < 160


@pytest.mark.parametrize("dtype", ["f32", "bf16", "pred", "s8", "u64"])
@pytest.mark.parametrize("dims, reversed_", [((150, 70), "1"), ((3, 41, 61), "0,2"), ((9001,), "0"), ((2, 40, 60, 3), "2"),
                                             ((2, 40, 60, 3), "2,3")])
def test_large_arrays_are_reversed(dtype, dims, reversed_):
    shape = f"{dtype}[{','.join(map(str, dims))}]"
    check_whole(f"""HloModule m
ENTRY main {{
  x = {shape} parameter(0)
  ROOT r = {shape} reverse(x), dimensions={{{reversed_}}}
}}
""", levels=("2",))
