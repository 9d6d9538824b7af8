"""How busy engines, DMA and memories were over time, in equal pieces of the simulated call: the timeline for a terminal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nxcc.backends.simulator.outcome import ENGINES
from nxcc.backends.simulator.timeline import COLUMNS, Integers, Occupancy, Timeline
from nxcc.compiler.reports.estimate import Estimate, engine_names
from nxcc.compiler.reports.regions import END, ROW, SLOT, START, node_starts

PIECES = 64
Floats = npt.NDArray[np.float64]


def activity(found: Estimate, pieces: int = PIECES) -> list[dict[str, Any]]:
    """A row for each engine, for the DMA engines together, for SBUF and PSUM; none without a timeline.

    shares: of each piece, 0 to 1: of its time that the engine worked, of the DMA engines' sustained rate, of the memory's
    bytes at its fullest. peak, of: bytes a partition that a memory held at most, and its size.
    """
    parts = [(node.timing, node.timing.timeline, start) for node, start in zip(found.nodes, node_starts(found), strict=True)
             if node.timing is not None and node.timing.timeline is not None]
    last = max((start + timing.ticks for timing, _, start in parts), default=0)
    if not last:
        return []
    edges, width = np.linspace(0, last, pieces + 1), last / pieces
    lines = [(line, edges - start) for _, line, start in parts]
    rows: list[dict[str, Any]] = [
        {"name": name, "shares": _rounded(_busy(lines, ENGINES.index(engine), pieces) / width)}
        for engine, name in engine_names(found.target).items()]
    rows.append({"name": "DMA", "shares": _rounded(_traffic(found, lines, pieces) / width)})
    for name, size in (("SBUF", found.target.sbuf.partition_bytes), ("PSUM", found.target.psum.partition_bytes)):
        memories = [(line.sbuf if name == "SBUF" else line.psum, own) for line, own in lines]
        filled = np.max([_fullest(memory, own) for memory, own in memories], axis=0)
        peak = max(int(memory.curve()[1].max(initial=0)) for memory, _ in memories)
        rows.append({"name": name, "shares": _rounded(filled / size), "peak": peak, "of": size})
    return rows


Lines = list[tuple[Timeline, Floats]]
"""Timelines, each with the edges of the pieces on its own clock."""


def _busy(lines: Lines, row: int, pieces: int) -> Floats:
    """Ticks of each piece that a row of the timelines is busy."""
    total = np.zeros(pieces)
    for line, edges in lines:
        mine = line.columns[:, ROW] == row
        total += _spread(line.columns[mine], np.ones(int(mine.sum())), edges) + _left_out(line, mine * 1.0, edges)
    return total


def _left_out(line: Timeline, weights: Floats, edges: Floats) -> Floats:
    """What turns that were left out add: as much, evenly, as the spans that they repeat; weights: of all spans."""
    total = np.zeros(len(edges) - 1)
    long = (line.columns[:, END] - line.columns[:, START]) * weights
    for first, end, fold in line.repeated:
        place = np.zeros((1, len(COLUMNS)), np.int64)
        place[0, [START, END]] = fold.at, fold.at + fold.ticks
        total += _spread(place, np.array([long[first:end].sum() / fold.length]), edges)
        # What a later one repeats are these with those that they stand for.
        long[first:end] *= fold.times + 1
    return total


def _traffic(found: Estimate, lines: Lines, pieces: int) -> Floats:
    """Ticks of each piece that all DMA engines at their sustained rate would take for what it moves."""
    target, slots = found.target, found.clock.slots if found.clock is not None else []
    sizes = np.array([slot.transfer.bytes if slot.transfer is not None else 0 for slot in slots], np.int64)
    rate = target.dma.engines * target.dma.bytes_per_second_per_engine / target.ticks_per_second
    total = np.zeros(pieces)
    for line, edges in lines:
        spans = line.columns
        lengths = np.maximum(1, spans[:, END] - spans[:, START])
        weights = np.where(spans[:, ROW] >= len(ENGINES), sizes[spans[:, SLOT]] / lengths / rate, 0.0)
        total += _spread(spans, weights, edges) + _left_out(line, weights, edges)
    return total


def _rounded(values: Floats) -> list[float]:
    return [round(float(min(1.0, value)), 4) for value in values]


def _spread(spans: Integers, weights: Floats, edges: Floats) -> Floats:
    """The spans' weights times their ticks, by piece."""
    if not len(spans):
        return np.zeros(len(edges) - 1)
    total = np.zeros(len(edges))
    for column, sign in ((START, 1.0), (END, -1.0)):
        order = np.argsort(spans[:, column], kind="stable")
        at, by = spans[order, column].astype(np.float64), weights[order]
        count = np.searchsorted(at, edges)
        sums, moments = (np.concatenate(([0.0], np.cumsum(values))) for values in (by, by * at))
        total += sign * (edges * sums[count] - moments[count])
    return np.diff(total)


def _fullest(memory: Occupancy, edges: Floats) -> Floats:
    """The largest occupancy within each piece, bytes a partition."""
    ticks, filled = memory.curve()
    found = np.zeros(len(edges) - 1)
    if not len(ticks):
        return found
    places = np.searchsorted(ticks, edges[:-1], side="right") - 1
    found = np.where(places >= 0, filled[np.maximum(places, 0)], 0).astype(np.float64)
    piece = np.searchsorted(edges, ticks, side="right") - 1
    inside = (piece >= 0) & (piece < len(found))
    np.maximum.at(found, piece[inside], filled[inside])
    return found


BARS = " ▁▂▃▄▅▆▇█"


def activity_lines(rows: list[dict[str, Any]], total_us: str) -> list[str]:
    """The rows as bars of eighths."""
    if not rows:
        return []
    lines = ["", f"over time, from 0 to {total_us}"]
    for row in rows:
        bars = "".join(BARS[math.ceil(share * (len(BARS) - 1))] for share in row["shares"])
        mean = sum(row["shares"]) / len(row["shares"])
        end = f"at most {row['peak'] / 1024:.4g} of {row['of'] / 1024:.4g} KiB a partition" if "peak" in row else f"{mean:.1%}"
        lines.append(f"{row['name']:>10} |{bars}| {end}")
    return lines
