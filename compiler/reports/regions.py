"""What the code of each HLO instruction did in a timed run: its part of the critical path, work, traffic, when it ran.

A region is the code of one call of a lowered function. Regions are grouped by any name: HLO instruction, layer, function.
The paths of all groups add up to the simulated time; busy times and bytes are beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any

import numpy as np

from nxcc.backends.isa.program import AccessPattern
from nxcc.backends.simulator.outcome import ENGINES, Cause, Timing
from nxcc.backends.simulator.timed import Slot
from nxcc.backends.simulator.timeline import COLUMNS, Integers, Timeline
from nxcc.backends.target import Target
from nxcc.compiler.reports.estimate import Estimate, engine_names
from nxcc.ir.facts import dataclass
from nxcc.neff.members import SourceEntry

MAIN_NAME = "(control)"
_NONE = SourceEntry(MAIN_NAME)
ROW, SLOT, REGION, START, END, AFTER = range(len(COLUMNS))


@dataclass
class Region:
    """One region, or several added up; ticks.

    path: of the critical path, by cause; busy: by cause (DMA: summed over its engines); operations: multiplications and
    additions of the PE, and elements that other engines computed; first, last: ticks between which it ran, from the start
    of the simulated call; functions: lowered code that it called.
    """

    path: Counter[Cause] = field(default_factory=Counter)
    busy: list[int] = field(default_factory=lambda: [0] * len(Cause))
    instructions: int = 0
    transfers: int = 0
    hbm_bytes: int = 0
    flops: int = 0
    operations: int = 0
    first: int = -1
    last: int = -1
    functions: Counter[str] = field(default_factory=Counter)
    numbers: list[int] = field(default_factory=list)

    @property
    def ticks(self) -> int:
        """Its part of the critical path."""
        return sum(self.path.values())

    def add(self, other: Region) -> None:
        """Take another's numbers in."""
        self.path += other.path
        self.busy = [a + b for a, b in zip(self.busy, other.busy, strict=True)]
        self.instructions += other.instructions
        self.transfers += other.transfers
        self.hbm_bytes += other.hbm_bytes
        self.flops += other.flops
        self.operations += other.operations
        if other.first >= 0:
            self.first = other.first if self.first < 0 else min(self.first, other.first)
            self.last = max(self.last, other.last)
        self.functions += other.functions
        self.numbers += [number for number in other.numbers if number not in self.numbers]


def source_of(found: Estimate, region: int) -> SourceEntry:
    """The HLO instruction behind a region."""
    return found.sources[region] if 0 <= region < len(found.sources) else _NONE


def node_starts(found: Estimate) -> list[int]:
    """Tick at which each node begins, one after the other."""
    starts, at = [], 0
    for node in found.nodes:
        starts.append(at)
        at += node.timing.ticks if node.timing is not None else found.target.ticks(node.us * 1e3)
    return starts


def regions_of(found: Estimate) -> dict[int, Region]:
    """Every region of all device nodes, by debug index; needs the timelines."""
    merged: dict[int, Region] = {}
    slots = found.clock.slots if found.clock is not None else []
    for node, start in zip(found.nodes, node_starts(found), strict=True):
        if node.timing is None:
            continue
        for number, region in _node_regions(node.timing, slots, start).items():
            merged.setdefault(number, Region(numbers=[number])).add(region)
    return merged


def _node_regions(timing: Timing, slots: list[Slot], start: int) -> dict[int, Region]:
    found: dict[int, Region] = {}
    for (number, cause), ticks in timing.path.items():
        found.setdefault(number, Region()).path[cause] += ticks
    for number, busy in timing.regions.items():
        if any(busy):
            found.setdefault(number, Region()).busy = list(busy)
    if timing.timeline is not None:
        _add_spans(found, timing.timeline, slots, start)
    return found


def _add_spans(found: dict[int, Region], timeline: Timeline, slots: list[Slot], start: int) -> None:
    """Counts of work and traffic, and when it ran."""
    spans = timeline.columns
    if not len(spans):
        return
    regions, where = np.unique(spans[:, REGION], return_inverse=True)
    where = where.reshape(-1)
    weights = timeline.weights
    on_queue = (spans[:, ROW] >= len(ENGINES)) * weights
    on_engine = weights - on_queue

    def per_region(values: Integers) -> Integers:
        total = np.zeros(len(regions), np.int64)
        np.add.at(total, where, values)
        return total

    facts = np.array([(slot.flops, elements(slot), hbm_bytes(slot)) for slot in slots], np.int64).reshape(-1, 3)
    work = facts[spans[:, SLOT]]
    first = np.full(len(regions), np.iinfo(np.int64).max)
    last = np.zeros(len(regions), np.int64)
    np.minimum.at(first, where, spans[:, START])
    np.maximum.at(last, where, spans[:, END])
    totals = (on_engine, on_queue, work[:, 0] * on_engine, work[:, 1] * on_engine, work[:, 2] * on_queue)
    rows = zip(regions.tolist(), *(per_region(values).tolist() for values in totals), first.tolist(), last.tolist(),
               strict=True)
    for number, instructions, transfers, flops, computed, moved, begin, end in rows:
        region = found.setdefault(number, Region())
        region.instructions, region.transfers, region.hbm_bytes = instructions, transfers, moved
        region.flops, region.operations = flops, flops + computed
        region.first, region.last = start + begin, start + end
    _add_functions(found, spans, slots)


def _add_functions(found: dict[int, Region], spans: Integers, slots: list[Slot]) -> None:
    names = sorted({slot.function for slot in slots})
    number_of = {name: number for number, name in enumerate(names)}
    functions = np.array([number_of[slot.function] for slot in slots], np.int64)
    pairs = np.unique(np.stack([spans[:, REGION], functions[spans[:, SLOT]]], axis=1), axis=0)
    for region, function in pairs.tolist():
        found[region].functions[names[function]] += 1


