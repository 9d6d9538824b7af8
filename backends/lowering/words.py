"""What an engine of the target lacks, written for those it has.

A target without GpSimd gets every formula with its `native` terms and powers replaced: 32-bit integers by their halves, powers
by the scalar engine's functions. Halves of 16 bits, their sums and
differences, and products of 16 by 8 bits are exact in the f32 that Vector computes in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.terms import (
    Kind,
    Span,
    Term,
    activate,
    alu,
    bits,
    constant,
    copy,
    part,
    reciprocal,
    select,
    term,
)
from nxcc.ir.diagnostics import UNSUPPORTED, CompileError
from nxcc.ir.dtypes import F32, S32, U8, U32, DType

LN2 = math.log(2)
TINY = 2.0**-126
RAISED = 2.0**64
"""What brings a denormal into the range of normal numbers."""
ROOT_HALF_BITS = 0x3F3504F3
EXPONENT_FIELD = 0xFF800000
LOW = 0xFFFF
ALL = 0xFFFFFFFF
TOP = 0x80000000


def for_engines(roots: Sequence[Term], engines: Collection[Engine]) -> list[Term]:
    """The same formulas of terms that these engines compute; CompileError(UNSUPPORTED) for one that has no such form."""
    replaced = _on_gpsimd if Engine.GPSIMD in engines else _on_vector
    done: dict[Term, Term] = {}
    for root in roots:
        stack = [root]
        while stack:
            one = stack[-1]
            pending = [x for x in one.inputs if x not in done]
            if one in done or not pending:
                stack.pop()
                if one not in done:
                    done[one] = replaced(one, tuple(done[x] for x in one.inputs))
            else:
                stack.extend(pending)
    return [done[root] for root in roots]


def _on_gpsimd(one: Term, inputs: tuple[Term, ...]) -> Term:
    if _is_root(one):
        return _root_by_inverse(inputs[0])
    if one.kind is Kind.RECIPROCAL and _is_root(one.inputs[0]):
        _, radicand = inputs[0].inputs
        return alu("rsqrt", radicand, 0.0)
    return _again(one, inputs)


def _is_root(one: Term) -> bool:
    return one.kind is Kind.ALU and one.op == "sqrt"


def _on_vector(one: Term, inputs: tuple[Term, ...]) -> Term:
    if one.kind is Kind.NATIVE:
        left, right = inputs
        return part(_NATIVE[one.op](left, right, one.dtype), one.dtype)
    if one.kind is Kind.ALU and one.op in _POWERS:
        x, y = inputs
        return _POWERS[one.op](x, y)
    return _again(one, inputs)


def _again(one: Term, inputs: tuple[Term, ...]) -> Term:
    """The term with other inputs; itself where they are the same."""
    if all(new is old for new, old in zip(inputs, one.inputs, strict=True)):
        return one
    return Term(one.kind, one.op, inputs, one.dtype, one.span, one.number)


# ---- words -----------------------------------------------------------------------------------------------------------


def _number(x: Term) -> int | None:
    return int(x.number) & ALL if x.span is Span.NUMBER else None


def _raw(x: Term) -> Term:
    """The bits of a word that is no number."""
    return part(x, U32)


def _half(x: Term, place: int) -> Term:
    """The lower (0) or upper (1) half of a word, or of a number, as a number below 2^16."""
    number = _number(x)
    if number is not None:
        return term(float(number >> 16 * place & LOW))
    return bits("bitwise_and", _raw(x), LOW) if place == 0 else bits("shift_right_logical", _raw(x), 16)


def _joined(low: Term, high: Term) -> Term:
    """high * 2^16 + low, modulo 2^32; both are whole numbers of 0 to 2^18."""
    carried = alu("add", high, bits("shift_right_logical", low, 16), U32)
    return bits("bitwise_or", bits("shift_left", carried, 16), bits("bitwise_and", low, LOW))


def _add(a: Term, b: Term, dtype: DType) -> Term:
    return _joined(alu("add", _half(a, 0), _half(b, 0), U32), alu("add", _half(a, 1), _half(b, 1)))


def _inverted(x: Term) -> Term:
    number = _number(x)
    return term(number ^ ALL, U32) if number is not None else bits("bitwise_xor", _raw(x), ALL)


def _subtract(a: Term, b: Term, dtype: DType) -> Term:
    """a + ~b + 1."""
    other = _inverted(b)
    low = alu("add", alu("add", _half(a, 0), 1.0), _half(other, 0), U32)
    return _joined(low, alu("add", _half(a, 1), _half(other, 1)))


def _multiply(a: Term, b: Term, dtype: DType) -> Term:
    """The sum over the bytes of b of a * byte, each shifted to its place."""
    if a.span is Span.NUMBER:
        a, b = b, a
    number = _number(b)
    if number == ALL:
        return _subtract(term(0, U32), a, dtype)
    if number is not None and number & (number - 1) == 0:
        return bits("shift_left", _raw(a), number.bit_length() - 1) if number else bits("bitwise_and", _raw(a), 0)
    total: Term | None = None
    for place in range(4):
        byte = _byte(b, place)
        if byte is None:
            continue
        product = _times_byte(a, byte)
        moved = bits("shift_left", product, 8 * place) if place else product
        total = moved if total is None else _add(total, moved, dtype)
    assert total is not None
    return total


def _byte(x: Term, place: int) -> Term | None:
    """One byte of a word; None for one that is known to be 0."""
    number = _number(x)
    if number is None:
        return part(_raw(x), U8, place)
    value = number >> 8 * place & 0xFF
    return term(float(value)) if value else None


def _times_byte(a: Term, byte: Term) -> Term:
    """a * byte modulo 2^32: the products of both halves are below 2^24."""
    low, high = (alu("multiply", _half(a, place), byte, U32) for place in (0, 1))
    return _joined(low, bits("bitwise_and", high, LOW))


def _difference(a: Term, b: Term, dtype: DType) -> Term:
    """A float with the sign of a - b: the upper halves outweigh the lower ones, and rounding keeps the sign."""
    if dtype is S32:
        a, b = (_inverted_top(x) for x in (a, b))
    upper = alu("subtract", _half(a, 1), _half(b, 1))
    return alu("add", alu("multiply", upper, 2.0**17), alu("subtract", _half(a, 0), _half(b, 0)))


def _inverted_top(x: Term) -> Term:
    """The sign bit turned over, so that signed numbers order as unsigned ones."""
    number = _number(x)
    return term(number ^ TOP, U32) if number is not None else bits("bitwise_xor", _raw(x), TOP)


def _comparison(op: str) -> Callable[[Term, Term, DType], Term]:
    return lambda a, b, dtype: alu(op, _difference(a, b, dtype), 0.0, U32)


def _extreme(op: str) -> Callable[[Term, Term, DType], Term]:
    """maximum or minimum: bits are chosen, not computed."""
    def build(a: Term, b: Term, dtype: DType) -> Term:
        is_first = alu("greater_equal" if op == "maximum" else "less_equal", _difference(a, b, dtype), 0.0, U8)
        first, second = (_floating(x) for x in (a, b))
        return part(select(is_first, first, second), U32)
    return build


def _floating(x: Term) -> Term:
    """The bits of a word under f32, so that a select moves them."""
    number = _number(x)
    return part(bits("bitwise_or", term(number, U32), 0) if number is not None else x, F32)


_NATIVE: dict[str, Callable[[Term, Term, DType], Term]] = {
    "add": _add, "subtract": _subtract, "multiply": _multiply, "maximum": _extreme("maximum"), "minimum": _extreme("minimum"),
    **{op: _comparison(op) for op in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")},
}


# ---- powers ----------------------------------------------------------------------------------------------------------

LARGE, SMALL = 2.0**100, 2.0**-60
"""Beyond these the argument of a square root is scaled by 2^-60 or 2^100, into the scalar engine's range."""


