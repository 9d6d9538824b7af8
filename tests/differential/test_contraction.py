"""Dot on the device against the oracle: dimension orders, awkward sizes, element types, integers that wrap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from nxcc.backends.codegen.code import DeviceNode
from nxcc.backends.codegen.generator import generate
from nxcc.backends.target import load_target
from nxcc.ir.dtypes import dtype
from nxcc.ir.hlo.ops.contraction import DotDims
from nxcc.ir.hlo.text.reader import read_text

from harness.device import check_text
from harness.whole import check_whole

LEVELS = (0, 1)


def module(left: tuple[str, Sequence[int]], right: tuple[str, Sequence[int]], dims: DotDims, result: str = "f32") -> str:
    sizes = [left[1][d] for d in (*dims.lhs_batch, *dims.lhs_free(len(left[1])))]
    sizes += [right[1][d] for d in dims.rhs_free(len(right[1]))]

    def listed(values: Sequence[int]) -> str:
        return ",".join(map(str, values))
    return f"""HloModule m
ENTRY main {{
  p = {left[0]}[{listed(left[1])}] parameter(0)
  q = {right[0]}[{listed(right[1])}] parameter(1)
  ROOT r = {result}[{listed(sizes)}] dot(p, q), lhs_batch_dims={{{listed(dims.lhs_batch)}}}, rhs_batch_dims={{{
        listed(dims.rhs_batch)}}}, lhs_contracting_dims={{{listed(dims.lhs_contracting)}}}, rhs_contracting_dims={{{
        listed(dims.rhs_contracting)}}}
}}
"""


def values(name: str, dims: Sequence[int], seed: int) -> np.ndarray[Any, Any]:
    """Positive floats, so that sums do not cancel; integers from their whole range."""
    random, kind = np.random.default_rng(seed), dtype(name).numpy
    if dtype(name).is_float:
        return random.uniform(0.25, 1, dims).astype(kind)
    if name == "pred":
        return random.integers(0, 2, dims).astype(kind)
    limits = np.iinfo(kind)
    return random.integers(limits.min, limits.max, dims, endpoint=True).astype(kind)


def check(left: tuple[str, Sequence[int]], right: tuple[str, Sequence[int]], dims: DotDims, result: str = "f32",
          optlevel: int = 0, tolerance: float | None = None) -> None:
    inputs = [values(*left, 0), values(*right, 1)]
    check_text(module(left, right, dims, result), inputs, tolerance, optlevel)


MATRICES = DotDims((), (1,), (), (0,))
SHAPES = {
    "rows by columns": ((7, 5), (5, 9), MATRICES),
    "several tiles": ((300, 700), (700, 600), MATRICES),
    "right turned": ((130, 300), (600, 300), DotDims((), (1,), (), (1,))),
    "left turned": ((300, 130), (300, 600), DotDims((), (0,), (), (0,))),
    "both turned": ((300, 130), (600, 300), DotDims((), (0,), (), (1,))),
    "one row": ((1, 300), (300, 600), MATRICES),
    "one column": ((300, 130), (130, 1), MATRICES),
    "matrix by vector": ((300, 130), (130,), DotDims((), (1,), (), (0,))),
    "vectors": ((300,), (300,), DotDims((), (0,), (), (0,))),
    "outer product": ((7,), (3,), DotDims((), (), (), ())),
    "scalars": ((), (), DotDims((), (), (), ())),
    "no rows": ((0, 5), (5, 3), MATRICES),
    "sum over nothing": ((4, 0), (0, 3), MATRICES),
    "batches in the middle": ((17, 3, 2, 33), (33, 2, 21, 3), DotDims((2, 1), (3,), (1, 3), (0,))),
    "heads joined in blocks": ((4, 12, 20, 64), (12, 64, 100), DotDims((), (1, 3), (), (0, 1))),
    "heads of an odd size": ((4, 5, 20, 80), (5, 80, 100), DotDims((), (1, 3), (), (0, 1))),
    "heads larger than a block": ((4, 5, 20, 200), (5, 200, 30), DotDims((), (1, 3), (), (0, 1))),
    "three summed dimensions apart": ((4, 5, 20, 6, 7), (7, 5, 11, 20), DotDims((), (1, 2, 4), (), (1, 3, 0))),
    "rows and columns apart": ((6, 7, 8, 9), (9, 5, 7, 4), DotDims((), (3, 1), (), (0, 2))),
    "left too deep to stay": ((3, 26000), (26000, 7), MATRICES),
}


@pytest.mark.parametrize("optlevel", LEVELS)
@pytest.mark.parametrize("case", SHAPES)
def test_dimensions_in_all_orders_match(case: str, optlevel: int) -> None:
    left, right, dims = SHAPES[case]
    check(("f32", left), ("f32", right), dims, optlevel=optlevel)


UNEVEN = {
    "columns computed twice": ((200, 300), (300, 1031), MATRICES),
    "rows computed twice": ((1090, 260), (260, 1100), MATRICES),
    "a smaller block of rows": ((1664, 1100), (1100, 1030), MATRICES),
    "a partial block of k": ((1100, 1031), (1031, 1024), MATRICES),
    "turned operands": ((1031, 1100), (1090, 1031), DotDims((), (0,), (), (1,))),
    "right turned": ((1100, 1031), (1090, 1031), DotDims((), (1,), (), (1,))),
}
"""Sizes that no tile divides, large enough for several blocks of rows and tiles of columns."""


@pytest.mark.parametrize("name", ("bf16", "f32"))
@pytest.mark.parametrize("case", UNEVEN)
def test_sizes_that_do_not_come_out_even_match(case: str, name: str) -> None:
    left, right, dims = UNEVEN[case]
    check((name, left), (name, right), dims, name, optlevel=2)


@pytest.mark.parametrize("optlevel", LEVELS)
@pytest.mark.parametrize("right", ("f32", "bf16", "f8e4m3"))
@pytest.mark.parametrize("left", ("f32", "bf16", "f16", "f8e4m3", "f8e5m2", "f8e3m4", "s8", "pred"))
def test_mixed_types_match(left: str, right: str, optlevel: int) -> None:
    check((left, (20, 150)), (right, (150, 30)), MATRICES, "f32", optlevel, tolerance=1e-4)


@pytest.mark.parametrize("result", ("f32", "bf16", "f16", "f8e5m2"))
def test_sums_are_rounded_once(result: str) -> None:
    check(("bf16", (20, 150)), ("bf16", (150, 30)), MATRICES, result)


@pytest.mark.parametrize("result", ("s8", "u16", "s32", "u32"))
@pytest.mark.parametrize("name", ("s8", "u8", "s16", "u16", "s32", "u32", "pred"))
def test_integer_products_wrap(name: str, result: str) -> None:
    check((name, (20, 300)), (name, (300, 7)), MATRICES, result)


def test_truth_products_are_any_of_ands() -> None:
    check(("pred", (20, 300)), ("pred", (300, 7)), MATRICES, "pred")
    check(("pred", (20, 2)), ("pred", (2, 7)), MATRICES, "pred")


def instructions(size: int, optlevel: int) -> int:
    parsed = read_text(module(("bf16", (size, size)), ("bf16", (size, size)), MATRICES, "bf16"))
    left, right = parsed.entry.parameters
    shapes = {"left": left.shape, "right": right.shape, "out": parsed.entry.root.shape}
    code = generate([DeviceNode("main", parsed, ("left", "right"), ("out",))], shapes, load_target("v2"), optlevel=optlevel)
    return sum(len(stream) for function in code.program.functions for stream in function.streams.values())


@pytest.mark.parametrize("optlevel", LEVELS)
def test_code_does_not_grow_with_the_matrix(optlevel: int) -> None:
    """Loops bound it, whatever the cut: a small product needs fewer of them."""
    assert instructions(8192, optlevel) <= 1.25 * instructions(4096, optlevel)
    assert instructions(8192, optlevel) < 1000


@pytest.mark.parametrize("kind", ("f32", "bf16", "f16"))
def test_a_large_right_side_that_lies_along_k_is_turned_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, before the product; small ones here, as if they were large."""
    text = module((kind, (150, 200)), (kind, (170, 200)), DotDims((), (1,), (), (1,)))
    check_whole(text, strict=True)
    monkeypatch.setattr("nxcc.backends.lowering.contraction.TURNED_FIRST", 100)
    check_whole(text, strict=True)
    deep = module((kind, (150, 4, 50)), (kind, (170, 4, 50)), DotDims((), (1, 2), (), (1, 2)))
    check_whole(deep, strict=True)


def test_left_sides_are_turned_through_an_odd_number_of_banks() -> None:
    """Three blocks of rows, of which each has sums of its own: engines that empty banks by turns take two of the three."""
    check_whole("""HloModule m
ENTRY e {
  x = f32[288,64] parameter(0)
  w = f32[64,64] parameter(1)
  v = f32[64,64] parameter(2)
  a = f32[288,64] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  b = f32[288,64] dot(a, v), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT t = (f32[288,64], f32[288,64]) tuple(a, b)
}
""", levels=("2",), strict=True)
