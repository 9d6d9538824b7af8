"""Where the time of a NEFF goes: tables by layer, by HLO instruction and by engine, and a timeline for Chrome or Perfetto.

A region's time is its part of the critical path, so the rows of a table add up to the simulated time; busy times are beside
it. A region is the code of one call of a lowered function, named by the HLO instruction that it is from.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from nxcc.backends.simulator.timing import Cause, Timing
from nxcc.backends.target import Target
from nxcc.compiler.estimate import Estimate, engine_names, estimate, estimate_lines, estimate_report, us_text
from nxcc.compiler.outputs import check_writable, whole_file
from nxcc.neff.members import SourceEntry
from nxcc.neff.reader import open_neff

MAX_ROWS = 30
MAIN_NAME = "(control)"


def profile_file(path: str, trace: str | None = None, trips: int = 1) -> dict[str, Any]:
    """The profile of a file as plain JSON; trace: also write the timeline there."""
    if trace:
        check_writable(trace)
    found = estimate(open_neff(path), trips=trips, spans=trace is not None, ranges=False)
    if trace:
        with whole_file(trace) as file:
            write_trace(found, file)
    return profile_report(found, path) | {"trace": trace or ""}


def profile_report(found: Estimate, path: str) -> dict[str, Any]:
    """Tables as plain JSON, longest first; times in microseconds."""
    instructions = _rows(found, lambda number: _entry(found, number).name)
    layers = _rows(found, lambda number: _entry(found, number).layer or _entry(found, number).name)
    return {"estimate": estimate_report(found, path), "hlo": instructions, "layers": layers, "machine": _machine_rows(found)}


_NONE = SourceEntry(MAIN_NAME)


def _entry(found: Estimate, region: int) -> SourceEntry:
    return found.sources[region] if 0 <= region < len(found.sources) else _NONE


def _rows(found: Estimate, name_of: Callable[[int], str]) -> list[dict[str, Any]]:
    """Critical path and busy times of regions, added up by name."""
    path: Counter[str] = Counter()
    causes: dict[str, Counter[Cause]] = {}
    busy: dict[str, list[int]] = {}
    for timing in found.timings:
        for (region, cause), ticks in timing.path.items():
            name = name_of(region)
            path[name] += ticks
            causes.setdefault(name, Counter())[cause] += ticks
        for region, ticks_by_cause in timing.regions.items():
            total = busy.setdefault(name_of(region), [0] * len(Cause))
            for number, ticks in enumerate(ticks_by_cause):
                total[number] += ticks
    return [_row(found.target, name, path[name], causes.get(name, Counter()), busy.get(name, [0] * len(Cause)))
            for name in sorted({*path, *(name for name in busy if any(busy[name]))}, key=lambda name: (-path[name], name))]


def _row(target: Target, name: str, path: int, causes: Counter[Cause], busy: list[int]) -> dict[str, Any]:
    names = engine_names(target)
    engines = {names[engine]: target.nanoseconds(busy[cause]) / 1e3
               for engine, cause in zip(names, _causes_of(names), strict=True) if busy[cause]}
    dma = target.nanoseconds(busy[Cause.DMA_DATA]) / target.dma.engines / 1e3
    main = max(causes, key=lambda cause: (causes[cause], -cause)).name.lower() if causes else ""
    return {"name": name, "us": target.nanoseconds(path) / 1e3, "mostly": main,
            "busy_us": engines | ({"DMA": dma} if dma else {})}


def _causes_of(names: dict[Any, str]) -> list[Cause]:
    return [Cause[engine.name] for engine in names]


def _machine_rows(found: Estimate) -> list[dict[str, Any]]:
    """Executed machine instructions by engine and name."""
    rows: dict[tuple[str, str], list[int]] = {}
    if found.clock is None:
        return []
    names = engine_names(found.target)
    for timing in found.timings:
        for slot, count, idle in zip(found.clock.slots, timing.executed, timing.idle, strict=True):
            if count:
                row = rows.setdefault((names[slot.engine], slot.name), [0, 0, 0])
                row[0] += count
                row[1] += count * slot.busy
                row[2] += idle
    us = found.target.nanoseconds(1) / 1e3
    return [{"engine": engine, "instruction": name, "count": count, "busy_us": busy * us, "idle_before_us": idle * us}
            for (engine, name), (count, busy, idle) in sorted(rows.items(), key=lambda row: -row[1][1])]


def profile_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = estimate_lines(body["estimate"])
    total = body["estimate"]["simulated_us"] or 1.0
    for title, rows in (("layer", body["layers"]), ("HLO instruction", body["hlo"])):
        lines += ["", f"{title:48} {'time':>10} {'share':>6}  mostly; busy"]
        lines += [_table_line(row, total) for row in rows[:MAX_ROWS]]
        if len(rows) > MAX_ROWS:
            rest = sum(row["us"] for row in rows[MAX_ROWS:])
            lines.append(f"{f'{len(rows) - MAX_ROWS} more':48} {us_text(rest):>10} {rest / total:6.1%}")
    lines += ["", f"{'machine instruction':34} {'count':>9} {'busy':>10} {'idle before':>12}"]
    lines += [f"{row['engine'] + ' ' + row['instruction']:34} {row['count']:9} {us_text(row['busy_us']):>10} "
              f"{us_text(row['idle_before_us']):>12}" for row in body["machine"]]
    return lines + ([f"trace: {body['trace']}"] if body["trace"] else [])


def _table_line(row: dict[str, Any], total: float) -> str:
    busy = ", ".join(f"{name} {us_text(value)}" for name, value in row["busy_us"].items())
    name = row["name"] if len(row["name"]) <= 48 else "..." + row["name"][-45:]
    return f"{name:48} {us_text(row['us']):>10} {row['us'] / total:6.1%}  {row['mostly'].replace('_', ' ')}; {busy}"


# Timeline


def write_trace(found: Estimate, file: BinaryIO) -> None:
    """The timelines of all device nodes, one after the other, as trace events (times in microseconds)."""
    file.write(b'{"displayTimeUnit":"ns","traceEvents":[\n')
    for number, event in enumerate(_events(found)):
        file.write((",\n" if number else "").encode() + json.dumps(event, separators=(",", ":")).encode())
    file.write(b"\n]}\n")


def _events(found: Estimate) -> Iterator[dict[str, Any]]:
    """A process a node, a thread an engine or a DMA queue."""
    start = 0.0
    us = found.target.nanoseconds(1) / 1e3
    for process, node in enumerate(found.nodes):
        yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": f"{node.name} ({node.executor})"}}
        if node.timing is not None:
            yield from _node_events(found, node.timing, process, start, us)
        else:
            yield {"ph": "X", "pid": process, "tid": 0, "name": node.name, "ts": round(start, 4), "dur": round(node.us, 4)}
        start += node.us


def _node_events(found: Estimate, timing: Timing, process: int, start: float, us: float) -> Iterator[dict[str, Any]]:
    threads = {row: number for number, row in enumerate(sorted({span.row for span in timing.spans}))}
    for row, number in threads.items():
        yield {"ph": "M", "pid": process, "tid": number, "name": "thread_name", "args": {"name": row}}
    for span in timing.spans:
        entry = _entry(found, span.region)
        arguments: dict[str, Any] = {"hlo": entry.name} | ({"layer": entry.layer} if entry.layer else {})
        if span.slot >= 0 and found.clock is not None:
            slot = found.clock.slots[span.slot]
            arguments |= {"function": slot.function, "index": slot.index}
        yield {"ph": "X", "pid": process, "tid": threads[span.row], "name": span.name, "ts": round(start + span.start * us, 4),
               "dur": round((span.end - span.start) * us, 4), "args": arguments}
