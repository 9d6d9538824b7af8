"""Conversions between element types on tiles, and rounding to formats that no element type has."""

from __future__ import annotations

import math

from nxcc.backends.lowering.pointwise import BOOL, FLOAT, IN_WORDS, INTEGER, formula
from nxcc.backends.lowering.pointwise_integer import ALL_ONES, leading_zeros_of
from nxcc.backends.lowering.pointwise_select import choose, octet
from nxcc.backends.lowering.terms import Span, Term, alu, bits, cast, constant, copy, native, part, select, term
from nxcc.ir.dtypes import F32, PRED, S8, S16, S32, U8, U32, DType
from nxcc.ir.hlo.module import Instruction

_SIGNED = {8: S8, 16: S16, 32: S32}
F32_BITS = {math.inf: 0x7F800000, 0.0: 0}

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


def _chosen_words(predicate: Term, x: Words, y: Words) -> Words:
    """predicate ? x : y, word by word."""
    low, high = (choose(predicate, a, b, U32) for a, b in zip(x, y, strict=True))
    return low, high


IN_WORDS.add("convert")


@formula("convert", kinds=FLOAT, temporaries=4)
def convert_float(instruction: Instruction, x: Term) -> Term | Words:
    target = instruction.shape.dtype
    if target is PRED:
        return alu("not_equal", x, 0.0, U8)
    if target.bits == 64:
        return _float_to_words(cast(x, F32), target)
    return copy(truncated(cast(x, F32)), target) if target.is_integer else cast(x, target)


def truncated(x: Term) -> Term:
    """An f32 whose conversion to an integer, to the nearest even, truncates x: fraction bits are cleared by the exponent.

    Magnitudes below 1 become something between 0 and 0.5, which rounds to 0.
    """
    raw = part(x, U32)
    exponent = bits("bitwise_and", bits("shift_right_logical", raw, 23), 0xFF)
    fraction_bits = alu("maximum", alu("subtract", 150.0, exponent), 0.0, U32)
    return part(bits("bitwise_and", raw, bits("shift_left", 0xFFFFFFFF, fraction_bits)), F32)


def _float_to_words(x: Term, target: DType) -> Words:
    """Both halves of the magnitude are exact; s64 saturates at +-2^63, u64 at 0 and 2^64, NaN gives 0."""
    limit = 2.0**63 if target.is_signed else 2.0**64
    size = alu("abs_max", x, 0.0) if target.is_signed else alu("maximum", x, 0.0)
    high = copy(truncated(size * 2.0**-32), U32)
    low = copy(truncated(size - alu("multiply", high, 2.0**32)), U32)
    over = alu("greater_equal", size, limit, U8)
    if not target.is_signed:
        return _chosen_words(over, (term(ALL_ONES, U32), term(ALL_ONES, U32)), (low, high))
    below = alu("less", x, 0.0, U8)
    wrapped = _chosen_words(below, negated((low, high)), (low, high))
    one = copy(below, U32)
    return _chosen_words(over, (native("subtract", one, 1), native("add", one, 0x7FFFFFFF)), wrapped)


@formula("convert", kinds=INTEGER, temporaries=2)
def convert_integer(instruction: Instruction, x: Term) -> Term | Words:
    target = instruction.shape.dtype
    if x.dtype.bits == 64:
        return _from_words(words(x), x.dtype, target)
    if target is PRED:
        return alu("not_equal", x, 0.0, U8)
    if target.bits == 64:
        return extended(constant(x))
    return resized(constant(x), target) if target.is_integer else cast(x, target)


def resized(x: Term, target: DType) -> Term:
    """Low bits for a narrower or equal integer; for a wider one the value, whose sign fills the new bits."""
    if target.bits <= x.dtype.bits:
        return part(x, target)
    return part(copy(x, _SIGNED[target.bits]), target)


def _from_words(x: Words, source: DType, target: DType) -> Term | Words:
    low, high = x
    if target is PRED:
        return alu("not_equal", bits("bitwise_or", low, high), 0.0, U8)
    if target.is_integer:
        return x if target.bits == 64 else part(low, target)
    return cast(_words_to_float(x, source), target)


def _words_to_float(x: Words, source: DType) -> Term:
    """Rounded once: the magnitude is shifted until its highest bit is set, and what falls off stays as a lowest bit."""
    negative = native("less", part(x[1], S32), 0)
    low, high = _chosen_words(cast(negative, U8), negated(x), x) if source.is_signed else x
    places = leading_zeros_of(high)
    top = bits("bitwise_or", bits("shift_left", high, places),
               bits("shift_right_logical", low, native("subtract", 32, places)))
    lost = native("not_equal", bits("shift_left", low, places), 0)
    unit = part(native("multiply", native("subtract", 127 + 32, places), 1 << 23), F32)
    large = alu("multiply", bits("bitwise_or", top, lost), unit)
    size = select(cast(native("equal", high, 0), U8), cast(low, F32), large)
    return (negative * -2.0 + 1.0) * size if source.is_signed else size


@formula("convert", kinds=BOOL, temporaries=1)
def convert_pred(instruction: Instruction, x: Term) -> Term | Words:
    target = instruction.shape.dtype
    return extended(octet(x)) if target.bits == 64 else cast(octet(x), target)


@formula("reduce-precision", temporaries=6)
def reduce_precision(instruction: Instruction, x: Term) -> Term:
    """Rounded to the nearest even on the bits; too large becomes infinity, below the smallest normal zero; NaN as it is."""
    x = cast(constant(x), F32)
    drop = 23 - instruction.attribute("mantissa_bits")
    rounded = _rounded(x, drop) if drop > 0 else x
    bias = 2 ** (instruction.attribute("exponent_bits") - 1) - 1
    if bias < 127:
        size = alu("abs_max", rounded, 0.0)
        sign = bits("bitwise_and", part(x, U32), 0x80000000)
        for is_outside, limit in ((size >= 2.0 ** (bias + 1), math.inf), (size < 2.0 ** (1 - bias), 0.0)):
            rounded = select(is_outside, part(bits("bitwise_or", sign, F32_BITS[limit]), F32), rounded)
    return select(alu("equal", x, x, U8), rounded, x)


def _rounded(x: Term, drop: int) -> Term:
    """x without the lowest `drop` bits of its significand."""
    raw = part(x, U32)
    last_kept = bits("bitwise_and", bits("shift_right_logical", raw, drop), 1)
    raised = native("add", native("add", raw, (1 << (drop - 1)) - 1), last_kept)
    return part(bits("bitwise_and", raised, (ALL_ONES << drop) & ALL_ONES), F32)
