"""64-bit integers on tiles, taken apart into two 32-bit words."""

from __future__ import annotations

from nxcc.backends.lowering.pointwise.convert import truncated
from nxcc.backends.lowering.pointwise.formulas import wide_formula
from nxcc.backends.lowering.pointwise.integer import ALL_ONES, leading_zeros_of, population_of, unsigned_high_product
from nxcc.backends.lowering.pointwise.select import choose, octet
from nxcc.backends.lowering.terms import Span, Term, alu, bits, cast, constant, copy, native, part, select, term
from nxcc.ir.dtypes import F32, PRED, S32, U8, U32, DType
from nxcc.ir.hlo.module import Instruction

Words = tuple[Term, Term]
"""The low and the high u32 of a 64-bit integer."""


def words(x: Term) -> Words:
    if x.span is Span.NUMBER:
        return term(int(x.number) & ALL_ONES, U32), term((int(x.number) >> 32) & ALL_ONES, U32)
    return part(x, U32), part(x, U32, 4)


def extended(x: Term) -> Words:
    """A 64-bit integer with the value of a narrower one."""
    low = x if x.dtype.bits == 32 else copy(x, S32)
    sign = native("multiply", native("less", low, 0), -1) if low.dtype is S32 else term(0, U32)
    return part(low, U32), part(constant(sign), U32)


def negated(x: Words) -> Words:
    low, high = x
    return native("subtract", 0, low), native("add", bits("invert", high), native("equal", low, 0))


def chosen_words(predicate: Term, x: Words, y: Words) -> Words:
    """predicate ? x : y, word by word."""
    low, high = (choose(predicate, a, b, U32) for a, b in zip(x, y, strict=True))
    return low, high


@wide_formula("copy")
def same(instruction: Instruction, x: Term) -> Words:
    return words(x)


# Conversions

@wide_formula("convert", temporaries=8)
def convert(instruction: Instruction, x: Term) -> Term | Words:
    source, target = instruction.operands[0].shape.dtype, instruction.shape.dtype
    if source.bits == 64:
        return _from_words(words(x), source, target)
    if source.is_float:
        return _float_to_words(cast(constant(x), F32), target)
    return extended(octet(constant(x)) if source is PRED else constant(x))


def _float_to_words(x: Term, target: DType) -> Words:
    """Both halves of the magnitude are exact; s64 saturates at +-2^63, u64 at 0 and 2^64, NaN gives 0."""
    limit = 2.0**63 if target.is_signed else 2.0**64
    size = alu("abs_max", x, 0.0) if target.is_signed else alu("maximum", x, 0.0)
    high = copy(truncated(size * 2.0**-32), U32)
    low = copy(truncated(size - alu("multiply", high, 2.0**32)), U32)
    over = alu("greater_equal", size, limit, U8)
    if not target.is_signed:
        return chosen_words(over, (term(ALL_ONES, U32), term(ALL_ONES, U32)), (low, high))
    below = alu("less", x, 0.0, U8)
    wrapped = chosen_words(below, negated((low, high)), (low, high))
    one = copy(below, U32)
    return chosen_words(over, (native("subtract", one, 1), native("add", one, 0x7FFFFFFF)), wrapped)


def _from_words(x: Words, source: DType, target: DType) -> Term | Words:
    low, high = x
    if target is PRED:
        return alu("not_equal", bits("bitwise_or", low, high), 0.0, U8)
    if target.is_integer:
        return x if target.bits == 64 else part(low, target)
    return cast(_words_to_float(x, source), target)


def _words_to_float(x: Words, source: DType) -> Term:
    if not source.is_signed:
        return _natural_to_float(x)
    return signed_words_to_float(x)


def signed_words_to_float(x: Words) -> Term:
    """A signed 64-bit integer, rounded once."""
    negative = native("less", part(x[1], S32), 0)
    return (negative * -2.0 + 1.0) * _natural_to_float(chosen_words(cast(negative, U8), negated(x), x))


def _natural_to_float(x: Words) -> Term:
    """Rounded once: the number is shifted until its highest bit is set, and what falls off stays as a lowest bit."""
    low, high = x
    places = leading_zeros_of(high)
    top = bits("bitwise_or", bits("shift_left", high, places),
               bits("shift_right_logical", low, native("subtract", 32, places)))
    lost = native("not_equal", bits("shift_left", low, places), 0)
    unit = part(native("multiply", native("subtract", 127 + 32, places), 1 << 23), F32)
    large = alu("multiply", bits("bitwise_or", top, lost), unit)
    return select(cast(native("equal", high, 0), U8), cast(low, F32), large)


