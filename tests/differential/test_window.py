"""Reduce-window on the device against the oracle: strides, padding, dilations, cumulative windows, all dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nxcc.ir.dtypes import dtype
from nxcc.ir.hlo.attributes import WindowDimension
from nxcc.ir.hlo.ops.reduction import windowed_size

from harness.device import check_text

LEVELS = (0, 1)
STILL = WindowDimension(1)
W = WindowDimension
FLOATS = ("f32", "bf16", "f16")
INTEGERS = ("s8", "u8", "s16", "u16", "s32", "u32")


def windows(dims: tuple[WindowDimension, ...]) -> str:
    """The attribute as HLO text writes it."""
    def each(form: str) -> str:
        return "x".join(form.format(d=d) for d in dims)
    return (f"window={{size={each('{d.size}')} stride={each('{d.stride}')} pad={each('{d.padding_low}_{d.padding_high}')} "
            f"lhs_dilate={each('{d.base_dilation}')} rhs_dilate={each('{d.window_dilation}')}}}")


def module(name: str, dims: tuple[int, ...], combiner: str, window: tuple[WindowDimension, ...], initial: str) -> str:
    out = ",".join(str(windowed_size(size, w)) for size, w in zip(dims, window, strict=True))
    return f"""HloModule m
combine {{
  a = {name}[] parameter(0)
  b = {name}[] parameter(1)
  ROOT r = {name}[] {combiner}(a, b)
}}
ENTRY main {{
  p = {name}[{",".join(map(str, dims))}] parameter(0)
  z = {name}[] constant({initial})
  ROOT r = {name}[{out}] reduce-window(p, z), {windows(window)}, to_apply=combine
}}
"""


def values(name: str, dims: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Positive floats, so that sums do not cancel; integers from their whole range."""
    random, kind = np.random.default_rng(0), dtype(name).numpy
    if dtype(name).is_float:
        return random.uniform(0.5, 1.5, dims).astype(kind)
    if name == "pred":
        return random.integers(0, 2, dims).astype(kind)
    limits = np.iinfo(kind)
    return random.integers(limits.min, limits.max, dims, endpoint=True).astype(kind)


def check(name: str, dims: tuple[int, ...], combiner: str, window: tuple[WindowDimension, ...], initial: str = "3",
          optlevel: int = 0) -> None:
    """The device rounds a window of narrow floats once, XLA after each cell."""
    tolerance = {"bf16": 2.0**-6, "f16": 2.0**-9}.get(name)
    check_text(module(name, dims, combiner, window, initial), [values(name, dims)], tolerance, optlevel)


SHAPES = {
    "channels first": ((2, 5, 13, 17), "maximum", (STILL, STILL, W(3, 2, 1, 1), W(3, 2, 1, 1))),
    "channels last": ((2, 13, 17, 70), "maximum", (STILL, W(3, 2, 1, 1), W(2, 2, 0, 1), STILL)),
    "many rows": ((3, 130, 9, 7), "add", (STILL, STILL, W(2, 1), W(3, 3))),
    "negative padding and dilations": ((3, 4, 13, 11), "add", (STILL, STILL, W(3, 2, -1, 3, 1, 2), W(2, 3, 1, -2, 2, 1))),
    "every dimension": ((3, 3, 6, 8, 10), "multiply", (W(2), W(2), W(2, 1, 1), W(3, 2), W(3, 1, 1, 1))),
    "base dilation only": ((2, 2, 2, 2), "multiply", (W(1, base_dilation=2),) * 4),
    "strips along one dimension": ((40000,), "add", (W(5, 1, 2, 2),)),
    "window larger than the data": ((32, 3), "add", (W(63, 1, 31, 31), STILL)),
    "wide window": ((2, 3000), "add", (STILL, W(700, 3, 0, 20))),
    "nothing in any window": ((0, 4), "add", (W(1, 1, 2), W(2))),
    "no window": ((7, 4), "add", (W(9), W(2))),
    "padding and no cells": ((1, 32, 6), "add", (STILL, W(1, 1, 1), STILL)),
    "cumulative": ((3, 5000), "add", (STILL, W(5000, 1, 4999))),
    "cumulative from the end": ((3, 50, 2), "maximum", (STILL, W(50, 1, 0, 49), STILL)),
}


@pytest.mark.parametrize("optlevel", LEVELS)
@pytest.mark.parametrize("case", SHAPES)
def test_windows_of_all_forms_match(case: str, optlevel: int) -> None:
    dims, combiner, window = SHAPES[case]
    check("f32", dims, combiner, window, optlevel=optlevel)


@pytest.mark.parametrize("name", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize("combiner", ("add", "multiply", "maximum", "minimum"))
def test_arithmetic_of_every_type_matches(combiner: str, name: str) -> None:
    check(name, (13, 17), combiner, (W(3, 2, 1, 1), W(2, 1, 0, 3, 2)))


@pytest.mark.parametrize("name", [*INTEGERS, "pred"])
@pytest.mark.parametrize("combiner", ("and", "or", "xor"))
def test_bit_operators_match(combiner: str, name: str) -> None:
    if (combiner, name) != ("xor", "pred"):
        check(name, (13, 17), combiner, (W(3, 2, 1, 1), W(2, 1, 0, 3, 2)), "true" if name == "pred" else "5")


@pytest.mark.parametrize("name", INTEGERS)
def test_cumulative_integers_wrap(name: str) -> None:
    check(name, (130, 70), "add", (STILL, W(70, 1, 69)), "1")
    check(name, (3, 5000), "multiply", (STILL, W(5000, 1, 0, 4999)), "1")


@pytest.mark.parametrize("combiner", ("add", "maximum", "minimum"))
@pytest.mark.parametrize("window", [(W(3, 1, 1, 1),), (W(40, 1, 39),)], ids=("short", "cumulative"))
def test_nan_and_infinity_propagate(window: tuple[WindowDimension, ...], combiner: str) -> None:
    data = np.linspace(1, 2, 40).astype(np.float32)
    data[[7, 20]] = np.nan, np.inf
    check_text(module("f32", (40,), combiner, window, "0"), [data])


def test_windows_in_padding_that_counts():
    """The initial value is added for each cell of padding; pieces of padding alone are a loop."""
    text = """HloModule m
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}
ENTRY %main (x: f32[5]) -> f32[200009] {
  %x = f32[5] parameter(0)
  %three = f32[] constant(3)
  ROOT %r = f32[200009] reduce-window(%x, %three), window={size=4 pad=70003_130004}, to_apply=%add
}
"""
    for level in (0, 2):
        check_text(text, optlevel=level)
