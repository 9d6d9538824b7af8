"""64-bit division, remainder and power: one bit a turn of a loop, on tiles of words that the turns hand on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nxcc.backends.lowering.emission import Tile, bytes_of, column_pieces, emit_terms
from nxcc.backends.lowering.pointwise.formulas import wide_routine
from nxcc.backends.lowering.pointwise.integer import ALL_ONES
from nxcc.backends.lowering.pointwise.wide import Words, chosen_words, negated, product_of, words
from nxcc.backends.lowering.terms import Span, Term, bits, cast, constant, input_term, native, part, term
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access
from nxcc.ir.dtypes import U8, U32
from nxcc.ir.hlo.module import Instruction

BITS = 64

_TILES = 26
"""4-byte tiles that a piece needs: both states, what does not change, and temporaries of the formulas."""

Step = Callable[[Sequence[Term]], Sequence[Term]]
"""The state of the next turn; what follows the state in the argument never changes."""


def _pieces(kernel: Kernel, tiles: Sequence[Tile], out: Access, roots: Sequence[Term], step: Step,
            result: Callable[[Sequence[Term]], Words], state: int) -> None:
    """Run `step` for each bit over the columns of out; roots: the first `state` of them change with each turn."""
    for piece, to in column_pieces(kernel, tiles, out, max(1, kernel.sbuf_free_bytes // (4 * _TILES) - 64)):
        with kernel.scope():
            places = [kernel.sbuf((to.partitions, to.free), U32) for _ in roots]
            spare = [kernel.sbuf((to.partitions, to.free), U32) for _ in range(state)]
            emit_terms(kernel, [constant(root) for root in roots], piece, places)
            fixed = places[state:]
            with kernel.loop(BITS // 2):
                for current, after in ((places[:state], spare), (spare, places[:state])):
                    inputs = [*current, *fixed]
                    emit_terms(kernel, step([input_term(n, U32, Span.TILE) for n in range(len(inputs))]), inputs, after)
            count = len(piece)
            found = [input_term(count + n, U32, Span.TILE) for n in range(len(places))]
            low, high = result(found)
            emit_terms(kernel, [low, high], [*piece, *places], [bytes_of(to, U32, 4 * n) for n in range(2)])


def _is_negative(x: Words) -> Term:
    return part(bits("shift_right_logical", x[1], 31), U8)


def _magnitude(x: Term) -> Words:
    value = words(constant(x))
    return chosen_words(_is_negative(value), negated(value), value) if x.dtype.is_signed else value


def _not_less(x: Words, y: Words) -> Term:
    """1 where x >= y as unsigned numbers."""
    lower = bits("bitwise_and", native("equal", x[1], y[1]), native("greater_equal", x[0], y[0]))
    return bits("bitwise_or", native("greater", x[1], y[1]), lower)


def _division_step(state: Sequence[Term]) -> Sequence[Term]:
    """The rest takes in the dividend's highest bit, whose place the quotient's next bit takes."""
    rest_low, rest_high, low, high, divisor_low, divisor_high = state
    shifted = (bits("bitwise_or", bits("shift_left", rest_low, 1), bits("shift_right_logical", high, 31)),
               bits("bitwise_or", bits("shift_left", rest_high, 1), bits("shift_right_logical", rest_low, 31)))
    bit = bits("bitwise_or", bits("shift_right_logical", rest_high, 31), _not_less(shifted, (divisor_low, divisor_high)))
    mask = native("subtract", 0, bit)
    taken = bits("bitwise_and", divisor_low, mask)
    borrow = native("less", shifted[0], taken)
    return (native("subtract", shifted[0], taken),
            native("subtract", native("subtract", shifted[1], bits("bitwise_and", divisor_high, mask)), borrow),
            bits("bitwise_or", bits("shift_left", low, 1), bit),
            bits("bitwise_or", bits("shift_left", high, 1), bits("shift_right_logical", low, 31)))


@wide_routine("divide", "remainder", temporaries=24)
def division(kernel: Kernel, instruction: Instruction, terms: Sequence[Term], tiles: Sequence[Tile], out: Access) -> None:
    """x / y truncated, all ones where y is 0; or what is left of x, with its sign, which is x where y is 0."""
    x, y = terms
    dividend, divisor = _magnitude(x), _magnitude(y)
    zero = term(0, U32)

    def quotient(state: Sequence[Term]) -> Words:
        found = state[2], state[3]
        if not x.dtype.is_signed:
            return found
        turned = chosen_words(part(bits("bitwise_xor", *(bits("shift_right_logical", constant(words(v)[1]), 31)
                                                         for v in (x, y))), U8), negated(found), found)
        is_zero = native("equal", bits("bitwise_or", state[4], state[5]), 0)
        ones = term(ALL_ONES, U32)
        return chosen_words(cast(is_zero, U8), (ones, ones), turned)

    def rest(state: Sequence[Term]) -> Words:
        found = state[0], state[1]
        if not x.dtype.is_signed:
            return found
        return chosen_words(_is_negative(words(constant(x))), negated(found), found)

    roots = (zero, zero, *dividend, *divisor)
    _pieces(kernel, tiles, out, roots, _division_step, quotient if instruction.opcode == "divide" else rest, 4)


def _power_step(state: Sequence[Term]) -> Sequence[Term]:
    """The result takes in the square for a set bit of the exponent."""
    low, high, square_low, square_high, exponent_low, exponent_high = state
    square = square_low, square_high
    bit = part(bits("bitwise_and", exponent_low, 1), U8)
    return (*chosen_words(bit, product_of((low, high), square), (low, high)), *product_of(square, square),
            bits("bitwise_or", bits("shift_right_logical", exponent_low, 1), bits("shift_left", exponent_high, 31)),
            bits("shift_right_logical", exponent_high, 1))


@wide_routine("power", temporaries=24)
def power(kernel: Kernel, instruction: Instruction, terms: Sequence[Term], tiles: Sequence[Tile], out: Access) -> None:
    """By repeated squaring; a negative exponent leaves 1 and -1 as they are, by the exponent's lowest bit, and 0 of others."""
    base, exponent = (words(constant(x)) for x in terms)

    def result(state: Sequence[Term]) -> Words:
        found = state[0], state[1]
        if not terms[0].dtype.is_signed:
            return found
        is_one = native("multiply", native("equal", base[0], 1), native("equal", base[1], 0))
        is_minus = native("multiply", native("equal", base[0], ALL_ONES), native("equal", base[1], ALL_ONES))
        odd = bits("bitwise_and", exponent[0], 1)
        mask = native("subtract", 0, native("multiply", is_minus, odd))
        inverse = bits("bitwise_or", bits("bitwise_or", is_one, is_minus), mask), mask
        return chosen_words(_is_negative(exponent), inverse, found)

    zero, one = term(0, U32), term(1, U32)
    _pieces(kernel, tiles, out, (one, zero, *base, *exponent), _power_step, result, 6)
