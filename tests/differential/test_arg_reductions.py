"""Places of extremes: of equals the first, and the first NaN before all numbers, in short rows and long ones."""

from __future__ import annotations

import numpy as np
import pytest

from harness.clocked import microseconds
from harness.combiners import first_of
from harness.whole import check_whole


def arg(dtype: str, dims: tuple[int, ...], direction: str, along: int = -1) -> str:
    last = along % len(dims)
    rows = dims[:last] + dims[last + 1:]
    x, outer = f"{dtype}[{','.join(map(str, dims))}]", ",".join(map(str, rows))
    limit = {"GT": "-inf", "LT": "inf"}[direction]
    return f"""HloModule m
{first_of("pick", dtype, direction)}ENTRY main {{
  x = {x} parameter(0)
  n = s32{x[len(dtype):]} iota(), iota_dimension={last}
  limit = {dtype}[] constant({limit})
  zero = s32[] constant(0)
  r = ({dtype}[{outer}], s32[{outer}]) reduce(x, n, limit, zero), dimensions={{{last}}}, to_apply=pick
  ROOT p = s32[{outer}] get-tuple-element(r), index=1
}}
"""


@pytest.mark.parametrize("direction", ["GT", "LT"])
@pytest.mark.parametrize("dims", [(3, 7), (64, 5), (130, 1000), (2, 20000), (65, 13000)])
def test_the_first_extreme(dims: tuple[int, ...], direction: str) -> None:
    random = np.random.default_rng(1)
    values = random.integers(-3, 4, dims).astype(np.float32)
    values[random.random(dims) < 0.1] = -0.0
    rows = values.reshape(-1, dims[-1])
    if len(rows) > 2:
        rows[1, dims[-1] // 2] = np.inf if direction == "LT" else -np.inf
        rows[2, [dims[-1] // 3, dims[-1] - 1]] = np.nan
        rows[0] = -np.inf if direction == "GT" else np.inf
    check_whole(arg("f32", dims, direction), [values], levels=("2",))


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_narrow_values(dtype: str) -> None:
    check_whole(arg(dtype, (80, 300), "GT"), levels=("2",))


@pytest.mark.parametrize("dims, along", [((21, 300), 0), ((2, 9, 30, 11), 1), ((5, 16384), 0)], ids=str)
def test_along_other_dimensions(dims: tuple[int, ...], along: int) -> None:
    """As classes of pixels whose channels come first."""
    values = np.random.default_rng(2).integers(-3, 4, dims).astype(np.float32)
    values.reshape(-1)[7] = np.nan
    check_whole(arg("f32", dims, "GT", along), [values], strict=True)


def test_time_of_classes() -> None:
    """512 x 512 pixels of 21 classes took 13.6 ms."""
    assert microseconds(arg("f32", (1, 21, 512, 512), "GT", 1)) < 800
