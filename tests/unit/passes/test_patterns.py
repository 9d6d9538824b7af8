"""How dimensions of a reshape correspond, and which element types hold which."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nxcc.ir.dtypes import BF16, F8E4M3FN, F16, F32, F64, PRED, S8, S32, S64, U8, U32, DType
from nxcc.passes.patterns import holds_exactly, segments

SHAPES = [((2, 32, 64), (64, 64)), ((64, 128), (2, 32, 2, 64)), ((1, 4, 1), (4,)), ((4,), (1, 4, 1)), ((6, 4), (4, 6)),
          ((), (1,)), ((2, 1, 3), (2, 3)), ((12,), (12,))]


@pytest.mark.parametrize(("source", "result"), SHAPES)
def test_segments_cover_all_dimensions_in_order_with_equal_products(source: tuple[int, ...], result: tuple[int, ...]) -> None:
    found = segments(source, result)
    assert [d for left, _ in found for d in left] == list(range(len(source)))
    assert [d for _, right in found for d in right] == list(range(len(result)))
    for left, right in found:
        assert math.prod(source[d] for d in left) == math.prod(result[d] for d in right)


def test_segments_are_as_fine_as_they_can_be() -> None:
    assert segments((2, 32, 64), (64, 64)) == (((0, 1), (0,)), ((2,), (1,)))
    assert segments((1, 4, 1), (4,)) == (((0,), ()), ((1,), (0,)), ((2,), ()))


HOLDS = [(PRED, S8, True), (S8, S32, True), (U8, S8, False), (U8, S32, True), (S32, U32, False), (S32, S64, True),
         (S32, F32, False), (S32, F64, True), (S8, BF16, True), (BF16, F32, True), (F16, BF16, False), (BF16, F16, False),
         (F8E4M3FN, F16, True), (F32, F16, False)]


@pytest.mark.parametrize(("narrow", "wide", "wanted"), HOLDS)
def test_holds_exactly(narrow: DType, wide: DType, wanted: bool) -> None:
    assert holds_exactly(narrow, wide) is wanted


@pytest.mark.parametrize(("narrow", "wide"), [(narrow, wide) for narrow, wide, wanted in HOLDS if wanted and narrow.bits <= 8])
def test_what_holds_exactly_comes_back(narrow: DType, wide: DType) -> None:
    patterns = np.arange(2 if narrow is PRED else 256).astype(np.uint8).view(narrow.numpy)
    back = patterns.astype(wide.numpy).astype(narrow.numpy)
    assert np.array_equal(patterns.astype(np.float64), back.astype(np.float64), equal_nan=True)