def _power(x: Term, y: Term) -> Term:
    if x.span is Span.NUMBER:
        if x.number <= 0:
            raise CompileError(UNSUPPORTED, "only GpSimd computes powers of a number that is not positive",
                               remedy="--keep-on-host leaves the operation to the host")
        return activate("exp", copy(y, F32), math.log(x.number))
    x, y = (z if z.dtype is F32 or z.span is Span.NUMBER else copy(z, F32) for z in (x, y))
    return _signed_power(x, y, alu("abs_max", x, 0.0))


def _signed_power(x: Term, y: Term, size: Term) -> Term:
    """C's power: exp(y * log(size)), negative for an odd power of a negative x, and the cases that have no logarithm."""
    found = activate("exp", alu("multiply", _log(size), y))
    found = select(size.equals(1.0), 1.0, found)
    is_whole, is_odd = _whole(y), _odd(y)
    has_sign = part(x, S32) < 0
    found = select(alu("logical_and", has_sign, is_odd, U8), -found, found)
    bare = alu("logical_and", alu("logical_and", x < 0.0, size < math.inf, U8), alu("equal", is_whole, 0.0, U8), U8)
    return select(alu("equal", y, 0.0, U8), 1.0, select(bare, math.nan, found))


def _log(size: Term) -> Term:
    """log of a magnitude: -inf at zero, infinity and NaN as they are; size = m * 2^e with m in [sqrt(1/2), sqrt(2))."""
    is_tiny = size < TINY
    raw = part(select(is_tiny, size * RAISED, size), S32)
    exponent = bits("bitwise_and", part(_add(raw, term(-ROOT_HALF_BITS & ALL, S32), S32), S32), EXPONENT_FIELD)
    mantissa = part(_add(raw, _negated(exponent), S32), F32)
    inside = exponent * (LN2 / 2**23) + activate("log", mantissa) + is_tiny * -math.log(RAISED)
    ends = select(alu("equal", size, 0.0, U8), -math.inf, inside)
    return select(alu("equal", alu("less", size, math.inf), 0.0, U8), size, ends)


