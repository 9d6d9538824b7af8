"""What the page of a profile draws: spans, critical path and occupancy as columns, and the facts that name their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

import numpy as np
import numpy.typing as npt

from nxcc.backends.isa.program import Engine
from nxcc.backends.isa.text import instruction_text
from nxcc.backends.simulator.outcome import ENGINES, Cause
from nxcc.backends.simulator.timeline import COLUMNS, Integers, Timeline
from nxcc.backends.target import Target
from nxcc.compiler.reports.estimate import CAUSE_WORDS, Estimate, engine_names
from nxcc.compiler.reports.regions import AFTER, END, REGION, ROW, SLOT, START, node_starts, regions_of, row, source_of
from nxcc.compiler.reports.trace import lanes
from nxcc.ir.facts import dataclass

Column = npt.NDArray[Any]
LARGEST = (1 << 32) - 1
EXACT = 1 << 53
"""Up to here a script's numbers are exact."""
MEMORIES = ("sbuf", "psum")


@dataclass
class Layout:
    """How the columns are to be read.

    unit: ticks that one count of time stands for. rows: [name, kind, first span, spans]. slots, regions: numbers in the
    columns, by their place. starts: of the nodes, ticks.
    """

    unit: int
    ticks: int
    rows: list[tuple[str, str, int, int]] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    regions: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)


