"""How long one call of a NEFF takes: the device by the timing simulator, the host by a simple model of its own.

device_us is the simulated time of all device nodes plus the target's fixed time of an execution for each. host_us stands
beside it and is not part of it: a call's submission, copies of inputs and outputs over the host's link, host nodes as
max(operations / rate, bytes / rate), and the values that cross to and from them. Facts: target file, hardware model 1.9.
The range comes from the target's uncertain facts (see `sensitivity`); the roofline from the module that the file carries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from nxcc.backends.isa.program import Engine, Program
from nxcc.backends.simulator.outcome import Cause, Timing
from nxcc.backends.simulator.timed import Slot
from nxcc.backends.simulator.timing import Clock
from nxcc.backends.target import Target, load_target
from nxcc.compiler.files.opening import open_compiled
from nxcc.compiler.reports.flow import Pipeline, pipeline, pipeline_lines
from nxcc.compiler.reports.roofline import Roofline, Work, module_work, roofline
from nxcc.compiler.reports.sensitivity import MOST_FACTS, Effect, effects, span
from nxcc.compiler.reports.sharing import shared
from nxcc.compiler.reports.trips import loops, trip_count
from nxcc.compiler.runtime.carried import carried_module, read_module
from nxcc.compiler.runtime.device import entry_number, load_programs
from nxcc.ir.diagnostics import USAGE, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Module
from nxcc.neff.members import CPU, Graph, Node, SourceEntry
from nxcc.neff.reader import Neff

VARIED_INSTRUCTIONS = 1_000_000
"""Instructions to spend on the range: of long programs fewer facts are varied, but at least two."""

BOUNDS: Mapping[str, tuple[Cause, ...]] = {
    "PE": (Cause.PE,), "Scalar": (Cause.SCALAR, Cause.TABLE), "Vector": (Cause.VECTOR,), "GpSimd": (Cause.GPSIMD,),
    "DMA bandwidth": (Cause.DMA_DATA,), "DMA latency": (Cause.DMA_ISSUE, Cause.DMA_LATENCY),
    "synchronisation": (Cause.SYNC, Cause.SEQUENCER, Cause.SEMAPHORE, Cause.LATENCY, Cause.PORT),
}
"""What can bound a program, with the causes on the critical path that speak for it."""


CAUSE_WORDS: Mapping[str, str] = {
    "pe": "PE", "scalar": "Scalar", "vector": "Vector", "gpsimd": "GpSimd", "sync": "Sync", "sequencer": "registers, branches",
    "semaphore": "semaphore hops", "latency": "dependent work", "port": "port conflicts", "table": "function tables",
    "dma_issue": "DMA issue", "dma_latency": "DMA latency", "dma_data": "DMA data",
}
"""Causes on the critical path, as people read them."""


@dataclass(frozen=True)
class NodeTime:
    """A device node's simulated run on its core, or a host node's modelled one."""

    name: str
    executor: str
    us: float
    timing: Timing | None = None
    core: int = -1


@dataclass(frozen=True)
class Host:
    """Microseconds of the host's share of one call."""

    submit_us: float
    copy_us: float
    regions_us: float

    @property
    def us(self) -> float:
        return self.submit_us + self.copy_us + self.regions_us


@dataclass
class Estimate:
    """See the module. nodes in order; effects largest first; assumed: data-dependent branches whose outcome was assumed.

    clock: of the first core; its slots are those of all cores. load_us: of the slowest core, for filling what stays on chip,
    once. pipeline: of a file for several cores.
    """

    target: Target
    device_us: float
    fixed_us: float
    low_us: float
    high_us: float
    host: Host
    nodes: list[NodeTime]
    clock: Clock | None
    sources: tuple[SourceEntry, ...]
    work: Work | None
    roofline: Roofline | None
    effects: list[Effect] = field(default_factory=list)
    advice: list[dict[str, Any]] = field(default_factory=list)
    without_gain: list[str] | None = None
    trips: int = 1
    load_us: float = 0.0
    pipeline: Pipeline | None = None

    @property
    def timings(self) -> list[Timing]:
        return [node.timing for node in self.nodes if node.timing is not None]

    @property
    def simulated_us(self) -> float:
        return sum(node.us for node in self.nodes if node.timing is not None)

    @property
    def assumed(self) -> int:
        return sum(timing.assumed for timing in self.timings)

    def shares(self) -> dict[Cause, float]:
        """Shares of the critical path by cause."""
        return cause_shares(self.timings)

    @property
    def bound_by(self) -> str:
        """What takes most of the critical path; `host` if host nodes take longer than the device."""
        if self.host.regions_us > self.device_us:
            return "host"
        shares = self.shares()
        return max(BOUNDS, key=lambda name: sum(shares.get(cause, 0.0) for cause in BOUNDS[name]))

    def engines(self) -> dict[str, float]:
        """Busy share of each engine of the simulated time, and of the DMA engines together."""
        ticks = sum(timing.ticks for timing in self.timings) or 1
        found = {facts.member: sum(t.busy.get(engine, 0) for t in self.timings) / ticks
                 for engine, facts in self.target.engines.items()}
        return found | {"DMA": sum(t.dma_busy for t in self.timings) / ticks / self.target.dma.engines}


