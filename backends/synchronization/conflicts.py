"""Which sites of a region conflict, and which run of the other is the latest that a site must wait for."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.synchronization.dependence import Apart, Block, meet
from nxcc.backends.synchronization.extents import EVERYWHERE, Extent
from nxcc.backends.synchronization.plan import Event, Site
from nxcc.backends.tile.expressions import Expr, Index, Symbol, expr
from nxcc.backends.tile.program import Loop, ScalarLoad, ScalarOp, Statement
from nxcc.ir.facts import dataclass


@dataclass(slots=True)
class Placed:
    """A site with its loops (outermost first), place in program order, extents, and count before it on its semaphore.

    slots: which of the loops have a semaphore for each iteration, of which `semaphore` is the first; of transfers only.
    """

    site: Site
    loops: tuple[Loop, ...]
    order: int
    extents: list[Extent]
    semaphore: int
    unit: int
    before: int = 0
    steps: tuple[int, ...] = ()
    slots: tuple[int, ...] = ()

    @property
    def semaphores(self) -> int:
        """How many it has."""
        return math.prod(self.loops[place].count for place in self.slots)

    def signal(self, at: Sequence[Expr]) -> Index:
        """The semaphore that it counts in the iteration `at`."""
        found, factor = expr(self.semaphore), 1
        for place in reversed(self.slots):
            found = found + at[place] * factor
            factor *= self.loops[place].count
        return found if found.terms else found.constant

    def here(self) -> list[Expr]:
        """The iteration in which it is."""
        return [Expr(0, ((loop.symbol, 1),)) for loop in self.loops]

    def done(self, at: Sequence[Expr]) -> Expr:
        """The semaphore's value once this site has completed in the iteration `at` (one index per loop)."""
        value = Expr((self.before + 1) * self.unit)
        for step, index in zip(self.steps, at, strict=True):
            value = value + index * (step * self.unit)
        return value


class SlotsMeet(Exception):
    """A transfer of one slot must be awaited in another: counts of several semaphores do not say that it is done."""


class Scalars:
    """What is known of run-time scalars. loops: those inside which each is computed, so that it has one value in an iteration
    of them. parities: those that are a loop's variable modulo 2."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.loops: dict[Symbol, tuple[Loop, ...]] = {}
        self.parities: dict[Symbol, Symbol] = {}
        self._read(statements, ())

    def _read(self, statements: Sequence[Statement], loops: tuple[Loop, ...]) -> None:
        for statement in statements:
            if isinstance(statement, Loop):
                self._read(statement.body, (*loops, statement))
            elif isinstance(statement, ScalarLoad | ScalarOp):
                self.loops[statement.symbol] = loops
            if isinstance(statement, ScalarOp) and statement.op == "modulo" and statement.b == Expr(2):
                if loops and statement.a == Expr(0, ((loops[-1].symbol, 1),)):
                    self.parities[statement.symbol] = loops[-1].symbol

    def steady(self, block: Block, equal: Sequence[Loop]) -> list[Symbol]:
        """Scalars in a block's address that have one value in an iteration of these loops."""
        return [symbol for symbol, _ in block.address.terms if symbol in self.loops and len(self.loops[symbol]) <= len(equal)
                and all(a is b for a, b in zip(self.loops[symbol], equal, strict=False))]

    def before(self, block: Block, carried: Loop) -> tuple[Block, list[Symbol]]:
        """A block as it is in the iteration before, in terms of this one's parities; and these."""
        constant, terms, flipped = block.address.constant, [], []
        for symbol, factor in block.address.terms:
            if self.parities.get(symbol) is carried.symbol:
                constant, factor = constant + factor, -factor
                flipped.append(symbol)
            terms.append((symbol, factor))
        return Block(Expr(constant, tuple(terms)), block.dims, block.bytes), flipped


SAME = 0
"""Depth of a conflict within one iteration of all common loops; above 0, the number of the common loop that carries it."""


Pairs = list[tuple[Extent, Extent]]
"""An extent of one site and one of another that share bytes in some iterations, one of them written."""


