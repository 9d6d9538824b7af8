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
    EXPONENT_BITS,
    MANTISSA_BITS,
    OPTIONAL_DIMENSIONS,
    RESULT_ACCURACY,
    Attribute,
)
from nxcc.ir.hlo.combiners import ScalarFunction, total_order_key
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.operator import ShapeError, operator
from nxcc.ir.hlo.ops.checks import compatible
from nxcc.ir.shapes import Shape

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
Rows = dict[Kind, Function]


def _working(row: DType) -> np.dtype[Any]:
    """The numpy type that elements are computed in: f32 for narrower floats, one byte for sub-byte integers."""
    if row.is_float and row.bits < 32:
        return np.dtype(np.float32)
    if row.is_integer and row.bits < 8:
        return np.dtype(np.int8 if row.is_signed else np.uint8)
    return row.numpy


_WORKING = {row.numpy: _working(row) for row in dtypes.DTYPES if row.is_array}
_COMPONENT = {dtypes.C64: dtypes.F32, dtypes.C128: dtypes.F64}
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


# Shape rules

def agreeing_dims(name: str, shapes: Sequence[Shape]) -> Shape:
    """The first shape, dynamic where any is; ShapeError unless all are arrays of the same dimensions.

    An unbounded dimension agrees with any size.
    """
    first = shapes[0]
    for shape in shapes:
        if not shape.is_array:
            raise ShapeError(f"{name} takes arrays, not {shape}")
        if not compatible(shape.with_dtype(first.dtype), first):
            raise ShapeError(f"{name} takes operands of equal dimensions, not {first} and {shape}")
    dynamic = tuple(sorted(set().union(*(shape.dynamic for shape in shapes))))
    return Shape(first.dtype, first.dims, dynamic=dynamic)


def agreeing_dtype(name: str, shapes: Sequence[Shape]) -> DType:
    """The common element type; floats may differ in precision, then it is the widest."""
    kinds = {shape.dtype for shape in shapes}
    if len(kinds) > 1 and not all(row.is_float for row in kinds):
        raise ShapeError(f"{name} takes operands of one element type, not {' and '.join(str(s.dtype) for s in shapes)}")
    return max((shape.dtype for shape in shapes), key=lambda row: row.bits)


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
        result = compute(*[value.astype(_WORKING[value.dtype], copy=False) for value in values])
        return np.asarray(result).astype(instruction.shape.dtype.numpy, copy=False)
    return evaluate


def _evaluation_with_width(rows: Rows) -> Callable[..., Array]:
    """As _evaluation, for functions that take the number of bits of the element type first."""
    def evaluate(instruction: Instruction, *values: Array) -> Array:
        dtype = instruction.operands[0].shape.dtype
        result = rows[dtype.kind](dtype.bits, *[value.astype(_WORKING[value.dtype], copy=False) for value in values])
        return np.asarray(result).astype(instruction.shape.dtype.numpy, copy=False)
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


# Functions that numpy does not have, or has with other special cases

def _sign(x: Array) -> Any:
    return np.where((x == 0) | np.isnan(x), x, np.copysign(x.dtype.type(1), x))


def _round_half_away(x: Array) -> Any:
    whole = np.trunc(x)
    return np.where(np.abs(x - whole) >= 0.5, whole + np.copysign(x.dtype.type(1), x), whole)


def erf(x: Array) -> Any:
    """The error function of an f64 array."""
    from scipy import special  # type: ignore[import-untyped]
    return special.erf(x)


def _logistic(x: Array) -> Any:
    return 1 / (1 + np.exp(-x))


def _complex_expm1(z: Array) -> Any:
    """exp(a+bi)-1 without cancellation: expm1(a)cos(b) - 2 sin(b/2)^2, and exp(a)sin(b)."""
    half = np.sin(z.imag / 2)
    return _complex(np.expm1(z.real) * np.cos(z.imag) - 2 * half * half, np.exp(z.real) * np.sin(z.imag))


