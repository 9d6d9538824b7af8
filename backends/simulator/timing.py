"""How long a machine program takes: a simulation of events in integer ticks of the target's clock.

What is modelled (facts are the target's, costs are nxcc.backends.cost's):
- Five engines, each an in-order sequencer with an in-order datapath behind it. The sequencer works through registers,
  branches and waits while the datapath is busy with the instruction before (assumed); it is never further ahead than that.
- An instruction starts when its waits are met, the datapath is free, what it reads of the engine's own last results has
  arrived, and its ports are free: Vector and GpSimd share SBUF's, Vector and Scalar PSUM's.
- A result arrives Cost.latency after the end of the work. Where both instructions stream the same elements, the next can
  follow the first at that distance, an initiation interval added: dependent tiny work starts every 264 cycles as documented,
  dependent long work without a gap (a published scan kernel with five dependent operations of 1024 cycles shows none).
- A signal shows at a semaphore one hop after the instruction's end; an engine that waits starts its access then.
- A change between activation functions loads a table.
- Transfers: a queue takes one after `Transfer.interval`; its data start dma.start later, on each DMA engine when that is
  done with what came before (and a gap); traffic shares the core's HBM bandwidth; completion, then the semaphore.
Loops, calls and branches are followed exactly. What registers load from memory comes from a record of a run (`loads`); without
one, a branch on such a value takes its first arm and a loop runs `trips` times, and Timing.assumed counts these; where the
caller knows better, `counts` says how often the whiles of the entry run.
The end is traced back through what each start waited for: the critical path, as ticks by region and cause.
Semaphores only rise between two uses of one value, as the machine verifier demands of programs.
"""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from nxcc.backends import cost
from nxcc.backends.isa.program import REGISTERS, Engine, Program
from nxcc.backends.simulator import timed
from nxcc.backends.simulator.engines.control import wrap
from nxcc.backends.simulator.timed import Code, Slot, Step, Terms, Trigger
from nxcc.backends.simulator.timeline import NOTHING, PathPiece, Timeline, new_timeline
from nxcc.backends.target import Target
from nxcc.ir.diagnostics import PROGRAM_INVALID, CompileError

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

_SEQUENCER, _SEMAPHORE, _LATENCY, _PORT, _TABLE = (int(c) for c in (
    Cause.SEQUENCER, Cause.SEMAPHORE, Cause.LATENCY, Cause.PORT, Cause.TABLE))
_ISSUE, _DMA_LATENCY, _DATA = int(Cause.DMA_ISSUE), int(Cause.DMA_LATENCY), int(Cause.DMA_DATA)

_Seen = tuple[int, int, Any]
"""What a timeline keeps of a trigger: its slot, the number of its span, and what the transfer touches on chip."""
_Triggered = tuple[Trigger, Any, int, _Seen | None]
"""A transfer under way: signals, region, and what the timeline keeps."""

MAIN = -1
"""Region of what belongs to no HLO instruction."""


@dataclass
class Timing:
    """What one run of an entry took.

    ticks: until everything is done. busy: ticks each engine's datapath worked; dma_busy: ticks of DMA engines, summed over
    them; table_loads: Scalar's, part of its busy. executed: instructions with work, by slot number; idle: ticks that the
    datapath stood before an instruction, by slot. path: ticks of the critical path by (region, cause). regions: busy ticks by
    region and cause. hbm_bytes: read and written by transfers, dma_bytes: moved. pe_flops: products and sums of data.
    assumed: data-dependent branches and loops whose outcome was assumed. timeline: if asked for.
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
    timeline: Timeline | None = None

    @property
    def instructions(self) -> int:
        """Executed instructions, transfers among them; register and branch instructions are not counted."""
        return sum(self.executed)

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


class Clock:
    """Times entries of one program; costs are prepared once. slots: see timed.prepare."""

    def __init__(self, program: Program, target: Target, slots: list[Slot] | None = None) -> None:
        self.target = target
        self.code = timed.prepare(program, target, slots)

    @property
    def slots(self) -> list[Slot]:
        return self.code.slots

    def whiles(self, entry: int = 0) -> int:
        """Number of `while` loops in the entry's streams, which all engines share."""
        return max((sum(step[0] == timed.WHILE for step in steps) for steps in self.code.entries[entry].values()), default=0)

    def time(self, entry: int = 0, *, trips: int = 1, counts: Sequence[int | None] = (),
             loads: Mapping[Engine, Iterable[int]] | None = None, spans: bool = False) -> Timing:
        """Time one entry.

        trips: of loops whose count or condition depends on data that `loads` does not give. counts: how often each of the
        entry's whiles runs, in their order; None or missing: `trips`. loads: per engine what its register_load instructions
        read, in order. spans: keep a timeline.
        """
        return _Run(self.code, self.target, _Guesses(trips, counts), loads or {}, spans).run(entry)


