"""Circular functions over all of f32: arguments are reduced to the scalar engine's range without loss.

Up to REDUCIBLE a multiple of pi is taken away in exact steps (Cody and Waite). Beyond, the fraction of a turn is found in
integers (Payne and Hanek, "Radian reduction for trigonometric functions", 1983): of 1 / (2 pi) only the 96 bits count whose
products with the significand are neither whole turns nor too small. What another function bounds is not reduced so.
"""

from __future__ import annotations

import itertools
import math

from nxcc.backends.lowering.pointwise.float import ROUNDER, SIGN, from_word, magnitude, quotient, with_sign_of, word
from nxcc.backends.lowering.pointwise.formulas import formula
from nxcc.backends.lowering.pointwise.integer import unsigned_high_product
from nxcc.backends.lowering.pointwise.transcendental import TINY, root
from nxcc.backends.lowering.pointwise.wide import Words, signed_words_to_float, sum_of
from nxcc.backends.lowering.terms import Kind, Term, activate, alu, bits, cast, constant, native, part, reciprocal, select, term
from nxcc.ir.dtypes import F32, S32, U8, U32
from nxcc.ir.hlo.module import Instruction

HALF_PI = math.pi / 2

PI_PARTS = (3.140625, 0.0009675025939941406, 1.5099578831723193e-07)
"""pi in parts of 11, 11 and 24 significant bits: products of the first two with 12-bit integers are exact."""

REDUCIBLE_EXPONENT = 1
REDUCIBLE = 2.0**REDUCIBLE_EXPONENT
"""Arguments below it are reduced by multiples of pi, larger ones by their bits."""

TURN_BITS = 0x28BE60DB9391054A7F09D5F47D4D377036D8A5664F10E4107F9458EA
"""The first 224 bits of 1 / (2 pi) after the point."""

LEADING = 24 - REDUCIBLE_EXPONENT
"""Zeros before them, so that the least exponent that is reduced so skips no bit that counts."""

TURN_WORDS = tuple(TURN_BITS >> LEADING + 192 - 32 * place & 0xFFFFFFFF for place in range(7))
"""The greatest exponent skips 104 + LEADING bits, and 96 are read from there."""


def _has_sign(x: Term) -> Term:
    """A predicate: the sign bit of an f32."""
    return part(bits("shift_right_logical", word(x), 31), U8)


# Circular functions

def _turned(x: Term, turns: Term, unit: float, limit: float) -> Term:
    """x - turns * pi * unit for |x| below REDUCIBLE: all products but the last are exact.

    Rounding may carry the result a little past its bounds; +-limit keeps it within the engine's range.
    """
    for piece in PI_PARTS:
        x = turns * (-piece * unit) + x
    return alu("minimum", alu("maximum", x, -limit), limit)


def _chosen_bits(condition: Term, first: Term | int, second: Term | int) -> Term:
    """second where the condition, 0 or all ones, is set, else first."""
    if isinstance(first, int) and isinstance(second, int):
        return bits("bitwise_xor", bits("bitwise_and", condition, first ^ second), first)
    return bits("bitwise_xor", bits("bitwise_and", condition, bits("bitwise_xor", first, second)), first)


def _turn_fraction(x: Term) -> Words:
    """|x| / (2 pi) modulo 1 in units of 2^-64, for |x| from REDUCIBLE on; the words are (low, high)."""
    raw = word(x)
    exponent = bits("bitwise_and", bits("shift_right_logical", raw, 23), 0xFF)
    significand = bits("bitwise_or", bits("bitwise_and", raw, 0x7FFFFF), 0x800000)
    skipped = part(native("maximum", part(native("subtract", exponent, 150 - LEADING), S32), 0), U32)
    by_two, by_one = (native("subtract", 0, bits("bitwise_and", bits("shift_right_logical", skipped, place), 1))
                      for place in (6, 5))
    pairs = [_chosen_bits(by_two, TURN_WORDS[n], TURN_WORDS[n + 2]) for n in range(5)]
    single = [_chosen_bits(by_one, pairs[n], pairs[n + 1]) for n in range(4)]
    shift = bits("bitwise_and", skipped, 31)
    rest = native("subtract", 32, shift)
    high, middle, low = (bits("bitwise_or", bits("shift_left", first, shift), bits("shift_right_logical", second, rest))
                         for first, second in itertools.pairwise(single))
    zero = constant(term(0, U32))
    below = sum_of((unsigned_high_product(low, significand), zero),
                   (native("multiply", middle, significand), unsigned_high_product(middle, significand)))
    return below[0], native("add", below[1], native("multiply", high, significand))


def _rest_of_turn(fraction: Words, quarters: int) -> tuple[Term, Term]:
    """(x - k unit, k) for a unit of so many quarter turns, k rounded to nearest, as (f32, u32)."""
    low, high = fraction
    place = 29 + quarters
    count = bits("shift_right_logical", native("add", high, 1 << place - 1), place)
    rest = native("subtract", high, bits("shift_left", count, place))
    return signed_words_to_float((low, rest)) * (2 * math.pi / 2.0**64), count


def _half_turns(x: Term, is_shifted: bool) -> tuple[Term, Term]:
    """(rest, k): x, or x - pi/2, without k half turns; k counts in the lowest bit of a word."""
    if is_shifted:
        shifted = x * (1 / math.pi) - 0.5 + ROUNDER
        return _turned(x, shifted - ROUNDER + 0.5, 1.0, 3.0), word(shifted)
    shifted = x * (1 / math.pi) + ROUNDER
    return _turned(x, shifted - ROUNDER, 1.0, 3.0), word(shifted)