# Arithmetic

_BITWISE = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}


@wide_formula(*_BITWISE, temporaries=2)
def bitwise(instruction: Instruction, x: Term, y: Term) -> Words:
    low, high = (bits(_BITWISE[instruction.opcode], a, b) for a, b in zip(words(x), words(y), strict=True))
    return low, high


@wide_formula("not", temporaries=2)
def complement(instruction: Instruction, x: Term) -> Words:
    low, high = words(x)
    return bits("invert", low), bits("invert", high)


@wide_formula("add", temporaries=4)
def add(instruction: Instruction, x: Term, y: Term) -> Words:
    return sum_of(words(x), words(y))


def sum_of(x: Words, y: Words) -> Words:
    (low, high), (other_low, other_high) = x, y
    total = native("add", low, other_low)
    return total, native("add", native("add", high, other_high), native("less", total, low))


@wide_formula("subtract", temporaries=4)
def subtract(instruction: Instruction, x: Term, y: Term) -> Words:
    return difference_of(words(x), words(y))


def difference_of(x: Words, y: Words) -> Words:
    (low, high), (other_low, other_high) = x, y
    borrow = native("less", low, other_low)
    return native("subtract", low, other_low), native("subtract", native("subtract", high, other_high), borrow)


@wide_formula("multiply", temporaries=8)
def multiply(instruction: Instruction, x: Term, y: Term) -> Words:
    return product_of(words(x), words(y))


def product_of(x: Words, y: Words) -> Words:
    """The lower 64 bits of a product."""
    (low, high), (other_low, other_high) = x, y
    crossed = native("add", native("multiply", low, other_high), native("multiply", high, other_low))
    return native("multiply", low, other_low), native("add", unsigned_high_product(low, other_low), crossed)


@wide_formula("mulhi", temporaries=14)
def high_product(instruction: Instruction, x: Term, y: Term) -> Words:
    """The upper 64 bits of the product of the unsigned numbers, less the other factor for each one that is negative."""
    (low, high), (other_low, other_high) = words(constant(x)), words(constant(y))
    crossed = [(native("multiply", a, b), unsigned_high_product(a, b)) for a, b in ((low, other_high), (high, other_low))]
    middle = unsigned_high_product(low, other_low)
    result: Words = native("multiply", high, other_high), unsigned_high_product(high, other_high)
    for cross_low, cross_high in crossed:
        total = native("add", middle, cross_low)
        result = sum_of(result, (cross_high, constant(term(0, U32))))
        result = sum_of(result, (native("less", total, cross_low), constant(term(0, U32))))
        middle = total
    if x.dtype.is_signed:
        for sign, other in ((high, (other_low, other_high)), (other_high, (low, high))):
            mask = native("subtract", 0, bits("shift_right_logical", sign, 31))
            result = difference_of(result, (bits("bitwise_and", other[0], mask), bits("bitwise_and", other[1], mask)))
    return result


@wide_formula("negate", temporaries=3)
def negate(instruction: Instruction, x: Term) -> Words:
    return negated(words(x))


def _is_negative(x: Words) -> Term:
    """1 where the sign bit is set, as u32."""
    return bits("shift_right_logical", x[1], 31)


@wide_formula("abs", temporaries=4)
def absolute(instruction: Instruction, x: Term) -> Words:
    value = words(x)
    return chosen_words(part(_is_negative(value), U8), negated(value), value)


@wide_formula("sign", temporaries=4)
def sign(instruction: Instruction, x: Term) -> Words:
    low, high = words(x)
    mask = native("subtract", 0, _is_negative((low, high)))
    return bits("bitwise_or", native("not_equal", bits("bitwise_or", low, high), 0), mask), mask


# Order

_ORDERS = {"EQ": ("equal", False, False), "NE": ("equal", False, True), "LT": ("less", False, False),
           "GE": ("less", False, True), "GT": ("less", True, False), "LE": ("less", True, True)}
"""Which relation a direction is: its name, whether the sides are swapped, whether the answer is turned around."""


