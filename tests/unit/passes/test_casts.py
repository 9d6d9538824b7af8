"""Casts of constants: nearest even, never to infinity, and large ones held by nobody."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.dtypes import BF16, F8E4M3, F16, DType
from nxcc.ir.literals import DerivedLiteral, literal_of, splat
from nxcc.passes.casts import cast_array, cast_literal, largest


@pytest.mark.parametrize(("dtype", "limit"), [(BF16, 3.3895314e38), (F16, 65504.0), (F8E4M3, 240.0)])
def test_finite_values_stay_finite(dtype: DType, limit: float) -> None:
    found = cast_array(np.array([-3.4028235e38, 3.4028235e38, np.inf, -np.inf, np.nan, 1.0], np.float32), dtype)
    assert largest(dtype) == pytest.approx(limit)
    wanted = np.array([-largest(dtype), largest(dtype), np.inf, -np.inf, np.nan, 1])
    np.testing.assert_array_equal(found.astype(np.float64), wanted)


def test_large_constant_is_cast_each_time_it_is_read() -> None:
    source = literal_of(np.linspace(-1, 1, 4096, dtype=np.float32))
    made = cast_literal(source, BF16)
    assert isinstance(made, DerivedLiteral)
    assert made.array is not made.array
    assert not made.is_splat
    np.testing.assert_array_equal(made.array, source.array.astype(BF16.numpy))


def test_splat_stays_a_splat() -> None:
    assert cast_literal(splat(literal_of(np.float32([1])).shape.dtype, (1000, 1000), 0.1), F16).is_splat