def _complex_log1p(z: Array) -> Any:
    """log(1+z) without cancellation: the modulus from log1p where z is small."""
    a, b = z.real, z.imag
    small = np.hypot(a, b) < 0.5
    modulus = np.where(small, 0.5 * np.log1p(a * (2 + a) + b * b), np.log(np.hypot(1 + a, b)))
    return _complex(modulus, np.arctan2(b, 1 + a))


def _complex_power(z: Array, w: Array) -> Any:
    """z^w; 0^0 = 1, 0^w = 0 for a positive real part of w."""
    result = np.exp(w * np.log(z))
    at_zero = np.where(w == 0, 1, np.where(w.real > 0, 0, np.nan))
    return np.where(z == 0, at_zero, np.where(w == 0, 1, result))


def _complex_atan2(y: Array, x: Array) -> Any:
    return -1j * np.log((x + 1j * y) / np.sqrt(x * x + y * y))


def _complex_divide(a: Array, b: Array) -> Any:
    """a/b; a zero divisor gives infinities component by component, as (1+1i)/0 = inf+inf i."""
    by_zero = _complex(a.real / np.abs(b.real), a.imag / np.abs(b.real))
    return np.where(b == 0, by_zero, a / np.where(b == 0, 1, b))


def _complex(real: Array, imag: Array) -> Array:
    result = np.empty(np.broadcast_shapes(np.shape(real), np.shape(imag)), np.result_type(real, imag, np.complex64))
    result.real = real
    result.imag = imag
    return result


