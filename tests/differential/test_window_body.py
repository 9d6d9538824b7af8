"""Windows with computations of their own, over several arrays, and select-and-scatter, against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nxcc.ir.hlo.attributes import WindowDimension
from nxcc.ir.hlo.ops.reduction import windowed_size

from harness.device import check_text

LEVELS = (0, 1)
STILL = WindowDimension(1)
W = WindowDimension

WINDOWS = {
    "rows and columns": ((2, 5, 13, 17), (STILL, STILL, W(3, 2, 1, 1), W(3, 2, 1, 1))),
    "gaps between windows": ((3, 11, 8), (STILL, W(2, 3), W(3, 4, 0, 1))),
    "negative padding and dilations": ((3, 13, 11), (STILL, W(3, 2, -1, 3, 1, 2), W(2, 3, 1, -2, 2, 1))),
    "every dimension": ((6, 8, 10), (W(2, 1, 1), W(3, 2), W(2, 1, 1, 1))),
    "many rows": ((300, 9), (STILL, W(3, 2, 1, 1))),
}


def windows(dims: tuple[WindowDimension, ...]) -> str:
    def each(form: str) -> str:
        return "x".join(form.format(d=d) for d in dims)
    return (f"window={{size={each('{d.size}')} stride={each('{d.stride}')} pad={each('{d.padding_low}_{d.padding_high}')} "
            f"lhs_dilate={each('{d.base_dilation}')} rhs_dilate={each('{d.window_dilation}')}}}")


def shapes(dims: tuple[int, ...], window: tuple[WindowDimension, ...]) -> tuple[str, str]:
    places = [windowed_size(size, w) for size, w in zip(dims, window, strict=True)]
    return ",".join(map(str, dims)), ",".join(map(str, places))


def values(dims: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    """Few distinct values, so that windows hold equal ones."""
    return np.random.default_rng(seed).integers(-5, 5, dims).astype(np.float32)


@pytest.mark.parametrize("optlevel", LEVELS)
@pytest.mark.parametrize("case", WINDOWS)
def test_largest_with_its_index(case: str, optlevel: int) -> None:
    dims, window = WINDOWS[case]
    given, out = shapes(dims, window)
    text = f"""HloModule m
pick {{
  a = f32[] parameter(0)
  i = s32[] parameter(1)
  b = f32[] parameter(2)
  j = s32[] parameter(3)
  first = pred[] compare(a, b), direction=GE
  v = f32[] select(first, a, b)
  k = s32[] select(first, i, j)
  ROOT t = (f32[], s32[]) tuple(v, k)
}}
ENTRY main {{
  x = f32[{given}] parameter(0)
  n = s32[{given}] parameter(1)
  low = f32[] constant(-inf)
  none = s32[] constant(-1)
  ROOT r = (f32[{out}], s32[{out}]) reduce-window(x, n, low, none), {windows(window)}, to_apply=pick
}}
"""
    check_text(text, [values(dims, 0), np.arange(np.prod(dims)).reshape(dims).astype(np.int32)], optlevel=optlevel)


def test_combiner_that_keeps_the_later_cell() -> None:
    check_text(f"""HloModule m
later {{
  a = f32[] parameter(0)
  ROOT b = f32[] parameter(1)
}}
ENTRY main {{
  x = f32[3,12] parameter(0)
  z = f32[] constant(7)
  ROOT r = f32[3,14] reduce-window(x, z), {windows((STILL, W(3, 1, 2, 2)))}, to_apply=later
}}
""", [values((3, 12), 0)])


@pytest.mark.parametrize("optlevel", LEVELS)
@pytest.mark.parametrize("direction", ("GE", "GT"))
@pytest.mark.parametrize("case", WINDOWS)
def test_source_goes_to_the_selected_element(case: str, direction: str, optlevel: int) -> None:
    dims, window = WINDOWS[case]
    given, places = shapes(dims, window)
    count = tuple(map(int, places.split(",")))
    text = f"""HloModule m
select {{
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = pred[] compare(a, b), direction={direction}
}}
add {{
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b)
}}
ENTRY main {{
  x = f32[{given}] parameter(0)
  g = f32[{places}] parameter(1)
  z = f32[] constant(2)
  ROOT r = f32[{given}] select-and-scatter(x, g, z), {windows(window)}, select=select, scatter=add
}}
"""
    check_text(text, [values(dims, 0), values(count, 1)], optlevel=optlevel)
