"""The float remainder, exact for all quotients: long division of the significands, 20 bits of the quotient a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nxcc.backends.lowering.emission import Tile, column_pieces, emit_term
from nxcc.backends.lowering.pointwise.convert import truncated
from nxcc.backends.lowering.pointwise.float import from_word, magnitude, with_sign_of, word
from nxcc.backends.lowering.pointwise.formulas import routine
from nxcc.backends.lowering.terms import Span, Term, alu, bits, cast, constant, input_term, native, part, reciprocal, select
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access
from nxcc.ir.dtypes import F32, S32, U8, U32
from nxcc.ir.hlo.module import Instruction

STEP_BITS = 20
"""With more, the f32 estimate of a step's quotient could be off by one whole."""

PAIRS_OF_STEPS = 7
"""Exponents differ by at most 253, which 14 steps cover."""

_TILES = 16
"""4-byte tiles that a piece needs: six of state, the rest temporaries of the formulas."""


@routine("remainder", temporaries=8)
def remainder(kernel: Kernel, instruction: Instruction, terms: Sequence[Term], tiles: Sequence[Tile], out: Access) -> None:
    """C's fmod: the sign of the dividend, NaN for a divisor of 0 or an infinite dividend. Denormals count as zero."""
    x, y = (cast(constant(term), F32) for term in terms)
    divisor = terms[1]
    if divisor.span is Span.NUMBER and math.frexp(divisor.number)[0] in (0.5, -0.5):
        emit_term(kernel, with_sign_of(_fraction(magnitude(x), abs(float(divisor.number))), x), tiles, out)
        return
    for piece, to in column_pieces(kernel, tiles, out, max(1, kernel.sbuf_free_bytes // (4 * _TILES) - 64)):
        _divide(kernel, x, y, piece, to)


def _fraction(size: Term, unit: float) -> Term:
    """The remainder of a magnitude by a power of two."""
    count = size * (1 / unit)
    return select(alu("less", count, 1.0, U8), count, count - truncated(count)) * unit


def _divide(kernel: Kernel, x: Term, y: Term, tiles: Sequence[Tile], out: Access) -> None:
    sizes = (out.partitions, out.free)
    rest, other, shift, other_shift, divisor = (kernel.sbuf(sizes, U32) for _ in range(5))
    inverse = kernel.sbuf(sizes, F32)
    x_significand, y_significand = _significand(x), _significand(y)
    fits = native("less_equal", y_significand, x_significand)
    emit_term(kernel, native("subtract", x_significand, native("multiply", fits, y_significand)), tiles, rest)
    emit_term(kernel, native("maximum", part(native("subtract", _exponent(x), _exponent(y)), S32), 0), tiles, shift)
    emit_term(kernel, y_significand, tiles, divisor)
    emit_term(kernel, reciprocal(y_significand), tiles, inverse)
    with kernel.loop(PAIRS_OF_STEPS):
        _step(kernel, (rest, shift, divisor, inverse), other, other_shift)
        _step(kernel, (other, other_shift, divisor, inverse), rest, shift)
    count = len(tiles)
    found = input_term(count, U32, Span.TILE)
    unit = from_word(bits("bitwise_and", word(y), 0x7F800000))
    exact = alu("multiply", found, 2.0**-23) * unit
    below = select(alu("less", magnitude(x), magnitude(y), U8), magnitude(x), exact)
    defined = alu("logical_and", alu("less", magnitude(x), math.inf), alu("greater", magnitude(y), 0.0), U8)
    emit_term(kernel, with_sign_of(select(defined, below, math.nan), x), [*tiles, rest], out)


def _exponent(x: Term) -> Term:
    return bits("bitwise_and", bits("shift_right_logical", word(x), 23), 0xFF)


def _significand(x: Term) -> Term:
    """24 bits with the leading one."""
    return bits("bitwise_or", bits("bitwise_and", word(x), 0x7FFFFF), 0x800000)


def _step(kernel: Kernel, state: Sequence[Access], rest_out: Access, shift_out: Access) -> None:
    """rest = rest * 2^s mod divisor, for s = min(shift, STEP_BITS); products wrap, the remainder's 32 bits are right."""
    rest, shift, divisor = (input_term(position, U32, Span.TILE) for position in range(3))
    inverse = input_term(3, F32, Span.TILE)
    now = native("minimum", shift, STEP_BITS)
    power = bits("shift_left", constant(_one()), now)
    quotient = alu("multiply", alu("multiply", rest, power), inverse, U32)
    left = native("subtract", native("multiply", rest, power), native("multiply", quotient, divisor))
    negative = native("multiply", native("less", part(left, S32), 0), -1)
    emit_term(kernel, native("add", left, part(bits("bitwise_and", negative, part(divisor, S32)), U32)), state, rest_out)
    emit_term(kernel, native("subtract", shift, now), state, shift_out)


def _one() -> Term:
    return input_term(0, U32, Span.NUMBER, 1)
