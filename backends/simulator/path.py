"""The way back from what ended last through what each start waited for: the critical path, also across turns left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nxcc.backends.simulator.outcome import Fold, Node

Piece = tuple[int, int, int, int]
"""Start, end (ticks), cause, region."""


FOLD = 1000
"""Cause of a node that moved on with turns left out: this and the fold's number."""


def pieces(last: Node, folds: Sequence[Fold]) -> list[Piece]:
    """The path from the start to the end, without gaps."""
    chain = list(back(last))
    found: list[Piece] = []
    for before, at, cause, region in reversed(chain):
        if cause >= FOLD:
            _unfold(found, folds[cause - FOLD])
        else:
            found.append((before[1], at, cause, region))
    return found


def back(node: Node) -> Iterator[Node]:
    """The nodes from the last to the first that follows something."""
    while node[0] is not None:
        yield node
        node = node[0]


def _unfold(found: list[Piece], fold: Fold) -> None:
    """Put the path of the periods left out between the pieces before the fold and those after it.

    It is that of the last period but one of what is known, so many times as long: there the ways of all that is under way
    have met.
    """
    end = found[-1][1] - (fold.length if fold.exact else 0)
    repeated = _within(found, end - fold.length, end)
    tail = _cut(found, fold.at)
    at = found[-1][1] if found else 0
    for start, end, cause, region in repeated:
        long = (end - start) * fold.times
        found.append((at, at + long, cause, region))
        at += long
    found.extend([(start + fold.ticks, end + fold.ticks, cause, region) for start, end, cause, region in tail])


def _cut(found: list[Piece], at: int) -> list[Piece]:
    """Take what lies behind a tick off the end."""
    tail = []
    while found and found[-1][1] > at:
        start, end, cause, region = found.pop()
        if start < at:
            found.append((start, at, cause, region))
            start = at
        tail.append((start, end, cause, region))
    tail.reverse()
    return tail


def _within(found: list[Piece], first: int, end: int) -> list[Piece]:
    """The pieces between two ticks."""
    inside = []
    for start, until, cause, region in reversed(found):
        if until <= first:
            break
        if start < end:
            inside.append((max(start, first), min(until, end), cause, region))
    inside.reverse()
    return inside