def time_program(program: Program, target: Target, entry: int = 0) -> Timing:
    """Time one entry of a program once."""
    return Clock(program, target).time(entry)


@dataclass(frozen=True, slots=True)
class _Guesses:
    """What stands for data: see Clock.time."""

    trips: int
    counts: Sequence[int | None]

    def of(self, number: int) -> int | None:
        return self.counts[number] if number < len(self.counts) else None


_RESUME, _SIGNAL, _TRIGGER, _BEGIN = range(4)
"""Kinds of events, as numbers of _Run.handlers."""


class _Run:
    def __init__(self, code: Code, target: Target, guesses: _Guesses, loads: Mapping[Engine, Iterable[int]],
                 spans: bool) -> None:
        self.code, self.target, self.guesses = code, target, guesses
        self.now = 0
        self.events: list[tuple[int, int, int, Any, Any]] = []
        self.order = 0
        self.semaphores = [0] * target.sequencer.semaphores
        self.waiting: list[list[tuple[int, _Sequencer]]] = [[] for _ in self.semaphores]
        self.timing = Timing(executed=[0] * len(code.slots), idle=[0] * len(code.slots))
        self.timeline: Timeline | None = None
        self.last: Node = (None, 0, _SEQUENCER, MAIN)
        self.port_until = [0] * len(code.ports)
        self.port_owner: list[_Sequencer | None] = [None] * len(code.ports)
        dma = target.dma
        self.hop = target.ticks(target.sequencer.semaphore_hop_ns)
        self.dma_start, self.dma_gap = target.ticks(dma.start_ns), target.ticks(dma.engine_gap_ns)
        self.dma_done = target.ticks(dma.completion_ns) + self.hop
        self.dma_free = [0] * dma.engines
        self.dma_last: list[Node] = [self.last] * dma.engines
        self.hbm_free = 0
        self.queue_next = [0] * len(code.queues)
        self.queue_last: list[Node] = [self.last] * len(code.queues)
        if spans:
            names = {engine: target.members.get(engine, engine.value) for engine in ENGINES}
            rows = (*names.values(), *(f"q{names[engine]}{queue}" for engine, queue in code.queues))
            self.timeline = self.timing.timeline = new_timeline(code, rows, target)
        self.loads = {engine: deque(loads.get(engine, ())) for engine in ENGINES}

    def run(self, entry: int) -> Timing:
        timing = self.timing
        sequencers = [_Sequencer(self, engine, steps) for engine, steps in self.code.entries[entry].items()]
        for sequencer in sequencers:
            sequencer.run()
        events, handlers = self.events, (self._resume, self._signal, self._trigger, self._begin)
        while events:
            self.now, _, kind, what, node = heappop(events)
            handlers[kind](what, node)
        stuck = [s.describe() for s in sequencers if not s.done]
        if stuck:
            raise CompileError(PROGRAM_INVALID, "the engines wait for each other", why="; ".join(stuck))
        for sequencer in sequencers:
            self.reach(sequencer.end_node())
            timing.busy[sequencer.engine] = sequencer.busy
        timing.ticks = self.last[1]
        timing.pe_flops = sum(count * slot.flops for count, slot in zip(timing.executed, self.code.slots, strict=True))
        self._trace_back()
        return timing

    def _trace_back(self) -> None:
        parts: dict[tuple[int, int], int] = {}
        node = self.last
        while node[0] is not None:
            before, at, cause, region = node
            parts[region, cause] = parts.get((region, cause), 0) + at - before[1]
            if self.timeline is not None and at > before[1]:
                self.timeline.path.append(PathPiece(before[1], at, cause, region))
            node = before
        if self.timeline is not None:
            self.timeline.path.reverse()
        self.timing.path.update({(region, Cause(cause)): ticks for (region, cause), ticks in parts.items() if ticks})

    def reach(self, node: Node) -> None:
        """Something ended here."""
        if node[1] > self.last[1]:
            self.last = node

    def push(self, at: int, kind: int, what: Any, node: Any) -> None:
        self.order += 1
        heappush(self.events, (at, self.order, kind, what, node))

    # ---- events -------------------------------------------------------------------------------------------------

    def _resume(self, sequencer: _Sequencer, node: None) -> None:
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

    def _trigger(self, what: _Triggered, node: Node) -> None:
        """A queue gets a transfer."""
        transfer, region, queue, at = what[0], what[2], what[0].queue, self.now
        if self.queue_next[queue] > at:
            at = self.queue_next[queue]
            node = (self.queue_last[queue], at, _ISSUE, region)
        self.queue_next[queue] = at + transfer.interval
        self.queue_last[queue] = node
        at += self.dma_start
        self.push(at, _BEGIN, what, (node, at, _DMA_LATENCY, region))

    def _begin(self, what: _Triggered, node: Node) -> None:
        """A transfer's data may flow."""
        transfer, signals, region, seen = what
        now, first, last = self.now, transfer.first, transfer.first + transfer.engines
        free = self.dma_free[first:last]
        begin = max(free)
        if begin > now:
            node = self.dma_last[first + free.index(begin)]
        else:
            begin = now
        self.hbm_free = self._hbm(now, transfer.hbm)
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
            self.push(done, _SIGNAL, signals, finished)

    def _hbm(self, now: int, ticks: int) -> int:
        """When the core's share of HBM has carried this much more."""
        return (self.hbm_free if self.hbm_free > now else now) + ticks

    def _show(self, transfer: Trigger, region: int, begin: int, end: int, seen: _Seen, finished: Node) -> None:
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


