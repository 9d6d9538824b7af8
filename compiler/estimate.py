"""Predict the time of one call of a NEFF and say what bounds it; per layer and as a trace for `profile`.

Device nodes are timed by the simulator's clock, host nodes by the host's numbers in the target file. The roofline is the
larger of two times that no schedule can beat: products at the PE array's peak, and every byte that must be read or written
once at the core's share of HBM bandwidth. All numbers are predictions from facts whose sources `nxcc explain` names.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from nxcc.backends.isa.program import Engine, Program
from nxcc.backends.simulator.timing import Cause, Clock, Span, Timing
from nxcc.backends.target import Target, load_target
from nxcc.compiler.device import load_program
from nxcc.compiler.outputs import write_whole
from nxcc.compiler.places import places_of
from nxcc.compiler.runtime import read_module
from nxcc.compiler.statistics import module_work
from nxcc.ir.diagnostics import NEFF_INVALID, CompileError
from nxcc.ir.dtypes import BY_NAME
from nxcc.neff.members import CPU, Graph, Node
from nxcc.neff.reader import Neff, open_neff

HOST = "host"
BOUNDS: dict[Cause, str] = {
    Cause.PE: "PE", Cause.SCALAR: "Activation", Cause.VECTOR: "DVE", Cause.GPSIMD: "Pool", Cause.SYNC: "SP",
    Cause.SEQUENCER: "instruction issue", Cause.SEMAPHORE: "synchronisation", Cause.LATENCY: "engine latency",
    Cause.PORT: "memory ports", Cause.TABLE: "activation tables", Cause.DMA_ISSUE: "DMA issue",
    Cause.DMA_LATENCY: "DMA latency", Cause.DMA_DATA: "DMA bandwidth",
}
"""What a piece of the critical path is called in reports."""

LARGEST = 10


@dataclass
class NodeTime:
    """One node: seconds, and for a device node its timing."""

    name: str
    executor: str
    seconds: float
    timing: Timing | None = None


@dataclass
class Prediction:
    """All that is predicted of one call."""

    neff: Neff
    target: Target
    program: Program | None
    nodes: list[NodeTime] = field(default_factory=list)
    crossing_bytes: int = 0

    @property
    def timings(self) -> list[Timing]:
        return [node.timing for node in self.nodes if node.timing is not None]

    @property
    def device_s(self) -> float:
        return sum(node.seconds for node in self.nodes if node.timing is not None)

    @property
    def host_s(self) -> float:
        """Host regions, what crosses the link for them, and one more submission for each further device node."""
        work = sum(node.seconds for node in self.nodes if node.timing is None)
        again = max(len(self.timings) - 1, 0) * self.target.host.submit_ns * 1e-9
        return work + again + self.crossing_bytes / self.target.host.copy_bytes_per_second


def predict(path: str, spans: bool = False) -> Prediction:
    """Time every node of a file. Raises CompileError for a file that cannot be run."""
    neff = open_neff(path)
    graph = neff.require_runnable()
    target = load_target(graph.nxcc.target)
    has_device = any(node.executor != CPU for node in graph.nodes)
    program = load_program(neff, target) if has_device else None
    found = Prediction(neff, target, program, crossing_bytes=_crossing_bytes(graph))
    clock = Clock(program, target) if program is not None else None
    for node in graph.nodes:
        if node.executor == CPU:
            found.nodes.append(NodeTime(node.name, HOST, _host_seconds(neff, node, target)))
        else:
            assert program is not None and clock is not None
            timing = clock.time(_entry(program, node, path), spans=spans)
            found.nodes.append(NodeTime(node.name, "device", timing.ticks / target.ticks_per_second, timing))
    return found


def _entry(program: Program, node: Node, path: str) -> int:
    names = [entry.name for entry in program.entries]
    if node.entry not in names:
        raise CompileError(NEFF_INVALID, f"the program has no entry {node.entry!r}", path)
    return names.index(node.entry)


def _host_seconds(neff: Neff, node: Node, target: Target) -> float:
    """The larger of arithmetic and memory traffic of a host module at the host's rates."""
    flops, traffic = module_work(read_module(neff, node.hlo, node.name))
    return max(flops / target.host.flops_per_second, traffic / target.host.memory_bytes_per_second)


