"""Special cases of elementwise operators; expectations are those measured on XLA CPU (HLO semantics notes, 1 to 3)."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nxcc.ir import dtypes
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Computation
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.shapes import Shape, array

from harness.one_instruction import instruction_on, result_of

INF, NAN = float("inf"), float("nan")
INT_MIN = -(2**31)


def numbers(row: dtypes.DType, *values: Any) -> np.ndarray[Any, Any]:
    return np.array(values).astype(row.numpy)


BINARY = [
    ("divide", dtypes.S32, (7, -7, 7, -7), (2, 2, -2, -2), (3, -3, -3, 3)),
    ("divide", dtypes.S32, (5, 0, INT_MIN, INT_MIN), (0, 0, 0, -1), (-1, -1, -1, INT_MIN)),
    ("divide", dtypes.U32, (5,), (0,), (2**32 - 1,)),
    ("remainder", dtypes.S32, (7, -7, 7, 5, INT_MIN), (2, 2, -2, 0, -1), (1, -1, 1, 5, 0)),
    ("remainder", dtypes.F32, (5.5, -5.5, 5, 5), (2, 2, 0, INF), (1.5, -1.5, NAN, 5)),
    ("power", dtypes.S32, (2, -1, -1, 0, 1, 3, 0), (-1, -1, -2, -1, -7, 31, 0), (0, -1, 1, 0, 1, 1264544299, 1)),
    ("power", dtypes.U32, (10,), (11,), (1215752192,)),
    ("power", dtypes.F32, (0, NAN, 1, -1, -1, -INF), (0, 0, NAN, INF, 0.5, 3), (1, 1, 1, 1, NAN, -INF)),
    ("shift-left", dtypes.S32, (1, 1, 3), (32, -1, 2), (0, 0, 12)),
    ("shift-left", dtypes.S4, (3, 7), (1, 4), (6, 0)),
    ("shift-right-logical", dtypes.S32, (-8, -8), (40, 1), (0, 2147483644)),
    ("shift-right-logical", dtypes.S4, (-8,), (1,), (4,)),
    ("shift-right-arithmetic", dtypes.S32, (-8, 8, -8), (40, -1, 1), (-1, 0, -4)),
    ("shift-right-arithmetic", dtypes.U8, (255, 128), (7, 255), (255, 255)),
    ("add", dtypes.S8, (127,), (1,), (-128,)),
    ("add", dtypes.S4, (7, -8), (1, -1), (-8, 7)),
    ("add", dtypes.PRED, (True, True, False), (True, False, False), (True, True, False)),
    ("multiply", dtypes.PRED, (True, True), (True, False), (True, False)),
    ("multiply", dtypes.S8, (-128,), (-1,), (-128,)),
    ("maximum", dtypes.F32, (NAN, 1, 2), (1, NAN, 3), (NAN, NAN, 3)),
    ("minimum", dtypes.F32, (NAN, 1, 2), (1, NAN, 3), (NAN, NAN, 2)),
    ("mulhi", dtypes.S32, (2**30, -5), (8, 3), (2, -1)),
    ("mulhi", dtypes.U64, (2**64 - 1,), (2**64 - 1,), (2**64 - 2,)),
    ("mulhi", dtypes.S64, (-(2**63), -5), (-(2**63), 3), (2**62, -1)),
    ("divide", dtypes.C64, (1 + 1j, 4 + 2j), (0, 2j), (complex(INF, INF), 1 - 2j)),
    ("power", dtypes.C128, (0, 0), (0, 2), (1, 0)),
]


@pytest.mark.parametrize(("opcode", "row", "left", "right", "expected"), BINARY,
                         ids=[f"{r[0]}-{r[1]}-{i}" for i, r in enumerate(BINARY)])
def test_binary_special_cases(opcode: str, row: dtypes.DType, left: Any, right: Any, expected: Any) -> None:
    with np.errstate(all="ignore"):
        result = result_of(opcode, numbers(row, *left), numbers(row, *right))
    np.testing.assert_array_equal(result, numbers(row, *expected))


UNARY = [
    ("round-nearest-afz", dtypes.F32, (0.5, 1.5, 2.5, 0.49999997, -0.5), (1, 2, 3, 0, -1)),
    ("round-nearest-even", dtypes.F32, (0.5, 1.5, 2.5), (0, 2, 2)),
    ("sign", dtypes.F32, (NAN, -3, 0, 2), (NAN, -1, 0, 1)),
    ("sign", dtypes.C64, (0, 3 + 4j), (0, 0.6 + 0.8j)),
    ("abs", dtypes.S32, (INT_MIN, -3), (INT_MIN, 3)),
    ("negate", dtypes.U8, (1, 0), (255, 0)),
    ("not", dtypes.S32, (0, -1), (-1, 0)),
    ("not", dtypes.PRED, (False, True), (True, False)),
    ("count-leading-zeros", dtypes.S32, (0, 1, -1, 255), (32, 31, 0, 24)),
    ("count-leading-zeros", dtypes.U8, (0, 1), (8, 7)),
    ("count-leading-zeros", dtypes.S4, (0, 1, -1), (4, 3, 0)),
    ("popcnt", dtypes.S4, (-1, 3), (4, 2)),
    ("log", dtypes.F32, (0, -1), (-INF, NAN)),
    ("log-plus-one", dtypes.F32, (-1, 1e-10), (-INF, 1e-10)),
    ("exponential", dtypes.F32, (89, 0, NAN), (INF, 1, NAN)),
    ("rsqrt", dtypes.F32, (0, 4), (INF, 0.5)),
    ("cbrt", dtypes.F32, (-8,), (-2,)),
    ("logistic", dtypes.F32, (-1000, INF, -INF, 0), (0, 1, 0, 0.5)),
    ("erf", dtypes.F32, (INF, -INF), (1, -1)),
    ("imag", dtypes.F32, (3,), (0,)),
]


@pytest.mark.parametrize(("opcode", "row", "values", "expected"), UNARY, ids=[f"{r[0]}-{r[1]}" for r in UNARY])
def test_unary_special_cases(opcode: str, row: dtypes.DType, values: Any, expected: Any) -> None:
    np.testing.assert_array_equal(result_of(opcode, numbers(row, *values)), numbers(row, *expected))


@pytest.mark.parametrize("opcode", ["sign", "negate", "round-nearest-even", "exponential-minus-one", "sqrt", "erf"])
def test_sign_of_zero_is_kept(opcode: str) -> None:
    sign = np.signbit(result_of(opcode, np.array([-0.0, 0.0], np.float32)))
    assert sign.tolist() == ([False, True] if opcode == "negate" else [True, False])


CONVERSIONS = [
    (dtypes.F32, dtypes.S32, (1e20, -1e20, NAN, INF, -1.7), (2**31 - 1, INT_MIN, 0, 2**31 - 1, -1)),
    (dtypes.F32, dtypes.U8, (300, -1, 3.9), (255, 0, 3)),
    (dtypes.F32, dtypes.S4, (9, -9, 3.5), (7, -8, 3)),
    (dtypes.F64, dtypes.S64, (1e20, -1e20), (2**63 - 1, -(2**63))),
    (dtypes.BF16, dtypes.S8, (300, -2.5), (127, -2)),
    (dtypes.S32, dtypes.S8, (128, 300), (-128, 44)),
    (dtypes.S32, dtypes.S4, (8, 15), (-8, -1)),
    (dtypes.F32, dtypes.PRED, (NAN, -0.0, 0.5), (True, False, True)),
    (dtypes.S32, dtypes.F32, (16777217, 16777219), (16777216, 16777220)),
    (dtypes.F32, dtypes.F16, (65519, 65520), (65504, INF)),
    (dtypes.F32, dtypes.F8E4M3FN, (464, 465, INF), (448, NAN, NAN)),
    (dtypes.F32, dtypes.F8E5M2, (57344, 61440), (57344, INF)),
    (dtypes.C64, dtypes.F32, (3 + 4j,), (3,)),
]


@pytest.mark.parametrize(("source", "target", "values", "expected"), CONVERSIONS, ids=[f"{r[0]}-{r[1]}" for r in CONVERSIONS])
def test_conversion_special_cases(source: dtypes.DType, target: dtypes.DType, values: Any, expected: Any) -> None:
    with np.errstate(all="ignore"):
        result = result_of("convert", numbers(source, *values), shape=array(target, len(values)))
    assert result.dtype == target.numpy
    np.testing.assert_array_equal(result.astype(np.float64), np.array(expected, np.float64))


def test_bf16_rounds_each_operation() -> None:
    result = result_of("add", numbers(dtypes.BF16, 256), numbers(dtypes.BF16, 1))
    assert float(result[0]) == 256


def test_complex_numbers_are_ordered_by_real_parts_first() -> None:
    """As StableHLO's compare says."""
    x, y = np.asarray([1 + 2j, 1 + 2j, 3 - 1j], np.complex64), np.asarray([1 + 3j, 1 + 2j, 2 + 9j], np.complex64)
    assert result_of("compare", x, y, direction="LT").tolist() == [True, False, False]
    assert result_of("compare", x, y, direction="GE").tolist() == [False, True, True]


