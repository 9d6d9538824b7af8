"""Sizes that are not known while compiling, but lie between two numbers: shapes of values that only a run makes whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nxcc.ir.facts import dataclass

FAR = 1 << 60
"""Stands for no limit."""


@dataclass(frozen=True, slots=True)
class Span:
    """A whole number from low to high, both included."""

    low: int
    high: int

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def mapped(self, change: Callable[[int], int]) -> Span:
        """What a function makes of it that never falls where the number rises."""
        return Span(change(self.low), min(change(self.high), FAR))


def at(number: int) -> Span:
    return Span(number, number)


ANY = Span(0, FAR)
Spans = tuple[Span, ...]


def total(spans: Sequence[Span]) -> Span:
    return Span(sum(s.low for s in spans), min(sum(s.high for s in spans), FAR))


def product(spans: Sequence[Span]) -> Span:
    return Span(math.prod(s.low for s in spans), min(math.prod(s.high for s in spans), FAR))


def broadcast(*shapes: Spans | None) -> Spans | None:
    """Numpy's rule: a size above 1 decides, whatever the others are."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    rank = max(map(len, known))
    rows = [(at(1),) * (rank - len(shape)) + shape for shape in known]
    return tuple(_common(column) for column in zip(*rows, strict=True))


def _common(sizes: Sequence[Span]) -> Span:
    others = [size for size in sizes if size != at(1)]
    for size in others:
        if size.exact:
            return size
    if not others:
        return at(1)
    if len(set(others)) == 1:
        return others[0]
    return Span(min(s.low for s in others), max(s.high for s in others))