def cause_shares(timings: list[Timing]) -> dict[Cause, float]:
    """Shares of the critical paths by cause."""
    total = sum(timing.ticks for timing in timings) or 1
    causes: Counter[Cause] = Counter()
    for timing in timings:
        causes += timing.causes()
    return {cause: ticks / total for cause, ticks in causes.items()}


def estimate(neff: Neff, *, trips: int = 1, spans: bool = False, ranges: bool = True, busy_cores: int = 0) -> Estimate:
    """Time an opened NEFF.

    trips: iterations of loops whose end depends on data. spans: keep the timeline. ranges: vary the uncertain facts.
    busy_cores: cores of the chip at work, which share its memory; 0: all. Raises CompileError for a file that cannot be run,
    or whose program never ends, and USAGE for more cores than a chip has.
    """
    graph = neff.require_runnable()
    target = load_target(graph.nxcc.target)
    on_device = [node for node in graph.nodes if node.executor != CPU]
    programs = load_programs(neff, target) if on_device else []
    module = carried_module(neff)
    counts: Sequence[int | None] = ()

    def run(clock: Clock, node: Node) -> Timing:
        return clock.time(entry_number(programs[neff.core(node)], node.entry), trips=trips, counts=counts, spans=spans)

    def runs(changed: Target) -> list[list[Timing]]:
        clocks = [Clock(program, changed) for program in programs]
        return [[run(clock, node) for node in on_device if neff.core(node) == core] for core, clock in enumerate(clocks)]

    slots: list[Slot] = []
    clocks = [Clock(program, target, slots) for program in programs]
    if module is not None and clocks and len(graph.nodes) == 1:
        counts = _counts(module, clocks[0])
    as_shared = shared(target, _cores(target, busy_cores), runs)
    if as_shared != target:
        target = as_shared
        slots.clear()
        clocks = [Clock(program, target, slots) for program in programs]
    nodes = [_node_time(neff, node, target, clocks, run) for node in graph.nodes]
    flow = pipeline(neff, target, nodes, programs) if len(programs) > 1 else None
    calls = len({node.kelf for node in on_device}) if flow is not None else len(on_device)
    fixed = calls * target.host.execution_fixed_ns / 1e3 + (flow.takeover_us if flow is not None else 0.0)
    device = sum(node.us for node in nodes if node.timing is not None) + fixed
    work = module_work(module) if module is not None else None
    peak = roofline(work, target) if work is not None else None
    debug = neff.debug_map()
    found = Estimate(target, device, fixed, device, device, _host(neff, target, nodes, calls), nodes,
                     clocks[0] if clocks else None, debug.hlo if debug is not None else (), work, peak, trips=trips,
                     load_us=_load_us(programs, clocks), pipeline=flow)
    if ranges and on_device:
        def device_us(changed: Target) -> float:
            ticks = sum(timing.ticks for timings in runs(changed) for timing in timings)
            return changed.nanoseconds(ticks) / 1e3 + found.fixed_us

        _vary(found, device_us)
    return found


def _cores(target: Target, busy_cores: int) -> int:
    cores = target.cores.per_chip
    if busy_cores > cores:
        raise CompileError(USAGE, f"a chip of {target.name} has {cores} cores", why=f"{busy_cores} cannot be at work")
    return busy_cores or cores


def _load_us(programs: list[Program], clocks: list[Clock]) -> float:
    """Microseconds that the slowest core needs to fill what stays on chip."""
    return max((clock.target.nanoseconds(clock.time(entry_number(program, program.resident.entry)).ticks) / 1e3
                for program, clock in zip(programs, clocks, strict=True) if program.resident is not None), default=0.0)


def _node_time(neff: Neff, node: Node, target: Target, clocks: list[Clock],
               run: Callable[[Clock, Node], Timing]) -> NodeTime:
    if node.executor == CPU:
        return NodeTime(node.name, "host", _host_node_us(neff, node, target))
    core = neff.core(node)
    timing = run(clocks[core], node)
    return NodeTime(node.name, "device", target.nanoseconds(timing.ticks) / 1e3, timing, core)


