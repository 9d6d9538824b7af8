"""Integer arithmetic, exact and wrapping as HLO has it.

32-bit integers are native on GpSimd. Up to 16 bits are exact in f32 on Vector for all but products of 16 bits; results are
made in 32 bits, whose low bytes are the wrapped value.
"""

from __future__ import annotations

from nxcc.backends.lowering.pointwise.formulas import INTEGER, formula
from nxcc.backends.lowering.pointwise.select import choose
from nxcc.backends.lowering.terms import Span, Term, alu, bits, cast, constant, native, part, reciprocal, term
from nxcc.ir.dtypes import F32, S8, S16, S32, U8, U16, U32, DType, Kind
from nxcc.ir.hlo.module import Instruction

_SIGNED = {8: S8, 16: S16, 32: S32}
_UNSIGNED = {8: U8, 16: U16, 32: U32}
ALL_ONES = 0xFFFFFFFF


def is_word(x: Term) -> bool:
    return x.dtype.bits == 32


def signed(x: Term) -> Term:
    """The same bits as a signed integer."""
    return part(x, _SIGNED[x.dtype.bits])


def unsigned(x: Term) -> Term:
    return part(x, _UNSIGNED[x.dtype.bits])


def widened(x: Term) -> Term:
    """The same value in 32 bits: u32 stays, all others become s32."""
    if x.span is Span.NUMBER:
        return term(x.number, x.dtype if is_word(x) else S32)
    return x if is_word(x) else cast(x, S32)


def wrapped(x: Term, dtype: DType) -> Term:
    """The low bits of a 32-bit integer."""
    return part(x, dtype)


_ARITHMETIC = {"add": "add", "subtract": "subtract", "multiply": "multiply"}


@formula(*_ARITHMETIC, kinds=INTEGER, temporaries=3)
def arithmetic(instruction: Instruction, x: Term, y: Term) -> Term:
    op = _ARITHMETIC[instruction.opcode]
    if x.dtype.bits <= 16 and (op != "multiply" or x.dtype.bits == 8):
        return wrapped(alu(op, x, y, S32), x.dtype)
    return wrapped(native(op, widened(x), widened(y)), x.dtype)


def chosen(op: str, x: Term, y: Term) -> Term:
    """maximum or minimum."""
    return native(op, x, y) if is_word(x) else alu(op, x, y, x.dtype)


@formula("maximum", "minimum", kinds=INTEGER)
def extreme(instruction: Instruction, x: Term, y: Term) -> Term:
    return chosen(instruction.opcode, x, y)


@formula("clamp", kinds=INTEGER, temporaries=1)
def clamp(instruction: Instruction, low: Term, x: Term, high: Term) -> Term:
    return chosen("minimum", chosen("maximum", x, low), high)


@formula("negate", kinds=INTEGER, temporaries=1)
def negate(instruction: Instruction, x: Term) -> Term:
    return native("subtract", 0, x) if is_word(x) else wrapped(alu("multiply", x, -1.0, S32), x.dtype)


@formula("abs", kinds=(Kind.SIGNED,), temporaries=1)
def absolute(instruction: Instruction, x: Term) -> Term:
    return native("maximum", native("subtract", 0, x), x) if is_word(x) else wrapped(alu("abs_max", x, 0.0, S32), x.dtype)


@formula("sign", kinds=(Kind.SIGNED,))
def sign(instruction: Instruction, x: Term) -> Term:
    return chosen("minimum", chosen("maximum", x, term(-1, x.dtype)), term(1, x.dtype))


_BITWISE = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "shift-left": "shift_left",
            "shift-right-logical": "shift_right_logical"}


@formula(*_BITWISE, kinds=INTEGER)
def bitwise(instruction: Instruction, x: Term, y: Term) -> Term:
    """Amounts are read as unsigned; the engine, too, gives 0 for a shift by the width or more."""
    return bits(_BITWISE[instruction.opcode], x, y)


@formula("not", kinds=INTEGER)
def complement(instruction: Instruction, x: Term) -> Term:
    return bits("invert", x)


def sign_mask(x: Term) -> Term:
    """All ones where the sign bit is set; dtype: x's signed one."""
    data = signed(x)
    if is_word(x):
        return native("multiply", native("less", data, 0), -1)
    return alu("multiply", alu("less", data, 0.0), -1.0, data.dtype)


@formula("shift-right-arithmetic", kinds=INTEGER, temporaries=3)
def shift_right_arithmetic(instruction: Instruction, x: Term, y: Term) -> Term:
    """The engines shift zeros in: negative numbers are inverted before and after."""
    data = constant(x)
    mask = sign_mask(data)
    return part(bits("bitwise_xor", bits("shift_right_logical", bits("bitwise_xor", signed(data), mask), y), mask), x.dtype)


def _zero_extended(x: Term) -> Term:
    return unsigned(x) if is_word(x) else cast(unsigned(x), U32)


@formula("popcnt", kinds=INTEGER, temporaries=3)
def population(instruction: Instruction, x: Term) -> Term:
    return wrapped(population_of(_zero_extended(x)), x.dtype)


def population_of(v: Term) -> Term:
    """Of a u32: sums of neighbouring bits, pairs, nibbles and bytes."""
    v = native("subtract", v, bits("bitwise_and", bits("shift_right_logical", v, 1), 0x55555555))
    v = native("add", bits("bitwise_and", v, 0x33333333), bits("bitwise_and", bits("shift_right_logical", v, 2), 0x33333333))
    v = bits("bitwise_and", native("add", v, bits("shift_right_logical", v, 4)), 0x0F0F0F0F)
    return bits("shift_right_logical", native("multiply", v, 0x01010101), 24)