def test_total_order_compares_bit_patterns() -> None:
    x = np.array([-NAN, -INF, -0.0, 0.0, INF], np.float32)
    x[0] = np.array([0xFFC00000], np.uint32).view(np.float32)[0]
    assert result_of("compare", x[:-1], x[1:], direction="LT", type="TOTALORDER").all()
    nan = np.array([NAN], np.float32)
    assert result_of("compare", nan, nan, direction="EQ", type="TOTALORDER").all()
    assert not result_of("compare", nan, nan, direction="EQ").any()


def test_clamp_takes_scalar_bounds_and_prefers_the_upper() -> None:
    x = np.array([7, NAN, 1], np.float32)
    np.testing.assert_array_equal(result_of("clamp", np.float32(5), x, np.float32(2)), np.array([2, NAN, 2], np.float32))


def test_select_takes_scalar_predicate() -> None:
    a, b = np.array([1, 2]), np.array([3, 4])
    assert result_of("select", np.bool_(False), a, b).tolist() == [3, 4]


def test_bitcast_convert_regroups_bytes_and_bits() -> None:
    assert result_of("bitcast-convert", np.array([1.0], np.float32), shape=array(dtypes.U8, 1, 4)).tolist() == [[0, 0, 128, 63]]
    octets = np.array([[0, 0, 128, 63]], np.uint8)
    assert result_of("bitcast-convert", octets, shape=array(dtypes.F32, 1)).tolist() == [1.0]
    nibbles = result_of("bitcast-convert", np.array([0x1F], np.int8), shape=array(dtypes.S4, 1, 2))
    assert nibbles.astype(np.int8).tolist() == [[-1, 1]]
    assert result_of("bitcast-convert", nibbles, shape=array(dtypes.S8, 1)).tolist() == [0x1F]


