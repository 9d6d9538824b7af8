"""One engine of a timed run: its sequencer walks the stream, its datapath works."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nxcc.backends import cost
from nxcc.backends.isa.program import REGISTERS, Engine
from nxcc.backends.simulator.engines.control import wrap
from nxcc.backends.simulator.events import RESUME, SIGNAL, TRIGGER, Run, Seen
from nxcc.backends.simulator.outcome import ENGINES, MAIN, Cause, Node
from nxcc.backends.simulator.timed import Step, Terms, Trigger
from nxcc.backends.simulator.timeline import NOTHING

if TYPE_CHECKING:
    from nxcc.backends.simulator.folding import Watch

_SEQUENCER, _SEMAPHORE, _LATENCY, _PORT = (int(c) for c in (Cause.SEQUENCER, Cause.SEMAPHORE, Cause.LATENCY, Cause.PORT))


def value_of(constant: int, terms: Terms, registers: list[int]) -> int:
    for register, factor in terms:
        constant += registers[register] * factor
    return constant


AHEAD = 64
"""Turns that an engine that waits for nothing may be ahead of the others."""


class Frame:
    """An open loop. limit: its turns (of a while whose end depends on data: as many as are assumed); turn: of those, the
    present one; register: that counts them, -1 for a while; known: whether the turns of a while are known; look: the turn at
    which to see whether the run has become steady, with what was seen before (watch); runs: of the engine when it was last
    seen how far ahead it is.
    """

    __slots__ = ("limit", "register", "at", "turn", "known", "look", "watch", "runs")

    def __init__(self, limit: int, register: int, at: int, known: bool, look: int) -> None:
        self.limit, self.register, self.at, self.known, self.look = limit, register, at, known, look
        self.turn = self.runs = 0
        self.watch: Watch | None = None


class Sequencer:
    """One engine.

    ready: until when the sequencer has worked; free: when the datapath is; each with the node that led there.
    recent: results under way, see _keep. unknown: registers whose value depends on unknown data. runs: how
    often it went on; handlers: what each kind of step does.
    """

    __slots__ = ("run_", "engine", "number", "steps", "at", "frames", "back", "registers", "unknown", "ready", "ready_node",
                 "free", "free_node", "recent", "busy", "region", "table", "access", "interval", "done", "account", "loads",
                 "wait", "after", "runs", "handlers")

    def __init__(self, run: Run, engine: Engine, steps: list[Step]) -> None:
        self.run_, self.engine, self.number = run, engine, ENGINES.index(engine)
        self.steps, self.at = steps, 0
        self.frames: list[Frame] = []
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
        self.runs = 0
        self.handlers = STEPS

    def run(self) -> None:
        """Go on until something has to be waited for."""
        self.runs += 1
        handlers = self.handlers
        while True:
            step = self.steps[self.at]
            self.at += 1
            if handlers[step[0]](self, step):
                return

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a semaphore."""
        return any(sequencer is self for _, sequencer in self.run_.waiting[self.wait[0]])

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
            index = value_of(index, index_terms, registers)
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
                run.push(start, RESUME, self, None)
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

    def _show(self, slot: int, start: int, end: int, transfer: Trigger | None) -> Seen:
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
                  seen: Seen | None) -> None:
        run = self.run_
        if transfer is not None:
            run.push(end, TRIGGER, (transfer, signals, self.region, seen), node)
            return
        at = end + run.hop
        shown = (node, at, _SEMAPHORE, self.region)
        if seen is not None and run.timeline is not None:
            run.timeline.made[id(shown)] = seen[1]
        run.push(at, SIGNAL, signals, shown)

    def _table_load(self, table: str) -> int:
        load = cost.table_load(self.table, table, self.run_.target)
        self.table = table
        self.run_.timing.table_loads += load
        return load

    def _amounts(self, signals: tuple[tuple[int, Terms, int], ...]) -> tuple[tuple[int, int], ...]:
        """Signals whose semaphore is computed."""
        return tuple([(value_of(index, terms, self.registers), amount) for index, terms, amount in signals])

    def _arrival(self, reads: Any, start: int, busy: int) -> int:
        """When as much of the engine's own results has arrived as work on these operands needs to start."""
        self.recent = recent = [row for row in self.recent if row[1] > start]
        arrival = 0
        for soon, late, writes in recent:
            for memory, first, end, low, high, terms, streamed in reads:
                if terms:
                    offset = value_of(0, terms, self.registers)
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
            offset = value_of(0, terms, registers) if terms else 0
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
        # Counts of long loops go on past 32 bits here, as those of semaphores do.
        self.registers[register] = value_of(constant, terms, self.registers) if terms else constant
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
        registers[register] = 0 if unknown else wrap(compute(value_of(a[0], a[1], registers), value_of(b[0], b[1], registers)))
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
                count = value_of(count, terms, self.registers)
        if count <= 0:
            self.at = after
            return False
        self.registers[register] = 0
        self.unknown.discard(register)
        self.frames.append(Frame(count, register, self.at, True, self.run_.first_look(count)))
        return False

    def _again(self, step: Step) -> bool:
        frame = self.frames[-1]
        turn = frame.turn = frame.turn + 1
        if turn < frame.limit:
            self.registers[frame.register] = turn
            self.at = frame.at
            self.ready += step[1]
            if turn >= frame.look:
                self.run_.looks.append((self, frame))
            if not turn % AHEAD:
                return self._too_far_ahead(frame)
        else:
            self.frames.pop()
            self.ready += step[2]
        return False

    def _while(self, step: Step) -> bool:
        guesses = self.run_.guesses
        known = guesses.of(step[1])
        turns = guesses.trips if known is None else known
        self.frames.append(Frame(turns, -1, self.at, known is not None, self.run_.first_look(turns)))
        return False

    def _repeat(self, step: Step) -> bool:
        frame = self.frames[-1]
        frame.turn += 1
        self.at = frame.at
        self.ready += step[1]
        if frame.turn >= frame.look:
            self.run_.looks.append((self, frame))
        return not frame.turn % AHEAD and self._too_far_ahead(frame)

    def _too_far_ahead(self, frame: Frame) -> bool:
        """Whether it has come so many turns ahead without anything to wait for; then it goes on when it is that late."""
        if frame.runs != self.runs:
            frame.runs = self.runs
            return False
        self.run_.push(max(self.ready, self.run_.now), RESUME, self, None)
        return True

    def _leave(self, step: Step) -> bool:
        _, taken, not_taken, register, after = step
        while self.frames[-1].register >= 0:
            self.frames.pop()
        frame = self.frames[-1]
        stay = self.registers[register] != 0
        if register in self.unknown:
            self.run_.timing.assumed += not frame.known
            stay = frame.turn < frame.limit
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


STEPS: tuple[Callable[[Sequencer, Step], bool], ...] = (
    Sequencer._work, Sequencer._wait, Sequencer._set, Sequencer._alu, Sequencer._loop, Sequencer._again,
    Sequencer._while, Sequencer._repeat, Sequencer._leave, Sequencer._if, Sequencer._jump, Sequencer._call,
    Sequencer._return, Sequencer._halt, Sequencer._load, Sequencer._enter,
)
"""By kind of step, as numbered in `timed`."""
