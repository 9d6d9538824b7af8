"""Events of a timed run: semaphores that rise, transfers that queue and flow, and the path to what ended last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from nxcc.backends.isa.program import Engine
from nxcc.backends.simulator.outcome import ENGINES, MAIN, Cause, Node, Timing
from nxcc.backends.simulator.path import Piece, back, pieces
from nxcc.backends.simulator.timed import Code, Trigger
from nxcc.backends.simulator.timeline import PathPiece, Timeline, new_timeline
from nxcc.backends.target import Target
from nxcc.ir.diagnostics import PROGRAM_INVALID, CompileError
from nxcc.ir.facts import dataclass

if TYPE_CHECKING:
    from nxcc.backends.simulator.sequencer import Frame, Sequencer
    from nxcc.backends.simulator.shifts import Shifts

_SEQUENCER = int(Cause.SEQUENCER)
_ISSUE, _DMA_LATENCY, _DATA = int(Cause.DMA_ISSUE), int(Cause.DMA_LATENCY), int(Cause.DMA_DATA)

Seen = tuple[int, int, Any]
"""What a timeline keeps of a trigger: its slot, the number of its span, and what the transfer touches on chip."""
Triggered = tuple[Trigger, Any, int, Seen | None]
"""A transfer under way: signals, region, and what the timeline keeps."""

NEVER = 1 << 62
"""A turn that no loop comes to."""
LEAST_TURNS = 64
"""Turns of a loop, for it to be looked at; left of it, for turns to be left out."""
FIRST_LOOK = 8

RESUME, SIGNAL, TRIGGER, BEGIN = range(4)
"""Kinds of events, as numbers of Run.handlers."""


@dataclass(frozen=True, slots=True)
class Guesses:
    """What stands for data: see Clock.time."""

    trips: int
    counts: Sequence[int | None]

    def of(self, number: int) -> int | None:
        return self.counts[number] if number < len(self.counts) else None


class Run:
    """One run of an entry: the clock's time, events to come, and what engines share.

    semaphores, waiting: their values, and who waits for which; port_until, port_owner: who uses a port until when;
    looks: loops that have turned and want to be looked at; periods: of which each decision is recorded (see `folding`).
    dma_free, hbm_free, queue_next: until when each DMA engine, the core's share of HBM bandwidth (hbm_share, bytes a second)
    and each queue are taken; last: what has ended latest.
    """

    def __init__(self, code: Code, target: Target, guesses: Guesses, loads: Mapping[Engine, Iterable[int]],
                 spans: bool, folds: bool = True) -> None:
        self.code, self.target, self.guesses = code, target, guesses
        self.now = 0
        self.events: list[tuple[int, int, int, Any, Any]] = []
        self.order = 0
        self.semaphores = [0] * target.sequencer.semaphores
        self.waiting: list[list[tuple[int, Sequencer]]] = [[] for _ in self.semaphores]
        self.timing = Timing(executed=[0] * len(code.slots), idle=[0] * len(code.slots))
        self.timeline: Timeline | None = None
        self.last: Node = (None, 0, _SEQUENCER, MAIN)
        self.port_until = [0] * len(code.ports)
        self.port_owner: list[Sequencer | None] = [None] * len(code.ports)
        dma = target.dma
        self.hop = target.ticks(target.sequencer.semaphore_hop_ns)
        self.dma_start, self.dma_gap = target.ticks(dma.start_ns), target.ticks(dma.engine_gap_ns)
        self.dma_done = target.ticks(dma.completion_ns) + self.hop
        self.dma_free = [0] * dma.engines
        self.dma_last: list[Node] = [self.last] * dma.engines
        self.hbm_free = 0
        self.ticks_per_second, self.hbm_share = target.ticks_per_second, target.hbm.share_bytes_per_second
        self.queue_next = [0] * len(code.queues)
        self.queue_last: list[Node] = [self.last] * len(code.queues)
        if spans:
            names = {engine: target.members.get(engine, engine.value) for engine in ENGINES}
            rows = (*names.values(), *(f"q{names[engine]}{queue}" for engine, queue in code.queues))
            self.timeline = self.timing.timeline = new_timeline(code, rows, target)
        self.sequencers: Sequence[Sequencer] = ()
        self.looks: list[tuple[Sequencer, Frame]] = []
        self.periods: list[Shifts] = []
        self.folds = folds and not any(loads.values())
        self.loads = {engine: deque(loads.get(engine, ())) for engine in ENGINES}

    def run(self, sequencers: Sequence[Sequencer], look: Callable[[], None]) -> Timing:
        """Follow the engines' streams to their ends; look: what to do when loops want to be looked at.

        Raises PROGRAM_INVALID if they wait for each other.
        """
        timing, self.sequencers = self.timing, sequencers
        for sequencer in sequencers:
            sequencer.run()
        handlers = self._resume, self._signal, self._trigger, self._begin
        while self.events:
            self.now, _, kind, what, node = heappop(self.events)
            handlers[kind](what, node)
            if self.looks:
                look()
        stuck = [s.describe() for s in sequencers if not s.done]
        if stuck:
            raise CompileError(PROGRAM_INVALID, "the engines wait for each other", why="; ".join(stuck))
        for sequencer in sequencers:
            self.reach(sequencer.end_node())
            timing.busy[sequencer.engine] = sequencer.busy
        timing.ticks, timing.events = self.last[1], self.order
        timing.pe_flops = sum(count * slot.flops for count, slot in zip(timing.executed, self.code.slots, strict=True))
        self._trace_back()
        return timing

    def first_look(self, turns: int) -> int:
        """The turn at which a loop of so many is looked at first."""
        return FIRST_LOOK if self.folds and turns >= LEAST_TURNS else NEVER

    def _trace_back(self) -> None:
        parts: dict[tuple[int, int], int] = {}
        for start, end, cause, region in self._path():
            parts[region, cause] = parts.get((region, cause), 0) + end - start
        self.timing.path.update({(region, Cause(cause)): ticks for (region, cause), ticks in parts.items() if ticks})

    def _path(self) -> Iterable[Piece]:
        """The pieces of the critical path, which a timeline keeps."""
        if self.timeline is None and not self.timing.folds:
            return ((before[1], at, cause, region) for before, at, cause, region in back(self.last))
        found = pieces(self.last, self.timing.folds)
        if self.timeline is not None:
            self.timeline.path += [PathPiece(*piece) for piece in found if piece[1] > piece[0]]
        return found

    def reach(self, node: Node) -> None:
        """Something ended here."""
        if node[1] > self.last[1]:
            self.last = node

    def push(self, at: int, kind: int, what: Any, node: Any) -> None:
        self.order += 1
        heappush(self.events, (at, self.order, kind, what, node))

    # ---- events -------------------------------------------------------------------------------------------------

    def _resume(self, sequencer: Sequencer, node: None) -> None:
        sequencer.run()

    def _signal(self, signals: tuple[tuple[int, int], ...], node: Node) -> None:
        semaphores = self.semaphores
        for index, amount in signals:
            value = semaphores[index] = semaphores[index] + amount
            waiting = self.waiting[index]
            if waiting:
                self.waiting[index] = [row for row in waiting if row[0] > value]
                for target, sequencer in waiting:
                    if target <= value:
                        sequencer.woken(self.now, node)

    def _trigger(self, what: Triggered, node: Node) -> None:
        """A queue gets a transfer."""
        transfer, region, queue, at = what[0], what[2], what[0].queue, self.now
        if self.queue_next[queue] > at:
            at = self.queue_next[queue]
            node = (self.queue_last[queue], at, _ISSUE, region)
        self.queue_next[queue] = at + transfer.interval
        self.queue_last[queue] = node
        at += self.dma_start
        self.push(at, BEGIN, what, (node, at, _DMA_LATENCY, region))

    def _begin(self, what: Triggered, node: Node) -> None:
        """A transfer's data may flow."""
        transfer, signals, region, seen = what
        now, first, last = self.now, transfer.first, transfer.first + transfer.engines
        free = self.dma_free[first:last]
        begin = max(free)
        if begin > now:
            node = self.dma_last[first + free.index(begin)]
        else:
            begin = now
        self.hbm_free = self._hbm(now, -(-transfer.hbm_bytes * self.ticks_per_second // self.hbm_share))
        end = max(begin + transfer.data, self.hbm_free)
        busy = transfer.data + self.dma_gap
        self.dma_free[first:last] = [(at if at > now else now) + busy for at in free]
        after = (node, end, _DATA, region)
        self.dma_last[first:last] = [after] * transfer.engines
        self._account(transfer, region)
        done = end + self.dma_done
        finished = (after, done, _DMA_LATENCY, region)
        if seen is not None:
            self._show(transfer, region, begin, end, seen, finished)
        self.reach(finished)
        if signals:
            self.push(done, SIGNAL, signals, finished)

    def _hbm(self, now: int, ticks: int) -> int:
        """When the core's share of HBM has carried this much more."""
        return (self.hbm_free if self.hbm_free > now else now) + ticks

    def _show(self, transfer: Trigger, region: int, begin: int, end: int, seen: Seen, finished: Node) -> None:
        """Put a transfer on the timeline."""
        timeline = self.timeline
        assert timeline is not None
        slot, trigger, places = seen
        number = timeline.add(len(ENGINES) + transfer.queue, slot, region, begin, end, trigger)
        timeline.made[id(finished)] = number
        timeline.occupy(places, begin, end)

    def _account(self, transfer: Trigger, region: int) -> None:
        timing = self.timing
        timing.transfers += 1
        timing.dma_bytes += transfer.bytes
        timing.hbm_bytes += transfer.hbm_bytes
        work = transfer.data * transfer.engines
        timing.dma_busy += work
        self.account(region)[_DATA] += work

    def account(self, region: int) -> list[int]:
        """Busy ticks of a region by cause."""
        found = self.timing.regions.get(region)
        if found is None:
            found = self.timing.regions[region] = [0] * len(Cause)
        return found
