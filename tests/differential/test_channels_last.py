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
    assert microseconds(group_norm(24, 32, 8)) < 150


def stem(size: int, channels: int, outputs: int) -> str:
    """An image as it comes from a camera through two convolutions, back to an image."""
    back = f"f32[1,{size},{size},{channels}]"
    wide = f"f32[1,{size},{size},{outputs}]"
    conv = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"
    return f"""HloModule m
ENTRY main {{
  x = {back} parameter(0)
  w = f32[3,3,{channels},{outputs}] parameter(1)
  v = f32[3,3,{outputs},{channels}] parameter(2)
  c = {wide} convolution(x, w), {conv}
  t = {wide} tanh(c)
  ROOT d = {back} convolution(t, v), {conv}
}}
"""


@pytest.mark.parametrize(("size", "channels", "outputs"), [(20, 3, 32), (33, 5, 64), (16, 40, 32)])
def test_images_from_outside(size: int, channels: int, outputs: int) -> None:
    check_whole(stem(size, channels, outputs), strict=True)


def test_images_from_outside_come_in_runs() -> None:
    assert microseconds(stem(112, 3, 64)) < 150


def layer_norm(size: int, channels: int) -> str:
    """A convolution, a norm over channels, a product of channels, and the image added again."""
    image, stat = f"f32[1,{size},{size},{channels}]", f"f32[1,{size},{size}]"
    return f"""HloModule m
add {{ a = f32[] parameter(0)  b = f32[] parameter(1)  ROOT c = f32[] add(a, b) }}
ENTRY main {{
  x = {image} parameter(0)
  w = f32[3,3,{channels},{channels}] parameter(1)
  m = f32[{channels},{channels}] parameter(2)
  c = {image} convolution(x, w), window={{size=3x3 pad=1_1x1_1}}, dim_labels=b01f_01io->b01f
  zero = f32[] constant(0)
  count = f32[] constant({1 / channels})
  counts = {stat} broadcast(count), dimensions={{}}
  total = {stat} reduce(c, zero), dimensions={{3}}, to_apply=add
  mean = {stat} multiply(total, counts)
  means = {image} broadcast(mean), dimensions={{0,1,2}}
  e = {image} subtract(c, means)
  squares = {image} multiply(e, e)
  spread = {stat} reduce(squares, zero), dimensions={{3}}, to_apply=add
  variance = {stat} multiply(spread, counts)
  r = {stat} rsqrt(variance)
  rs = {image} broadcast(r), dimensions={{0,1,2}}
  n = {image} multiply(e, rs)
  d = {image} dot(n, m), lhs_contracting_dims={{3}}, rhs_contracting_dims={{0}}
  ROOT z = {image} add(c, d)
}}
"""


def test_layer_norm() -> None:
    check_whole(layer_norm(9, 32), strict=True)
    check_whole(layer_norm(14, 96), strict=True)


def test_layer_norm_comes_in_runs() -> None:
    assert microseconds(layer_norm(28, 128)) < 150


def test_an_image_added_as_it_lies_elsewhere() -> None:
    """The sum of a convolution's result, channels first in memory, with one that comes with channels last and a time's row."""
    check_whole("""HloModule m
ENTRY main {
  x = f32[2,12,12,32] parameter(0)
  w = f32[3,3,32,32] parameter(1)
  y = f32[2,12,12,32] parameter(2)
  row = f32[2,32] parameter(3)
  c = f32[2,12,12,32] convolution(x, w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
  rows = f32[2,12,12,32] broadcast(row), dimensions={0,3}
  d = f32[2,12,12,32] add(c, rows)
  e = f32[2,12,12,32] convolution(d, w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
  f = f32[2,12,12,32] atan2(e, y)
  ROOT g = f32[2,12,12,32] add(f, rows)
}
""", strict=True)


def test_a_number_that_repeats_over_an_image_is_there_until_the_last_piece_of_the_sum_is_made() -> None:
    check_whole("""HloModule m
ENTRY main {
  x = f32[2,24,24,8] parameter(0)
  w = f32[3,3,8,32] parameter(1)
  t = f32[2,32] parameter(2)
  bias = f32[32] parameter(3)
  b = f32[2,24,24,32] broadcast(t), dimensions={0,3}
  c = f32[2,24,24,32] broadcast(bias), dimensions={3}
  y = f32[2,24,24,32] convolution(x, w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
  z = f32[2,24,24,32] add(y, c)
  ROOT r = f32[2,24,24,32] add(z, b)
}
""", strict=True)
