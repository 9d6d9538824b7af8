"""Algebra on elementwise operators that keeps every bit: NaN, infinities and the sign of zero included.

So x + 0 is only x for integers, x + -0 for floats; x * 0 stays; complex numbers are left alone. The one exception is a power
with a small integer exponent, whose products round once more than the exact result does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nxcc.ir.dtypes import PRED
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction
from nxcc.passes.patterns import broadcast_to, holds_exactly, is_number, reshape_to, splat_value
from nxcc.passes.rewriting import Rule

MAX_POWER = 4
"""Exponents up to this become products."""


def _number_of_identity(instruction: Instruction) -> dict[str, float]:
    """For each opcode, the right operand that changes nothing, for this element type."""
    dtype = instruction.shape.dtype
    if dtype.is_float:
        return {"multiply": 1.0, "divide": 1.0, "add": -0.0, "subtract": 0.0, "maximum": -math.inf, "minimum": math.inf}
    if not dtype.is_integer:
        return {}
    limits = np.iinfo(dtype.numpy) if dtype.bits >= 8 else None
    low, high = (int(limits.min), int(limits.max)) if limits else (math.nan, math.nan)
    ones = -1 if dtype.is_signed else 2 ** dtype.bits - 1
    return {"multiply": 1, "divide": 1, "add": 0, "subtract": 0, "maximum": low, "minimum": high, "or": 0, "xor": 0,
            "and": ones, "shift-left": 0, "shift-right-logical": 0, "shift-right-arithmetic": 0}


def _drop_identity(instruction: Instruction, builder: Builder) -> Instruction | None:
    left, right = instruction.operands
    rights = splat_value(right) is not None
    lefts = instruction.operator.commutative and splat_value(left) is not None
    if not rights and not lefts:
        return None
    number = _number_of_identity(instruction).get(instruction.opcode)
    if number is None:
        return None
    if rights and is_number(right, number):
        return left
    return right if lefts and is_number(left, number) else None


def _drop_truth(instruction: Instruction, builder: Builder) -> Instruction | None:
    """and, or, with a constant truth value."""
    if instruction.shape.dtype is not PRED:
        return None
    neutral = instruction.opcode == "and"
    for value, other in zip(instruction.operands, reversed(instruction.operands), strict=True):
        truth = splat_value(value)
        if truth is not None:
            return other if bool(truth) == neutral else value
    return None


def _same_twice(instruction: Instruction, builder: Builder) -> Instruction | None:
    """and, or, minimum, maximum of a value with itself."""
    left, right = instruction.operands
    return left if left is right else None


def _integer_product_of_zero(instruction: Instruction, builder: Builder) -> Instruction | None:
    if not instruction.shape.dtype.is_integer:
        return None
    return next((o for o in instruction.operands if is_number(o, 0)), None)


def _undo(inverse: str) -> Callable[[Instruction, Builder], Instruction | None]:
    def rewrite(instruction: Instruction, builder: Builder) -> Instruction | None:
        inner = instruction.operands[0]
        return inner.operands[0] if inner.opcode == inverse else None
    return rewrite


def _repeat(instruction: Instruction, builder: Builder) -> Instruction | None:
    """An operator that does nothing to its own result."""
    inner = instruction.operands[0]
    return inner if inner.opcode == instruction.opcode else None


def _same(instruction: Instruction, builder: Builder) -> Instruction | None:
    return instruction.operands[0]


def _convert(instruction: Instruction, builder: Builder) -> Instruction | None:
    """To the same type; after a conversion that lost nothing."""
    source = instruction.operands[0]
    if source.shape.dtype is instruction.shape.dtype:
        return source
    if source.opcode != "convert":
        return None
    first = source.operands[0]
    if not holds_exactly(first.shape.dtype, source.shape.dtype) or first.shape.dtype.is_complex:
        return None
    return first if first.shape.dtype is instruction.shape.dtype else builder.convert(first, instruction.shape.dtype)


def _select(instruction: Instruction, builder: Builder) -> Instruction | None:
    predicate, on_true, on_false = instruction.operands
    if on_true is on_false:
        return on_true
    truth = splat_value(predicate)
    if truth is not None:
        return on_true if truth else on_false
    if predicate.opcode == "not":
        return builder.make("select", predicate.operands[0], on_false, on_true)
    return None


def _divide(instruction: Instruction, builder: Builder) -> Instruction | None:
    """Division by a power of two whose inverse is a normal number is a product, exactly."""
    value = splat_value(instruction.operands[1])
    dtype = instruction.shape.dtype
    if value is None or not dtype.is_float or dtype.bits < 16:
        return None
    number = float(value)
    if not math.isfinite(number) or number == 0 or abs(math.frexp(number)[0]) != 0.5:
        return None
    if not 2.0 ** -12 <= abs(number) <= 2.0 ** 12:
        return None
    inverse = builder.splat(dtype, (), 1 / number)
    return builder.make("multiply", instruction.operands[0], broadcast_to(builder, inverse, instruction.shape.dims, ()))


def _power(instruction: Instruction, builder: Builder) -> Instruction | None:
    base, exponent = instruction.operands
    value = splat_value(exponent)
    dtype = instruction.shape.dtype
    if value is None or not (dtype.is_float or dtype.is_integer):
        return None
    number = float(value)
    if number == -1 and dtype.is_float:
        one = builder.splat(dtype, (), 1)
        return builder.make("divide", broadcast_to(builder, one, base.shape.dims, ()), base)
    if number not in range(MAX_POWER + 1):
        return None
    return _product(base, int(number), builder)


def _product(base: Instruction, count: int, builder: Builder) -> Instruction:
    if count == 0:
        return broadcast_to(builder, builder.splat(base.shape.dtype, (), 1), base.shape.dims, ())
    square = builder.make("multiply", base, base) if count > 1 else base
    rest = {1: base, 2: square, 3: base, 4: square}[count]
    return rest if count < 3 else builder.make("multiply", square, rest)


def _compare(instruction: Instruction, builder: Builder) -> Instruction | None:
    """Comparisons of integers with a bound of their type, or of a count that is known."""
    left, right = instruction.operands
    value = splat_value(right)
    if value is None or not left.shape.dtype.is_integer or left.shape.dtype.bits < 8:
        return None
    low, high = _bounds(left)
    truth = _DECIDED[instruction.attribute("direction")](low, high, int(value))
    if truth is None:
        return None
    return broadcast_to(builder, builder.splat(PRED, (), truth), instruction.shape.dims, ())


def _bounds(instruction: Instruction) -> tuple[int, int]:
    while instruction.opcode in ("reshape", "broadcast", "transpose"):
        instruction = instruction.operands[0]
    if instruction.opcode == "iota":
        return 0, max(instruction.shape.dims[instruction.attribute("iota_dimension")] - 1, 0)
    limits = np.iinfo(instruction.shape.dtype.numpy)
    return int(limits.min), int(limits.max)


def _decided(sure: bool, never: bool) -> bool | None:
    return True if sure else False if never else None


_DECIDED: dict[str, Callable[[int, int, int], bool | None]] = {
    "LT": lambda low, high, value: _decided(high < value, low >= value),
    "LE": lambda low, high, value: _decided(high <= value, low > value),
    "GT": lambda low, high, value: _decided(low > value, high <= value),
    "GE": lambda low, high, value: _decided(low >= value, high < value),
    "EQ": lambda low, high, value: _decided(low == high == value, value < low or value > high),
    "NE": lambda low, high, value: _decided(value < low or value > high, low == high == value),
}


def _part_of_complex(place: int) -> Callable[[Instruction, Builder], Instruction | None]:
    def rewrite(instruction: Instruction, builder: Builder) -> Instruction | None:
        inner = instruction.operands[0]
        return inner.operands[place] if inner.opcode == "complex" else None
    return rewrite


def _element_of_tuple(instruction: Instruction, builder: Builder) -> Instruction | None:
    inner = instruction.operands[0]
    return inner.operands[instruction.attribute("index")] if inner.opcode == "tuple" else None


def _reduce_of_one(instruction: Instruction, builder: Builder) -> Instruction | None:
    """A reduction of one element each is the combiner with the initial value."""
    if len(instruction.operands) != 2:
        return None
    x, init = instruction.operands
    if any(x.shape.dims[d] != 1 for d in instruction.attribute("dimensions")) or x.shape.dtype is not init.shape.dtype:
        return None
    root = instruction.called[0].root
    if root.opcode not in _COMBINERS or any(o.opcode != "parameter" for o in root.operands) or len(set(root.operands)) != 2:
        return None
    combined = builder.make(root.opcode, x, broadcast_to(builder, init, x.shape.dims, ()))
    return reshape_to(builder, combined, instruction.shape.dims)


_COMBINERS = frozenset(("add", "multiply", "maximum", "minimum", "and", "or", "xor"))

_TWICE = ("and", "or", "maximum", "minimum")
_WITH_IDENTITY = ("multiply", "divide", "add", "subtract", "maximum", "minimum", "or", "xor", "and", "shift-left",
                  "shift-right-logical", "shift-right-arithmetic")

RULES = (
    Rule("identity-operand", _WITH_IDENTITY, _drop_identity),
    Rule("truth-operand", ("and", "or"), _drop_truth),
    Rule("same-operand-twice", _TWICE, _same_twice),
    Rule("integer-product-of-zero", ("multiply",), _integer_product_of_zero),
    Rule("negate-of-negate", ("negate",), _undo("negate")),
    Rule("not-of-not", ("not",), _undo("not")),
    Rule("repeated-operator", ("abs", "floor", "ceil", "round-nearest-even", "round-nearest-afz"), _repeat),
    Rule("copy", ("copy",), _same),
    Rule("convert", ("convert",), _convert),
    Rule("select", ("select",), _select),
    Rule("divide-by-power-of-two", ("divide",), _divide),
    Rule("power", ("power",), _power),
    Rule("compare-with-bound", ("compare",), _compare),
    Rule("real-of-complex", ("real",), _part_of_complex(0)),
    Rule("imag-of-complex", ("imag",), _part_of_complex(1)),
    Rule("element-of-tuple", ("get-tuple-element",), _element_of_tuple),
    Rule("reduce-of-one", ("reduce",), _reduce_of_one),
)
