"""Images whose channels are their last dimension, as jax writes them: work between convolutions goes along memory."""

from __future__ import annotations

import pytest

from harness.clocked import microseconds
from harness.whole import check_whole


def group_norm(size: int, channels: int, groups: int) -> str:
    """A convolution, a norm over groups of channels with factor and offset, a convolution; two images."""
    each = channels // groups
    image, split, stat = f"f32[2,{size},{size},{channels}]", f"f32[2,{size * size},{groups},{each}]", f"f32[2,{groups}]"
    conv = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"
    return f"""HloModule m
add {{ a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT c = f32[] add(a, b) }}
ENTRY main {{
  x = {image} parameter(0)
  w = f32[3,3,{channels},{channels}] parameter(1)
  factor = f32[{channels}] parameter(2)
  offset = f32[{channels}] parameter(3)
  c = {image} convolution(x, w), {conv}
  d = {split} reshape(c)
  zero = f32[] constant(0)
  count = f32[] constant({size * size * each})
  counts = {stat} broadcast(count), dimensions={{}}
  total = {stat} reduce(d, zero), dimensions={{1,3}}, to_apply=add
  mean = {stat} divide(total, counts)
  means = {split} broadcast(mean), dimensions={{0,2}}
  e = {split} subtract(d, means)
  squares = {split} multiply(e, e)
  spread = {stat} reduce(squares, zero), dimensions={{1,3}}, to_apply=add
  variance = {stat} divide(spread, counts)
  r = {stat} rsqrt(variance)
  rs = {split} broadcast(r), dimensions={{0,2}}
  n = {split} multiply(e, rs)
  factors0 = f32[{groups},{each}] reshape(factor)
  factors = {split} broadcast(factors0), dimensions={{2,3}}
  offsets0 = f32[{groups},{each}] reshape(offset)
  offsets = {split} broadcast(offsets0), dimensions={{2,3}}
  f = {split} multiply(n, factors)
  o = {split} add(f, offsets)
  y = {image} reshape(o)
  ROOT z = {image} convolution(y, w), {conv}
}}
"""


@pytest.mark.parametrize(("size", "channels", "groups"), [(6, 32, 8), (11, 64, 4), (5, 12, 3)])
def test_group_norm(size: int, channels: int, groups: int) -> None:
    check_whole(group_norm(size, channels, groups), strict=True)


def test_group_norm_goes_along_memory() -> None:
    # 0.6 MB are moved some ten times: 30 us of transfers, and as much of latency.
    assert microseconds(group_norm(24, 32, 8)) < 800
