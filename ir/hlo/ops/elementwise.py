"""Elementwise operators: one result element from the operands' elements at the same place.

Each arithmetic operator is one row: a function for every kind of element type it takes. Legality (shape rule) and meaning
(evaluation) both derive from the row. Floats narrower than f32 are computed in f32 and rounded once; transcendental
functions are computed in f64 and rounded once; integers wrap. Denormals are kept (XLA's CPU backend flushes them).
Source of the special cases: HLO semantics notes, sections 1 to 3, measured on XLA CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir import dtypes
from nxcc.ir.dtypes import DType, Kind
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import (
    COMPARISON_TYPE,
    DIRECTION,
    OPTIONAL_DIMENSIONS,
    RESULT_ACCURACY,
    Attribute,
)
from nxcc.ir.hlo.combiners import total_order_key
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.operator import ShapeError, operator
from nxcc.ir.hlo.ops.checks import agreeing_dims, agreeing_dtype
from nxcc.ir.hlo.ops.element_functions import (
    WORKING,
    complex_atan2,
    complex_divide,
    complex_expm1,
    complex_log1p,
    complex_number,
    complex_power,
    erf,
    integer_divide,
    integer_remainder,
    leading_zeros,
    logistic,
    population,
    round_half_away,
    shift_left,
    shift_right_arithmetic,
    shift_right_logical,
    sign,
    signed_high_product,
    signed_power,
    stored,
    unsigned_high_product,
)
from nxcc.ir.hlo.scalar_function import ScalarFunction
from nxcc.ir.shapes import Shape

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
Rows = dict[Kind, Function]


def _kind_rule(name: str, rows: Rows, result: Callable[[DType], DType] | None) -> Callable[..., Shape]:
    def shape(*operands: Shape, **_: Any) -> Shape:
        agreed = agreeing_dims(name, operands)
        dtype = agreeing_dtype(name, operands)
        if dtype.kind not in rows:
            raise ShapeError(f"{name} takes {', '.join(kind.value for kind in rows)} elements, not {dtype}")
        return agreed.with_dtype(result(dtype) if result else dtype)
    return shape


# Evaluation of rows

def _evaluation(rows: Rows) -> Callable[..., Array]:
    def evaluate(instruction: Instruction, *values: Array) -> Array:
        compute = rows[instruction.operands[0].shape.dtype.kind]
        result = compute(*[value.astype(WORKING[value.dtype], copy=False) for value in values])
        return stored(np.asarray(result), instruction.shape.dtype)
    return evaluate


def _evaluation_with_width(rows: Rows) -> Callable[..., Array]:
    """As _evaluation, for functions that take the number of bits of the element type first."""
    def evaluate(instruction: Instruction, *values: Array) -> Array:
        dtype = instruction.operands[0].shape.dtype
        result = rows[dtype.kind](dtype.bits, *[value.astype(WORKING[value.dtype], copy=False) for value in values])
        return stored(np.asarray(result), instruction.shape.dtype)
    return evaluate


def _wide(function: Function) -> Function:
    """Compute in f64 (or c128), so that the one rounding at the end decides the error."""
    def compute(*values: Array) -> Any:
        wider = np.complex128 if values[0].dtype.kind == "c" else np.float64
        return function(*[value.astype(wider, copy=False) for value in values])
    return compute


@dataclass(frozen=True)
class _Row:
    """name, arity, and the function for each kind of element; kinds without one are illegal.

    result: element type of the result where it differs. takes_width: functions get the bits of the element type first.
    """

    name: str
    arity: int
    functions: Rows
    result: Callable[[DType], DType] | None = None
    takes_width: bool = False
    attributes: tuple[Attribute, ...] = ()
    commutative: bool = False

    def declare(self) -> None:
        evaluation = _evaluation_with_width if self.takes_width else _evaluation
        operator(self.name, self.arity, attributes=self.attributes, shape=_kind_rule(self.name, self.functions, self.result),
                 evaluate=evaluation(self.functions), elementwise=True, commutative=self.commutative)


def _zeros_of(x: Array) -> Array:
    return np.zeros_like(x)


_COMPONENT = {dtypes.C64: dtypes.F32, dtypes.C128: dtypes.F64}


def _component(dtype: DType) -> DType:
    return _COMPONENT.get(dtype, dtype)


def _with_complex(function: Function) -> Rows:
    return {Kind.FLOAT: _wide(function), Kind.COMPLEX: _wide(function)}


def _integers(function: Function) -> Rows:
    return {Kind.SIGNED: function, Kind.UNSIGNED: function}


def _numbers(function: Function) -> Rows:
    return dict.fromkeys((Kind.FLOAT, Kind.SIGNED, Kind.UNSIGNED, Kind.COMPLEX), function)


def _identity(x: Array) -> Array:
    return x


_ACCURACY = (RESULT_ACCURACY,)
_ROWS = (
    _Row("abs", 1, {Kind.FLOAT: np.abs, Kind.SIGNED: np.abs, Kind.COMPLEX: _wide(np.abs)}, result=_component),
    _Row("ceil", 1, {Kind.FLOAT: np.ceil}),
    _Row("floor", 1, {Kind.FLOAT: np.floor}),
    _Row("round-nearest-afz", 1, {Kind.FLOAT: round_half_away}),
    _Row("round-nearest-even", 1, {Kind.FLOAT: np.rint}),
    _Row("sign", 1, {Kind.FLOAT: sign, Kind.SIGNED: np.sign, Kind.COMPLEX: _wide(np.sign)}),
    _Row("negate", 1, _numbers(np.negative)),
    _Row("is-finite", 1, {Kind.FLOAT: np.isfinite}, result=lambda _: dtypes.PRED),
    _Row("real", 1, {Kind.FLOAT: _identity, Kind.COMPLEX: np.real}, result=_component),
    _Row("imag", 1, {Kind.FLOAT: _zeros_of, Kind.COMPLEX: np.imag}, result=_component),
    _Row("not", 1, _integers(np.invert) | {Kind.BOOL: np.logical_not}),
    _Row("popcnt", 1, _integers(population), takes_width=True),
    _Row("count-leading-zeros", 1, _integers(leading_zeros), takes_width=True),
    _Row("acos", 1, _with_complex(np.arccos), attributes=_ACCURACY),
    _Row("acosh", 1, _with_complex(np.arccosh), attributes=_ACCURACY),
    _Row("asin", 1, _with_complex(np.arcsin), attributes=_ACCURACY),
    _Row("asinh", 1, _with_complex(np.arcsinh), attributes=_ACCURACY),
    _Row("atanh", 1, _with_complex(np.arctanh), attributes=_ACCURACY),
    _Row("cbrt", 1, {Kind.FLOAT: _wide(np.cbrt)}, attributes=_ACCURACY),
    _Row("cosh", 1, _with_complex(np.cosh), attributes=_ACCURACY),
    _Row("cosine", 1, _with_complex(np.cos), attributes=_ACCURACY),
    _Row("erf", 1, {Kind.FLOAT: _wide(erf)}, attributes=_ACCURACY),
    _Row("exponential", 1, _with_complex(np.exp), attributes=_ACCURACY),
    _Row("exponential-minus-one", 1, {Kind.FLOAT: _wide(np.expm1), Kind.COMPLEX: _wide(complex_expm1)}, attributes=_ACCURACY),
    _Row("log", 1, _with_complex(np.log), attributes=_ACCURACY),
    _Row("log-plus-one", 1, {Kind.FLOAT: _wide(np.log1p), Kind.COMPLEX: _wide(complex_log1p)}, attributes=_ACCURACY),
    _Row("logistic", 1, _with_complex(logistic), attributes=_ACCURACY),
    _Row("rsqrt", 1, _with_complex(lambda x: 1 / np.sqrt(x)), attributes=_ACCURACY),
    _Row("sine", 1, _with_complex(np.sin), attributes=_ACCURACY),
    _Row("sinh", 1, _with_complex(np.sinh), attributes=_ACCURACY),
    _Row("sqrt", 1, {Kind.FLOAT: np.sqrt, Kind.COMPLEX: _wide(np.sqrt)}, attributes=_ACCURACY),
    _Row("tan", 1, _with_complex(np.tan), attributes=_ACCURACY),
    _Row("tanh", 1, _with_complex(np.tanh), attributes=_ACCURACY),
    _Row("add", 2, _numbers(np.add) | {Kind.BOOL: np.logical_or}, commutative=True),
    _Row("subtract", 2, _numbers(np.subtract)),
    _Row("multiply", 2, _numbers(np.multiply) | {Kind.BOOL: np.logical_and}, commutative=True),
    _Row("divide", 2, _integers(integer_divide) | {Kind.FLOAT: np.divide, Kind.COMPLEX: _wide(complex_divide)}),
    _Row("remainder", 2, _integers(integer_remainder) | {Kind.FLOAT: np.fmod}),
    _Row("maximum", 2, _numbers(np.maximum) | {Kind.BOOL: np.logical_or}, commutative=True),
    _Row("minimum", 2, _numbers(np.minimum) | {Kind.BOOL: np.logical_and}, commutative=True),
    _Row("power", 2, {Kind.FLOAT: _wide(np.power), Kind.COMPLEX: _wide(complex_power), Kind.SIGNED: signed_power,
                      Kind.UNSIGNED: np.power}),
    _Row("atan2", 2, {Kind.FLOAT: _wide(np.arctan2), Kind.COMPLEX: _wide(complex_atan2)}),
    _Row("and", 2, _integers(np.bitwise_and) | {Kind.BOOL: np.logical_and}, commutative=True),
    _Row("or", 2, _integers(np.bitwise_or) | {Kind.BOOL: np.logical_or}, commutative=True),
    _Row("xor", 2, _integers(np.bitwise_xor) | {Kind.BOOL: np.logical_xor}, commutative=True),
    _Row("shift-left", 2, _integers(shift_left), takes_width=True),
    _Row("shift-right-arithmetic", 2, _integers(shift_right_arithmetic), takes_width=True),
    _Row("shift-right-logical", 2, _integers(shift_right_logical), takes_width=True),
    _Row("mulhi", 2, {Kind.SIGNED: signed_high_product, Kind.UNSIGNED: unsigned_high_product}, takes_width=True,
         commutative=True),
)
for _row in _ROWS:
    _row.declare()


# Complex from parts

def _complex_shape(real: Shape, imag: Shape) -> Shape:
    agreed = agreeing_dims("complex", (real, imag))
    dtype = agreeing_dtype("complex", (real, imag))
    for whole, part in _COMPONENT.items():
        if part is dtype:
            return agreed.with_dtype(whole)
    raise ShapeError(f"complex takes f32 or f64 elements, not {dtype}")


operator("complex", 2, shape=_complex_shape, elementwise=True,
         evaluate=lambda instruction, real, imag: complex_number(real, imag))


# Comparison and choice

_DIRECTIONS = {"EQ": np.equal, "NE": np.not_equal, "GE": np.greater_equal, "GT": np.greater, "LE": np.less_equal, "LT": np.less}


def _compare_shape(left: Shape, right: Shape, direction: str, type: str = "") -> Shape:
    agreed = agreeing_dims("compare", (left, right))
    agreeing_dtype("compare", (left, right))
    if direction not in _DIRECTIONS:
        raise ShapeError(f"compare has no direction {direction}")
    return agreed.with_dtype(dtypes.PRED)


def _compare(instruction: Instruction, left: Array, right: Array) -> Array:
    function = _DIRECTIONS[instruction.attribute("direction")]
    is_float = instruction.operands[0].shape.dtype.is_float
    if is_float and instruction.attribute("type") == "TOTALORDER":
        return np.asarray(function(total_order_key(left), total_order_key(right)))
    return np.asarray(function(left.astype(WORKING[left.dtype], copy=False), right.astype(WORKING[right.dtype], copy=False)))


operator("compare", 2, attributes=(DIRECTION, COMPARISON_TYPE), shape=_compare_shape, evaluate=_compare, elementwise=True)


def _clamp_shape(low: Shape, x: Shape, high: Shape) -> Shape:
    for bound in (low, high):
        agreeing_dims("clamp", (x, bound) if bound.rank else (x,))
    return Shape(agreeing_dtype("clamp", (low, x, high)), x.dims, dynamic=x.dynamic)


def _clamp(instruction: Instruction, low: Array, x: Array, high: Array) -> Array:
    low, x, high = (value.astype(WORKING[value.dtype], copy=False) for value in (low, x, high))
    return np.asarray(np.minimum(np.maximum(x, low), high)).astype(instruction.shape.dtype.numpy, copy=False)


operator("clamp", 3, shape=_clamp_shape, evaluate=_clamp, elementwise=True)


def _select_shape(predicate: Shape, on_true: Shape, on_false: Shape) -> Shape:
    if predicate.dtype is not dtypes.PRED:
        raise ShapeError(f"select takes a pred first, not {predicate}")
    if not on_true.is_array:
        if on_true != on_false or predicate.rank:
            raise ShapeError(f"select of {on_true} takes a scalar pred and two equal shapes")
        return on_true
    agreed = agreeing_dims("select", (on_true, on_false))
    if predicate.rank:
        agreed = agreeing_dims("select", (agreed, predicate))
    return agreed.with_dtype(agreeing_dtype("select", (on_true, on_false)))


def _select(instruction: Instruction, predicate: Array, on_true: Any, on_false: Any) -> Any:
    if instruction.shape.is_tuple:
        return on_true if predicate else on_false
    return np.where(predicate, on_true, on_false).astype(instruction.shape.dtype.numpy, copy=False)


operator("select", 3, shape=_select_shape, evaluate=_select, elementwise=True)


# map

def _map_shape(*operands: Shape, called: Sequence[Computation], dimensions: tuple[int, ...] = ()) -> Shape:
    if not operands:
        raise ShapeError("map needs an operand")
    agreed = agreeing_dims("map", operands)
    body = called[0]
    if dimensions and dimensions != tuple(range(agreed.rank)):
        raise ShapeError(f"map runs over all dimensions in order, not over {list(dimensions)}")
    if len(body.parameters) != len(operands):
        raise ShapeError(f"map has {len(operands)} operands and its computation {len(body.parameters)} parameters")
    return agreed.with_dtype(body.root.shape.dtype)


def _map(instruction: Instruction, *values: Array, run: Callable[..., Any]) -> Array:
    return ScalarFunction(instruction.called[0], run)(*values)[0]


operator("map", (1, None), attributes=(OPTIONAL_DIMENSIONS,), called=("to_apply",), calls_back=True, shape=_map_shape,
         evaluate=_map)
