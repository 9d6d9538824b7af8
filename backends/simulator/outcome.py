"""What a timed run of an entry has to say: ticks by engine, by cause and by region, and the path that decided them."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import field
from typing import TYPE_CHECKING, Any

from nxcc.backends.isa.program import Engine
from nxcc.ir.facts import dataclass

if TYPE_CHECKING:
    from nxcc.backends.simulator.timeline import Timeline

ENGINES = tuple(Engine)


class Cause(enum.IntEnum):
    """What a piece of the critical path is spent on; the first five are the engines' work in the order of Engine."""

    PE = 0
    SCALAR = 1
    VECTOR = 2
    GPSIMD = 3
    SYNC = 4
    SEQUENCER = 5
    SEMAPHORE = 6
    LATENCY = 7
    PORT = 8
    TABLE = 9
    DMA_ISSUE = 10
    DMA_LATENCY = 11
    DMA_DATA = 12


Node = tuple[Any, int, int, int]
"""A point of a path: (Node before or None, tick, cause of the ticks between the two, region)."""

MAIN = -1
"""Region of what belongs to no HLO instruction."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Turns of a loop that were left out since they would repeat those before them (see `folding`).

    at: tick at which they stand; length: ticks of a period; times: periods left out; turns: turns of the loop in all of them;
    exact: whether each would have taken just as long; else length is a mean.
    """

    at: int
    length: int
    times: int
    turns: int
    exact: bool

    @property
    def ticks(self) -> int:
        return self.length * self.times

@dataclass
class Timing:
    """What one run of an entry took.

    ticks: until everything is done. busy: ticks each engine's datapath worked; dma_busy: ticks of DMA engines, summed over
    them; table_loads: Scalar's, part of its busy. executed: instructions with work, by slot number; idle: ticks that the
    datapath stood before an instruction, by slot. path: ticks of the critical path by (region, cause). regions: busy ticks by
    region and cause. hbm_bytes: read and written by transfers, dma_bytes: moved. pe_flops: products and sums of data.
    assumed: data-dependent branches and loops whose outcome was assumed. folds: turns left out, in order of time; all numbers
    count them as if they had been timed. events: that were timed. timeline: if asked for.
    """

    ticks: int = 0
    busy: dict[Engine, int] = field(default_factory=dict)
    dma_busy: int = 0
    transfers: int = 0
    dma_bytes: int = 0
    hbm_bytes: int = 0
    pe_flops: int = 0
    table_loads: int = 0
    executed: list[int] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    path: Counter[tuple[int, Cause]] = field(default_factory=Counter)
    regions: dict[int, list[int]] = field(default_factory=dict)
    assumed: int = 0
    events: int = 0
    folds: list[Fold] = field(default_factory=list)
    timeline: Timeline | None = None

    @property
    def instructions(self) -> int:
        """Executed instructions, transfers among them; register and branch instructions are not counted."""
        return sum(self.executed)

    def outer_folds(self) -> list[Fold]:
        """Turns left out, without those that stand in what others repeat; last ones first."""
        found: list[Fold] = []
        for fold in reversed(self.folds):
            if not found or fold.at < found[-1].at - found[-1].length:
                found.append(fold)
        return found

    def causes(self) -> Counter[Cause]:
        """The critical path by cause."""
        total: Counter[Cause] = Counter()
        for (_, cause), ticks in self.path.items():
            total[cause] += ticks
        return total

    def region_ticks(self) -> Counter[int]:
        """The critical path by region: these add up to `ticks`."""
        total: Counter[int] = Counter()
        for (region, _), ticks in self.path.items():
            total[region] += ticks
        return total