BOUNDS = {"sin": 1.0, "tanh": 1.0, "erf": 1.0, "arctan": HALF_PI, "sigmoid": 1.0}
"""How large the results of the scalar engine's functions get."""

SEARCHED = 4
"""How deep a term is looked into."""


def largest(x: Term, depth: int = SEARCHED) -> float:
    """What no element of a term exceeds in magnitude, as its making shows; infinite if nothing is known."""
    if x.kind is Kind.ACTIVATION:
        return BOUNDS.get(x.op, math.inf)
    if not depth or not x.inputs:
        return math.inf
    first = x.inputs[0]
    if x.kind is Kind.ALU and x.op == "multiply" and x.inputs[1].kind is Kind.NUMBER:
        return largest(first, depth - 1) * abs(float(x.inputs[1].number))
    if x.kind is Kind.PART and first.kind is Kind.BITS and _turns_sign(first):
        return largest(first.inputs[0].inputs[0], depth - 1)
    return math.inf


def _turns_sign(x: Term) -> bool:
    """Whether bits are those of an f32 but for the sign, see `_signed_sine`."""
    number, sign = x.inputs
    return x.op == "bitwise_xor" and number.kind is Kind.PART and number.inputs[0].dtype is F32 and sign.kind is Kind.BITS \
        and sign.op == "shift_left" and sign.inputs[1].kind is Kind.NUMBER and sign.inputs[1].number == 31


def _by_size(x: Term, large: tuple[Term, Term], small: tuple[Term, Term]) -> tuple[Term, Term]:
    """The rest and the count of the reduction that fits the argument; NaN for what is not finite."""
    size = magnitude(x)
    if largest(x) <= REDUCIBLE:
        return select(alu("less", size, math.inf, U8), small[0], math.nan), small[1]
    is_large = alu("greater_equal", size, REDUCIBLE, U8)
    mask = native("subtract", 0, cast(is_large, U32))
    rest = select(alu("less", size, math.inf, U8), select(is_large, large[0], small[0]), math.nan)
    return rest, _chosen_bits(mask, small[1], large[1])


def _signed_sine(rest: Term, count: Term) -> Term:
    """sin(rest), negated for odd counts."""
    return from_word(bits("bitwise_xor", word(activate("sin", rest)), bits("shift_left", count, 31)))


@formula("sine", temporaries=14)
def sine(instruction: Instruction, x: Term) -> Term:
    """sin(x - k pi), negated for odd k; from REDUCIBLE on of the magnitude, negated for negative x."""
    x = cast(constant(x), F32)
    if largest(x) <= REDUCIBLE:
        return activate("sin", x)
    rest, count = _rest_of_turn(_turn_fraction(x), 2)
    turned = bits("bitwise_xor", count, bits("shift_right_logical", word(x), 31))
    return _signed_sine(*_by_size(x, (rest, turned), _half_turns(x, False)))


@formula("cosine", temporaries=14)
def cosine(instruction: Instruction, x: Term) -> Term:
    """-sin(x - (k + 1/2) pi), negated for odd k; from REDUCIBLE on the sine of a quarter turn more."""
    x = cast(constant(x), F32)
    low, high = _turn_fraction(x)
    rest, count = _half_turns(x, True)
    large = _rest_of_turn((low, native("add", high, 1 << 30)), 2)
    return _signed_sine(*_by_size(x, large, (rest, bits("bitwise_xor", count, 1))))


@formula("tan", temporaries=15)
def tangent(instruction: Instruction, x: Term) -> Term:
    """sin / cos of x - k pi/2, turned around for odd k."""
    x = cast(constant(x), F32)
    shifted = x * (2 / math.pi) + ROUNDER
    large, turns = _rest_of_turn(_turn_fraction(x), 1)
    signed = from_word(bits("bitwise_xor", word(large), bits("bitwise_and", word(x), SIGN)))
    rest, count = _by_size(x, (signed, turns), (_turned(x, shifted - ROUNDER, 0.5, 1.5), word(shifted)))
    sine_, cosine_ = activate("sin", rest), activate("sin", HALF_PI - magnitude(rest))
    odd = part(bits("bitwise_and", count, 1), U8)
    return quotient(select(odd, cosine_, sine_), select(odd, -sine_, cosine_))


def _angle(y: Term, x: Term) -> Term:
    """The angle of (x, y) for y, x >= 0, from 0 to pi/2; the smaller over the larger stays within arctan's range."""
    low, high = alu("minimum", y, x), alu("maximum", y, x)
    ratio = select(low.equals(math.inf), 1.0, low * reciprocal(alu("maximum", high, TINY)))
    inner = activate("arctan", ratio)
    return select(alu("greater", y, x, U8), HALF_PI - inner, inner)


@formula("atan2", temporaries=6)
def arctangent2(instruction: Instruction, y: Term, x: Term) -> Term:
    """The sign bit of x, of zero too, chooses the half plane; the result has the sign of y."""
    y, x = cast(y, F32), cast(x, F32)
    angle = _angle(magnitude(y), magnitude(x))
    return with_sign_of(select(_has_sign(x), math.pi - angle, angle), y)


def _other_leg(x: Term) -> Term:
    """sqrt(1 - x^2) without cancellation; NaN outside -1..1."""
    return root((1.0 - x) * (x + 1.0))


@formula("asin", temporaries=6)
def arcsine(instruction: Instruction, x: Term) -> Term:
    x = cast(x, F32)
    return with_sign_of(_angle(magnitude(x), _other_leg(x)), x)


@formula("acos", temporaries=6)
def arccosine(instruction: Instruction, x: Term) -> Term:
    x = cast(x, F32)
    angle = _angle(_other_leg(x), magnitude(x))
    return select(_has_sign(x), math.pi - angle, angle)
