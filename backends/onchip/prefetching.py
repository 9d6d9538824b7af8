"""Weights that come early: the transfers of a region begin while the regions before it work, where SBUF has room for them.

Before: a region that needs much of the chip begins when the one before is done, and computes when its weights have come. After:
the weights have a place of their own from an earlier region on, the Sync engine triggers their transfers there behind that
region's own, and where they were triggered a `nop` waits until they have come and keeps waits and signals as they were. The
instructions that read them read them at their place.

Straight streams only. Weights move if nothing else touches their bytes while the region works: then all that reads there reads
them. The device's memory is busy while engines work, which on a target with little bandwidth decides its speed.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace

from nxcc.backends.berths import EPOCH
from nxcc.backends.isa.instructions import control
from nxcc.backends.isa.layout import WAITS_MAX
from nxcc.backends.isa.program import (
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Memory,
    Program,
    Signal,
    Wait,
)
from nxcc.backends.onchip.placing import Places
from nxcc.backends.onchip.reads import at_offset, footprint
from nxcc.backends.onchip.transfers import Weights
from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass

EARLY = 2
"""How many regions before its own a transfer may begin."""

Place = tuple[Engine, int]
"""An instruction of an entry: its engine and its index there."""


def prefetch(program: Program, weights: Iterable[tuple[int, int]], places: Places, target: Target) -> Program:
    """The program with transfers of weights brought forward as far as there is room.

    weights: (address, bytes) of the blocks of the arena that no region writes. places: what is taken on chip; what moves is
    added.
    """
    assert not program.functions, "streams are straight"
    spans = sorted(weights)
    entries, semaphores = [], program.semaphores
    for entry in program.entries:
        found = _Entry(entry, spans, places, _free_semaphores(program, target))
        entries.append(found.rewritten())
        semaphores = max(semaphores, found.semaphores)
    return replace(program, entries=entries, sbuf_bytes=max(program.sbuf_bytes, places.top), semaphores=semaphores)


def _free_semaphores(program: Program, target: Target) -> list[int]:
    used = {signal.index.constant for _, _, stream in program.streams() for one in stream for signal in one.signals}
    return [number for number in range(target.sequencer.semaphores) if number not in used]


@dataclass(frozen=True, slots=True)
class _Touch:
    """An operand in SBUF: where it stands, its name, whether it is written, and its bytes of partitions first..last-1."""

    at: Place
    name: str
    is_written: bool
    low: int
    high: int
    first: int
    last: int


@dataclass
class _Group:
    """Transfers of one region into bytes that lie together, and what reads them."""

    region: int
    low: int
    high: int
    loads: list[_Touch] = field(default_factory=list)
    reads: list[_Touch] = field(default_factory=list)
    is_mixed: bool = False

    def add(self, load: _Touch) -> None:
        self.is_mixed |= any(load.low < other.high and other.low < load.high and load.first < other.last
                             and other.first < load.last for other in self.loads)
        self.loads.append(load)
        self.high = max(self.high, load.high)


class _Entry:
    """One entry's transfers. sections: the indices of each region's instructions on the Sync engine."""

    def __init__(self, entry: Function, spans: Sequence[tuple[int, int]], places: Places, free: Sequence[int]) -> None:
        self.entry = entry
        self.weights = Weights(spans)
        self.places = places
        self.lag = places.timeline.lag
        self.sync = entry.streams[Engine.SYNC]
        self.changed: dict[Place, Instruction] = {}
        self.early: dict[int, list[Instruction]] = defaultdict(list)
        self.sections: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.done: dict[int, Wait] = {}
        self.semaphores = 0
        per = len(free) // (EARLY + 1)
        self.sets = [free[number * per:(number + 1) * per] for number in range(EARLY + 1)]
        self.loads, self.touches = self._survey()

    def rewritten(self) -> Function:
        """The entry with what could be brought forward."""
        order = list(self.sections)
        for number, region in enumerate(order):
            before = [earlier for earlier in order[max(0, number - EARLY):number] if earlier in self.done]
            moved = [(group, *place) for group in self._groups(region) if (place := self._place(group, before)) is not None]
            if moved and self.sets[0]:
                self._move(moved, self.sets[number % len(self.sets)])
        if not self.changed:
            return self.entry
        streams = {engine: [self.changed.get((engine, index), one) for index, one in enumerate(stream)]
                   for engine, stream in self.entry.streams.items()}
        sync = []
        early = self._spread()
        for index, one in enumerate(streams[Engine.SYNC]):
            sync += [one, *early.get(index, ())]
        return Function(self.entry.name, streams | {Engine.SYNC: sync})

    def _spread(self) -> Mapping[int, Sequence[Instruction]]:
        """Behind which instructions of the Sync engine the early transfers come: over all that is left of the region's section,
        so that what the region itself moves meanwhile need not stand behind all of them."""
        found: dict[int, list[Instruction]] = defaultdict(list)
        for region, rows in self.early.items():
            first, end = self.sections[region], self.ends[region]
            for number, one in enumerate(rows):
                found[first + number * (end - first) // len(rows)].append(one)
        return found

    def _survey(self) -> tuple[Mapping[int, list[_Touch]], Mapping[int, list[_Touch]]]:
        """Transfers of weights by the Sync engine, and all that touches SBUF, by region. Where a region's section of the Sync
        engine has its last transfer from the arena, or else its first instruction, others' may follow. The first wait for
        regions before a section says when it begins; further ones are for what the region before it has."""
        loads: dict[int, list[_Touch]] = defaultdict(list)
        touches: dict[int, list[_Touch]] = defaultdict(list)
        for engine, stream in self.entry.streams.items():
            begun: Wait | None = None
            for index, one in enumerate(stream):
                if one.debug < 0:
                    begun = begun or next((wait for wait in one.waits if wait.index.constant == EPOCH), None)
                    continue
                if engine is Engine.SYNC and begun is not None and one.debug not in self.sections:
                    self.done[one.debug] = Wait(begun.index, Affine(begun.value.constant + self.lag[one.debug]))
                begun = None
                is_load = engine is Engine.SYNC and self.weights.feed(one)
                if engine is Engine.SYNC and (is_load or one.debug not in self.sections):
                    self.sections[one.debug] = index
                if engine is Engine.SYNC:
                    self.ends[one.debug] = index + 1
                for declared in one.spec.operands:
                    operand = one.operands.get(declared.name)
                    if operand is not None and operand.memory is Memory.SBUF:
                        touch = _Touch((engine, index), declared.name, "w" in declared.access, *_hull(operand, one))
                        (loads if is_load else touches)[one.debug].append(touch)
        return loads, touches

    def _groups(self, region: int) -> list[_Group]:
        """Weights of a region that may move, in the order in which they come."""
        groups: list[_Group] = []
        for load in sorted(self.loads.get(region, ()), key=lambda load: load.low):
            if not groups or load.low >= groups[-1].high:
                groups.append(_Group(region, load.low, load.high))
            groups[-1].add(load)
        lows = [group.low for group in groups]
        for touch in self.touches.get(region, ()) if groups else ():
            number = max(0, bisect.bisect_right(lows, touch.low) - 1)
            while number < len(groups) and groups[number].low < touch.high:
                group = groups[number]
                if touch.low < group.high:
                    group.is_mixed |= touch.is_written or touch.low < group.low or touch.high > group.high
                    group.reads.append(touch)
                number += 1
        return sorted((group for group in groups if not group.is_mixed), key=lambda group: group.loads[0].at[1])

    def _place(self, group: _Group, before: Sequence[int]) -> tuple[int, int] | None:
        """From which region on, and how far from their place, the weights may lie: the earlier the better.

        Their own place is theirs in their own region; if it is free before, they need not move.
        """
        low = group.low // self.places.align * self.places.align
        partitions = min(load.first for load in group.loads), max(load.last for load in group.loads)
        for region in before:
            taken = self.places.taken()
            self.places.vacate(group.region, group.low, group.high)
            place = self.places.put(group.high - low, partitions, region, group.region, late=True)
            if place is not None:
                return region, place - low
            self.places.restore(taken)
        return None

    def _move(self, moved: Sequence[tuple[_Group, int, int]], semaphores: Sequence[int]) -> None:
        """Trigger the transfers early, wait for them where they were, and read them where they are."""
        totals: dict[int, int] = defaultdict(int)
        rows = [(load, shift, region, semaphores[number % len(semaphores)]) for number, (load, shift, region) in enumerate(
            (load, shift, region) for group, region, shift in moved for load in group.loads)]
        for load, _, _, semaphore in rows:
            totals[semaphore] += self.sync[load.at[1]].signals[0].amount
        for load, shift, region, semaphore in sorted(rows, key=lambda row: row[0].at[1]):
            one = self.sync[load.at[1]]
            self.semaphores = max(self.semaphores, semaphore + 1)
            operands = one.operands | {"destination": at_offset(one.operands["destination"], shift)}
            early = self.early[region]
            if not early:
                early.append(Instruction(control.NOP, waits=(self.done[region],)))
            early.append(Instruction(
                one.spec, operands, one.fields, signals=(Signal(Affine(semaphore), one.signals[0].amount),), debug=one.debug))
            self._wait(load.at[1], semaphore, totals.pop(semaphore, 0))
        for group, _, shift in moved:
            self._read(group, shift)

    def _read(self, group: _Group, shift: int) -> None:
        """Let what reads the weights read them at their place."""
        for read in group.reads if shift else ():
            engine, index = read.at
            one = self.changed.get(read.at) or self.entry.streams[engine][index]
            operands = one.operands | {read.name: at_offset(one.operands[read.name], shift)}
            self.changed[read.at] = Instruction(one.spec, operands, one.fields, one.waits, one.signals, one.debug)

    def _wait(self, index: int, semaphore: int, total: int) -> None:
        """A nop in a transfer's place; with a total, it waits for all transfers of a semaphore, which begins anew."""
        one = self.sync[index]
        waits, signals = one.waits, one.signals
        if total:
            assert len(waits) < WAITS_MAX and len(signals) < WAITS_MAX
            waits = (*waits, Wait(Affine(semaphore), Affine(total)))
            signals = (*signals, Signal(Affine(semaphore), -total))
        self.changed[Engine.SYNC, index] = Instruction(control.NOP, waits=waits, signals=signals, debug=one.debug)


def _hull(operand: AccessPattern | DmaPattern, one: Instruction) -> tuple[int, int, int, int]:
    """Bytes and partitions that an operand lies in: low, high, first, last."""
    place = footprint(operand, one.fields.get("sizes", ()))
    return place.low, place.high, place.partitions[0][0], place.partitions[-1][1]
