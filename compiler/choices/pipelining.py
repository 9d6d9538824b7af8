"""Several cores: the graph cut into stages of equal time, each with its weights on chip.

How long an instruction takes with its weights on chip is asked of the timing simulator once, for the whole graph on one core
whose chip has room for all of them. After a cut each stage is lowered, pinned and timed as it is; what that shows corrects the
costs, and the graph is cut again, as long as the longest stage gets shorter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nxcc.backends.codegen.alternation import alternate
from nxcc.backends.codegen.attempts import Lowered
from nxcc.backends.codegen.code import DebugEntry, DeviceCode, DeviceNode
from nxcc.backends.codegen.generator import generate
from nxcc.backends.cost import handover
from nxcc.backends.isa.program import Program
from nxcc.backends.onchip.keeping import keep
from nxcc.backends.onchip.pinning import BOUNDARY, LOAD_ENTRY, Pinned, pin
from nxcc.backends.onchip.placing import Places, Timeline
from nxcc.backends.onchip.prefetching import prefetch
from nxcc.backends.onchip.squeezing import resident_at, squeezed
from nxcc.backends.simulator.timing import Clock
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Findings
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import clone_module
from nxcc.ir.hlo.module import Module
from nxcc.passes.fusing.chain_regions import dissolve_chains
from nxcc.passes.partitioning.nodes import Node
from nxcc.passes.partitioning.partition import Plan
from nxcc.passes.partitioning.stages import Stages
from nxcc.passes.split_products import stored_products

SQUEEZES = 6
"""Times that weights are chosen anew for what they leave of the regions' tiles."""

ROUNDS = 2
"""Cuts that are tried at most."""

WORK_SHARES = (0.25, 0.375, 0.5)
"""Parts of SBUF to try for a stage's work where weights want the rest."""

PRODUCT_BYTES = 2
"""Of an element that a target which pipelines multiplies."""

PIECES = 3
"""Pieces that a stage's weights should have at least, so that cuts between them can be even."""

