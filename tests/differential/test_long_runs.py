"""Transfers of elements that lie apart: long runs move, and an engine picks or orders their elements."""

import pytest

from harness.clocked import microseconds
from harness.whole import check_whole

BANDWIDTH = 272e3
"""Bytes a microsecond."""


def interleave(rows: int, columns: int, dtype: str = "f32") -> str:
    """Pairs of neighbours turned by an angle each: (a, b) -> (a - 2 b, b + 2 a)."""
    half, pair = f"{dtype}[{rows},{columns // 2}]", f"{dtype}[{rows},{columns // 2},1]"
    whole = f"{dtype}[{rows},{columns}]"
    return f"""HloModule rotary
ENTRY main {{
  x = {whole} parameter(0)
  a = {half} slice(x), slice={{[0:{rows}], [0:{columns}:2]}}
  b = {half} slice(x), slice={{[0:{rows}], [1:{columns}:2]}}
  two = {dtype}[] constant(2)
  twos = {half} broadcast(two), dimensions={{}}
  bb = {half} multiply(b, twos)
  aa = {half} multiply(a, twos)
  first = {half} subtract(a, bb)
  second = {half} add(b, aa)
  fs = {pair} reshape(first)
  ss = {pair} reshape(second)
  both = {dtype}[{rows},{columns // 2},2] concatenate(fs, ss), dimensions={{2}}
  ROOT out = {whole} reshape(both)
}}"""


def shuffle(images: int, channels: int, side: int, dtype: str = "f32") -> str:
    """Depth to space: four channels become a square of places."""
    return f"""HloModule shuffle
ENTRY main {{
  x = {dtype}[{images},{4 * channels},{side},{side}] parameter(0)
  apart = {dtype}[{images},{channels},2,2,{side},{side}] reshape(x)
  turned = {dtype}[{images},{channels},{side},2,{side},2] transpose(apart), dimensions={{0,1,4,2,5,3}}
  ROOT out = {dtype}[{images},{channels},{2 * side},{2 * side}] reshape(turned)
}}"""


def repeat(images: int, channels: int, side: int) -> str:
    """Nearest neighbours of twice the size."""
    return f"""HloModule repeat
ENTRY main {{
  x = f32[{images},{channels},{side},{side}] parameter(0)
  wide = f32[{images},{channels},{side},2,{side},2] broadcast(x), dimensions={{0,1,2,4}}
  ROOT out = f32[{images},{channels},{2 * side},{2 * side}] reshape(wide)
}}"""


def running_sum(rows: int, columns: int) -> str:
    """Sums down the columns."""
    return f"""HloModule running
add {{
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b)
}}
ENTRY main {{
  x = f32[{rows},{columns}] parameter(0)
  zero = f32[] constant(0)
  ROOT out = f32[{rows},{columns}] reduce-window(x, zero), window={{size={rows}x1 pad={rows - 1}_0x0_0}}, to_apply=add
}}"""


def backwards(rows: int, columns: int) -> str:
    return f"""HloModule backwards
ENTRY main {{
  x = f32[{rows},{columns}] parameter(0)
  turned = f32[{rows},{columns}] reverse(x), dimensions={{1}}
  ROOT out = f32[{rows},{columns}] add(x, turned)
}}"""


def thinned(rows: int, columns: int, step: int) -> str:
    left = -(-columns // step)
    return f"""HloModule thinned
ENTRY main {{
  x = f32[{rows},{columns}] parameter(0)
  part = f32[{rows},{left}] slice(x), slice={{[0:{rows}], [0:{columns}:{step}]}}
  ROOT out = bf16[{rows},{left}] convert(part)
}}"""


def counts(rows: int, columns: int, dtype: str = "s32") -> str:
    """Counts along rows."""
    return f"""HloModule counts
ENTRY main {{
  x = {dtype}[{rows}] parameter(0)
  n = {dtype}[{rows},{columns}] iota(), iota_dimension=1
  xs = {dtype}[{rows},{columns}] broadcast(x), dimensions={{0}}
  ROOT out = {dtype}[{rows},{columns}] add(n, xs)
}}"""


def one_hot_sum(rows: int, columns: int) -> str:
    """Zeros to which one element a row is added."""
    return f"""HloModule slopes
add {{
  a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT s = f32[] add(a, b)
}}
ENTRY main {{
  at = s32[{rows},2] constant({{{",".join(f"{{{r},{r * 7 % columns}}}" for r in range(rows))}}})
  x = f32[{rows}] parameter(0)
  zero = f32[] constant(0)
  zeros = f32[{rows},{columns}] broadcast(zero), dimensions={{}}
  ROOT out = f32[{rows},{columns}] scatter(zeros, at, x), update_window_dims={{}}, inserted_window_dims={{0,1}},
    scatter_dims_to_operand_dims={{0,1}}, index_vector_dim=1, to_apply=add
}}"""


@pytest.mark.parametrize("text", [
    interleave(256, 1024), interleave(130, 300, "bf16"), interleave(3, 4096, "s32"), shuffle(2, 40, 12),
    shuffle(1, 130, 8, "bf16"), shuffle(2, 16, 20, "s8"), repeat(1, 33, 24), running_sum(64, 300), running_sum(200, 70),
    backwards(200, 260), thinned(140, 700, 3), thinned(64, 8191, 7),
    counts(130, 5000), counts(3, 700, "u8"), counts(300, 9, "s16"), one_hot_sum(20, 3001),
], ids=range(16))
def test_results(text):
    check_whole(text)


@pytest.mark.parametrize(("text", "moved"), [
    (interleave(4096, 2048), 7 * 4 * 4096 * 1024 * 2), (shuffle(4, 64, 64), 2 * 4 * 4 * 256 * 64 * 64),
    (repeat(2, 128, 64), 5 * 4 * 2 * 128 * 64 * 64), (running_sum(2048, 2048), 6 * 4 * 2048 * 2048),
    (counts(2048, 4096), 5 * 4 * 2048 * 4096), (one_hot_sum(16, 1 << 18), 4 * 16 << 18),
    (backwards(2048, 2048), 3 * 4 * 2048 * 2048), (thinned(2048, 4096, 4), 5 * 2048 * 4096),
], ids=["interleave", "shuffle", "repeat", "running sum", "counts", "slopes", "backwards", "thinned"])
def test_time_is_that_of_long_runs(text, moved):
    """moved: bytes of operands and results of all regions."""
    assert microseconds(text) < 2 * moved / BANDWIDTH + 30
