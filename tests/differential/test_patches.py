"""Convolutions of patches side by side, as vision transformers begin: products of rows, with a class token before them."""

from __future__ import annotations

from harness.clocked import microseconds
from harness.whole import check_whole


def tokens(size: int, patch: int, width: int) -> str:
    """Patches [n, width] of an image of three channels, behind a class token."""
    side = size // patch
    grid, rows = f"f32[1,{width},{side},{side}]", f"f32[1,{side * side},{width}]"
    return f"""HloModule m
ENTRY main {{
  x = f32[1,3,{size},{size}] parameter(0)
  w = f32[{width},3,{patch},{patch}] parameter(1)
  bias = f32[{width}] parameter(2)
  first = f32[1,1,{width}] parameter(3)
  c = {grid} convolution(x, w), window={{size={patch}x{patch} stride={patch}x{patch}}}, dim_labels=bf01_oi01->bf01
  biases = {grid} broadcast(bias), dimensions={{1}}
  d = {grid} add(c, biases)
  e = f32[1,{width},{side * side}] reshape(d)
  f = {rows} transpose(e), dimensions={{0,2,1}}
  ROOT g = f32[1,{side * side + 1},{width}] concatenate(first, f), dimensions={{1}}
}}
"""


def test_tokens() -> None:
    check_whole(tokens(40, 8, 48), strict=True)
    check_whole(tokens(50, 16, 24), strict=True)


def test_tokens_take_long_transfers() -> None:
    # 0.6 MB of image in runs of a patch's rows, 2.4 MB of weights, which are turned here and not by the loader
    assert microseconds(tokens(224, 16, 768)) < 75
