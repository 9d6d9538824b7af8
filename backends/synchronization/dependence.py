"""Whether two accesses of a tile program can meet: affine addresses of strided blocks, in the same or in another iteration.

An answer of no is proved, by the range of the difference of the addresses or by its residue modulo one of the strides: rows
that interleave in memory lie in different columns. Anything else is yes.
"""

from __future__ import annotations

from collections.abc import Mapping

from nxcc.backends.tile.expressions import Expr, Symbol
from nxcc.ir.facts import dataclass

Term = tuple[int, int, int]
"""coefficient, least and greatest value of an integer that may be anything between"""


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes that an operand touches: address + sum of stride * 0..size-1 + 0..bytes-1."""

    address: Expr
    dims: tuple[tuple[int, int], ...]
    bytes: int

    def bounds(self) -> tuple[int, int]:
        """First byte, and the one behind the last, over all values of the address."""
        low, high = self.address.bounds()
        for stride, size in self.dims:
            low += min(0, stride * (size - 1))
            high += max(0, stride * (size - 1))
        return low, high + self.bytes


Apart = Mapping[Symbol, tuple[int, bool]]
"""Loops whose iterations differ: the count, and whether the later access is in the later iteration."""


def meet(later: Block, earlier: Block, equal: Mapping[Symbol, None], apart: Apart) -> bool:
    """Whether the two can touch the same byte.

    equal: symbols that have one value in both. All that are in neither mapping are independent of each other.
    """
    if any(count < 2 for count, _ in apart.values()):
        return False
    distance = earlier.address.constant - later.address.constant
    terms = _address_terms(later.address, earlier.address, equal, apart)
    terms += [(stride, 0, size - 1) for stride, size in earlier.dims if size > 1]
    terms += [(-stride, 0, size - 1) for stride, size in later.dims if size > 1]
    # They touch where the difference of their first bytes is in this range.
    least, most = -(earlier.bytes - 1), later.bytes - 1
    low, high = _span(terms)
    if distance + high < least or distance + low > most:
        return False
    for modulus in {abs(factor) for factor, _, _ in terms}:
        if modulus <= most - least:
            continue
        low, high = _span([term for term in terms if term[0] % modulus])
        if (distance + high - least) // modulus * modulus < distance + low - most:
            return False
    return True


def _span(terms: list[Term]) -> tuple[int, int]:
    low = high = 0
    for factor, least, most in terms:
        if factor < 0:
            least, most = most, least
        low += factor * least
        high += factor * most
    return low, high


def _address_terms(later: Expr, earlier: Expr, equal: Mapping[Symbol, None], apart: Apart) -> list[Term]:
    ours, theirs = dict(later.terms), dict(earlier.terms)
    terms: list[Term] = []
    for symbol in {**ours, **theirs}:
        a, b = ours.get(symbol, 0), theirs.get(symbol, 0)
        if symbol in apart:
            count, ahead = apart[symbol]
            terms.append((-a if ahead else b, 1, count - 1))
            terms.append((b - a, symbol.low, symbol.high))
        elif symbol in equal:
            terms.append((b - a, symbol.low, symbol.high))
        else:
            terms += [(b, symbol.low, symbol.high), (-a, symbol.low, symbol.high)]
    return [term for term in terms if term[0]]
