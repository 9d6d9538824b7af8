"""What a timed run keeps of itself if asked: every piece of work and every transfer, and how full the on-chip memories are.

A piece ("span") is a row of numbers, since there may be a million: see COLUMNS. Occupancy counts the bytes of a partition that
hold a value which is still read later: from the first write to the last read before the next write, in granules; a program
names no buffers, so this is what can be seen from its accesses.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import field

import numpy as np
import numpy.typing as npt

from nxcc.backends.isa.program import DMA_PARTITION_STRIDE, AccessPattern, Affine, DmaPattern, Instruction, Memory
from nxcc.backends.simulator.outcome import Fold
from nxcc.backends.simulator.timed import Code, Slot
from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass

Integers = npt.NDArray[np.int64]
COLUMNS = ("row", "slot", "region", "start", "end", "after")
"""Of a span. row: index into Timeline.rows; slot: static instruction (a transfer's is its trigger); start, end: ticks;
after: number of the span whose end it waited for last (a transfer's is its trigger), or -1."""
NOTHING = -1
SBUF_GRANULE, PSUM_GRANULE = 512, 256
"""Bytes a partition."""


@dataclass(frozen=True, slots=True)
class Access:
    """Bytes [low, high) of each partition, plus register terms. keeps: reads, or adds to what is there."""

    memory: Memory
    low: int
    high: int
    terms: tuple[tuple[int, int], ...]
    keeps: bool


def accesses(instruction: Instruction) -> tuple[Access, ...]:
    """What an instruction touches of SBUF and PSUM, reads first."""
    found = []
    for name, operand in instruction.operands.items():
        if operand.memory is Memory.HBM:
            continue
        role = instruction.spec.operand(name).access
        keeps = role == "r" or (role == "rw" and bool(instruction.fields.get("accumulate", True)))
        offset, reach = _reach(operand, instruction)
        low = offset.constant + sum(r for r in reach if r < 0)
        high = offset.constant + sum(r for r in reach if r > 0) + operand.dtype.byte_size
        if isinstance(operand, DmaPattern):
            low, high = low % DMA_PARTITION_STRIDE, (high - 1) % DMA_PARTITION_STRIDE + 1
        found.append(Access(operand.memory, low, high, offset.terms, keeps))
    return tuple(sorted(found, key=lambda access: not access.keeps))


def _reach(operand: AccessPattern | DmaPattern, instruction: Instruction) -> tuple[Affine, list[int]]:
    """The first byte, and how far each dimension goes from there within a partition."""
    if isinstance(operand, AccessPattern):
        return operand.offset, [stride * (size - 1) * operand.dtype.byte_size for stride, size in operand.dims]
    steps = zip(operand.strides, instruction.fields["sizes"], strict=True)
    return operand.address, [stride * (size - 1) for stride, size in steps if abs(stride) < DMA_PARTITION_STRIDE // 2]


class Occupancy:
    """How many bytes of a partition hold values that are still to be read, over time."""

    def __init__(self, capacity: int, granule: int) -> None:
        self.capacity, self.granule = capacity, granule
        count = -(-capacity // granule)
        self.born, self.written, self.read = ([NOTHING] * count for _ in range(3))
        self.events = array("q")

    def touch(self, low: int, high: int, start: int, end: int, keeps: bool) -> None:
        """An access of bytes [low, high) from tick start to end."""
        born, read = self.born, self.read
        last = min((high - 1) // self.granule + 1, len(born))
        for place in range(max(0, low // self.granule), last):
            if keeps:
                if born[place] < 0:
                    born[place] = start
                if end > read[place]:
                    read[place] = end
            else:
                if read[place] >= 0:
                    self.events.extend((born[place], 1, read[place], -1))
                    born[place], read[place] = start, NOTHING
                elif born[place] < 0:
                    born[place] = start
                self.written[place] = end

    def move_on(self, after: int, ticks: int) -> None:
        """Make everything behind a tick later."""
        for times in (self.born, self.written, self.read):
            times[:] = [at + ticks if at > after else at for at in times]
        self.events[::2] = array("q", [at + ticks if at > after else at for at in self.events[::2]])

    def curve(self) -> tuple[Integers, Integers]:
        """Ticks at which the occupancy changes, and the bytes a partition from then on."""
        events = array("q", self.events)
        for born, read, written in zip(self.born, self.read, self.written, strict=True):
            if born >= 0:
                events.extend((born, 1, max(read, written, born), -1))
        rows = np.array(events, np.int64).reshape(-1, 2)
        ticks, where = np.unique(rows[:, 0], return_inverse=True)
        change = np.zeros(len(ticks), np.int64)
        np.add.at(change, where.reshape(-1), rows[:, 1])
        return ticks, np.cumsum(change) * self.granule


@dataclass(frozen=True, slots=True)
class PathPiece:
    """A piece of the critical path, ticks."""

    start: int
    end: int
    cause: int
    region: int


@dataclass
class Timeline:
    """The spans of one run in the order in which they were found, and what else changes over time.

    rows: names of engines, then of DMA queues. path: the critical path from the start to the end, without gaps. repeated: spans
    [first, end) that turns left out repeat.
    """

    rows: tuple[str, ...]
    sbuf: Occupancy
    psum: Occupancy
    cells: array[int] = field(default_factory=lambda: array("q"))
    path: list[PathPiece] = field(default_factory=list)
    made: dict[int, int] = field(default_factory=dict)
    touched: list[tuple[Access, ...] | None] = field(default_factory=list)
    slots: Sequence[Slot] = ()
    repeated: list[tuple[int, int, Fold]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.cells) // len(COLUMNS)

    @property
    def weights(self) -> Integers:
        """How many pieces of work each span stands for: more than one where turns of a loop were left out."""
        found = np.ones(self.count, np.int64)
        for first, end, fold in self.repeated:
            found[first:end] *= fold.times + 1
        return found

    def leave_out(self, fold: Fold, first: int) -> None:
        """Make room for turns that repeat the spans from `first` on."""
        self.repeated.append((first, self.count, fold))
        spans = np.frombuffer(self.cells, np.int64).reshape(-1, len(COLUMNS))[first:]
        spans[spans[:, 3] >= fold.at, 3:5] += fold.ticks
        self.sbuf.move_on(fold.at, fold.ticks)
        self.psum.move_on(fold.at, fold.ticks)

    @property
    def columns(self) -> Integers:
        """[spans, len(COLUMNS)]."""
        return np.frombuffer(self.cells, np.int64).reshape(-1, len(COLUMNS))

    def add(self, row: int, slot: int, region: int, start: int, end: int, after: int) -> int:
        """Keep a span; its number."""
        self.cells.extend((row, slot, region, start, end, after))
        return self.count - 1

    def places(self, slot: int, registers: Sequence[int]) -> list[tuple[Occupancy, int, int, bool]]:
        """What an instruction touches on chip with these registers."""
        known = self.touched[slot]
        if known is None:
            known = self.touched[slot] = accesses(self.slots[slot].instruction)
        found = []
        for access in known:
            shift = sum([registers[register] * factor for register, factor in access.terms])
            memory = self.sbuf if access.memory is Memory.SBUF else self.psum
            found.append((memory, access.low + shift, access.high + shift, access.keeps))
        return found

    def occupy(self, places: list[tuple[Occupancy, int, int, bool]], start: int, end: int) -> None:
        """Count accesses from tick start to end."""
        for memory, low, high, keeps in places:
            memory.touch(low, high, start, end, keeps)


def new_timeline(code: Code, rows: tuple[str, ...], target: Target) -> Timeline:
    """An empty timeline of a program."""
    return Timeline(rows, Occupancy(target.sbuf.partition_bytes, SBUF_GRANULE),
                    Occupancy(target.psum.partition_bytes, PSUM_GRANULE), touched=[None] * len(code.slots), slots=code.slots)
