"""The timeline of a call as trace events that Chrome and Perfetto read (times in microseconds).

A process a node; a thread an engine or DMA queue, and a further one where transfers of a queue overlap; counters for SBUF and
PSUM; a flow from each piece of work to what waited for its semaphore last, from each trigger to its transfer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from nxcc.backends.simulator.outcome import ENGINES
from nxcc.backends.simulator.timeline import Integers, Timeline
from nxcc.compiler.reports.estimate import Estimate
from nxcc.compiler.reports.regions import AFTER, END, REGION, ROW, SLOT, START, node_starts, source_of

CATEGORY = "semaphore"

COUNTERS = ("SBUF bytes a partition", "PSUM bytes a partition")


def write_trace(found: Estimate, file: BinaryIO) -> None:
    """The timelines of all device nodes, one after the other."""
    file.write(b'{"displayTimeUnit":"ns","traceEvents":[\n')
    file.writelines((",\n" if number else "").encode() + event.encode() for number, event in enumerate(_events(found)))
    file.write(b"\n]}\n")


def _events(found: Estimate) -> Iterator[str]:
    for process, (node, start) in enumerate(zip(found.nodes, node_starts(found), strict=True)):
        clock = _Clock(found.target.nanoseconds(1) / 1e3)
        yield _json({"ph": "M", "pid": process, "name": "process_name", "args": {"name": f"{node.name} ({node.executor})"}})
        if node.timing is None:
            yield _json({"ph": "X", "pid": process, "tid": 0, "name": node.name, "ts": clock.at(start),
                         "dur": round(node.us, 4)})
        elif node.timing.timeline is not None:
            yield from _Process(found, node.timing.timeline, process, start, clock).events()


def _json(event: dict[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"))


class _Clock:
    """Ticks to microseconds in steps of 0.1 ns, so that ends and starts that are equal stay equal."""

    def __init__(self, us_per_tick: float) -> None:
        self.steps = us_per_tick * 1e4

    def step(self, tick: int) -> int:
        return round(tick * self.steps)

    def at(self, tick: int) -> float:
        return self.step(tick) / 1e4


class _Process:
    """Events of one device node."""

    def __init__(self, found: Estimate, timeline: Timeline, process: int, start: int, clock: _Clock) -> None:
        self.found, self.timeline, self.process, self.start, self.clock = found, timeline, process, start, clock
        self.slots = found.clock.slots if found.clock is not None else []
        self.tails: dict[tuple[int, int, bool], str] = {}

    def events(self) -> Iterator[str]:
        spans = self.timeline.columns
        threads = self._threads(spans)
        names = {int(thread): (int(row), int(lane)) for thread, row, lane in np.unique(threads, axis=0).tolist()}
        for thread, (row, lane) in sorted(names.items()):
            yield self._meta(thread, "thread_name", {"name": self.timeline.rows[row] + (f" +{lane}" if lane else "")})
            yield self._meta(thread, "thread_sort_index", {"sort_index": thread})
        yield from self._left_out(len(names) and max(names) + 1)
        yield from self._in_order(spans, threads[:, 0])

    def _left_out(self, thread: int) -> Iterator[str]:
        """Turns of loops that repeat those before them, in a thread of their own."""
        if self.timeline.repeated:
            yield self._meta(thread, "thread_name", {"name": "turns left out"})
        for _, _, fold in self.timeline.repeated:
            yield _json({"ph": "X", "pid": self.process, "tid": thread, "ts": self.clock.at(self.start + fold.at),
                         "dur": self.clock.at(fold.ticks), "name": f"{fold.turns} turns like those before"})

    def _in_order(self, spans: Integers, threads: Integers) -> Iterator[str]:
        """Slices, flows and counters by their time: readers that stream a file want each thread's events in order."""
        before = spans[:, AFTER]
        waits = np.flatnonzero(before >= 0)
        signals = before[waits]
        sent = np.maximum(spans[signals, START], spans[signals, END] - 1)
        curves = [memory.curve() for memory in (self.timeline.sbuf, self.timeline.psum)]
        kinds: list[tuple[Integers, Callable[[int, int], str]]] = [
            (spans[:, START], lambda number, _: self._slice(spans[number].tolist(), int(threads[number]))),
            (sent, lambda place, tick: self._flow("s", int(waits[place]), int(threads[signals[place]]), tick)),
            (spans[waits, START], lambda place, tick: self._flow("f", int(waits[place]), int(threads[waits[place]]), tick)),
            *((ticks, partial(self._counter, name, filled)) for name, (ticks, filled) in zip(COUNTERS, curves, strict=True))]
        ticks = np.concatenate([column for column, _ in kinds])
        kind = np.repeat(np.arange(len(kinds)), [len(column) for column, _ in kinds])
        first = np.cumsum([0, *(len(column) for column, _ in kinds)])
        for event in np.lexsort((kind, ticks)).tolist():
            number = kind[event]
            yield kinds[number][1](event - int(first[number]), int(ticks[event]))

    def _counter(self, name: str, filled: Integers, place: int, tick: int) -> str:
        return _json({"ph": "C", "pid": self.process, "name": name, "ts": self.clock.at(self.start + tick),
                      "args": {"bytes": int(filled[place])}})

    def _threads(self, spans: Integers) -> Integers:
        """[spans, (thread, row, lane)]."""
        lane = lanes(spans)
        thread = spans[:, ROW] * (int(lane.max(initial=0)) + 1) + lane
        return np.stack([thread, spans[:, ROW], lane], axis=1)

    def _meta(self, thread: int, name: str, arguments: dict[str, Any]) -> str:
        return _json({"ph": "M", "pid": self.process, "tid": thread, "name": name, "args": arguments})

    def _slice(self, span: list[int], thread: int) -> str:
        begin, end = self.clock.step(self.start + span[START]), self.clock.step(self.start + span[END])
        key = span[SLOT], span[REGION], span[ROW] >= len(ENGINES)
        if key not in self.tails:
            self.tails[key] = self._tail(*key)
        return (f'{{"ph":"X","pid":{self.process},"tid":{thread},"ts":{begin / 1e4:.4f},"dur":{(end - begin) / 1e4:.4f},'
                f'{self.tails[key]}')

    def _tail(self, number: int, region: int, is_transfer: bool) -> str:
        """What equal pieces of work share: name and arguments."""
        slot, entry = self.slots[number], source_of(self.found, region)
        arguments: dict[str, Any] = {"hlo": entry.name} | ({"layer": entry.layer} if entry.layer else {})
        arguments |= {"function": slot.function, "index": slot.index}
        name = slot.name
        if is_transfer and slot.transfer is not None:
            name = f"{slot.transfer.bytes} bytes"
            arguments |= {"bytes": slot.transfer.bytes, "trigger": slot.name}
        return _json({"name": name, "args": arguments})[1:]

    def _flow(self, phase: str, number: int, thread: int, tick: int) -> str:
        end = ',"bp":"e"' if phase == "f" else ""
        return (f'{{"ph":"{phase}","pid":{self.process},"tid":{thread},"ts":{self.clock.at(self.start + tick):.4f},'
                f'"id":"{self.process}.{number}","name":"waits","cat":"{CATEGORY}"{end}}}')


def lanes(spans: Integers) -> Integers:
    """A number for each span, so that spans of one row and lane do not overlap; 0 where nothing does."""
    found = np.zeros(len(spans), np.int64)
    order = np.lexsort((spans[:, START], spans[:, ROW]))
    rows, starts, ends = (spans[order, column].tolist() for column in (ROW, START, END))
    free: list[int] = []
    row = -1
    for place, number in enumerate(order.tolist()):
        if rows[place] != row:
            row, free = rows[place], []
        lane = next((lane for lane, until in enumerate(free) if until <= starts[place]), len(free))
        free[lane:lane + 1] = [ends[place]]
        found[number] = lane
    return found
