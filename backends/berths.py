"""Two regions run at a time, each in a berth of its own: part of SBUF and of PSUM, half of the semaphores.

A region may begin once the one before its predecessor is done. What it reads or overwrites of its predecessor's it awaits
access by access (`Entrance.after`), so that weights load and engines work while the predecessor still stores. Berths are halves
where both regions fit into one; else one begins at the bottom and the other ends at the top, and if there is PSUM for one of
them only, the later one's engines wait where they first touch it. So they do where SBUF has no room for both: what the later
region loads first lies where the earlier one has nothing (`codegen/lapping.py`). A region that needs more than half of the
semaphores takes the machine whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from nxcc.backends.target import Target
from nxcc.backends.tile.program import View
from nxcc.ir.facts import dataclass

EPOCH = 0
"""Semaphore that orders regions: counts those that are done, and at level 0 everything."""

READS = 1
"""Counts the engines that have read a condition, see nxcc.backends.codegen.mainstream."""

FIRST_OF_REGIONS = 2
"""Semaphores from here on belong to the regions."""


class Berth(Enum):
    """Which part of the machine a region has."""

    WHOLE = "whole"
    LOWER = "lower"
    UPPER = "upper"

    @property
    def other(self) -> Berth:
        return {Berth.LOWER: Berth.UPPER, Berth.UPPER: Berth.LOWER, Berth.WHOLE: Berth.LOWER}[self]


@dataclass(frozen=True, slots=True)
class Room:
    """Extent of a berth: bytes of a partition of SBUF, PSUM banks, semaphores; and where each begins."""

    sbuf_bytes: int
    psum_banks: int
    semaphores: int
    sbuf_start: int = 0
    psum_start: int = 0
    first_semaphore: int = FIRST_OF_REGIONS


def room(target: Target, berth: Berth, work_bytes: int = 0) -> Room:
    """What of the machine a berth takes; psum_start in bytes of a partition. work_bytes: of a partition that a region may have
    at most, 0 for all; the rest is for what stays on chip."""
    shared = target.sequencer.semaphores - FIRST_OF_REGIONS
    whole = Room(target.sbuf.usable_bytes, target.psum.banks, shared)
    if berth is Berth.WHOLE:
        return Room(min(work_bytes, whole.sbuf_bytes), whole.psum_banks, shared) if work_bytes else whole
    sbuf = whole.sbuf_bytes // 2 // target.sbuf.align_bytes * target.sbuf.align_bytes
    banks, semaphores = whole.psum_banks // 2, shared // 2
    if berth is Berth.LOWER:
        return Room(min(work_bytes or sbuf, sbuf), banks, semaphores)
    return Room(sbuf, banks, semaphores, sbuf, banks * target.psum.bank_bytes, FIRST_OF_REGIONS + semaphores)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a region needs: bytes of a partition of SBUF, PSUM banks, semaphores."""

    sbuf_bytes: int
    psum_banks: int
    semaphores: int


@dataclass(frozen=True, slots=True)
class Entrance:
    """How a call of a region begins. lag: regions that may still be running, 0 or 1; after: numbers of the address
    arguments whose memory that one reads or writes in a way that conflicts. sbuf_start: byte of a partition, psum_bank: where
    the region's memory begins; shares_psum: whether the one before may have some of the same banks; taken: bytes of a
    partition, from and up to, that it has of SBUF, if some of them are this one's as well. front: so many bytes of the
    region's SBUF lie behind the rest of it, which has `size` bytes in all."""

    berth: Berth = Berth.WHOLE
    lag: int = 0
    after: frozenset[int] = frozenset()
    sbuf_start: int = 0
    psum_bank: int = 0
    shares_psum: bool = False
    taken: tuple[int, int] = (0, 0)
    front: int = 0
    size: int = 0

    def place(self, offset: int) -> int:
        """Where a byte of the region's SBUF lies, counted from the first byte of the partition."""
        return self.sbuf_start + offset - self.front + (self.size if offset < self.front else 0)


ALONE = Entrance()


@dataclass(frozen=True, slots=True)
class Work:
    """Where a region works on chip: its number (debug index), first byte and bytes of a partition, and how many regions before
    it may still be running when it begins."""

    region: int
    start: int
    size: int
    lag: int


def beside(target: Target, before: Entrance, had: Footprint, need: Footprint) -> Entrance:
    """How a region begins after one that began so and had so much: beside it if there is room, else when it is done.

    An upper berth ends at the top; where weights stay on chip it begins in the middle, and what both leave free is theirs.
    """
    berth, whole, upper = before.berth.other, room(target, Berth.WHOLE), room(target, Berth.UPPER)
    if before.berth is Berth.WHOLE or target.dma.pinned_queues and need.sbuf_bytes > upper.sbuf_bytes:
        return Entrance(Berth.LOWER)
    bank = target.psum.bank_bytes
    half = upper.sbuf_start if target.dma.pinned_queues else whole.sbuf_bytes
    sbuf = _start(berth, need.sbuf_bytes, before.sbuf_start, had.sbuf_bytes, half, whole.sbuf_bytes)
    psum = _start(berth, need.psum_banks, before.psum_bank, had.psum_banks, upper.psum_start // bank, whole.psum_banks)
    align = target.sbuf.align_bytes
    free = Entrance(berth, 1, frozenset(), 0, 0 if psum is None else psum, psum is None)
    if sbuf is not None:
        return replace(free, sbuf_start=sbuf // align * align)
    size = -(-need.sbuf_bytes // align) * align
    if target.dma.pinned_queues or size > whole.sbuf_bytes:
        return Entrance(Berth.LOWER)
    start = 0 if berth is Berth.LOWER else (whole.sbuf_bytes - size) // align * align
    return replace(free, sbuf_start=start, taken=(before.sbuf_start, before.sbuf_start + had.sbuf_bytes), size=size)


def _start(berth: Berth, need: int, start: int, had: int, half: int, whole: int) -> int | None:
    """Where `need` of a memory begins beside what has `had` of it from `start` on; None if there is not enough."""
    if berth is Berth.LOWER:
        return 0 if need <= start or not had else None
    if need <= whole - half and start + had <= half:
        return half
    return whole - need if start + had <= whole - need else None


@dataclass(frozen=True, slots=True)
class Touched:
    """HBM that a region reads and writes: half-open byte ranges."""

    reads: tuple[tuple[int, int], ...]
    writes: tuple[tuple[int, int], ...]

    def conflicts(self, view: View, written: bool) -> bool:
        """Whether a later access to the view must wait for this region."""
        low, high = extent(view)
        ranges = (*self.reads, *self.writes) if written else self.writes
        return any(start < high and low < end for start, end in ranges)


def touched(operands: Sequence[View], results: Sequence[View]) -> Touched:
    return Touched(tuple(dict.fromkeys(map(extent, operands))), tuple(dict.fromkeys(map(extent, results))))


def extent(view: View) -> tuple[int, int]:
    """Bytes that a view at a fixed address spans; nothing for one without elements."""
    start = low = high = view.address.constant
    for stride, size in view.dims:
        if not size:
            return start, start
        if stride > 0:
            high += stride * (size - 1)
        else:
            low += stride * (size - 1)
    return low, high + view.dtype.byte_size