def _crossing_bytes(graph: Graph) -> int:
    """Bytes that cross between host and device inside a call: values made on one side and read on the other."""
    side = {row.name: HOST for row in graph.inputs}
    device_inputs = {row.name for row in graph.inputs}
    total = 0
    moved: set[tuple[str, str]] = set()
    for node in graph.nodes:
        here = HOST if node.executor == CPU else "device"
        for row in node.inputs:
            if row.name not in device_inputs and side[row.name] != here and (row.name, here) not in moved:
                moved.add((row.name, here))
                total += row.size
        side |= {row.name: here for row in node.outputs}
    return total


# Reports


def estimate_file(path: str) -> dict[str, Any]:
    """`nxcc estimate` as plain JSON; times in microseconds."""
    return _summary(predict(path), path)


def _summary(found: Prediction, path: str) -> dict[str, Any]:
    target = found.target
    device_us, host_us = found.device_s * 1e6, found.host_s * 1e6
    causes: Counter[Cause] = Counter()
    for timing in found.timings:
        causes.update(timing.causes())
    roofline = roofline_us(found.neff, target)
    fixed_us = (target.host.submit_ns + target.host.execution_fixed_ns) * 1e-3 if found.timings else 0.0
    graph = found.neff.graph
    assert graph is not None
    border = sum(row.size for row in (*graph.inputs, *graph.outputs) if getattr(row, "role", "") != "weight")
    return {
        "file": path, "target": target.name, "device_us": device_us, "host_us": host_us,
        "request_us": device_us + host_us + fixed_us + border / target.host.copy_bytes_per_second * 1e6,
        "bound_by": HOST if host_us > device_us else _bound(causes),
        "engines": _shares(found), "roofline_us": max(roofline.values(), default=0.0), "rooflines": roofline,
        "critical_path": {BOUNDS[cause]: ticks / target.ticks_per_second * 1e6 for cause, ticks in causes.most_common()},
        "nodes": [{"name": node.name, "executor": node.executor, "us": node.seconds * 1e6} for node in found.nodes],
        "dma_bytes": sum(timing.dma_bytes for timing in found.timings),
        "hbm_bytes": sum(timing.hbm_bytes for timing in found.timings),
        "instructions": sum(timing.instructions for timing in found.timings),
        "assumed_branches": sum(timing.assumed for timing in found.timings),
    }


def _bound(causes: Counter[Cause]) -> str:
    return BOUNDS[causes.most_common(1)[0][0]] if causes else "nothing"


def _shares(found: Prediction) -> dict[str, float]:
    """Busy share of each engine and of the DMA engines over the device's time."""
    ticks = sum(timing.ticks for timing in found.timings)
    busy: Counter[Engine] = Counter()
    for timing in found.timings:
        busy.update(timing.busy)
    shares = {facts.member: busy[engine] / ticks if ticks else 0.0 for engine, facts in found.target.engines.items()}
    dma = sum(timing.dma_busy for timing in found.timings)
    return shares | {"DMA": dma / (ticks * found.target.dma.engines) if ticks else 0.0}


def roofline_us(neff: Neff, target: Target) -> dict[str, float]:
    """Least times in microseconds: `PE` for the products, `HBM` for inputs, weights, constants and outputs once."""
    graph = neff.graph
    assert graph is not None
    array = target.tensor.rows * target.tensor.columns * target.engines[Engine.PE].clock_hz
    macs = graph.nxcc.extra.get("macs", {})
    passes = {name: target.tensor.passes.get(name, max(target.tensor.passes.values())) for name in macs}
    seconds = sum(int(count) * passes[name] / array for name, count in macs.items() if name in BY_NAME)
    kinds = {name: row.type for subgraph in neff.subgraphs for name, row in subgraph.definition.var.items()}
    moved = sum(place.byte_size for name, place in places_of(neff).items() if kinds[name] in ("input", "output", "file"))
    return {"PE": seconds * 1e6, "HBM": moved / target.hbm.share_bytes_per_second * 1e6}


