"""What a file for several cores does with a stream of requests: latency, throughput, how busy each stage is, which one binds.

A stage is a node of the graph: a core's piece of a device region, or a host part. Between stages of one region values pass from
core to core, those that are needed farther on from one to the next; cores are numbered over the chips, so that neighbours
share a chip but at its border. A host part takes its values over the host's link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nxcc.backends import cost
from nxcc.backends.isa.layout import is_trigger
from nxcc.backends.isa.program import DmaPattern, Memory, Program
from nxcc.backends.simulator.pipeline import Flow, Stage, stream
from nxcc.backends.target import Target
from nxcc.compiler.runtime.places import places_of
from nxcc.ir.facts import dataclass
from nxcc.neff.members import CPU
from nxcc.neff.reader import Neff

if TYPE_CHECKING:
    from nxcc.compiler.reports.estimate import NodeTime

MAX_LINES = 20


@dataclass(frozen=True)
class StageReport:
    """Microseconds of a stage's work and of taking over its values; bytes that it takes over, of weights on its chip, and of
    weights that each run brings from device memory. core: -1 for the host."""

    name: str
    core: int
    us: float
    takeover_us: float
    takeover_bytes: int
    pinned_bytes: int
    streamed_bytes: int


@dataclass(frozen=True)
class Pipeline:
    """See nxcc.backends.simulator.pipeline.Flow; times in microseconds."""

    cores: int
    stages: tuple[StageReport, ...]
    flow: Flow
    latency_us: float
    loaded_latency_us: float
    interval_us: float

    @property
    def takeover_us(self) -> float:
        return sum(stage.takeover_us for stage in self.stages)

    def report(self) -> dict[str, Any]:
        """As plain JSON; occupancy from 0 to 1."""
        rows = [{"name": stage.name, "executor": "host" if stage.core < 0 else "device", "core": stage.core, "us": stage.us,
                 "occupancy": share, "takeover_us": stage.takeover_us, "takeover_bytes": stage.takeover_bytes,
                 "pinned_bytes": stage.pinned_bytes, "streamed_bytes": stage.streamed_bytes}
                for stage, share in zip(self.stages, self.flow.occupancy, strict=True)]
        return {"cores": self.cores, "latency_us": self.latency_us, "loaded_latency_us": self.loaded_latency_us,
                "interval_us": self.interval_us, "requests_per_second": 1e6 / self.interval_us if self.interval_us else 0.0,
                "bound_by": self.stages[self.flow.binding].name, "stages": rows}


def pipeline(neff: Neff, target: Target, nodes: Sequence[NodeTime], programs: Sequence[Program]) -> Pipeline:
    """The stages of a file, timed as a stream. The first of each region bears the fixed time of an execution."""
    taken = _taken_over(neff)
    begun: set[str] = set()
    stages, reports = [], []
    for number, (node, timed) in enumerate(zip(neff.require_runnable().nodes, nodes, strict=True)):
        sizes = taken[number]
        if timed.timing is None or number == 0 or nodes[number - 1].timing is None:
            takeover = round(sum(sizes) / target.host.copy_bytes_per_second * target.ticks_per_second)
        else:
            chip = target.cores.per_chip
            takeover = cost.handover(sizes, nodes[number - 1].core // chip == timed.core // chip, target)
        work = timed.timing.ticks if timed.timing is not None else target.ticks(timed.us * 1e3)
        pinned, streamed = _weight_bytes(neff, timed.core, programs[timed.core], node.entry) if node.executor != CPU else (0, 0)
        if node.executor != CPU and node.kelf not in begun:
            begun.add(node.kelf)
            work += target.ticks(target.host.execution_fixed_ns)
        moving = timed.timing.dma_busy // target.dma.engines if timed.timing is not None else 0
        stages.append(Stage(work, takeover, moving))
        reports.append(StageReport(timed.name, timed.core, timed.us, target.nanoseconds(takeover) / 1e3, sum(sizes), pinned,
                                   streamed))
    flow = stream(stages)
    us = target.nanoseconds(1) / 1e3
    return Pipeline(len(programs), tuple(reports), flow, flow.latency * us, flow.loaded_latency * us, flow.interval * us)


def _taken_over(neff: Neff) -> list[list[int]]:
    """For each node the sizes of values that nodes before it made and that it or a later one reads."""
    graph = neff.require_runnable()
    last = {row.name: number for number, node in enumerate(graph.nodes) for row in node.inputs}
    made = {row.name: (number, row.size) for number, node in enumerate(graph.nodes) for row in node.outputs}
    return [[size for name, (maker, size) in made.items() if maker < number <= last.get(name, -1)]
            for number in range(len(graph.nodes))]


def _weight_bytes(neff: Neff, core: int, program: Program, entry: str) -> tuple[int, int]:
    """Bytes of weights that the core keeps on chip, and that a run of the entry brings; each transfer counted."""
    subgraph = neff.subgraphs[core]
    weights = {row.name for row in neff.require_runnable().inputs if row.role == "weight"}
    spans = [(place.address, place.address + place.byte_size) for name, place in places_of(subgraph).items()
             if name in weights or subgraph.definition.var[name].type == "file"]
    kept = program.resident.entry if program.resident is not None else ""
    found = {kept: 0, entry: 0}
    for name, _, instructions in program.streams():
        for instruction in instructions if name in found else ():
            source = instruction.operands.get("source") if is_trigger(instruction.spec) else None
            if isinstance(source, DmaPattern) and source.memory is Memory.HBM:
                address = source.address.constant
                if any(start <= address < end for start, end in spans):
                    found[name] += cost.transfer_bytes(instruction)
    return found[kept] if kept else 0, found[entry]


def pipeline_lines(body: dict[str, Any] | None, text: Callable[[float], str]) -> list[str]:
    """The report for people; text: a time in microseconds in words."""
    if body is None:
        return []
    lines = [f"pipeline over {body['cores']} cores: a result every {text(body['interval_us'])} "
             f"({body['requests_per_second']:.1f} a second), latency {text(body['latency_us'])} "
             f"({text(body['loaded_latency_us'])} when full), bound by {body['bound_by']}"]
    for row in body["stages"][:MAX_LINES]:
        where = "host" if row["core"] < 0 else f"core {row['core']}"
        lines.append(f"stage {row['name']} on {where}: {text(row['us'])}, {row['occupancy']:.0%} busy, takes over "
                     f"{row['takeover_bytes']} bytes in {text(row['takeover_us'])}, {row['pinned_bytes']} bytes of weights on "
                     f"chip, {row['streamed_bytes']} streamed")
    if len(body["stages"]) > MAX_LINES:
        lines.append(f"{len(body['stages']) - MAX_LINES} more stages; --json lists all")
    return lines