def profile_columns(found: Estimate) -> tuple[dict[str, Column], Layout]:
    """Spans by row and start, as distances and lengths; the pieces of the critical path; occupancy."""
    starts = node_starts(found)
    ticks = sum(node.timing.ticks if node.timing is not None else found.target.ticks(node.us * 1e3) for node in found.nodes)
    layout = Layout(1 + ticks // EXACT, ticks, starts=starts)
    timelines = [(node.timing.timeline, start) for node, start in zip(found.nodes, starts, strict=True)
                 if node.timing is not None and node.timing.timeline is not None]
    spans = _joined(timelines)
    names = _row_names(timelines)
    lane = lanes(spans)
    order = np.lexsort((spans[:, START], lane, spans[:, ROW]))
    spans, lane = spans[order], lane[order]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    layout.rows = _rows(spans, lane, names)
    layout.slots, slot_of = _numbered(spans[:, SLOT])
    path = _path(timelines)
    layout.regions, region_of = _numbered(np.concatenate([spans[:, REGION], path[:, 3]]))
    after = np.where(spans[:, AFTER] >= 0, np.arange(len(spans)) - place[spans[:, AFTER]], 0)
    columns: dict[str, Column] = {
        "start": _steps(spans[:, START] // layout.unit, layout.rows),
        "length": _lengths(spans[:, START], spans[:, END], layout.unit),
        "slot": _small(slot_of), "region": _small(region_of[:len(spans)]), "after": after.astype(np.int32),
        "path_start": _steps(path[:, 0] // layout.unit), "path_length": _lengths(path[:, 0], path[:, 1], layout.unit),
        "path_cause": path[:, 2].astype(np.uint8), "path_region": _small(region_of[len(spans):]),
    }
    for memory in MEMORIES:
        at, filled = _occupancy(timelines, memory)
        columns |= {f"{memory}_at": _steps(at // layout.unit), f"{memory}_bytes": filled.astype(np.uint32)}
    return columns, layout


def _joined(timelines: list[tuple[Timeline, int]]) -> Integers:
    """The spans of all nodes, one after the other."""
    parts, count = [np.zeros((0, len(COLUMNS)), np.int64)], 0
    for timeline, start in timelines:
        part = timeline.columns.copy()
        part[:, [START, END]] += start
        part[:, AFTER] = np.where(part[:, AFTER] >= 0, part[:, AFTER] + count, -1)
        parts.append(part)
        count += len(part)
    return np.concatenate(parts)


def _row_names(timelines: list[tuple[Timeline, int]]) -> tuple[str, ...]:
    return timelines[0][0].rows if timelines else ()


def _rows(spans: Integers, lane: Integers, names: tuple[str, ...]) -> list[tuple[str, str, int, int]]:
    if not len(spans):
        return []
    change = np.flatnonzero(np.diff(spans[:, ROW]) | np.diff(lane)) + 1
    firsts = [0, *change.tolist()]
    ends = [*change.tolist(), len(spans)]
    found = []
    for first, end in zip(firsts, ends, strict=True):
        number, more = int(spans[first, ROW]), int(lane[first])
        kind = "engine" if number < len(ENGINES) else "queue"
        found.append((names[number] + (f" +{more}" if more else ""), kind, first, end - first))
    return found


def _steps(times: Integers, rows: Sequence[tuple[str, str, int, int]] = ()) -> Column:
    """Distances between times in order, anew in each row."""
    steps = np.diff(times, prepend=0)
    for _, _, first, _ in rows:
        steps[first] = times[first]
    return _long(steps)


def _lengths(starts: Integers, ends: Integers, unit: int) -> Column:
    return _long(ends // unit - starts // unit)


def _long(times: Integers) -> Column:
    """Times that may pass 32 bits where turns of a loop were left out."""
    return times.astype(np.uint32 if times.max(initial=0) <= LARGEST else np.float64)


def _numbered(values: Integers) -> tuple[list[int], Integers]:
    """Distinct values, and the place of each value among them."""
    distinct, where = np.unique(values, return_inverse=True)
    return distinct.tolist(), where.reshape(-1)


def _small(values: Integers) -> Column:
    return values.astype(np.uint16 if values.max(initial=0) < 1 << 16 else np.uint32)


def _path(timelines: list[tuple[Timeline, int]]) -> Integers:
    """[pieces, (start, end, cause, region)]; neighbours that are alike are one."""
    rows = [(piece.start + start, piece.end + start, piece.cause, piece.region)
            for timeline, start in timelines for piece in timeline.path]
    pieces = np.array(rows, np.int64).reshape(-1, 4)
    if not len(pieces):
        return pieces
    new = np.ones(len(pieces), bool)
    new[1:] = (np.diff(pieces[:, 2:], axis=0) != 0).any(axis=1) | (pieces[1:, 0] != pieces[:-1, 1])
    firsts = np.flatnonzero(new)
    merged = pieces[firsts]
    merged[:, 1] = pieces[np.append(firsts[1:], len(pieces)) - 1, 1]
    return merged


def _occupancy(timelines: list[tuple[Timeline, int]], memory: str) -> tuple[Integers, Integers]:
    at, filled = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
    for timeline, start in timelines:
        ticks, counts = getattr(timeline, memory).curve()
        at.append(ticks + start)
        filled.append(counts)
    return np.concatenate(at), np.concatenate(filled)


# Facts


def profile_facts(found: Estimate, layout: Layout) -> dict[str, Any]:
    """Names and sizes behind the numbers in the columns; times in microseconds unless a name says otherwise."""
    target = found.target
    return {
        "unit_ns": target.nanoseconds(1) * layout.unit, "length_us": target.nanoseconds(layout.ticks) / 1e3,
        "rows": [*layout.rows], "causes": [cause.name.lower() for cause in Cause], "cause_words": dict(CAUSE_WORDS),
        "slots": [_slot(found, number) for number in layout.slots], "region_facts": _regions(found, layout),
        "nodes": [{"name": node.name, "executor": node.executor, "start_us": target.nanoseconds(start) / 1e3, "us": node.us}
                  for node, start in zip(found.nodes, layout.starts, strict=True)],
        "memories": {"sbuf": {"capacity": target.sbuf.partition_bytes, "usable": target.sbuf.usable_bytes},
                     "psum": {"capacity": target.psum.partition_bytes, "usable": target.psum.partition_bytes}},
        "roofs": roofs(target),
    }


def _slot(found: Estimate, number: int) -> dict[str, Any]:
    assert found.clock is not None
    slot = found.clock.slots[number]
    facts: dict[str, Any] = {
        "function": slot.function, "engine": engine_names(found.target)[slot.engine], "index": slot.index, "name": slot.name,
        "text": instruction_text(slot.instruction), "flops": slot.flops}
    if slot.transfer is not None:
        facts |= {"bytes": slot.transfer.bytes, "hbm_bytes": slot.transfer.hbm_bytes, "engines": slot.transfer.engines}
    return facts


def _regions(found: Estimate, layout: Layout) -> list[dict[str, Any]]:
    regions = regions_of(found)
    rows = []
    for number in layout.regions:
        entry = source_of(found, number)
        rows.append(row(found.target, entry.name, regions[number]) | {
            "op": entry.op, "source": entry.source, "layer": entry.layer, "functions": sorted(regions[number].functions),
            "number": number})
    return rows


def roofs(target: Target) -> dict[str, float]:
    """Peaks in operations and bytes a second."""
    pe = 2.0 * target.tensor.rows * target.tensor.columns * target.engines[Engine.PE].clock_hz
    facts = target.engines[Engine.VECTOR]
    slowest = max(target.tensor.passes.values())
    return {"pe": pe, "pe_slowest": pe / slowest, "vector": facts.lanes * facts.clock_hz,
            "dma": target.dma.engines * target.dma.bytes_per_second_per_engine, "hbm": target.hbm.share_bytes_per_second}