def estimate_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = [f"{body['file']} ({body['target']}): {body['device_us']:.1f} us on the device, {body['host_us']:.1f} us "
             f"on the host, about {body['request_us']:.0f} us a request",
             f"bound by {body['bound_by']}; roofline {body['roofline_us']:.1f} us "
             f"(PE {body['rooflines']['PE']:.1f}, HBM {body['rooflines']['HBM']:.1f})",
             "busy: " + ", ".join(f"{name} {share:.0%}" for name, share in body["engines"].items())]
    path = list(body["critical_path"].items())[:5]
    if path:
        lines.append("critical path: " + ", ".join(f"{name} {us:.1f} us" for name, us in path))
    if body["assumed_branches"]:
        lines.append(f"assumed: {body['assumed_branches']} outcomes of data-dependent loops and branches (one trip, first arm)")
    return lines


def profile_file(path: str, trace: str | None) -> dict[str, Any]:
    """The estimate with times by layer and by HLO instruction; trace: also write a Chrome trace there."""
    found = predict(path, spans=trace is not None)
    body = _summary(found, path)
    names = _regions(found.neff)
    by_region: Counter[str] = Counter()
    by_layer: Counter[str] = Counter()
    for timing in found.timings:
        for region, ticks in timing.region_ticks().items():
            name, layer = names.get(region, ("(between regions)", ""))
            by_region[name] += ticks
            by_layer[layer] += ticks
    us = 1e6 / found.target.ticks_per_second
    body["regions"] = [{"name": name, "us": ticks * us} for name, ticks in by_region.most_common()]
    body["layers"] = [{"layer": layer, "us": ticks * us} for layer, ticks in by_layer.most_common()]
    if trace is not None:
        write_whole(trace, trace_text(found, names))
        body["trace"] = trace
    return body


def _regions(neff: Neff) -> dict[int, tuple[str, str]]:
    debug = neff.debug_map()
    return {} if debug is None else {number: (row.name, row.layer) for number, row in enumerate(debug.hlo)}


def trace_text(found: Prediction, names: dict[int, tuple[str, str]]) -> str:
    """A trace in the Chrome/Perfetto format: a process a node, a thread an engine or a DMA queue."""
    us = 1e6 / found.target.ticks_per_second
    events: list[dict[str, Any]] = []
    start = 0.0
    for process, node in enumerate(found.nodes):
        events.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": f"{node.name} ({node.executor})"}})
        if node.timing is None:
            events.append(_event(process, 0, node.name, start, node.seconds * 1e6, {}))
        else:
            events += _spans(process, node.timing.spans, start, us, names)
        start += node.seconds * 1e6
    return json.dumps({"displayTimeUnit": "ns", "traceEvents": events}, sort_keys=True) + "\n"


def _spans(process: int, spans: list[Span], start: float, us: float, names: dict[int, tuple[str, str]]) -> list[dict[str, Any]]:
    rows = {row: number for number, row in enumerate(sorted({span.row for span in spans}))}
    events: list[dict[str, Any]] = [{"ph": "M", "name": "thread_name", "pid": process, "tid": number, "args": {"name": row}}
                                    for row, number in rows.items()]
    for span in spans:
        about = {"hlo": names[span.region][0]} if span.region in names else {}
        events.append(_event(process, rows[span.row], span.name, start + span.start * us, (span.end - span.start) * us, about))
    return events


def _event(process: int, thread: int, name: str, start_us: float, us: float, about: dict[str, str]) -> dict[str, Any]:
    assert math.isfinite(start_us)
    return {"ph": "X", "pid": process, "tid": thread, "name": name, "ts": start_us, "dur": us, "args": about}


def profile_lines(body: dict[str, Any]) -> list[str]:
    """The same for people: the estimate, then the layers and the instructions that take longest."""
    lines = estimate_lines(body)
    for title, rows, key in (("layer", body["layers"], "layer"), ("instruction", body["regions"], "name")):
        lines.append("")
        lines += [f"{row['us']:12.1f} us  {row[key] or '(no layer)'}" for row in rows[:LARGEST]]
        if len(rows) > LARGEST:
            lines.append(f"{'':15}  ... {len(rows) - LARGEST} more; --json lists every {title}")
    if "trace" in body:
        lines += ["", f"trace written to {body['trace']}"]
    return lines
