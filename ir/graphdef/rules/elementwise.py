"""Elementwise operators: arithmetic, comparisons, activations, casts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nxcc.ir.dtypes import BF16, F32, PRED, S32, U8, U32
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import row, rule
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import Shape

Unary = Callable[[Emitter, Instruction], Instruction]
Binary = Callable[[Emitter, Instruction, Instruction], Instruction]

SELU_SCALE = 1.0507009873554805
SELU_ALPHA_SCALE = 1.7580993408473768
"""Source: GraphDef format reference, section 12, and Klambauer et al. 2017, to double precision."""

# One operand

_ONE_OPCODE = {
    "Abs": "abs", "Neg": "negate", "Sign": "sign", "Sqrt": "sqrt", "Rsqrt": "rsqrt", "Exp": "exponential",
    "Expm1": "exponential-minus-one", "Log": "log", "Log1p": "log-plus-one", "Sin": "sine", "Cos": "cosine", "Tan": "tan",
    "Asin": "asin", "Acos": "acos", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh",
    "Tanh": "tanh", "Erf": "erf", "Ceil": "ceil", "Floor": "floor", "LogicalNot": "not", "Invert": "not",
    "Sigmoid": "logistic", "IsFinite": "is-finite", "Real": "real", "Imag": "imag", "ComplexAbs": "abs",
}


def _opcode(opcode: str) -> Callable[[Call], Value]:
    return lambda call: call.emit.make(opcode, call.x(0))


for _name, _opcode_name in _ONE_OPCODE.items():
    row(_name, _opcode(_opcode_name))


def _softplus(e: Emitter, x: Instruction) -> Instruction:
    """max(x, 0) + log1p(exp(-|x|)): no overflow, and right where either term is small."""
    small = e.make("log-plus-one", e.make("exponential", e.make("negate", e.make("abs", x))))
    return e.add(e.maximum(x, e.like(x, 0)), small)


def _elu(e: Emitter, x: Instruction, scale: float = 1.0, alpha_scale: float = 1.0) -> Instruction:
    negative = e.make("exponential-minus-one", x)
    positive = x
    if scale != 1.0:
        negative, positive = e.scaled(negative, alpha_scale), e.scaled(x, scale)
    return e.select(e.compare(x, e.like(x, 0), "LT"), negative, positive)


def _round(e: Emitter, x: Instruction) -> Instruction:
    """Half to even. Of integers TensorFlow's kernel makes 0 (tf.round leaves them out), and so do we."""
    return e.make("round-nearest-even", x) if x.shape.dtype.is_float else e.like(x, 0)


def _erfc(e: Emitter, x: Instruction) -> Instruction:
    """1 - erf(x), from the asymptotic side where x is large (Numerical Recipes erfccheb, relative error 1.2e-7)."""
    wide = e.wide(x)
    size = e.make("abs", wide)
    t = e.divide(e.like(wide, 2.0), e.offset(size, 2.0))
    poly = e.like(wide, 0.17087277)
    for c in (-0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223):
        poly = e.offset(e.multiply(poly, t), c)
    tail = e.multiply(t, e.make("exponential", e.add(poly, e.make("negate", e.multiply(size, size)))))
    folded = e.select(e.compare(wide, e.like(wide, 0), "LT"), e.subtract(e.like(wide, 2.0), tail), tail)
    near = e.subtract(e.like(wide, 1.0), e.make("erf", wide))
    return e.convert(e.select(e.compare(size, e.like(wide, 0.5), "LT"), near, folded), x.shape.dtype)


_UNARY: dict[str, Unary] = {
    "PopulationCount": lambda e, x: e.convert(e.make("popcnt", x), U8),
    "Square": lambda e, x: e.multiply(x, x),
    "Reciprocal": lambda e, x: e.divide(e.like(x, 1), x),
    "Relu": lambda e, x: e.maximum(x, e.like(x, 0)),
    "Relu6": lambda e, x: e.clamp(x, 0, 6),
    "Softplus": _softplus,
    "Softsign": lambda e, x: e.divide(x, e.offset(e.make("abs", x), 1)),
    "Elu": _elu,
    "Selu": lambda e, x: _elu(e, x, SELU_SCALE, SELU_ALPHA_SCALE),
    "Round": _round, "Rint": _round,
    "Atan": lambda e, x: e.make("atan2", x, e.like(x, 1)),
    "Erfc": _erfc,
    "IsNan": lambda e, x: e.compare(x, x, "NE"),
    "IsInf": lambda e, x: e.compare(e.make("abs", x), e.like(x, math.inf), "EQ"),
    "ZerosLike": lambda e, x: e.like(x, 0),
    "OnesLike": lambda e, x: e.like(x, 1),
}
_UNARY["Inv"] = _UNARY["Reciprocal"]


