"""How an extent is cut into equal pieces, so that what works on them is written once.

Pieces of one size rarely fill an extent. Those at the end may begin a little earlier and do again what their neighbours have
done: pieces i * step .. i * step + size, with size above step. What does not come out so has a smaller piece of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice

from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.ir.facts import dataclass

TRIES = 16
"""Numbers of pieces that are looked at."""


@dataclass(frozen=True, slots=True)
class Span:
    """`count` pieces of `size`, each `step` behind the one before, from `start` on."""

    start: int
    count: int
    step: int
    size: int

    @property
    def end(self) -> int:
        return self.start + (self.count - 1) * self.step + self.size

    @property
    def again(self) -> int:
        """By how much a piece reaches into the next one."""
        return self.size - self.step if self.count > 1 else 0

    def at(self, index: Index) -> Expr:
        """Where a piece begins."""
        return expr(index) * self.step + self.start


@cache
def even(total: int, most: int, turns: int = 1, unit: int = 1, again: bool = True, tries: int = 1) -> Span | None:
    """0..total in pieces of one size, at most `most`: as few as there can be, rounded up to `turns`; None if that is not to be.

    unit: of which the size is a multiple where it can be without more pieces. again: whether pieces may overlap. tries: numbers
    of pieces of which that is taken where least is done again.
    """
    least = -(-total // most)
    if least == 1:
        return Span(0, 1, total, total)
    first = -(-least // turns) * turns
    found = (_in(total, most, count, unit, again) for count in range(first, first + TRIES * turns, turns))
    return min(islice(filter(None, found), tries), key=lambda span: (span.count * span.size, span.count), default=None)


def _in(total: int, most: int, count: int, unit: int, again: bool) -> Span | None:
    """As `even`, in so many pieces."""
    step = total // count
    if total % count == 0 and (step % unit == 0 or not again):
        return Span(0, count, step, step)
    size = total - (count - 1) * step
    if not again or size > most:
        return None
    for wanted in range(-(-size // unit) * unit, most + 1, unit):
        if (total - wanted) % (count - 1) == 0:
            return Span(0, count, (total - wanted) // (count - 1), wanted)
    return Span(0, count, step, size)


@cache
def ragged(total: int, most: int, turns: int = 1) -> tuple[Span, ...]:
    """0..total in pieces of `most`: whole turns of them, what is left of these, and a smaller one."""
    full, rest = divmod(total, most)
    rounds = full // turns * turns
    found = [Span(0, rounds, most, most)] if rounds else []
    if full > rounds:
        found.append(Span(rounds * most, full - rounds, most, most))
    if rest:
        found.append(Span(full * most, 1, rest, rest))
    return tuple(found)


@contextmanager
def loop(kernel: Kernel, count: int, slots: bool = False, always: bool = False) -> Iterator[Expr]:
    """A loop, or nothing around a single run unless there is always to be one."""
    if count == 1 and not always:
        yield Expr()
        return
    with kernel.loop(count, slots, always) as index:
        yield index