def _value(constant: int, terms: Terms, registers: list[int]) -> int:
    for register, factor in terms:
        constant += registers[register] * factor
    return constant


class _Sequencer:
    """One engine.

    ready: until when the sequencer has worked; free: when the datapath is; each with the node that led there.
    recent: results under way, see _keep. unknown: registers whose value depends on unknown data.
    """

    __slots__ = ("run_", "engine", "number", "steps", "at", "frames", "back", "registers", "unknown", "ready", "ready_node",
                 "free", "free_node", "recent", "busy", "region", "table", "access", "interval", "done", "account", "loads",
                 "wait", "after")

    def __init__(self, run: _Run, engine: Engine, steps: list[Step]) -> None:
        self.run_, self.engine, self.number = run, engine, ENGINES.index(engine)
        self.steps, self.at = steps, 0
        self.frames: list[list[int]] = []
        self.back: tuple[list[Step], int, int] | None = None
        self.registers = [0] * REGISTERS
        self.unknown: set[int] = set()
        self.ready = self.free = self.busy = 0
        self.ready_node = self.free_node = run.last
        self.recent: list[tuple[int, int, list[tuple[int, int, int, int, int, bool]]]] = []
        self.region = MAIN
        self.table: str | None = None
        self.access = run.target.memory_costs.access_start_cycles * run.target.ticks_per_cycle(engine)
        self.interval = run.target.engines[engine].initiation_cycles * run.target.ticks_per_cycle(engine)
        self.done = False
        self.account = run.account(MAIN)
        self.loads = run.loads[engine]
        self.wait = (0, 0)
        self.after = NOTHING

    def run(self) -> None:
        """Go on until something has to be waited for."""
        while True:
            step = self.steps[self.at]
            self.at += 1
            if _STEPS[step[0]](self, step):
                return

    def describe(self) -> str:
        index, value = self.wait
        return f"{self.engine.value} waits for semaphore {index} >= {value}, which is {self.run_.semaphores[index]}"

    def end_node(self) -> Node:
        return self.free_node if self.free >= self.ready else (self.ready_node, self.ready, _SEQUENCER, self.region)

    def woken(self, now: int, node: Node) -> None:
        """The semaphore has risen: the access starts."""
        at = now + self.access
        timeline = self.run_.timeline
        if timeline is not None:
            self.after = timeline.made.get(id(node), NOTHING)
        if at > self.ready:
            self.ready, self.ready_node = at, (node, at, _SEMAPHORE, self.region)
        self.run()

    # ---- steps --------------------------------------------------------------------------------------------------

    def _wait(self, step: Step) -> bool:
        _, index, index_terms, value, value_terms = step
        registers = self.registers
        for register, factor in value_terms:
            value += registers[register] * factor
        if index_terms:
            index = _value(index, index_terms, registers)
        if self.run_.semaphores[index] >= value:
            return False
        self.wait = index, value
        self.run_.waiting[index].append((value, self))
        return True

    def _work(self, step: Step) -> bool:
        _, busy, latency, reads, writes, ports, signals, computed, slot, table, transfer = step
        run, free, region = self.run_, self.free, self.region
        start, node = self._ready_for(reads, busy)
        if ports:
            if start > run.now:
                self.at -= 1
                run.push(start, _RESUME, self, None)
                return True
            start, node = self._port(ports, start, busy, node)
        if table is not None and table != self.table:
            busy += self._table_load(table)
        end = start + busy
        timing = run.timing
        timing.executed[slot] += 1
        timing.idle[slot] += start - free
        self.busy += busy
        self.account[self.number] += busy
        self.ready, self.ready_node, self.free = start, node, end
        # Work right behind work of the same kind lengthens its node, so that paths stay short.
        if node is self.free_node and node[2] == self.number and node[3] == region:
            node = node[0]
        self.free_node = node = (node, end, self.number, region)
        if latency and writes:
            self._keep(start + self.interval + latency, end + latency, writes)
        seen = self._show(slot, start, end, transfer) if run.timeline is not None else None
        if signals:
            self._announce(end, node, self._amounts(computed) if computed else signals, transfer, seen)
        elif transfer is not None:
            self._announce(end, node, (), transfer, seen)
        return False

    def _show(self, slot: int, start: int, end: int, transfer: Trigger | None) -> _Seen:
        """Put work on the timeline."""
        timeline = self.run_.timeline
        assert timeline is not None
        number = timeline.add(self.number, slot, self.region, start, end, self.after)
        self.after = NOTHING
        places = timeline.places(slot, self.registers)
        if transfer is None:
            timeline.occupy(places, start, end)
        return slot, number, places

    def _ready_for(self, reads: Any, busy: int) -> tuple[int, Node]:
        """When the next work can start as far as this engine goes, and why not earlier."""
        if self.free > self.ready:
            start, node = self.free, self.free_node
        else:
            start, node = self.ready, self.ready_node
            if node[1] != start:
                node = (node, start, _SEQUENCER, self.region)
        if reads and self.recent:
            arrival = self._arrival(reads, start, busy)
            if arrival > start:
                return arrival, (node, arrival, _LATENCY, self.region)
        return start, node

    def _announce(self, end: int, node: Node, signals: tuple[tuple[int, int], ...], transfer: Trigger | None,
                  seen: _Seen | None) -> None:
        run = self.run_
        if transfer is not None:
            run.push(end, _TRIGGER, (transfer, signals, self.region, seen), node)
            return
        at = end + run.hop
        shown = (node, at, _SEMAPHORE, self.region)
        if seen is not None and run.timeline is not None:
            run.timeline.made[id(shown)] = seen[1]
        run.push(at, _SIGNAL, signals, shown)

    def _table_load(self, table: str) -> int:
        load = cost.table_load(self.table, table, self.run_.target)
        self.table = table
        self.run_.timing.table_loads += load
        return load

    def _amounts(self, signals: tuple[tuple[int, Terms, int], ...]) -> tuple[tuple[int, int], ...]:
        """Signals whose semaphore is computed."""
        return tuple([(_value(index, terms, self.registers), amount) for index, terms, amount in signals])

    def _arrival(self, reads: Any, start: int, busy: int) -> int:
        """When as much of the engine's own results has arrived as work on these operands needs to start."""
        self.recent = recent = [row for row in self.recent if row[1] > start]
        arrival = 0
        for soon, late, writes in recent:
            for memory, first, end, low, high, terms, streamed in reads:
                if terms:
                    offset = _value(0, terms, self.registers)
                    low, high = low + offset, high + offset
                for other, other_first, other_end, other_low, other_high, written_as_it_goes in writes:
                    if memory != other or low >= other_high or other_low >= high or first >= other_end or other_first >= end:
                        continue
                    same = streamed and written_as_it_goes and low == other_low and high == other_high
                    needed = max(soon, late + self.interval - busy) if same else late
                    if needed > arrival:
                        arrival = needed
        return arrival

    def _keep(self, soon: int, late: int, writes: Any) -> None:
        """Remember a result under way: when its first and its last elements can be used."""
        registers = self.registers
        placed = []
        for memory, first, end, low, high, terms, streamed in writes:
            offset = _value(0, terms, registers) if terms else 0
            placed.append((memory, first, end, low + offset, high + offset, streamed))
        self.recent.append((soon, late, placed))
        if len(self.recent) > 4:
            del self.recent[0]

    def _port(self, ports: tuple[int, ...], start: int, busy: int, node: Node) -> tuple[int, Node]:
        run = self.run_
        begin = start
        for port in ports:
            if run.port_owner[port] is not self and run.port_until[port] > begin:
                begin = run.port_until[port]
        for port in ports:
            run.port_owner[port], run.port_until[port] = self, begin + busy
        return (start, node) if begin == start else (begin, (node, begin, _PORT, self.region))

    def _set(self, step: Step) -> bool:
        _, ticks, register, constant, terms = step
        self.ready += ticks
        if register >= 0:
            self._put(register, constant, terms)
        return False

    def _put(self, register: int, constant: int, terms: Terms) -> None:
        value = _value(constant, terms, self.registers) if terms else constant
        self.registers[register] = wrap(value)
        if self.unknown:
            self._taint(register, any(source in self.unknown for source, _ in terms))

    def _taint(self, register: int, unknown: bool) -> None:
        if unknown:
            self.unknown.add(register)
        else:
            self.unknown.discard(register)

    def _alu(self, step: Step) -> bool:
        _, ticks, register, compute, a, b = step
        self.ready += ticks
        unknown = bool(self.unknown) and any(source in self.unknown for source, _ in (*a[1], *b[1]))
        registers = self.registers
        registers[register] = 0 if unknown else wrap(compute(_value(a[0], a[1], registers), _value(b[0], b[1], registers)))
        self._taint(register, unknown)
        return False

    def _load(self, step: Step) -> bool:
        """The value is there when the load is over."""
        register = step[1]
        if self.free > self.ready:
            self.ready, self.ready_node = self.free, self.free_node
        known = bool(self.loads)
        self.registers[register] = self.loads.popleft() if known else 0
        self._taint(register, not known)
        return False

    def _loop(self, step: Step) -> bool:
        _, ticks, register, count, terms, after = step
        self.ready += ticks
        if terms:
            if self.unknown and any(source in self.unknown for source, _ in terms):
                self.run_.timing.assumed += 1
                count = self.run_.guesses.trips
            else:
                count = _value(count, terms, self.registers)
        if count <= 0:
            self.at = after
            return False
        self.registers[register] = 0
        self.unknown.discard(register)
        self.frames.append([count, register, self.at, 0])
        return False

    def _again(self, step: Step) -> bool:
        frame = self.frames[-1]
        frame[3] += 1
        if frame[3] < frame[0]:
            self.registers[frame[1]] = frame[3]
            self.at = frame[2]
            self.ready += step[1]
        else:
            self.frames.pop()
            self.ready += step[2]
        return False

    def _while(self, step: Step) -> bool:
        guesses = self.run_.guesses
        known = guesses.of(step[1])
        self.frames.append([guesses.trips if known is None else known, -1, self.at, int(known is not None)])
        return False

    def _repeat(self, step: Step) -> bool:
        self.at = self.frames[-1][2]
        self.ready += step[1]
        return False

    def _leave(self, step: Step) -> bool:
        _, taken, not_taken, register, after = step
        while self.frames[-1][1] >= 0:
            self.frames.pop()
        frame = self.frames[-1]
        stay = self.registers[register] != 0
        if register in self.unknown:
            self.run_.timing.assumed += 1 - frame[3]
            stay = frame[0] > 0
            frame[0] -= 1
        if stay:
            self.ready += not_taken
        else:
            self.frames.pop()
            self.at = after
            self.ready += taken
        return False

    def _if(self, step: Step) -> bool:
        _, taken, not_taken, register, other = step
        enter = self.registers[register] != 0
        if register in self.unknown:
            self.run_.timing.assumed += 1
            enter = True
        if enter:
            self.ready += not_taken
        else:
            self.at = other
            self.ready += taken
        return False

    def _jump(self, step: Step) -> bool:
        self.ready += step[1]
        self.at = step[2]
        return False

    def _enter(self, step: Step) -> bool:
        self.region = step[1]
        self.account = self.run_.account(self.region)
        return False

    def _call(self, step: Step) -> bool:
        _, ticks, function, debug, register, advance = step
        self.ready += ticks
        self.back = self.steps, self.at, self.region
        code = self.run_.code
        if advance:
            debug += advance * self.registers[register]
        self.region = debug if debug >= 0 else code.debug[function]
        self.account = self.run_.account(self.region)
        self.steps, self.at = code.functions[function][self.engine], 0
        return False

    def _return(self, step: Step) -> bool:
        assert self.back is not None
        self.ready += step[1]
        self.steps, self.at, self.region = self.back
        self.account = self.run_.account(self.region)
        return False

    def _halt(self, step: Step) -> bool:
        self.done = True
        return True


_STEPS = (
    _Sequencer._work, _Sequencer._wait, _Sequencer._set, _Sequencer._alu, _Sequencer._loop, _Sequencer._again,
    _Sequencer._while, _Sequencer._repeat, _Sequencer._leave, _Sequencer._if, _Sequencer._jump, _Sequencer._call,
    _Sequencer._return, _Sequencer._halt, _Sequencer._load, _Sequencer._enter,
)
"""By kind of step, as numbered in `timed`."""