class Touched:
    """Who touches what, by memory or buffer and there by areas: ranges of bytes over whose borders no extent reaches, as tiles
    are. Only extents of one area are compared."""

    def __init__(self, placed: Sequence[Placed]) -> None:
        self.placed = placed
        ranges: dict[object, list[tuple[int, int]]] = {}
        for p in placed:
            for extent in p.extents:
                ranges.setdefault(extent.key, []).append((extent.low, extent.high))
        self.areas = {key: _areas(rows) for key, rows in ranges.items()}
        self.readers: dict[object, list[tuple[Extent, int, Engine | None]]] = {}
        self.writers: dict[object, list[tuple[Extent, int, Engine | None]]] = {}
        for p in placed:
            in_order_on = None if p.site.is_dma else p.site.engine
            for extent in p.extents:
                rows = self.writers if extent.writes else self.readers
                rows.setdefault(self._area(extent), []).append((extent, p.order, in_order_on))

    def _area(self, extent: Extent) -> tuple[object, int]:
        return extent.key, bisect.bisect_right(self.areas[extent.key], extent.low)

    def overlapping(self, p: Placed) -> list[tuple[Placed, Pairs]]:
        """Sites that touch a byte of p's, one of the two writing it, in program order, and where; a transfer is among its own.

        What p's engine itself does in order is left out.
        """
        found: dict[int, Pairs] = {p.order: []} if p.site.is_dma else {}
        engine = p.site.engine
        for mine in p.extents:
            area = self._area(mine)
            first, last, low, high = mine.first_partition, mine.last_partition, mine.low, mine.high
            for rows in (self.writers, self.readers) if mine.writes else (self.writers,):
                for other, order, in_order_on in rows.get(area, ()):
                    if in_order_on is not engine and low < other.high and other.low < high \
                            and first < other.last_partition and other.first_partition < last:
                        found.setdefault(order, []).append((mine, other))
        return [(self.placed[order], found[order]) for order in sorted(found)]


def _areas(ranges: list[tuple[int, int]]) -> list[int]:
    """Where the ranges that overlap each other, directly or through others, begin."""
    starts: list[int] = []
    end = -EVERYWHERE
    for low, high in sorted(ranges):
        if not starts or low >= end:
            starts.append(low)
        end = max(end, high)
    return starts


Same = tuple[tuple[int, Symbol], ...]
"""Loops of another site, by place, whose iteration is known by a symbol of this one's."""


@dataclass(frozen=True, slots=True)
class _Conflict:
    """The latest run of another site that one must wait for.

    depth: see SAME. distance: how many iterations ago it was: 1, or 2 where tiles take turns by parity. same: of the loops
    inside that one.
    """

    depth: int
    distance: int = 0
    same: Same = ()

    @property
    def is_last(self) -> bool:
        """Whether it comes after all runs of farther iterations and of loops farther out."""
        return self.distance <= 1 and not self.same


def conflicts(p: Placed, overlapping: Sequence[tuple[Placed, Pairs]], scalars: Scalars) -> list[Event]:
    """What must be done before p starts: per semaphore the latest conflicting event of this iteration, and of the previous
    iteration of each loop around p (the inner one's says nothing when the inner loop has just begun)."""
    latest: dict[tuple[int, _Conflict], Placed] = {}
    known: dict[int, int] = {}
    for other, pairs in reversed(overlapping):
        # The latest of each depth counts: once all depths of a semaphore are found, earlier sites add nothing.
        if known.get(other.semaphore, 0) > len(p.loops):
            continue
        for found in _conflicts_with(p, other, pairs, scalars):
            if (other.semaphore, found) not in latest:
                latest[other.semaphore, found] = other
                known[other.semaphore] = known.get(other.semaphore, 0) + found.is_last
    rows = sorted(latest.items(), key=lambda row: (row[0][0], row[0][1].depth, row[1].order))
    return [event for (_, found), other in rows for event in _events(p, other, found)]


def _events(p: Placed, other: Placed, found: _Conflict) -> Iterator[Event]:
    """The end of the run of `other` that p must wait for."""
    depth, same = found.depth, dict(found.same)
    common = len(_common(p.loops, other.loops)) if depth == SAME else depth
    at = [here if place < common else Expr(0, ((same[place], 1),)) if place in same else Expr(loop.count - 1)
          for place, (here, loop) in enumerate(zip(other.here(), other.loops, strict=True))]
    if depth != SAME:
        if depth - 1 in other.slots:
            raise SlotsMeet
        at[depth - 1] = at[depth - 1] + -found.distance
    value = other.done(at)
    # What ends with the last iteration of a loop of slots has ended on all their semaphores.
    last = [place for place in other.slots if place >= common and place not in same]
    for slots in itertools.product(*(range(other.loops[place].count) for place in last)):
        for place, slot in zip(last, slots, strict=True):
            at[place] = Expr(slot)
        yield other.signal(at), value