def _host_node_us(neff: Neff, node: Node, target: Target) -> float:
    work = module_work(read_module(neff, node.hlo, node.name))
    operations = sum(work.flops.values()) + work.vector + work.scalar
    return max(operations / target.host.flops_per_second, work.bytes / target.host.memory_bytes_per_second) * 1e6


def _host(neff: Neff, target: Target, nodes: list[NodeTime], calls: int) -> Host:
    regions = sum(node.us for node in nodes if node.executor == "host")
    crossing = crossing_bytes(neff.require_runnable())
    return Host(calls * target.host.submit_ns / 1e3, crossing / target.host.copy_bytes_per_second * 1e6, regions)


def crossing_bytes(graph: Graph) -> int:
    """Bytes that one call moves between host and device: inputs, values made on one side and read on the other, results.

    Weights are where they are read before the first call; state stays on the device from call to call (assumed).
    """
    weights = {row.name for row in graph.inputs if row.role == "weight"}
    on_host = {row.name: row.role != "state" for row in graph.inputs}
    moved: dict[tuple[str, bool], int] = {}
    for node in graph.nodes:
        here = node.executor == CPU
        for row in node.inputs:
            if row.name not in weights and on_host[row.name] != here:
                moved[row.name, here] = row.size
        on_host |= {row.name: here for row in node.outputs}
    for result in graph.outputs:
        if not on_host[result.name] and result.alias_of is None:
            moved[result.name, True] = result.size
    return sum(moved.values())


def _counts(module: Module, clock: Clock) -> Sequence[int | None]:
    """How often each loop of the only entry runs; nothing if the program has other loops than the module."""
    counts = [trip_count(loop) for loop in loops(module)]
    return counts if len(counts) == clock.whiles() else ()