def _negated(x: Term) -> Term:
    return _add(_inverted(x), term(1, S32), S32)


def _whole(y: Term) -> Term:
    """1 where y is a whole number, which all from 2^24 on are."""
    if y.span is Span.NUMBER:
        return constant(term(float(y.number == math.floor(y.number)) if math.isfinite(y.number) else 1.0, U8), U8)
    return alu("logical_or", alu("equal", copy(y, S32), y), alu("greater_equal", alu("abs_max", y, 0.0), 2.0**24), U8)


def _odd(y: Term) -> Term:
    """1 where y is an odd whole number."""
    if y.span is Span.NUMBER:
        return constant(term(float(math.isfinite(y.number) and y.number % 2 == 1), U8), U8)
    half = y * 0.5
    is_half = alu("equal", copy(half, S32), half)
    return alu("logical_and", alu("equal", copy(y, S32), y),
               alu("logical_and", alu("equal", is_half, 0.0), alu("less", alu("abs_max", y, 0.0), 2.0**24)), U8)


def _root(x: Term) -> Term:
    """The square root of an f32, as exact as the scalar engine's: NaN below zero, zero and infinity as they are."""
    x = x if x.dtype is F32 else copy(x, F32)
    is_large, is_small = x > LARGE, x < SMALL
    scale = select(is_large, 2.0**-60, select(is_small, 2.0**100, 1.0)) if x.span is not Span.NUMBER else term(1.0)
    back = select(is_large, 2.0**30, select(is_small, 2.0**-50, 1.0)) if x.span is not Span.NUMBER else term(1.0)
    inside = alu("minimum", alu("maximum", x * scale, 2.0**-110), 2.0**110)
    found = activate("sqrt", inside) * back
    found = select(alu("equal", alu("abs_max", x, 0.0), math.inf, U8), math.inf, found)
    found = select(alu("equal", x, 0.0, U8), x, found)
    return select(x >= 0.0, found, math.nan)


def _root_by_inverse(x: Term) -> Term:
    """x / sqrt(x), the inverse kept from the infinities that it has at zero and from the zero at infinity."""
    inverse = alu("maximum", alu("rsqrt", x, 0.0), 2.0**-64)
    return alu("multiply", alu("minimum", inverse, 2.0**64), x)


_POWERS: dict[str, Callable[[Term, Term], Term]] = {
    "power": _power, "sqrt": lambda x, _: _root(x), "rsqrt": lambda x, _: reciprocal(_root(x))}
