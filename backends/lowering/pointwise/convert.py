"""Conversions between element types on tiles, and rounding to formats that no element type has."""

from __future__ import annotations

import math

from nxcc.backends.lowering.pointwise.formulas import BOOL, FLOAT, INTEGER, formula
from nxcc.backends.lowering.pointwise.integer import ALL_ONES
from nxcc.backends.lowering.pointwise.select import octet
from nxcc.backends.lowering.terms import Term, alu, bits, cast, constant, copy, native, part, select
from nxcc.backends.target import Target
from nxcc.ir.dtypes import BF16, F32, PRED, S8, S16, S32, U8, U32, DType
from nxcc.ir.hlo.module import Instruction

_SIGNED = {8: S8, 16: S16, 32: S32}
F32_BITS = {math.inf: 0x7F800000, 0.0: 0}


@formula("convert", kinds=FLOAT, temporaries=4)
def convert_float(instruction: Instruction, x: Term) -> Term:
    target = instruction.shape.dtype
    if target is PRED:
        return alu("not_equal", x, 0.0, U8)
    return copy(truncated(cast(x, F32)), target) if target.is_integer else cast(x, target)


def truncated(x: Term) -> Term:
    """An f32 whose conversion to an integer, to the nearest even, truncates x: fraction bits are cleared by the exponent.

    Magnitudes below 1 become something between 0 and 0.5, which rounds to 0.
    """
    raw = part(x, U32)
    exponent = bits("bitwise_and", bits("shift_right_logical", raw, 23), 0xFF)
    fraction_bits = alu("maximum", alu("subtract", 150.0, exponent), 0.0, U32)
    return part(bits("bitwise_and", raw, bits("shift_left", 0xFFFFFFFF, fraction_bits)), F32)


@formula("convert", kinds=INTEGER, temporaries=2)
def convert_integer(instruction: Instruction, x: Term) -> Term:
    target = instruction.shape.dtype
    if target is PRED:
        return alu("not_equal", x, 0.0, U8)
    return resized(constant(x), target) if target.is_integer else cast(x, target)


def resized(x: Term, target: DType) -> Term:
    """Low bits for a narrower or equal integer; for a wider one the value, whose sign fills the new bits."""
    if target.bits <= x.dtype.bits:
        return part(x, target)
    return part(copy(x, _SIGNED[target.bits]), target)


@formula("convert", kinds=BOOL, temporaries=1)
def convert_pred(instruction: Instruction, x: Term) -> Term:
    return cast(octet(x), instruction.shape.dtype)


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


def _stochastic_limits(instruction: Instruction, target: Target) -> str | None:
    source, result = instruction.operands[0].shape.dtype, instruction.shape.dtype
    if result.is_integer or (source, result) == (F32, BF16):
        return None
    return f"stochastic-convert from {source} to {result} has no device code; to integers, and from f32 to bf16, it has"


@formula("stochastic-convert", temporaries=6, unsupported=_stochastic_limits)
def stochastic_convert(instruction: Instruction, x: Term, random: Term) -> Term:
    """Away from zero where the random bits are below the fraction that nearest-to-zero would drop."""
    target = instruction.shape.dtype
    if target is BF16:
        return _stochastic_bf16(constant(x), constant(random))
    x = cast(constant(x), F32)
    size = alu("abs_max", x, 0.0)
    whole = select(alu("less", size, 1.0, U8), 0.0, truncated(size))
    raised = whole + _is_below(constant(random), size - whole)
    return copy(select(alu("less", x, 0.0, U8), -raised, raised), target)


def _is_below(random: Term, fraction: Term) -> Term:
    """1 where random < floor(fraction * 2^width)."""
    limit = truncated(fraction * 2.0**random.dtype.bits)
    if random.dtype.bits == 32:
        return native("less", random, copy(limit, U32))
    return alu("less", random, copy(limit, U32))


def _stochastic_bf16(x: Term, random: Term) -> Term:
    """The fraction is the lower half of the f32; the largest finite number does not become infinity."""
    raw = part(x, U32)
    kept = bits("bitwise_and", raw, 0xFFFF0000)
    is_up = native("less", random, bits("shift_left", raw, 16))
    can_rise = native("less", bits("bitwise_and", raw, 0x7FFFFFFF), 0x7F7F0000)
    moved = part(native("add", kept, bits("shift_left", native("multiply", is_up, can_rise), 16)), F32)
    return copy(select(alu("equal", x, x, U8), moved, x), BF16)