def _vary(found: Estimate, device_us: Callable[[Target], float]) -> None:
    """Fill in the range and the effects."""
    executed = sum(min(timing.instructions, timing.events) for timing in found.timings)
    most = max(2, min(MOST_FACTS, VARIED_INSTRUCTIONS // (2 * executed + 1)))
    found.effects = effects(found.target, device_us, found.shares(), most)
    found.low_us, found.high_us = span(found.device_us, found.effects)


# Reports


def estimate_file(path: str, trips: int = 1, ranges: bool = True, busy_cores: int = 0, advice: bool = False) -> dict[str, Any]:
    """The estimate of a file as plain JSON; see `estimate`. advice: also try what would make a call quicker (see `advice`)."""
    neff = open_compiled(path)
    found = estimate(neff, trips=trips, ranges=ranges, busy_cores=busy_cores)
    if advice:
        from nxcc.compiler.reports.advice import advised
        rows, found.without_gain = advised(neff, found)
        found.advice = [row.to_json() for row in rows]
    return estimate_report(found, path)


def estimate_report(found: Estimate, path: str) -> dict[str, Any]:
    """The estimate as plain JSON; times in microseconds, shares from 0 to 1."""
    timings = found.timings
    seconds = found.simulated_us / 1e6
    body: dict[str, Any] = {
        "file": path, "target": found.target.name, "device_us": found.device_us, "simulated_us": found.simulated_us,
        "fixed_us": found.fixed_us, "range_us": [found.low_us, found.high_us],
        "host_us": found.host.us, "host": {"submit_us": found.host.submit_us, "copy_us": found.host.copy_us,
                                           "regions_us": found.host.regions_us},
        "bound_by": found.bound_by, "engines": found.engines(), "engine_labels": engine_labels(found.target),
        "critical_path": {cause.name.lower(): share for cause, share in sorted(found.shares().items())},
        "nodes": [{"name": node.name, "executor": node.executor, "us": node.us} for node in found.nodes],
        "load_us": found.load_us,
        "instructions": sum(t.instructions for t in timings), "transfers": sum(t.transfers for t in timings),
        "hbm_bytes": sum(t.hbm_bytes for t in timings), "pe_flops": sum(t.pe_flops for t in timings),
        "hbm_bytes_per_second": sum(t.hbm_bytes for t in timings) / seconds if seconds else 0.0,
        "pe_flops_per_second": sum(t.pe_flops for t in timings) / seconds if seconds else 0.0,
        "uncertain": [{"fact": e.fact, "fast_us": e.fast_us, "slow_us": e.slow_us, "why": e.why} for e in found.effects],
        "moves_it_most": found.effects[0].fact if found.effects else None,
        "assumed_branches": found.assumed, "trips": found.trips,
        "repeated_turns": sum(fold.turns for timing in timings for fold in timing.folds),
        "repeated_us": _repeated_us(found, timings, exact=True), "averaged_us": _repeated_us(found, timings, exact=False),
        "advice": found.advice,
        "without_gain": found.without_gain,
        "roofline_us": found.roofline.us if found.roofline is not None else None,
    }
    if found.pipeline is not None:
        body["pipeline"] = found.pipeline.report()
    if found.roofline is not None and found.work is not None:
        body["roofline"] = {"bound_by": found.roofline.bound_by, "pe_us": found.roofline.pe_us,
                            "vector_us": found.roofline.vector_us, "scalar_us": found.roofline.scalar_us,
                            "memory_us": found.roofline.memory_us, "flops": found.work.flops, "bytes": found.work.bytes,
                            "vector_elements": found.work.vector, "scalar_elements": found.work.scalar}
    return body


def _repeated_us(found: Estimate, timings: list[Timing], exact: bool) -> float:
    """Time of turns left out, those that stand within others counted with them."""
    ticks = sum(fold.ticks for timing in timings for fold in timing.outer_folds() if fold.exact is exact)
    return found.target.nanoseconds(ticks) / 1e3


def estimate_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    low, high = body["range_us"]
    span = f" ({us_text(low)} to {us_text(high)})" if body["uncertain"] else ""
    lines = [f"{body['file']} on {body['target']}: {us_text(body['device_us'])} on the device{span}, "
             f"bound by {body['bound_by']}"]
    host = body["host"]
    lines.append(f"host: {us_text(body['host_us'])} beside it (submission {us_text(host['submit_us'])}, copies "
                 f"{us_text(host['copy_us'])}, host regions {us_text(host['regions_us'])})")
    lines += pipeline_lines(body.get("pipeline"), us_text)
    labels = body["engine_labels"]
    lines.append("busy: " + ", ".join(f"{labels.get(name, name)} {share:.1%}" for name, share in body["engines"].items()))
    path = sorted(body["critical_path"].items(), key=lambda row: -row[1])
    shown = [f"{CAUSE_WORDS[name]} {share:.1%}" for name, share in path if share >= 0.01]
    lines.append("critical path: " + ", ".join(shown))
    if body["roofline_us"] is not None:
        ratio = body["device_us"] / body["roofline_us"] if body["roofline_us"] else float("inf")
        lines.append(f"roofline: {us_text(body['roofline_us'])} ({body['roofline']['bound_by']}); the estimate is "
                     f"{ratio:.2f} times it")
    lines.append(f"work: {body['instructions']} instructions, {body['transfers']} transfers, "
                 f"{body['hbm_bytes_per_second'] / 1e9:.1f} GB/s of HBM, {body['pe_flops_per_second'] / 1e12:.2f} TFLOPS")
    lines += [f"uncertain: {row['fact']}{', which moves it most' if number == 0 else ''}: {us_text(row['fast_us'])} to "
              f"{us_text(row['slow_us'])} ({row['why']})" for number, row in enumerate(body["uncertain"])]
    if body["assumed_branches"]:
        lines.append(f"assumed: {body['assumed_branches']} branches depend on data; loops on data run {body['trips']} times "
                     "(--trips), conditionals take their first arm")
    lines += _loop_lines(body)
    if body["without_gain"] is None:
        return lines
    from nxcc.compiler.reports.advice import advice_lines
    return lines + advice_lines(body["advice"], body["without_gain"])


def _loop_lines(body: dict[str, Any]) -> list[str]:
    if not body["repeated_turns"]:
        return []
    found = (f"loops: {body['repeated_turns']:,} turns are like those before them and were not timed one by one "
             f"({us_text(body['repeated_us'])}, to the tick)")
    if body["averaged_us"]:
        found += (f"; of a loop that did not become steady, {us_text(body['averaged_us'])} are by the mean of its last turns "
                  "(see nxcc explain NXC0404)")
    return [found]


def us_text(value: float) -> str:
    """A time in the unit that suits it."""
    for limit, factor, unit in ((1e3, 1.0, "us"), (1e6, 1e-3, "ms")):
        if value < limit:
            return f"{value * factor:.4g} {unit}"
    return f"{value * 1e-6:.4g} s"


def engine_labels(target: Target) -> dict[str, str]:
    """What people read for a name in a file: the documents' name of the engine, and that one."""
    return {name: engine.words if name == engine.words else f"{engine.words} ({name})"
            for engine, name in engine_names(target).items()}


def engine_names(target: Target) -> dict[Engine, str]:
    """Names of engines as reports show them."""
    return {engine: facts.member for engine, facts in target.engines.items()}