def _integer_divide(a: Array, b: Array) -> Any:
    """Truncates toward zero; x/0 has all bits set; INT_MIN/-1 wraps."""
    divisor = np.where(b == 0, b.dtype.type(1), b)
    return np.where(b == 0, ~np.zeros_like(b), (a - np.fmod(a, divisor)) // divisor)


def _integer_remainder(a: Array, b: Array) -> Any:
    """Sign of the dividend; x%0 = x."""
    return np.where(b == 0, a, np.fmod(a, np.where(b == 0, b.dtype.type(1), b)))


def _signed_power(base: Array, exponent: Array) -> Any:
    """Wraps; a negative exponent is exact for a base of 1 or -1 and gives 0 otherwise."""
    one, zero = base.dtype.type(1), base.dtype.type(0)
    odd = (exponent & one) != 0
    reciprocal = np.where(base == 1, one, np.where(base == -1, np.where(odd, -one, one), zero))
    return np.where(exponent < 0, reciprocal, np.power(base, np.where(exponent < 0, zero, exponent)))


def _bits_of(width: int, x: Array) -> Array:
    """The elements' bit patterns as unsigned numbers; upper bits zero for sub-byte types."""
    pattern = x.view(_UNSIGNED[x.dtype.itemsize])
    return pattern if width >= 8 else pattern & np.uint8((1 << width) - 1)


def _signed_bits_of(width: int, x: Array) -> Array:
    """The elements' bit patterns as two's complement numbers."""
    pattern = x.view(_SIGNED[x.dtype.itemsize])
    return pattern if width >= 8 else (pattern << (8 - width)) >> (8 - width)


def _shift_left(width: int, x: Array, amount: Array) -> Any:
    places = _bits_of(width, amount)
    fits = places < width
    return np.where(fits, x << np.where(fits, places, 0).astype(x.dtype), x.dtype.type(0))


def _shift_right_logical(width: int, x: Array, amount: Array) -> Any:
    pattern, places = _bits_of(width, x), _bits_of(width, amount)
    fits = places < width
    shifted = np.where(fits, pattern >> np.where(fits, places, 0).astype(pattern.dtype), pattern.dtype.type(0))
    return shifted.view(x.dtype)


def _shift_right_arithmetic(width: int, x: Array, amount: Array) -> Any:
    pattern = _signed_bits_of(width, x)
    places = np.minimum(_bits_of(width, amount), width - 1).astype(pattern.dtype)
    return (np.asarray(pattern >> places)).view(x.dtype)


def _leading_zeros(width: int, x: Array) -> Any:
    rest = _bits_of(width, x).astype(np.uint64)
    length = np.zeros(rest.shape, np.uint64)
    for step in (32, 16, 8, 4, 2, 1):
        high = rest >> np.uint64(step)
        length = np.where(high != 0, length + np.uint64(step), length)
        rest = np.where(high != 0, high, rest)
    return np.uint64(width) - (length + rest)


def _population(width: int, x: Array) -> Any:
    return np.bitwise_count(_bits_of(width, x))


def _high_product_64(a: Array, b: Array) -> Any:
    """Upper 64 bits of unsigned 64-bit products, from 32-bit halves."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a_low, a_high, b_low, b_high = a & low, a >> half, b & low, b >> half
    middle = a_high * b_low + ((a_low * b_low) >> half)
    other = a_low * b_high + (middle & low)
    return a_high * b_high + (middle >> half) + (other >> half)


def _unsigned_high_product(width: int, a: Array, b: Array) -> Any:
    if width == 64:
        return _high_product_64(a, b)
    return (a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(width)


def _signed_high_product(width: int, a: Array, b: Array) -> Any:
    if width < 64:
        return (a.astype(np.int64) * b.astype(np.int64)) >> np.int64(width)
    high = _high_product_64(a.view(np.uint64), b.view(np.uint64))
    zero = np.int64(0)
    return np.asarray(high).view(np.int64) - np.where(a < 0, b, zero) - np.where(b < 0, a, zero)


def _zeros_of(x: Array) -> Array:
    return np.zeros_like(x)


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
    _Row("round-nearest-afz", 1, {Kind.FLOAT: _round_half_away}),
    _Row("round-nearest-even", 1, {Kind.FLOAT: np.rint}),
    _Row("sign", 1, {Kind.FLOAT: _sign, Kind.SIGNED: np.sign, Kind.COMPLEX: _wide(np.sign)}),
    _Row("negate", 1, _numbers(np.negative)),
    _Row("is-finite", 1, {Kind.FLOAT: np.isfinite}, result=lambda _: dtypes.PRED),
    _Row("real", 1, {Kind.FLOAT: _identity, Kind.COMPLEX: np.real}, result=_component),
    _Row("imag", 1, {Kind.FLOAT: _zeros_of, Kind.COMPLEX: np.imag}, result=_component),
    _Row("not", 1, _integers(np.invert) | {Kind.BOOL: np.logical_not}),
    _Row("popcnt", 1, _integers(_population), takes_width=True),
    _Row("count-leading-zeros", 1, _integers(_leading_zeros), takes_width=True),
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
    _Row("exponential-minus-one", 1, {Kind.FLOAT: _wide(np.expm1), Kind.COMPLEX: _wide(_complex_expm1)}, attributes=_ACCURACY),
    _Row("log", 1, _with_complex(np.log), attributes=_ACCURACY),
    _Row("log-plus-one", 1, {Kind.FLOAT: _wide(np.log1p), Kind.COMPLEX: _wide(_complex_log1p)}, attributes=_ACCURACY),
    _Row("logistic", 1, _with_complex(_logistic), attributes=_ACCURACY),
    _Row("rsqrt", 1, _with_complex(lambda x: 1 / np.sqrt(x)), attributes=_ACCURACY),
    _Row("sine", 1, _with_complex(np.sin), attributes=_ACCURACY),
    _Row("sinh", 1, _with_complex(np.sinh), attributes=_ACCURACY),
    _Row("sqrt", 1, {Kind.FLOAT: np.sqrt, Kind.COMPLEX: _wide(np.sqrt)}, attributes=_ACCURACY),
    _Row("tan", 1, _with_complex(np.tan), attributes=_ACCURACY),
    _Row("tanh", 1, _with_complex(np.tanh), attributes=_ACCURACY),
    _Row("add", 2, _numbers(np.add) | {Kind.BOOL: np.logical_or}, commutative=True),
    _Row("subtract", 2, _numbers(np.subtract)),
    _Row("multiply", 2, _numbers(np.multiply) | {Kind.BOOL: np.logical_and}, commutative=True),
    _Row("divide", 2, _integers(_integer_divide) | {Kind.FLOAT: np.divide, Kind.COMPLEX: _wide(_complex_divide)}),
    _Row("remainder", 2, _integers(_integer_remainder) | {Kind.FLOAT: np.fmod}),
    _Row("maximum", 2, _numbers(np.maximum) | {Kind.BOOL: np.logical_or}, commutative=True),
    _Row("minimum", 2, _numbers(np.minimum) | {Kind.BOOL: np.logical_and}, commutative=True),
    _Row("power", 2, {Kind.FLOAT: _wide(np.power), Kind.COMPLEX: _wide(_complex_power), Kind.SIGNED: _signed_power,
                      Kind.UNSIGNED: np.power}),
    _Row("atan2", 2, {Kind.FLOAT: _wide(np.arctan2), Kind.COMPLEX: _wide(_complex_atan2)}),
    _Row("and", 2, _integers(np.bitwise_and) | {Kind.BOOL: np.logical_and}, commutative=True),
    _Row("or", 2, _integers(np.bitwise_or) | {Kind.BOOL: np.logical_or}, commutative=True),
    _Row("xor", 2, _integers(np.bitwise_xor) | {Kind.BOOL: np.logical_xor}, commutative=True),
    _Row("shift-left", 2, _integers(_shift_left), takes_width=True),
    _Row("shift-right-arithmetic", 2, _integers(_shift_right_arithmetic), takes_width=True),
    _Row("shift-right-logical", 2, _integers(_shift_right_logical), takes_width=True),
    _Row("mulhi", 2, {Kind.SIGNED: _signed_high_product, Kind.UNSIGNED: _unsigned_high_product}, takes_width=True,
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


operator("complex", 2, shape=_complex_shape, evaluate=lambda instruction, real, imag: _complex(real, imag), elementwise=True)


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
    return np.asarray(function(left.astype(_WORKING[left.dtype], copy=False), right.astype(_WORKING[right.dtype], copy=False)))


operator("compare", 2, attributes=(DIRECTION, COMPARISON_TYPE), shape=_compare_shape, evaluate=_compare, elementwise=True)


def _clamp_shape(low: Shape, x: Shape, high: Shape) -> Shape:
    for bound in (low, high):
        agreeing_dims("clamp", (x, bound) if bound.rank else (x,))
    return Shape(agreeing_dtype("clamp", (low, x, high)), x.dims, dynamic=x.dynamic)


def _clamp(instruction: Instruction, low: Array, x: Array, high: Array) -> Array:
    low, x, high = (value.astype(_WORKING[value.dtype], copy=False) for value in (low, x, high))
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


# Changes of element type

def _saturated(x: Array, dtype: DType) -> Array:
    """Floats to integers: truncate toward zero, saturate, NaN to 0."""
    signed = dtype.is_signed
    bits = dtype.bits - signed
    limit, lowest = 2.0 ** bits, -(2.0 ** bits) if signed else 0.0
    storage = _WORKING[dtype.numpy].type
    wide = x.astype(np.float64)
    inside = (wide < limit) & (wide > lowest)
    whole = np.where(inside, wide, 0.0).astype(_WORKING[dtype.numpy])
    whole = np.where(wide >= limit, storage(2 ** bits - 1), whole)
    return np.where(wide <= lowest, storage(-(2 ** bits) if signed else 0), whole).astype(dtype.numpy)


def converted(x: Array, dtype: DType) -> Array:
    """The array in another element type, as HLO `convert` does it: wrap integers, saturate floats to integers, round floats."""
    source = dtypes.from_numpy(x.dtype)
    if source is dtype:
        return x
    if dtype is dtypes.PRED:
        return np.asarray(x.astype(_WORKING[x.dtype], copy=False) != 0)
    if source.is_complex and not dtype.is_complex:
        return converted(np.asarray(x.real), dtype)
    if source.is_float and dtype.is_integer:
        return _saturated(x, dtype)
    narrow = dtype.is_float and dtype.bits < 32
    through = np.dtype(np.float32) if narrow else _WORKING[dtype.numpy]
    return x.astype(_WORKING[x.dtype], copy=False).astype(through, copy=False).astype(dtype.numpy, copy=False)


def _check_convert(instruction: Instruction) -> None:
    source, result = instruction.operands[0].shape, instruction.shape
    if not source.is_array or not result.is_array:
        raise ShapeError(f"{instruction.opcode} is between arrays, not from {source} to {result}")
    if source.dims != result.dims:
        raise ShapeError(f"{instruction.opcode} keeps the dimensions: {source} cannot become {result}")


operator("convert", 1, check=_check_convert, elementwise=True,
         evaluate=lambda instruction, x: converted(x, instruction.shape.dtype))


def _copy_shape(x: Shape) -> Shape:
    return x


operator("copy", 1, shape=_copy_shape, evaluate=lambda instruction, x: x, elementwise=True, identity=True)


def _check_bitcast_convert(instruction: Instruction) -> None:
    source, result = instruction.operands[0].shape, instruction.shape
    if not source.is_array or not result.is_array:
        raise ShapeError(f"bitcast-convert is between arrays, not from {source} to {result}")
    if source.dtype.is_complex != result.dtype.is_complex:
        raise ShapeError(f"bitcast-convert is not between real and complex: {source.dtype} to {result.dtype}")
    wide, narrow = (source, result) if source.dtype.bits >= result.dtype.bits else (result, source)
    ratio = wide.dtype.bits // narrow.dtype.bits
    expected = wide.dims if ratio == 1 else (*wide.dims, ratio)
    if narrow.dims != expected or wide.dtype.bits % narrow.dtype.bits:
        raise ShapeError(f"bitcast-convert between {wide.dtype} and {narrow.dtype} pairs {wide} with dimensions "
                         f"{list(expected)}, not with {narrow}")


def _bitcast_whole_bytes(x: Array, result: Shape) -> Array:
    dtype = result.dtype.numpy
    if x.dtype.itemsize == dtype.itemsize:
        return x.view(dtype)
    contiguous = np.ascontiguousarray(x)
    if x.dtype.itemsize > dtype.itemsize:
        return contiguous.reshape(*x.shape, 1).view(dtype)
    return contiguous.view(dtype).reshape(x.shape[:-1])


def bitcast_bits(x: Array, source: DType, result: Shape) -> Array:
    """The sub-byte form: element bits in little-endian order, regrouped."""
    data = np.ascontiguousarray(x)
    octets = data.view(np.uint8).reshape(*data.shape, data.dtype.itemsize)
    bits = np.unpackbits(octets, axis=-1, bitorder="little")[..., :source.bits]
    regrouped = np.ascontiguousarray(bits).reshape(*result.dims, result.dtype.bits)
    packed = np.packbits(regrouped, axis=-1, bitorder="little")
    if result.dtype.is_signed and result.dtype.bits < 8:
        packed = _signed_bits_of(result.dtype.bits, packed)
        return packed.reshape(result.dims).astype(result.dtype.numpy)
    return np.ascontiguousarray(packed).view(result.dtype.numpy).reshape(result.dims)


def _bitcast_convert(instruction: Instruction, x: Array) -> Array:
    source, result = instruction.operands[0].shape, instruction.shape
    if source.dtype.bits % 8 or result.dtype.bits % 8:
        return bitcast_bits(x, source.dtype, result)
    return _bitcast_whole_bytes(x, result)


operator("bitcast-convert", 1, check=_check_bitcast_convert, evaluate=_bitcast_convert)


def _check_stochastic(instruction: Instruction) -> None:
    _check_convert(instruction)
    source, random = (operand.shape for operand in instruction.operands)
    if not source.dtype.is_float or not random.dtype.is_unsigned or source.dtype.bits != random.dtype.bits:
        raise ShapeError(f"stochastic-convert takes floats and unsigned integers of their width, not {source} and {random}")
    agreeing_dims("stochastic-convert", (source, random))


def _neighbour_above(x: Array, low: Array, dtype: DType) -> Array:
    """The next value of the target type away from zero, given the one at or below |x|."""
    if dtype.is_integer:
        return low + 1
    pattern = converted(low, dtype)
    return np.asarray((pattern.view(_UNSIGNED[pattern.dtype.itemsize]) + 1).view(pattern.dtype).astype(np.float64))


def _stochastic_convert(instruction: Instruction, x: Array, random: Array) -> Array:
    """Round |x| up with the probability of its place between neighbours: up when random < fraction * 2^width."""
    dtype = instruction.shape.dtype
    width = random.dtype.itemsize * 8
    magnitude = np.abs(x.astype(np.float64))
    nearest = converted(magnitude, dtype).astype(np.float64)
    low = np.floor(magnitude) if dtype.is_integer else _at_or_below(magnitude, nearest, dtype)
    high = _neighbour_above(x, low, dtype)
    with np.errstate(all="ignore"):
        fraction = np.where(np.isfinite(magnitude) & (high > low), (magnitude - low) / (high - low), 0.0)
    goes_up = random.astype(np.float64) < np.floor(fraction * 2.0 ** width)
    chosen = np.where(np.isfinite(magnitude), np.where(goes_up, high, low), magnitude)
    return converted(np.asarray(np.copysign(chosen, x.astype(np.float64))), dtype)


def _at_or_below(magnitude: Array, nearest: Array, dtype: DType) -> Array:
    pattern = converted(nearest, dtype)
    below = (pattern.view(_UNSIGNED[pattern.dtype.itemsize]) - 1).view(pattern.dtype).astype(np.float64)
    return np.where(nearest > magnitude, below, nearest)


operator("stochastic-convert", 2, check=_check_stochastic, evaluate=_stochastic_convert, elementwise=True)


def _reduce_precision_shape(x: Shape, exponent_bits: int, mantissa_bits: int) -> Shape:
    if not x.dtype.is_float:
        raise ShapeError(f"reduce-precision takes float elements, not {x.dtype}")
    if exponent_bits < 1 or mantissa_bits < 0:
        raise ShapeError(f"reduce-precision needs an exponent bit and no negative mantissa, "
                         f"not e{exponent_bits}m{mantissa_bits}")
    return x


def reduced_precision(x: Array, exponent_bits: int, mantissa_bits: int) -> Array:
    """f32 or f64 rounded to a narrower format: nearest even, overflow to infinity, below the smallest normal to zero."""
    mantissa, exponent = (52, 11) if x.dtype == np.float64 else (23, 8)
    bits_type = _UNSIGNED[x.dtype.itemsize]
    bits = x.view(bits_type)
    if mantissa_bits < mantissa:
        drop = mantissa - mantissa_bits
        last_kept = (bits >> bits_type(drop)) & bits_type(1)
        bits = ((bits + (bits_type((1 << (drop - 1)) - 1) + last_kept)) >> bits_type(drop)) << bits_type(drop)
    rounded = bits.view(x.dtype)
    if exponent_bits < exponent:
        bias = 2 ** (exponent_bits - 1) - 1
        magnitude = np.abs(rounded)
        rounded = np.where(magnitude >= x.dtype.type(2.0) ** (bias + 1), np.copysign(x.dtype.type(np.inf), x), rounded)
        rounded = np.where(magnitude < x.dtype.type(2.0) ** (1 - bias), np.copysign(x.dtype.type(0), x), rounded)
    return np.where(np.isnan(x), x, rounded)


def _reduce_precision(instruction: Instruction, x: Array) -> Array:
    exponent_bits, mantissa_bits = instruction.attribute("exponent_bits"), instruction.attribute("mantissa_bits")
    result = reduced_precision(x.astype(_WORKING[x.dtype], copy=False), exponent_bits, mantissa_bits)
    return result.astype(instruction.shape.dtype.numpy, copy=False)


operator("reduce-precision", 1, attributes=(EXPONENT_BITS, MANTISSA_BITS), shape=_reduce_precision_shape,
         evaluate=_reduce_precision, elementwise=True)


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
