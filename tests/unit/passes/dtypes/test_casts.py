"""Casts of constants: nearest even, never to infinity, and large ones held by nobody."""

from __future__ import annotations

import numpy as np
import pytest

from nxcc.ir.dtypes import BF16, F8E4M3, F16, DType
from nxcc.ir.literals import DerivedLiteral, literal_of, splat
from nxcc.ir.shapes import Shape
from nxcc.passes.dtypes.casts import cast_array, cast_literal, largest


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


@pytest.mark.parametrize("piece_bytes", [1, 100, 5000, 1 << 20])
def test_pieces_of_a_cast_and_turned_constant_are_the_whole(piece_bytes: int) -> None:
    source = literal_of(np.arange(7 * 60 * 11, dtype=np.float32).reshape(7, 60, 11))
    cast = cast_literal(source, BF16)
    turned = DerivedLiteral(Shape(BF16, (60, 11, 7)), cast, order=(1, 2, 0))
    for literal, wanted in ((cast, source.array), (turned, source.array.transpose(1, 2, 0))):
        pieces = list(literal.pieces(piece_bytes))
        np.testing.assert_array_equal(np.concatenate(pieces), wanted.astype(BF16.numpy))
        np.testing.assert_array_equal(literal.array, wanted.astype(BF16.numpy))
    assert max(piece.nbytes for piece in turned.pieces(5000)) <= 5000