def _unary(function: Unary) -> Callable[[Call], Value]:
    return lambda call: function(call.emit, call.x(0))


for _name, _function in _UNARY.items():
    row(_name, _unary(_function))


@rule("Conj")
def conj(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    return e.make("complex", e.make("real", x), e.make("negate", e.make("imag", x)))


@rule("Angle")
def angle(call: Call) -> Value:
    return call.emit.make("atan2", call.emit.make("imag", call.x(0)), call.emit.make("real", call.x(0)))


@rule("LeakyRelu")
def leaky_relu(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    return e.select(e.compare(x, e.like(x, 0), "GT"), x, e.scaled(x, call.attr("alpha")))


# Two operands

_TWO_OPCODE = {
    "Add": "add", "AddV2": "add", "Sub": "subtract", "Mul": "multiply", "RealDiv": "divide", "Div": "divide",
    "Mod": "remainder", "TruncateMod": "remainder", "Maximum": "maximum", "Minimum": "minimum",
    "Pow": "power", "Atan2": "atan2", "LogicalAnd": "and", "LogicalOr": "or", "BitwiseAnd": "and", "BitwiseOr": "or",
    "BitwiseXor": "xor", "LeftShift": "shift-left", "Complex": "complex",
}


def _two(opcode: str) -> Callable[[Call], Value]:
    return lambda call: call.emit.binary(opcode, call.x(0), call.x(1))


for _name, _opcode_name in _TWO_OPCODE.items():
    row(_name, _two(_opcode_name))


def _opposite_signs(e: Emitter, x: Instruction, y: Instruction) -> Instruction:
    zero = e.like(x, 0)
    return e.compare(e.compare(x, zero, "LT"), e.compare(y, zero, "LT"), "NE")


def _floor_div(e: Emitter, left: Instruction, right: Instruction) -> Instruction:
    """Towards minus infinity; HLO's integer division truncates."""
    x, y = e.together(left, right)
    if x.shape.dtype.is_float:
        return e.make("floor", e.divide(x, y))
    quotient = e.divide(x, y)
    if not x.shape.dtype.is_signed:
        return quotient
    inexact = e.compare(e.make("remainder", x, y), e.like(x, 0), "NE")
    return e.select(e.make("and", inexact, _opposite_signs(e, x, y)), e.offset(quotient, -1), quotient)


def _floor_mod(e: Emitter, left: Instruction, right: Instruction) -> Instruction:
    """The remainder with the divisor's sign."""
    x, y = e.together(left, right)
    rest = e.make("remainder", x, y)
    if x.shape.dtype.is_unsigned:
        return rest
    other = e.make("and", e.compare(rest, e.like(rest, 0), "NE"), _opposite_signs(e, rest, y))
    return e.select(other, e.add(rest, y), rest)


def _truncate_div(e: Emitter, left: Instruction, right: Instruction) -> Instruction:
    """Towards zero, of floats too."""
    quotient = e.divide(left, right)
    if not quotient.shape.dtype.is_float:
        return quotient
    whole = e.make("floor", e.make("abs", quotient))
    return e.select(e.compare(quotient, e.like(quotient, 0), "LT"), e.make("negate", whole), whole)


def _squared_difference(e: Emitter, x: Instruction, y: Instruction) -> Instruction:
    difference = e.subtract(x, y)
    return e.multiply(difference, difference)


def _zero_if_zero(function: Binary, which: int) -> Binary:
    """function(x, y), or 0 where the x (0) or the y (1) is 0, whatever the other is."""
    def guarded(e: Emitter, left: Instruction, right: Instruction) -> Instruction:
        pair = e.together(left, right)
        zero = e.like(pair[0], 0)
        return e.select(e.compare(pair[which], zero, "EQ"), zero, function(e, *pair))
    return guarded


def _right_shift(e: Emitter, x: Instruction, y: Instruction) -> Instruction:
    return e.binary("shift-right-arithmetic" if x.shape.dtype.is_signed else "shift-right-logical", x, y)


_BINARY: dict[str, Binary] = {
    "TruncateDiv": _truncate_div,
    "FloorDiv": _floor_div, "FloorMod": _floor_mod, "SquaredDifference": _squared_difference, "RightShift": _right_shift,
    "DivNoNan": _zero_if_zero(Emitter.divide, 1), "MulNoNan": _zero_if_zero(Emitter.multiply, 1),
    "Xdivy": _zero_if_zero(Emitter.divide, 0),
    "Xlogy": _zero_if_zero(lambda e, x, y: e.multiply(x, e.make("log", y)), 0),
    "Xlog1py": _zero_if_zero(lambda e, x, y: e.multiply(x, e.make("log-plus-one", y)), 0),
}


def _binary(function: Binary) -> Callable[[Call], Value]:
    return lambda call: function(call.emit, call.x(0), call.x(1))


for _name, _pair_function in _BINARY.items():
    row(_name, _binary(_pair_function))

_DIRECTIONS = {"Greater": "GT", "GreaterEqual": "GE", "Less": "LT", "LessEqual": "LE"}


def _comparison(direction: str) -> Callable[[Call], Value]:
    return lambda call: call.emit.compare(call.x(0), call.x(1), direction)


for _name, _direction in _DIRECTIONS.items():
    row(_name, _comparison(_direction))


@rule("Equal", "NotEqual")
def equal(call: Call) -> Value:
    e, x, y = call.emit, call.x(0), call.x(1)
    if not call.attr("incompatible_shape_error"):
        try:
            np.broadcast_shapes(x.shape.dims, y.shape.dims)
        except ValueError:
            return e.scalar(PRED, call.node.op == "NotEqual")
    return e.compare(x, y, "EQ" if call.node.op == "Equal" else "NE")


@rule("ApproximateEqual")
def approximate_equal(call: Call) -> Value:
    e = call.emit
    distance = e.make("abs", e.subtract(call.x(0), call.x(1)))
    return e.compare(distance, e.like(distance, call.attr("tolerance")), "LT")


# More operands


@rule("AddN", "AccumulateNV2")
def add_n(call: Call) -> Value:
    total, *rest = call.operands
    for x in rest:
        call.need(x.shape == total.shape, f"all inputs must have one shape; two are {total.shape} and {x.shape}")
        total = call.emit.add(total, x)
    return total


@rule("ClipByValue")
def clip_by_value(call: Call) -> Value:
    e = call.emit
    return e.maximum(e.minimum(call.x(0), call.x(2)), call.x(1))


@rule("Select")
def select(call: Call) -> Value:
    """No broadcasting, but a scalar condition chooses all, and a vector chooses rows."""
    e, condition, yes, no = call.emit, *call.operands
    call.need(yes.shape == no.shape, f"both branches must have one shape; they are {yes.shape} and {no.shape}")
    dims = yes.shape.dims
    if condition.shape.rank == 1 and len(dims) > 1 and condition.shape.dims[0] == dims[0]:
        condition = e.spread(condition, dims, (0,))
    elif condition.shape.dims not in ((), dims):
        raise call.invalid(f"the condition {condition.shape} fits neither the shape nor the rows of {yes.shape}")
    return e.select(condition, yes, no)


@rule("SelectV2")
def select_v2(call: Call) -> Value:
    return call.emit.select(*call.operands)


# Types


@rule("Cast")
def cast(call: Call) -> Value:
    e, x, target = call.emit, call.x(0), call.dtype("DstT")
    source = x.shape.dtype
    if target is source:
        return x
    if source.is_complex and not target.is_complex:
        return e.convert(e.make("real", x), target)
    if call.attr("Truncate") and source is F32 and target is BF16:
        bits = e.make("bitcast-convert", x, shape=x.shape.with_dtype(U32))
        cut = e.make("and", bits, e.like(bits, 0xFFFF0000))
        return e.convert(e.make("bitcast-convert", cut, shape=x.shape), BF16)
    if source.is_float and target.is_integer and target.bits < 32:
        # TensorFlow goes through a wider integer, whose low bits remain
        return e.convert(e.convert(x, S32), target)
    return e.convert(x, target)


@rule("Bitcast")
def bitcast(call: Call) -> Value:
    x, target = call.x(0), call.dtype("type")
    old, new = x.shape.dtype.byte_size, target.byte_size
    dims = x.shape.dims
    if new < old:
        dims = (*dims, old // new)
    elif new > old:
        call.need(bool(dims) and dims[-1] == new // old, f"the last dimension must be {new // old}")
        dims = dims[:-1]
    return call.emit.make("bitcast-convert", x, shape=Shape(target, dims))