def elements(slot: Slot) -> int:
    """Elements that one run computes outside the PE; copies and transposes compute nothing."""
    if slot.flops or slot.name in _MOVES or slot.transfer is not None:
        return 0
    operands = slot.instruction.operands.values()
    return max((_size(operand) for operand in operands if isinstance(operand, AccessPattern)), default=0)


_MOVES = frozenset(("pe_transpose", "vector_transpose", "tensor_copy", "memset", "nop", "gather_free", "copy_predicated"))


def _size(operand: AccessPattern) -> int:
    return operand.partitions * operand.free_elements


def hbm_bytes(slot: Slot) -> int:
    """Bytes that one transfer reads and writes in HBM."""
    return slot.transfer.hbm_bytes if slot.transfer is not None else 0


def grouped(regions: dict[int, Region], name_of: Callable[[int, Region], Iterable[str]]) -> dict[str, Region]:
    """Regions added up by name, longest path first; a region counts under its first name."""
    found: dict[str, Region] = {}
    for number, region in regions.items():
        name = next(iter(name_of(number, region)), MAIN_NAME)
        found.setdefault(name, Region()).add(region)
    return dict(sorted(found.items(), key=lambda row: (-row[1].ticks, row[0])))


def layer_name(entry: SourceEntry) -> str:
    """The layer that a table shows for a region."""
    return entry.layer or entry.name


def row(target: Target, name: str, region: Region) -> dict[str, Any]:
    """A table's line as plain JSON; microseconds. `mostly`: the cause of most of the path."""
    us = target.nanoseconds(1) / 1e3
    names = engine_names(target)
    busy = {names[engine]: region.busy[Cause[engine.name]] * us for engine in names if region.busy[Cause[engine.name]]}
    dma = region.busy[Cause.DMA_DATA] * us / target.dma.engines
    path = sorted(((cause, ticks) for cause, ticks in region.path.items() if ticks), key=lambda pair: (-pair[1], pair[0]))
    return {"name": name, "us": region.ticks * us, "mostly": path[0][0].name.lower() if path else "",
            "busy_us": busy | ({"DMA": dma} if dma else {}),
            "path_us": {cause.name.lower(): ticks * us for cause, ticks in path},
            "instructions": region.instructions, "transfers": region.transfers, "hbm_bytes": region.hbm_bytes,
            "pe_flops": region.flops, "operations": region.operations,
            "start_us": max(0, region.first) * us, "end_us": max(0, region.last) * us}


def machine_rows(found: Estimate) -> list[dict[str, Any]]:
    """Executed machine instructions by engine and name."""
    rows: dict[tuple[str, str], list[int]] = {}
    if found.clock is None:
        return []
    names = engine_names(found.target)
    for timing in found.timings:
        for slot, count, idle in zip(found.clock.slots, timing.executed, timing.idle, strict=True):
            if count:
                total = rows.setdefault((names[slot.engine], slot.name), [0, 0, 0])
                total[0] += count
                total[1] += count * slot.busy
                total[2] += idle
    us = found.target.nanoseconds(1) / 1e3
    return [{"engine": engine, "instruction": name, "count": count, "busy_us": busy * us, "idle_before_us": idle * us}
            for (engine, name), (count, busy, idle) in sorted(rows.items(), key=lambda row: -row[1][1])]


def left_out_rows(found: Estimate) -> list[dict[str, Any]]:
    """Stretches of the call in which turns of loops repeat those before them."""
    us = found.target.nanoseconds(1) / 1e3
    rows = [{"start_us": (start + fold.at) * us, "us": fold.ticks * us, "turns": fold.turns,
             "turn_us": fold.ticks * us / max(1, fold.turns), "exact": fold.exact}
            for node, start in zip(found.nodes, node_starts(found), strict=True) if node.timing is not None
            for fold in node.timing.folds]
    return sorted(rows, key=lambda row: -row["us"])


def queue_rows(found: Estimate) -> list[dict[str, Any]]:
    """Transfers by DMA queue: how many, their bytes, how long the queue had one under way."""
    rows: dict[str, list[int]] = {}
    slots = found.clock.slots if found.clock is not None else []
    sizes = np.array([slot.transfer.bytes if slot.transfer is not None else 0 for slot in slots], np.int64)
    for timing in found.timings:
        if timing.timeline is None:
            continue
        spans, weights = timing.timeline.columns, timing.timeline.weights
        for number, name in enumerate(timing.timeline.rows[len(ENGINES):], len(ENGINES)):
            chosen = spans[:, ROW] == number
            mine, times = spans[chosen], weights[chosen]
            total = rows.setdefault(name, [0, 0, 0])
            total[0] += int(times.sum())
            total[1] += int((sizes[mine[:, SLOT]] * times).sum())
            total[2] += covered(mine, times)
    us = found.target.nanoseconds(1) / 1e3
    return [{"queue": name, "transfers": count, "bytes": moved, "under_way_us": ticks * us}
            for name, (count, moved, ticks) in sorted(rows.items(), key=lambda row: -row[1][1]) if count]


def covered(spans: Integers, weights: Integers) -> int:
    """Ticks in which at least one of the spans runs; weights: how many pieces of work each stands for."""
    if not len(spans):
        return 0
    order = np.argsort(spans[:, START], kind="stable")
    spans, weights = spans[order], weights[order]
    reached = np.maximum.accumulate(np.concatenate(([0], spans[:-1, END])))
    return int((np.maximum(0, spans[:, END] - np.maximum(spans[:, START], reached)) * weights).sum())