PROPOSED = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of cores that are looked at for a proposal."""

WORK_SHARE = 0.35
"""Part of SBUF that a region should do with on a core of its own where values between regions want the rest."""

WORTH = 0.02
"""Part of a run that traffic of values must take for a second version that makes less of it to be worth its compile time."""

PINNED_SHARE = 4
"""Weights stay on chip where a core without stages has room for one in so many bytes; else they come early."""

UNLIMITED = 1 << 40


@dataclass(frozen=True)
class Lowering:
    """How device nodes become code: for which target, at which level, which values are declared weights, and whether
    transposes are exact. jobs: processes to search in; findings: what searches found before."""

    target: Target
    optlevel: int
    weights: Collection[str]
    exact_transposes: bool = False
    jobs: int = 1
    findings: Findings | None = None

    def code(self, plan: Plan, core: int, debug: list[DebugEntry] | None = None, target: Target | None = None,
             work_bytes: int = 0, written: dict[Any, Lowered] | None = None) -> DeviceCode:
        """The code of what runs on a core, as it comes from code generation. work_bytes, written: see there."""
        nodes = [DeviceNode(node.name, node.module, node.inputs, node.outputs) for node in plan.nodes_of(core)]
        used = {name for node in plan.nodes_of(core) for name in (*node.inputs, *node.outputs, *plan.passing(node))}
        values = {name: shape for name, shape in plan.values.items() if name in used}
        aliases = {output: name for output, name in plan.aliases.items() if name in used and output in used}
        return generate(nodes, values, target or self.target, optlevel=self.optlevel, aliases=aliases,
                        exact_transposes=self.exact_transposes, debug=debug, work_bytes=work_bytes, clock=ticks_of,
                        jobs=self.jobs, findings=self.findings, written=written)

    def whole(self, plan: Plan) -> DeviceCode:
        """The code where one core has all of it. Where streams are straight, values between regions stay on chip; if many of
        them do not fit beside regions that take what they like, the faster of these and of smaller ones."""
        written: dict[Any, Lowered] = {}
        best = self.code(plan, 0, written=written)
        if self.optlevel == 0 or self.target.features.registers:
            return best
        left = self._settle(best)
        if not left:
            return best
        clock = Clock(best.program, self.target)
        if self._moving_ticks(left) <= WORTH * entry_ticks(clock, best):
            return best
        tight = self.code(plan, 0, work_bytes=int(WORK_SHARE * self.target.sbuf.usable_bytes), written=written)
        self._settle(tight)
        return min((best, clock), (tight, Clock(tight.program, self.target)), key=lambda found: self._shared_ticks(*found))[0]

    def _moving_ticks(self, count: int) -> int:
        """What so many bytes of traffic take at least while all cores of the chip are at work."""
        return self.target.ticks(count * 1e9 / self.target.memory_bytes_per_second)

    def _shared_ticks(self, code: DeviceCode, clock: Clock) -> int:
        """Ticks with the other cores of the chip at work and with none of them: nobody knows which."""
        return sum(entry_ticks(clock.with_busy_cores(cores), code) for cores in {1, self.target.cores.per_chip})

    def _settle(self, code: DeviceCode) -> int:
        """Put on chip what fits: values between regions, then all weights or those of regions to come. Bytes of traffic that
        values still make in device memory."""
        places = Places(Timeline.of(code.work, self.target.sbuf.align_bytes), self.target)
        kept = keep(code.program, code.scratch, places, self.target)
        blocks = self._weights(code)
        code.program = kept.program
        room = (self.target.sbuf.usable_bytes - places.top) * self.target.partitions
        if room * PINNED_SHARE >= sum(size for _, size in blocks):
            code.program = pin(code.program, blocks, self.target).program
        else:
            code.program = prefetch(code.program, blocks, places, self.target)
        return kept.left

    def _weights(self, code: DeviceCode) -> list[tuple[int, int]]:
        """Address and bytes of what the loader brings."""
        blocks = [(binding.address, binding.size) for binding, _ in code.constants]
        return blocks + [(binding.address, binding.size) for name, binding in code.bindings.items() if name in self.weights]

    def pinned(self, code: DeviceCode, room: int | None = None) -> Pinned:
        """The code with its weights on chip, as far as they fit, and values between regions: weights first, or, where regions
        do not come together enough for that, values first, whichever streams less."""
        program = code.program
        close = self._squeezed(code) if self.optlevel and room is None else None
        if close is not None and not close.streamed_bytes:
            return close
        if self.optlevel:
            places = Places(Timeline.of(code.work, self.target.sbuf.align_bytes), self.target)
            program = keep(program, code.scratch, places, self.target).program
        found = pin(program, self._weights(code), self.target, room)
        return found if close is None else min(close, found, key=lambda one: one.streamed_bytes)

    def _squeezed(self, code: DeviceCode) -> Pinned | None:
        """The code with weights where its regions have no tiles for them any more, values in what is left; None if nothing is
        gained so. Weights that do not fit have their tiles again, which leaves less room for others."""
        sbuf = self.target.sbuf
        room = sbuf.usable_bytes
        for _ in range(SQUEEZES):
            found = pin(code.program, self._weights(code), self.target, room)
            if found.program.resident is None:
                return None
            program, work = squeezed(found.program, code.work, sbuf.align_bytes)
            timeline = Timeline.of(work, sbuf.align_bytes)
            start = sbuf.usable_bytes - (program.sbuf_bytes - found.program.resident.offset)
            start -= start % BOUNDARY
            if timeline.end <= start:
                places = Places(timeline, self.target, start)
                kept = keep(program, code.scratch, places, self.target)
                return replace(found, program=resident_at(kept.program, start))
            room = sbuf.usable_bytes - timeline.end - sbuf.align_bytes
        return None

    def stage(self, plan: Plan, core: int, debug: list[DebugEntry]) -> DeviceCode:
        """The code of a stage; where weights and work do not both fit, the fastest of several shares of the chip for work."""
        start = len(debug)
        written: dict[Any, Lowered] = {}
        best = self.code(plan, core, debug, written=written)
        found = self.pinned(best)
        best.program = found.program
        if not found.streamed_bytes:
            return best
        ticks, entries = run_ticks(best, self.target), list(debug)
        for area in self._areas(found.wanted_bytes):
            tried = debug[:start]
            code = self._tight(plan, core, tried, area, written)
            if code is not None and (took := run_ticks(code, self.target)) < ticks:
                best, ticks, entries = code, took, tried
        debug[:] = entries
        best.debug = debug
        return best

    def _areas(self, wanted: int) -> list[int]:
        """Bytes of a partition to try for work, where weights want so many."""
        sbuf = self.target.sbuf
        sizes = [sbuf.usable_bytes - wanted, *(int(share * sbuf.usable_bytes) for share in WORK_SHARES)]
        return sorted({size // sbuf.align_bytes * sbuf.align_bytes for size in sizes
                       if size >= min(WORK_SHARES) * sbuf.usable_bytes})

    def _tight(self, plan: Plan, core: int, debug: list[DebugEntry], area: int,
               written: dict[Any, Lowered]) -> DeviceCode | None:
        """The code with so many bytes of a partition for work; None if that is too little."""
        sbuf = self.target.sbuf
        smaller = replace(self.target, sbuf=replace(sbuf, reserved_bytes=sbuf.partition_bytes - area))
        try:
            code = self.code(plan, core, debug, smaller, written=written)
        except CompileError as error:
            if error.code is not OUT_OF_MEMORY:
                raise
            return None
        code.program = self.pinned(code).program
        return code


def ticks_of(program: Program, target: Target) -> int:
    """What one run of a program takes."""
    return Clock(program, target).time().ticks


def run_ticks(code: DeviceCode, target: Target) -> int:
    """Ticks of one run of all entries, loading left out."""
    return entry_ticks(Clock(code.program, target), code)


def entry_ticks(clock: Clock, code: DeviceCode) -> int:
    """The same, where a clock of the code's program is at hand."""
    return sum(clock.time(number).ticks for number, entry in enumerate(code.program.entries) if entry.name != LOAD_ENTRY)


