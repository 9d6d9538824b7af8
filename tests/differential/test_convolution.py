"""Convolutions on the device against the oracle: layouts, windows, groups, element types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from nxcc.compiler.driver import compile_module
from nxcc.compiler.options import options_from
from nxcc.ir.dtypes import dtype
from nxcc.ir.hlo.attributes import WindowDimension
from nxcc.ir.hlo.ops.reduction import windowed_size
from nxcc.ir.hlo.text.reader import read_text

from harness.device import check_text
from harness.whole import check_whole

LEVELS = (0, 1)
W = WindowDimension
FIRST, LAST = "bf01_oi01->bf01", "b01f_01io->b01f"


def windows(dims: Sequence[WindowDimension]) -> str:
    def each(form: str) -> str:
        return "x".join(form.format(d=d, reversal=int(d.reversal)) for d in dims)
    return (f"window={{size={each('{d.size}')} stride={each('{d.stride}')} pad={each('{d.padding_low}_{d.padding_high}')} "
            f"lhs_dilate={each('{d.base_dilation}')} rhs_dilate={each('{d.window_dilation}')} "
            f"rhs_reversal={each('{reversal}')}}}, ") if dims else ""


def module(data: tuple[str, Sequence[int]], weights: tuple[str, Sequence[int]], window: Sequence[WindowDimension], labels: str,
           result: str, features: int = 1, batches: int = 1) -> str:
    left, _, rest = labels.partition("_")
    right, _, out = rest.partition("->")
    sizes = {str(i): windowed_size(data[1][left.index(str(i))], w) for i, w in enumerate(window)}
    sizes |= {"b": data[1][left.index("b")] // batches, "f": weights[1][right.index("o")]}
    return f"""HloModule m
