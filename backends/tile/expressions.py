"""Affine index expressions over symbols: loop variables, relocation arguments and run-time scalars."""

from __future__ import annotations

from nxcc.ir.facts import dataclass


class Symbol:
    """A value that a register holds while a tile program runs.

    kind: "loop" (0..count-1), "argument" (set by the caller) or "scalar" (computed at run time).
    low, high: inclusive range of its values, for address checks.
    """

    __slots__ = ("name", "kind", "low", "high")

    def __init__(self, name: str, kind: str, low: int, high: int) -> None:
        self.name = name
        self.kind = kind
        self.low = low
        self.high = high

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Expr:
    """constant + sum of symbol * coefficient; terms keep the order in which symbols first appeared."""

    constant: int = 0
    terms: tuple[tuple[Symbol, int], ...] = ()

    def __add__(self, other: Expr | int) -> Expr:
        if isinstance(other, int):
            return Expr(self.constant + other, self.terms) if other else self
        if not other.terms:
            return self + other.constant
        merged = dict(self.terms)
        for symbol, coefficient in other.terms:
            merged[symbol] = merged.get(symbol, 0) + coefficient
        return Expr(self.constant + other.constant, tuple((s, c) for s, c in merged.items() if c))

    __radd__ = __add__

    def __sub__(self, other: Expr | int) -> Expr:
        return self + other * -1

    def __mul__(self, factor: int) -> Expr:
        if factor == 1:
            return self
        return Expr(self.constant * factor, tuple((s, c * factor) for s, c in self.terms if c * factor))

    __rmul__ = __mul__

    @property
    def is_constant(self) -> bool:
        return not self.terms

    def bounds(self) -> tuple[int, int]:
        """Least and greatest value over the symbols' ranges."""
        low = high = self.constant
        for symbol, c in self.terms:
            low += min(symbol.low * c, symbol.high * c)
            high += max(symbol.low * c, symbol.high * c)
        return low, high

    def __str__(self) -> str:
        parts = [f"{s.name}*{c}" if c != 1 else s.name for s, c in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return "+".join(parts)


Index = Expr | int


def expr(value: Index) -> Expr:
    return value if isinstance(value, Expr) else Expr(value)
