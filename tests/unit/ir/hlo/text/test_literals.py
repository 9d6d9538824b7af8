"""Literal tokens: values to the last bit, whatever the type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nxcc.ir import dtypes
from nxcc.ir.dtypes import DTYPES, DType
from nxcc.ir.hlo.equality import literals_equal
from nxcc.ir.hlo.text.cursor import Cursor, TextError
from nxcc.ir.hlo.text.literals import read_literal, read_typed_literal, write_literal, write_typed_literal
from nxcc.ir.literals import Literal, literal_of, splat, tuple_literal
from nxcc.ir.shapes import Shape, tuple_of

SMALL = [d for d in DTYPES if d.is_array and d.bits <= 16 and not d.is_complex]


def read(text: str, dtype: DType, *dims: int) -> Any:
    return read_literal(Cursor(text), Shape(dtype, dims)).array


def patterns(dtype: DType) -> Literal:
    """Every value of a small type."""
    if dtype.is_integer:
        low = -(1 << dtype.bits - 1) if dtype.is_signed else 0
        return literal_of(np.arange(low, low + (1 << dtype.bits)).astype(dtype.numpy))
    if dtype is dtypes.PRED:
        return literal_of(np.array([False, True]))
    unsigned = np.arange(1 << dtype.bits, dtype=np.uint16 if dtype.bits == 16 else np.uint8)
    return Literal(Shape(dtype, (unsigned.size,)), unsigned.view(dtype.numpy))


@pytest.mark.parametrize("dtype", SMALL, ids=str)
def test_every_value_of_a_small_type_comes_back(dtype: DType) -> None:
    literal = patterns(dtype)
    assert literals_equal(read_literal(Cursor(write_literal(literal)), literal.shape), literal) is None


@pytest.mark.parametrize("dtype", [dtypes.F32, dtypes.F64, dtypes.C64, dtypes.C128], ids=str)
def test_random_bits_come_back(dtype: DType) -> None:
    data = np.random.default_rng(7).bytes(3000 * dtype.byte_size)
    literal = literal_of(np.frombuffer(data, dtype.numpy).reshape(3, 10, 100))
    assert literals_equal(read_literal(Cursor(write_literal(literal)), literal.shape), literal) is None


@pytest.mark.parametrize(("dtype", "text"), [
    (dtypes.F32, "{0.1, 3.14159274, 16777216, 1e+10, 1.4013e-45, 1.17549435e-38}"),
    (dtypes.F64, "{0.1, 1.7976931348623157e+308}"),
    (dtypes.BF16, "{0.1001, 3.141, 9.969e+37}"), (dtypes.F16, "{0.099976, 65504, -inf}"), (dtypes.F8E5M2, "{0.094, inf, nan}"),
    (dtypes.F32, "{nan, -nan, nan(0x1), -nan(0x200000), -0.0}"), (dtypes.F8E4M3FN, "{0.102, 448, nan, -nan}"),
    (dtypes.F8E4M3FNUZ, "{0.102, 240, nan}"), (dtypes.F4E2M1FN, "{0.5, -6}"), (dtypes.F8E8M0FNU, "{5.9e-39, 1, 1.7e+38, nan}"),
    (dtypes.C64, "{(1, 2), (-1.5, nan), (nan, 1)}"), (dtypes.U64, "{18446744073709551615, 0}")], ids=str)
def test_canonical_text_prints_the_same(dtype: DType, text: str) -> None:
    count = text.count(",") + 1 if not dtype.is_complex else text.count("(")
    assert write_literal(read_literal(Cursor(text), Shape(dtype, (count,)))) == text


def test_negative_zero_keeps_its_sign() -> None:
    assert np.signbit(read("{-0, -0.0, 0}", dtypes.F32, 3)).tolist() == [True, True, False]


@pytest.mark.parametrize(("dims", "text"), [
    ((0,), "{}"), ((0, 2), "{  }"), ((0, 513, 4, 1), "{  }"), ((2, 0), "{ {}, {} }"), ((2, 1), "{ {1}, {1} }"),
    ((1, 2, 1, 1), "{ { /*i0=0*/ { /*i1=0*/ {1} }, { /*i1=1*/ {1} } } }"),
    ((1, 2, 0, 3), "{ { /*i0=0*/ { /*i1=0*/ }, { /*i1=1*/ } } }")], ids=str)
def test_braces_follow_the_dimensions(dims: tuple[int, ...], text: str) -> None:
    literal = splat(dtypes.S32, dims, 1)
    assert write_literal(literal) == text
    assert read_literal(Cursor(text), literal.shape).array.shape == dims


@pytest.mark.parametrize(("text", "dtype", "dims"), [
    ("{1, 2}", dtypes.F32, (3,)), ("{1,2,3,4}", dtypes.F32, (2, 2)), ("{{1,2,3},{4}}", dtypes.F32, (2, 2)),
    ("{1}", dtypes.F32, ()),
    ("{{1},{2}}", dtypes.F32, (2,)), ("1 2", dtypes.F32, ()), ("0x10", dtypes.S32, ()), ("1e999", dtypes.F64, ()),
    ("500", dtypes.F8E4M3FN, ()),
    ("-1", dtypes.F8E8M0FNU, ()), ("0", dtypes.F8E8M0FNU, ()), ("1.5", dtypes.PRED, ()), ("nan", dtypes.S32, ()),
    ("256", dtypes.U8, ()), ("-129", dtypes.S8, ()), ("8", dtypes.S4, ()), ("(1, 2)", dtypes.F32, ()), ("1", dtypes.C64, ()),
    ("((1, 2))", dtypes.C64, ()), ("1_000", dtypes.S32, ()), ("١", dtypes.S32, ()), ("1}{", dtypes.S32, ())], ids=str)
def test_wrong_literal_is_refused(text: str, dtype: DType, dims: tuple[int, ...]) -> None:
    with pytest.raises(TextError):
        read(text, dtype, *dims)


def test_layout_does_not_change_the_order_of_values() -> None:
    text = "{ { 1, 2, 3 }, { 4, 5, 6 } }"
    assert read(text, dtypes.S32, 2, 3).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert write_literal(literal_of(np.asfortranarray(np.arange(1, 7, dtype=np.int32).reshape(2, 3)))) == text


def test_tuple_literals() -> None:
    literal = tuple_literal(literal_of(np.array([1, 2], np.float32)), tuple_literal(splat(dtypes.PRED, (), True)))
    assert write_literal(literal) == "( {1, 2}, ( true ) )"
    assert literals_equal(read_literal(Cursor("({1,2}, (1))"), literal.shape), literal) is None
    assert write_typed_literal(literal) == "( f32[2]{0} {1, 2}, ( pred[] true ) )"
    assert literals_equal(read_typed_literal(Cursor(write_typed_literal(literal))), literal) is None
    assert write_literal(tuple_literal()) == "(  )" and read_literal(Cursor("()"), tuple_of()).elements == ()


def test_large_constants_are_left_out_on_request() -> None:
    assert write_literal(splat(dtypes.F32, (11,), 0), large_constants=False) == "{...}"
    assert write_literal(splat(dtypes.F32, (2,), 0), large_constants=False) == "{0, 0}"
