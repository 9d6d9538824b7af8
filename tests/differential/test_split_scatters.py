"""Gradients of window maxima over images that do not fit on the chip whole."""

from __future__ import annotations

import numpy as np
import pytest

from harness.whole import check_whole

GRADIENT = """HloModule m
add {{ a = f32[] parameter(0) b = f32[] parameter(1) ROOT s = f32[] add(a, b) }}
ge {{ a = f32[] parameter(0) b = f32[] parameter(1) ROOT s = pred[] compare(a, b), direction=GE }}
ENTRY main {{
  x = f32[{dims}] parameter(0)
  g = f32[{windows}] parameter(1)
  zero = f32[] constant(0)
  ROOT s = f32[{dims}] select-and-scatter(x, g, zero), window={{{window}}}, select=ge, scatter=add
}}
"""


@pytest.mark.parametrize("dims, windows, window", [
    ("1,112,112,2", "1,56,56,2", "size=1x3x3x1 stride=1x2x2x1 pad=0_0x0_1x0_1x0_0"),
    ("2,100,96", "2,100,96", "size=1x3x3 stride=1x1x1 pad=0_0x1_1x1_1"),
    ("3,92,90", "3,46,45", "size=1x2x2 stride=1x2x2"),
    ("1,120,80", "1,30,27", "size=1x2x3 stride=1x4x3 pad=0_0x1_0x1_1")], ids=["stem", "overlapping", "side by side", "gaps"])
def test_large_images(dims: str, windows: str, window: str) -> None:
    random = np.random.default_rng(6)
    sizes, counts = ([int(size) for size in text.split(",")] for text in (dims, windows))
    values = [random.integers(-4, 5, sizes).astype(np.float32), random.integers(-8, 9, counts).astype(np.float32)]
    check_whole(GRADIENT.format(dims=dims, windows=windows, window=window), values, levels=("2",), strict=True)
