"""Conversions between element types on tiles, and rounding to formats that no element type has."""

from __future__ import annotations

from nxcc.backends.lowering.pointwise import BOOL, FLOAT, INTEGER, formula
from nxcc.backends.lowering.pointwise_select import octet
from nxcc.backends.lowering.terms import Term, alu, bits, cast, constant, copy, part
from nxcc.ir.dtypes import F32, PRED, S8, S16, S32, U8, U32, DType
from nxcc.ir.hlo.module import Instruction

_SIGNED = {8: S8, 16: S16, 32: S32}


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