def _conflicts_with(p: Placed, other: Placed, pairs: Pairs, scalars: Scalars) -> Iterator[_Conflict]:
    """Conflicts with one other site, the latest first; farther ones only as far as the earlier do not cover them.

    A transfer waits for the previous run that counted its semaphore, whatever it touches: one at a time.
    """
    if other is p:
        depth = max((place for place in range(len(p.loops)) if place not in p.slots), default=-1) + 1
        if depth:
            yield _Conflict(depth, 1, tuple((place, p.loops[place].symbol) for place in p.slots if place >= depth))
        return
    common = _common(p.loops, other.loops)
    if other.order < p.order:
        meeting = [(a, b) for a, b in pairs if _meet(a, b, common, {}, scalars)]
        if meeting:
            yield _Conflict(SAME, 0, _same(p, other, meeting, common, {}, len(common), scalars))
            return
    for depth in range(len(common), 0, -1):
        outer, carried = common[:depth - 1], common[depth - 1]
        apart = {carried.symbol: (carried.runs, True)}
        meeting = [(a, b) for a, b in pairs if _meet(a, b, outer, apart, scalars)]
        if meeting:
            distance = 1 if any(_meet_next(a, b, outer, carried, scalars) for a, b in meeting) else 2
            found = _Conflict(depth, distance, _same(p, other, meeting, outer, apart, len(common), scalars))
            yield found
            if found.is_last:
                return


def _same(p: Placed, other: Placed, meeting: Pairs, equal: Sequence[Loop], apart: Apart, common: int,
          scalars: Scalars) -> Same:
    """Loops farther in, in which the two meet in the same iteration only: of their common loops, and of their own loops of
    slots that count alike. equal, apart: what is known of the loops outside."""
    found = []
    for place in range(len(equal) + len(apart), len(other.loops)):
        loop = other.loops[place]
        own = [one for one in p.loops[common:] if one.slots and loop.slots and one.count == loop.count]
        for one in own if place >= common else [loop]:
            pairs = meeting if one is loop else [(a, _renamed(b, loop.symbol, one.symbol)) for a, b in meeting]
            if not any(_meet(a, b, equal, {**apart, one.symbol: (one.runs, ahead)}, scalars)
                       for a, b in pairs for ahead in (True, False)):
                found.append((place, one.symbol))
                break
    return tuple(found)


def _renamed(extent: Extent, symbol: Symbol, to: Symbol) -> Extent:
    """An extent whose address has another symbol for one."""
    if extent.block is None:
        return extent
    address = Expr(extent.block.address.constant, tuple((to if s is symbol else s, c) for s, c in extent.block.address.terms))
    return replace(extent, block=Block(address, extent.block.dims, extent.block.bytes))


def _meet(later: Extent, earlier: Extent, equal: Sequence[Loop], apart: Apart, scalars: Scalars) -> bool:
    if later.block is None or earlier.block is None:
        return True
    same = dict.fromkeys(loop.symbol for loop in equal)
    same |= dict.fromkeys([*scalars.steady(later.block, equal), *scalars.steady(earlier.block, equal)])
    return meet(later.block, earlier.block, same, apart)


def _meet_next(later: Extent, earlier: Extent, equal: Sequence[Loop], carried: Loop, scalars: Scalars) -> bool:
    """Whether they meet in iterations of a loop that follow each other; they do in some that differ."""
    if later.block is None or earlier.block is None:
        return True
    before, flipped = scalars.before(earlier.block, carried)
    if not flipped:
        return True
    same = dict.fromkeys(loop.symbol for loop in equal) | dict.fromkeys(flipped)
    return meet(later.block, before, same, {carried.symbol: (carried.runs, True)})


def _common(a: Sequence[Loop], b: Sequence[Loop]) -> tuple[Loop, ...]:
    shared = []
    for left, right in zip(a, b, strict=False):
        if left is not right:
            break
        shared.append(left)
    return tuple(shared)