@dataclass(frozen=True)
class _Costs:
    """Answers the cut (see nxcc.passes.cost.StageCosts)."""

    target: Target
    weights: Collection[str]
    measured: Mapping[tuple[str, str], int]
    needs: Mapping[tuple[str, str], int]
    resident_bytes: int

    def ticks(self, node: str, instruction: str) -> int:
        return self.measured.get((node, instruction), 0)

    def needed_bytes(self, node: str, instruction: str) -> int:
        return self.needs.get((node, instruction), 0)

    def stream_ticks(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        dma = self.target.dma
        rate = min(dma.engines * dma.bytes_per_second_per_engine, self.target.hbm.share_bytes_per_second)
        ticks: NDArray[np.int64] = np.ceil(sizes * (self.target.ticks_per_second / rate)).astype(np.int64)
        return ticks

    def handover_ticks(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([handover([size] if size else [], True, self.target) for size in sizes.tolist()], np.int64)

    def is_weight(self, value: str) -> bool:
        return value in self.weights


def piece_bytes(module: Module, weights: frozenset[int], target: Target, cores: int) -> int:
    """Bytes of a matrix that is not cut so that stages can share it; 0 for any, where the cores have no room for all weights
    anyway. weights: numbers of the module's parameters."""
    if cores == 1:
        return 0
    matrices = {product.operands[1] for product in stored_products(module, weights)}
    total = sum(matrix.shape.element_count for matrix in matrices) * PRODUCT_BYTES
    room = int((1 - min(WORK_SHARES)) * target.sbuf.usable_bytes) * target.partitions
    return total // (PIECES * cores) if total <= room * cores else 0


def stages_of(plan: Plan, lowering: Lowering, cores: int) -> Stages:
    """The ways to cut a plan for one core; its device nodes are lowered and timed once. cores: that share the weights.

    Chains of regions are none here: a border may lie between their members, and weights that stay need not come in turn.
    """
    plan = replace(plan, nodes=tuple(map(_unchained, plan.nodes)))
    code = lowering.code(plan, 0)
    found = lowering.pinned(code, UNLIMITED)
    clock = Clock(found.program, lowering.target)
    places = [(report.node, report.part_of) for report in code.regions]
    measured, needs = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for number, entry in enumerate(found.program.entries):
        for region, ticks in clock.time(number).region_ticks().items() if entry.name != LOAD_ENTRY else ():
            if region >= 0:
                measured[places[region]] += ticks
    for region, size in found.needs.items():
        needs[places[region]] += size
    return Stages(plan, _Costs(lowering.target, lowering.weights, measured, needs,
                               _room(sum(needs.values()) // cores, code.program.sbuf_bytes, lowering.target)))


def _room(wanted: int, work: int, target: Target) -> int:
    """Bytes for weights to count with where each core wants so many, and work as it likes takes `work` bytes of a partition:
    the largest share for work that leaves as many, or the smallest."""
    usable = target.sbuf.usable_bytes
    rooms = [usable - work, *(int((1 - share) * usable) for share in reversed(WORK_SHARES))]
    return next((room for room in sorted(rooms) if room * target.partitions >= wanted), max(rooms)) * target.partitions


def _unchained(node: Node) -> Node:
    if not node.on_device:
        return node
    module = clone_module(node.module)
    dissolve_chains(module.entry)
    return replace(node, module=module)


def pipelined(module: Module, plan: Plan, lowering: Lowering, count: int) -> tuple[Plan, list[DeviceCode]]:
    """The plan cut into stages on as many cores, and the code of each core.

    CompileError(PIPELINE) if there are no such stages.
    """
    stages = stages_of(plan, lowering, count)
    best: tuple[int, Plan, list[DeviceCode]] | None = None
    tried: set[tuple[int, ...]] = set()
    for _ in range(ROUNDS):
        ends = stages.cut(count)
        if ends in tried:
            break
        tried.add(ends)
        found = stages.plan(module, ends)
        codes, measured = _lower(found, lowering)
        if best is None or max(measured) < best[0]:
            best = max(measured), found, codes
        stages.learn(ends, measured)
    assert best is not None
    _alternate(best[1], best[2], lowering)
    return best[1], best[2]


def proposal(plan: Plan, lowering: Lowering, one_core_us: float) -> dict[str, Any]:
    """How many cores give most a core, as plain JSON; times in microseconds, those of several cores before they are lowered.

    one_core_us: between two results of one core, an execution's fixed time included.
    """
    target = lowering.target
    stages = stages_of(plan, lowering, 1)
    fixed_us = stages.regions * target.host.execution_fixed_ns / 1e3
    total = sum(atom.resident for atom in stages.atoms)
    intervals = {1: one_core_us}
    for cores in PROPOSED:
        if stages.regions <= cores <= target.cores.pipeline_max:
            room = _room(total // cores, target.sbuf.usable_bytes, target)
            piece = total // (PIECES * cores) if total <= room * cores else 0
            ticks = stages.divided(piece, room).intervals(cores).get(cores)
            if ticks is not None:
                intervals[cores] = target.nanoseconds(ticks) / 1e3 + fixed_us
    best = min(intervals, key=lambda cores: (cores * intervals[cores], cores))
    shown = sorted({1, best, *(cores for cores in intervals if cores & (cores - 1) == 0)})
    return {"cores": best, "candidates": [{"cores": cores, "interval_us": intervals[cores]} for cores in shown]}


def _lower(plan: Plan, lowering: Lowering) -> tuple[list[DeviceCode], list[int]]:
    debug: list[DebugEntry] = []
    codes = [lowering.stage(plan, core, debug) for core in range(plan.cores)]
    return codes, [run_ticks(code, lowering.target) for code in codes]


def _alternate(plan: Plan, codes: list[DeviceCode], lowering: Lowering) -> None:
    """Two places for what stages hand over and take over; state, which each request changes, has one."""
    state = {name for pair in plan.aliases.items() for name in pair}
    for code in codes:
        alternate(code, code.bindings.keys() - lowering.weights - state, lowering.target)
