"""Two regions run at a time, each in a berth of its own: half of SBUF, of PSUM and of the semaphores.

A region may begin once the one before its predecessor is done, since that had the same berth. What it reads or overwrites of
its predecessor's it awaits access by access (`Entrance.after`), so that weights load and engines work while the predecessor
still stores. A region that does not fit into half of the machine takes it whole and runs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from nxcc.backends.target import Target
from nxcc.backends.tile.program import View
from nxcc.ir.facts import dataclass

EPOCH = 0
"""Semaphore that orders regions: counts those that are done, and at level 0 everything."""

READS = 1
"""Counts the engines that have read a condition, see nxcc.backends.mainstream."""

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


def room(target: Target, berth: Berth) -> Room:
    """What of the machine a berth takes; psum_start in bytes of a partition."""
    shared = target.sequencer.semaphores - FIRST_OF_REGIONS
    whole = Room(target.sbuf.usable_bytes, target.psum.banks, shared)
    if berth is Berth.WHOLE:
        return whole
    sbuf = whole.sbuf_bytes // 2 // target.sbuf.align_bytes * target.sbuf.align_bytes
    banks, semaphores = whole.psum_banks // 2, shared // 2
    if berth is Berth.LOWER:
        return Room(sbuf, banks, semaphores)
    return Room(sbuf, banks, semaphores, sbuf, banks * target.psum.bank_bytes, FIRST_OF_REGIONS + semaphores)


@dataclass(frozen=True, slots=True)
class Entrance:
    """How a call of a region begins. lag: regions that may still be running, 0 or 1; after: numbers of the address
    arguments whose memory that one reads or writes in a way that conflicts."""

    berth: Berth = Berth.WHOLE
    lag: int = 0
    after: frozenset[int] = frozenset()


ALONE = Entrance()


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
    low = high = view.address.constant
    if view.elements == 0:
        return low, low
    low += sum(min(0, stride * (size - 1)) for stride, size in view.dims)
    high += sum(max(0, stride * (size - 1)) for stride, size in view.dims) + view.dtype.byte_size
    return low, high
