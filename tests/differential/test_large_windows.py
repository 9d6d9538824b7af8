"""Windows of more cells than are folded one by one, with computations that no engine has as one operator."""

import numpy as np
import pytest

from harness.whole import check_whole

PLAIN = """HloModule m
c {{
  a = {dtype}[] parameter(0)
  b = {dtype}[] parameter(1)
  ROOT r = {dtype}[] {op}(a, b)
}}
ENTRY e {{
  x = {dtype}[{dims}] parameter(0)
  start = {dtype}[] constant({start})
  ROOT w = {dtype}[{out}] reduce-window(x, start), window={{{window}}}, to_apply=c
}}
"""
WINDOWS = {"up to here": ("3,100", "3,100", "size=1x100 pad=0_0x99_0"), "from here": ("90", "90", "size=90 pad=0_89"),
           "both ways": ("9,14", "5,2", "size=9x9 pad=4_4x3_3 stride=2x6"),
           "holes": ("40,2", "10,2", "size=33x2 rhs_dilate=2x1 lhs_dilate=2x1 pad=-5_0x1_0")}


@pytest.mark.parametrize("dtype", ["s64", "u64"])
@pytest.mark.parametrize("op", ["add", "multiply", "maximum", "minimum", "and", "or", "xor"])
def test_wide_integers(op: str, dtype: str) -> None:
    random = np.random.default_rng(3)
    for dims, out, window in WINDOWS.values():
        sizes = [int(size) for size in dims.split(",")]
        values = random.integers(-2**62, 2**62, sizes).astype("int64" if dtype == "s64" else "uint64")
        check_whole(PLAIN.format(dtype=dtype, op=op, dims=dims, out=out, start=5, window=window), [values], ("0", "2"))


@pytest.mark.parametrize("window", WINDOWS)
def test_truth_that_toggles(window: str) -> None:
    dims, out, words = WINDOWS[window]
    values = np.random.default_rng(3).random([int(size) for size in dims.split(",")]) < 0.3
    check_whole(PLAIN.format(dtype="pred", op="xor", dims=dims, out=out, start="true", window=words), [values], ("0", "2"))


LOG_SUM = """HloModule m
c {{
  a = {dtype}[] parameter(0)
  b = {dtype}[] parameter(1)
  big = {dtype}[] maximum(a, b)
  small = {dtype}[] minimum(a, b)
  apart = {dtype}[] subtract(small, big)
  e = {dtype}[] exponential(apart)
  l = {dtype}[] log-plus-one(e)
  ROOT r = {dtype}[] add(big, l)
}}
ENTRY e {{
  x = {dtype}[4,100] parameter(0)
  low = {dtype}[] constant(-1e30)
  ROOT w = {dtype}[4,100] reduce-window(x, low), window={{size=1x100 pad=0_0x99_0}}, to_apply=c
}}
"""


@pytest.mark.parametrize(("dtype", "target"), [("f32", "v2"), ("bf16", "v2"), ("bf16", "v1")])
def test_logarithms_of_sums_up_to_here(dtype: str, target: str) -> None:
    check_whole(LOG_SUM.format(dtype=dtype), levels=("0", "2"), target=target)


FIRST_LARGEST = """HloModule m
c {
  a = f32[] parameter(0)
  i = s32[] parameter(1)
  b = f32[] parameter(2)
  j = s32[] parameter(3)
  is = pred[] compare(a, b), direction=GE
  x = f32[] select(is, a, b)
  k = s32[] select(is, i, j)
  ROOT r = (f32[], s32[]) tuple(x, k)
}
ENTRY e {
  x = f32[4,100] parameter(0)
  i = s32[4,100] iota(), iota_dimension=1
  low = f32[] constant(-inf)
  none = s32[] constant(-1)
  ROOT w = (f32[4,80], s32[4,80]) reduce-window(x, i, low, none), window={size=1x71 pad=0_0x50_0}, to_apply=c
}
"""


def test_the_largest_with_its_place() -> None:
    values = np.random.default_rng(3).integers(0, 9, (4, 100)).astype(np.float32)
    check_whole(FIRST_LARGEST, [values])