@formula("count-leading-zeros", kinds=INTEGER, temporaries=3)
def leading_zeros(instruction: Instruction, x: Term) -> Term:
    return leading_zeros_of(_zero_extended(x), x.dtype)


def leading_zeros_of(v: Term, dtype: DType = U32) -> Term:
    """Of a u32 that holds an integer of dtype's width: by the exponent of the f32.

    The second highest of neighbouring ones is cleared, so that nothing rounds up to the next power of two.
    """
    kept = bits("bitwise_and", v, bits("invert", bits("shift_right_logical", v, 1)))
    exponent = bits("shift_right_logical", part(cast(kept, F32), U32), 23)
    return alu("minimum", alu("subtract", 126 + dtype.bits, exponent), float(dtype.bits), dtype)


@formula("mulhi", kinds=INTEGER, temporaries=8)
def high_product(instruction: Instruction, x: Term, y: Term) -> Term:
    if not is_word(x):
        return wrapped(bits("shift_right_logical", native("multiply", widened(x), widened(y)), x.dtype.bits), x.dtype)
    high = unsigned_high_product(unsigned(x), unsigned(y))
    if x.dtype is S32:
        for a, b in ((x, y), (y, x)):
            high = native("subtract", high, unsigned(bits("bitwise_and", sign_mask(constant(a)), signed(b))))
    return part(high, x.dtype)


def unsigned_high_product(a: Term, b: Term) -> Term:
    """The upper 32 bits of the product of two u32, from 16-bit halves."""
    low = 0xFFFF
    a_low, a_high = bits("bitwise_and", a, low), bits("shift_right_logical", a, 16)
    b_low, b_high = bits("bitwise_and", b, low), bits("shift_right_logical", b, 16)
    carry = bits("shift_right_logical", native("multiply", a_low, b_low), 16)
    middle = native("add", native("multiply", a_high, b_low), carry)
    other = native("add", native("multiply", a_low, b_high), bits("bitwise_and", middle, low))
    high = native("add", native("multiply", a_high, b_high), bits("shift_right_logical", middle, 16))
    return native("add", high, bits("shift_right_logical", other, 16))


# Division

def unsigned_quotient(n: Term, d: Term) -> Term:
    """n / d of two u32, rounded down; all ones where d is 0.

    Two estimates by f32 leave a remainder between -d and d. Divisors from 2^31 on give 0 or 1.
    """
    inverse = reciprocal(d)
    first = alu("multiply", n, inverse, U32)
    rest = part(native("subtract", n, native("multiply", first, d)), S32)
    second = alu("multiply", rest, inverse, S32)
    rest = native("subtract", rest, native("multiply", second, part(d, S32)))
    down = native("less", rest, 0)
    estimate = native("subtract", native("add", part(first, S32), second), down)
    large = cast(native("greater_equal", n, d), S32)
    is_large = cast(native("less", part(d, S32), 0), U8)
    is_zero = cast(native("equal", d, 0), U8)
    quotient = choose(is_large, large, estimate, S32)
    return part(choose(is_zero, constant(term(-1, S32)), quotient, S32), U32)


def _magnitude_word(x: Term) -> Term:
    """|x| of an s32 as u32, exact for the lowest number too."""
    return part(native("maximum", native("subtract", 0, x), x), U32)


def quotient_of(x: Term, y: Term) -> Term:
    """x / y in 32 bits, truncated; -1 where y is 0; the lowest number divided by -1 wraps."""
    if x.dtype is U32:
        return unsigned_quotient(constant(x), constant(y))
    size = part(unsigned_quotient(_magnitude_word(constant(x)), _magnitude_word(constant(y))), S32)
    mask = sign_mask(bits("bitwise_xor", x, y))
    is_zero = cast(native("equal", y, 0), U8)
    return choose(is_zero, constant(term(-1, S32)), native("subtract", bits("bitwise_xor", size, mask), mask), S32)


@formula("divide", kinds=INTEGER, temporaries=8)
def divide(instruction: Instruction, x: Term, y: Term) -> Term:
    return wrapped(quotient_of(widened(x), widened(y)), x.dtype)


@formula("remainder", kinds=INTEGER, temporaries=8)
def remainder(instruction: Instruction, x: Term, y: Term) -> Term:
    """x - x / y * y, which is x where y is 0."""
    a, b = widened(x), widened(y)
    return wrapped(native("subtract", a, native("multiply", quotient_of(a, b), b)), x.dtype)


@formula("power", kinds=INTEGER, temporaries=6)
def power(instruction: Instruction, x: Term, y: Term) -> Term:
    """By repeated squaring over the bits of the exponent; negative exponents leave only the powers of 1 and -1."""
    base, exponent = constant(widened(x)), constant(widened(y))
    count = x.dtype.bits - x.dtype.is_signed
    one = constant(term(1, base.dtype))
    result, square = one, base
    for place in range(count):
        bit = part(bits("bitwise_and", bits("shift_right_logical", exponent, place), 1), U8)
        result = native("multiply", result, choose(bit, square, one, base.dtype))
        square = native("multiply", square, square)
    if x.dtype.is_signed:
        result = choose(cast(native("less", exponent, 0), U8), _inverse_power(base, exponent), result, S32)
    return wrapped(result, x.dtype)


def _inverse_power(base: Term, exponent: Term) -> Term:
    """base^exponent for a negative exponent: 1, -1 for odd exponents of -1, else 0."""
    odd = bits("bitwise_and", exponent, 1)
    minus = native("equal", base, -1)
    signed_one = native("add", native("multiply", native("multiply", odd, minus), -2), minus)
    return native("add", native("equal", base, 1), signed_one)