def test_bitcast_convert_of_wrong_shape_is_refused() -> None:
    made = instruction_on("bitcast-convert", array(dtypes.F32, 2), shape=array(dtypes.U8, 2, 3))
    with pytest.raises(ShapeError, match=r"\[2, 4\]"):
        made.operator.check(made)


def test_reduce_precision_rounds_overflows_and_flushes() -> None:
    x = np.array([1e-6, 1.5, 65520, NAN, -1e-6], np.float32)
    narrow = result_of("reduce-precision", x, exponent_bits=5, mantissa_bits=10)
    np.testing.assert_array_equal(narrow, np.array([0, 1.5, INF, NAN, -0.0], np.float32))
    assert np.signbit(narrow[4])
    no_mantissa = result_of("reduce-precision", np.array([1.5, 2.5], np.float32), exponent_bits=8, mantissa_bits=0)
    assert no_mantissa.tolist() == [2, 2]


def test_stochastic_convert_goes_up_below_the_fraction() -> None:
    x, random = np.array([1.25, 1.25, -1.25, 2.0], np.float32), np.array([0, 2**30, 0, 0], np.uint32)
    assert result_of("stochastic-convert", x, random, shape=array(dtypes.S8, 4)).tolist() == [2, 1, -2, 2]
    just_above = np.float32(1 + 2**-8)  # half way between neighbours of bf16
    halves = result_of("stochastic-convert", np.array([just_above] * 2), np.array([2**31 - 1, 2**31], np.uint32),
                       shape=array(dtypes.BF16, 2))
    assert halves.astype(np.float32).tolist() == [1 + 2**-7, 1]


def scalar_body(opcode: str) -> Computation:
    body = Builder(Computation("body"))
    x, y = body.parameter(0, array(dtypes.F32)), body.parameter(1, array(dtypes.F32))
    body.make(opcode, x, y) if opcode != "constant" else body.constant(np.float32(7))
    body.computation.root = next(reversed(body.computation.instructions))
    return body.computation


@pytest.mark.parametrize(("opcode", "expected"), [("subtract", [-2, -2]), ("constant", [7, 7])])
def test_map_runs_its_computation_on_each_element(opcode: str, expected: list[float]) -> None:
    x, y = np.array([1, 2], np.float32), np.array([3, 4], np.float32)
    assert result_of("map", x, y, called=[scalar_body(opcode)], dimensions=(0,)).tolist() == expected


REFUSED = [
    ("add", (array(dtypes.F32, 2), array(dtypes.F32, 3)), {}, "equal dimensions"),
    ("add", (array(dtypes.F32), array(dtypes.F32, 2)), {}, "equal dimensions"),
    ("add", (array(dtypes.F32, 2), array(dtypes.S32, 2)), {}, "one element type"),
    ("abs", (array(dtypes.U8, 2),), {}, "not u8"),
    ("subtract", (array(dtypes.PRED, 2), array(dtypes.PRED, 2)), {}, "not pred"),
    ("floor", (array(dtypes.S32),), {}, "not s32"),
    ("select", (array(dtypes.S32), array(dtypes.F32), array(dtypes.F32)), {}, "pred"),
    ("complex", (array(dtypes.F16), array(dtypes.F16)), {}, "f32 or f64"),
]


@pytest.mark.parametrize(("opcode", "shapes", "attributes", "reason"), REFUSED, ids=[r[0] for r in REFUSED])
def test_wrong_operands_are_refused(opcode: str, shapes: tuple[Shape, ...], attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ShapeError, match=reason):
        instruction_on(opcode, *shapes, **attributes)


def test_results_change_type_where_they_should() -> None:
    assert instruction_on("is-finite", array(dtypes.F32, 2)).shape == array(dtypes.PRED, 2)
    assert instruction_on("abs", array(dtypes.C64, 2)).shape == array(dtypes.F32, 2)
    assert instruction_on("complex", array(dtypes.F64), array(dtypes.F64)).shape == array(dtypes.C128)


def test_fp8_is_computed_in_f32() -> None:
    x = np.array([1.5], ml_dtypes.float8_e4m3fn)
    assert result_of("multiply", x, x).astype(np.float32).tolist() == [2.25]