def _related(direction: str, x: Words, y: Words, is_signed: bool) -> Term:
    """1 or 0, as u32."""
    relation, is_swapped, is_negated = _ORDERS[direction]
    (low, high), (other_low, other_high) = (y, x) if is_swapped else (x, y)
    same = native("equal", high, other_high)
    found = native("multiply", same, native(relation, low, other_low))
    if relation == "less":
        sides = (part(high, S32), part(other_high, S32)) if is_signed else (constant(high), other_high)
        found = bits("bitwise_or", found, part(native("less", *sides), U32))
    return bits("bitwise_xor", found, 1) if is_negated else found


@wide_formula("compare", temporaries=5)
def compare(instruction: Instruction, x: Term, y: Term) -> Term:
    return cast(_related(instruction.attribute("direction"), words(x), words(y), x.dtype.is_signed), U8)


def _chosen(direction: str, x: Words, y: Words, is_signed: bool) -> Words:
    return chosen_words(part(_related(direction, x, y, is_signed), U8), x, y)


_EXTREMES = {"maximum": "GT", "minimum": "LT"}


@wide_formula(*_EXTREMES, temporaries=5)
def extreme(instruction: Instruction, x: Term, y: Term) -> Words:
    return _chosen(_EXTREMES[instruction.opcode], words(x), words(y), x.dtype.is_signed)


@wide_formula("clamp", temporaries=7)
def clamp(instruction: Instruction, low: Term, x: Term, high: Term) -> Words:
    raised = _chosen("GT", words(x), words(low), x.dtype.is_signed)
    return _chosen("LT", raised, words(high), x.dtype.is_signed)


@wide_formula("select", temporaries=2)
def select_words(instruction: Instruction, predicate: Term, x: Term, y: Term) -> Words:
    if predicate.span is Span.NUMBER:
        return words(x if predicate.number else y)
    return chosen_words(predicate, words(x), words(y))


# Shifts and counts

def _places(amount: Term) -> Term:
    """A shift's amount as one word: 64 stands for all that shift everything out."""
    low, high = words(amount)
    fits = native("multiply", native("equal", high, 0), native("less", low, 64))
    return choose(part(fits, U8), low, term(64, U32), U32)


def _shifted_left(x: Words, places: Term) -> Words:
    """Amounts outside 0..31, those that wrap below 0 too, make a word 0, so that two of the three parts vanish."""
    low, high = x
    across = bits("bitwise_or", bits("shift_right_logical", low, native("subtract", 32, places)),
                  bits("shift_left", low, native("subtract", places, 32)))
    return bits("shift_left", low, places), bits("bitwise_or", bits("shift_left", high, places), across)


def _shifted_right(x: Words, places: Term) -> Words:
    low, high = x
    across = bits("bitwise_or", bits("shift_left", high, native("subtract", 32, places)),
                  bits("shift_right_logical", high, native("subtract", places, 32)))
    return bits("bitwise_or", bits("shift_right_logical", low, places), across), bits("shift_right_logical", high, places)


@wide_formula("shift-left", temporaries=6)
def shift_left(instruction: Instruction, x: Term, y: Term) -> Words:
    return _shifted_left(words(x), _places(y))


@wide_formula("shift-right-logical", temporaries=6)
def shift_right_logical(instruction: Instruction, x: Term, y: Term) -> Words:
    return _shifted_right(words(x), _places(y))


@wide_formula("shift-right-arithmetic", temporaries=7)
def shift_right_arithmetic(instruction: Instruction, x: Term, y: Term) -> Words:
    """Zeros come in: negative numbers are inverted before and after."""
    low, high = words(x)
    mask = native("subtract", 0, _is_negative((low, high)))
    shifted = _shifted_right((bits("bitwise_xor", low, mask), bits("bitwise_xor", high, mask)), _places(y))
    return bits("bitwise_xor", shifted[0], mask), bits("bitwise_xor", shifted[1], mask)


@wide_formula("popcnt", temporaries=5)
def population(instruction: Instruction, x: Term) -> Words:
    low, high = words(constant(x))
    return native("add", population_of(low), population_of(high)), constant(term(0, U32))


@wide_formula("count-leading-zeros", temporaries=5)
def leading_zeros(instruction: Instruction, x: Term) -> Words:
    low, high = words(constant(x))
    below = native("add", leading_zeros_of(low), 32)
    return choose(cast(native("equal", high, 0), U8), below, leading_zeros_of(high), U32), constant(term(0, U32))