ENTRY main {{
  p = {data[0]}[{",".join(map(str, data[1]))}] parameter(0)
  q = {weights[0]}[{",".join(map(str, weights[1]))}] parameter(1)
  ROOT r = {result}[{",".join(str(sizes[c]) for c in out)}] convolution(p, q), {windows(window)}dim_labels={labels}, {
        ""}feature_group_count={features}, batch_group_count={batches}
}}
"""


def values(name: str, dims: Sequence[int], seed: int) -> np.ndarray[Any, Any]:
    """Positive floats, so that sums do not cancel; integers from their whole range."""
    random, kind = np.random.default_rng(seed), dtype(name).numpy
    if dtype(name).is_float:
        return random.uniform(0.25, 1, dims).astype(kind)
    limits = np.iinfo(kind)
    return random.integers(limits.min, limits.max, dims, endpoint=True).astype(kind)


def check(data: tuple[str, Sequence[int]], weights: tuple[str, Sequence[int]], window: Sequence[WindowDimension], labels: str,
          result: str = "f32", optlevel: int = 0, **groups: int) -> None:
    check_text(module(data, weights, window, labels, result, **groups), [values(*data, 0), values(*weights, 1)],
               optlevel=optlevel)


SAME = (W(3, 1, 1, 1), W(3, 1, 1, 1))
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[WindowDimension, ...], str, dict[str, int]]] = {
    "three channels": ((1, 3, 32, 32), (20, 3, 7, 7), (W(7, 2, 3, 3),) * 2, FIRST, {}),
    "three channels last": ((1, 32, 32, 3), (7, 7, 3, 20), (W(7, 2, 3, 3),) * 2, LAST, {}),
    "channels in two blocks": ((2, 130, 9, 9), (140, 130, 3, 3), SAME, FIRST, {}),
    "channels in two blocks last": ((2, 9, 9, 130), (3, 3, 130, 140), SAME, LAST, {}),
    "window of one": ((1, 260, 14, 14), (130, 260, 1, 1), (W(1, 2),) * 2, FIRST, {}),
    "uneven padding": ((2, 64, 20, 20), (32, 64, 3, 3), (W(3, 2, 1, 1), W(3, 1, 2, 0)), FIRST, {}),
    "groups": ((2, 6, 20, 20), (32, 3, 3, 3), SAME, FIRST, {"features": 2}),
    "depthwise with multiplier": ((2, 32, 20, 20), (64, 1, 3, 3), (W(3, 2, 1, 1),) * 2, FIRST, {"features": 32}),
    "depthwise dilated": ((2, 20, 20, 32), (3, 3, 1, 32), (W(3, 1, 1, 1, 2),) * 2, LAST, {"features": 32}),
    "groups of the batch": ((4, 8, 10, 10), (8, 8, 3, 3), SAME, FIRST, {"batches": 2}),
    "transposed": ((2, 8, 10, 10), (12, 8, 4, 4), (W(4, 1, 2, 3, 1, 3, True),) * 2, FIRST, {}),
    "negative padding": ((2, 8, 10, 10), (12, 8, 4, 4), (W(4, 1, -1, 3, 2, 1, True), W(4, 3, 1, -2)), FIRST, {}),
    "one dimension": ((2, 50, 8), (5, 8, 12), (W(5, 2, 2, 2),), "b0f_0io->b0f", {}),
    "three dimensions": ((2, 3, 7, 8, 9), (12, 3, 3, 3, 3), (W(3, 1, 1, 1), W(3, 2, 1), W(3, 1, 0, 1)), "bf012_oi012->bf012",
                         {}),
    "many taps": ((2, 4, 12, 12), (5, 4, 10, 10), (W(10, 1, 1, 1),) * 2, FIRST, {}),
    "gradient of the weights": ((16, 40, 40, 3), (16, 38, 38, 5), (W(38),) * 2, "f01b_i01o->01bf", {}),
    "no channels": ((2, 0, 9, 9), (4, 0, 3, 3), SAME, FIRST, {}),
    "no spatial dimension": ((2, 5), (5, 7), (), "bf_io->bf", {}),
    "strips of columns": ((1, 8, 3, 2000), (8, 8, 1, 9), (W(1), W(9, 1, 4, 4)), FIRST, {}),
    "strips of rows": ((1, 8, 300, 150), (8, 8, 3, 3), SAME, FIRST, {}),
}


@pytest.mark.parametrize("optlevel", LEVELS)
@pytest.mark.parametrize("case", CASES)
def test_forms_match(case: str, optlevel: int) -> None:
    data, weights, window, labels, groups = CASES[case]
    check(("f32", data), ("f32", weights), window, labels, optlevel=optlevel, **groups)


@pytest.mark.parametrize("optlevel", LEVELS)
@pytest.mark.parametrize("name", ("bf16", "f16", "f8e4m3", "f8e5m2"))
def test_narrow_floats_match(name: str, optlevel: int) -> None:
    check((name, (2, 20, 9, 9)), (name, (14, 20, 3, 3)), SAME, FIRST, name, optlevel)
    check((name, (2, 20, 9, 9)), (name, (20, 1, 3, 3)), SAME, FIRST, "f32", optlevel, features=20)
    check(("f32", (2, 20, 9, 9)), (name, (14, 20, 3, 3)), SAME, FIRST, "f32", optlevel)


@pytest.mark.parametrize("name", ("s8", "u8", "s16", "u16", "s32", "u32"))
def test_integers_wrap(name: str) -> None:
    check((name, (2, 150, 9, 9)), (name, (14, 150, 3, 3)), SAME, FIRST, "s32")
    check((name, (2, 10, 9, 9)), (name, (20, 1, 3, 3)), (W(3, 2, 1, 1, 1, 2),) * 2, FIRST, name, features=10)
    check((name, (2, 5, 12, 12)), (name, (6, 5, 10, 10)), (W(10, 1, 1, 1),) * 2, FIRST, name)


@pytest.mark.parametrize("optlevel", [0, 1])
def test_four_spatial_dimensions_are_left_to_the_host(optlevel: int) -> None:
    text = """HloModule m
ENTRY e {
  x = f32[1,3,5,5,5,5] parameter(0)
  k = f32[4,3,2,2,2,2] parameter(1)
  ROOT c = f32[1,4,4,4,4,4] convolution(x, k), window={size=2x2x2x2}, dim_labels=bf0123_oi0123->bf0123
}
"""
    plan = compile_module(read_text(text), options_from(optlevel=optlevel)).plan
    assert plan is not None
    assert [row.reason for row in plan.host] == ["a convolution of more than 3 spatial dimensions has no lowering"]


@pytest.mark.parametrize(("images", "channels", "width", "padding"), [
    (5, 130, 3000, "1_1"), (2, 40, 6000, "0_2"), (3, 6, 17, "1_0")])
def test_images_of_a_depthwise_convolution_follow_each_other(images: int, channels: int, width: int, padding: str) -> None:
    """Each image in tiles of its own, zeros at the ends of its rows."""
    out = width - 2 + sum(map(int, padding.split("_")))
    check_whole(f"""HloModule depthwise
ENTRY main {{
  %x = f32[{images},{channels},{width}] parameter(0)
  %w = f32[{channels},1,3] parameter(1)
  ROOT %c = f32[{images},{channels},{out}] convolution(%x, %w), window={{size=3 pad={padding}}}, dim_labels=bf0_oi0->bf0,
    feature_group_count={channels}
}}
""", levels=("0", "2"), strict=images < 3)
