"""Which attempt a region is written with: where on the machine it works, and how many tiles take turns.

The best that fits; at level 3 the clock decides among what rules leave to choose (`searching.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nxcc.backends.assembly import plan_of
from nxcc.backends.berths import Berth, Footprint, room
from nxcc.backends.codegen.searching import Written, best_choices
from nxcc.backends.lowering.fused import has_products
from nxcc.backends.lowering.registry import rules
from nxcc.backends.synchronization.plan import Plan
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Clock, Copies, Findings, Kernel
from nxcc.backends.tile.expressions import Expr, Symbol
from nxcc.backends.tile.program import ARGUMENT_UNIT, TileProgram, View
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.marks import MATMUL
from nxcc.ir.hlo.module import Instruction

ATTEMPTS = ((Berth.LOWER, Copies(2, 2)), (Berth.WHOLE, Copies(2, 2)), (Berth.LOWER, Copies(2, 1)), (Berth.WHOLE, Copies(2, 1)),
            (Berth.WHOLE, Copies(1, 1)))
"""Parts of the machine and rotating tiles to try, best first; the last is what level 0 uses."""

ATTEMPT = "attempt"
"""Name of the choice from which of these on a region is tried."""

WORK_STEPS = 8
"""A region that does not fit where it should is tried in so many parts of SBUF more, one after the other."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """A region's tile program and what waits for what in it. need: what it has of the machine if others may run beside it.

    debug: the debug entry that its instructions carry.
    """

    program: TileProgram
    plan: Plan
    need: Footprint | None
    debug: int


@dataclass(frozen=True, slots=True)
class _Region:
    """What is written: an instruction on views. See `RegionWriter.region`."""

    instruction: Instruction
    operands: list[View]
    results: list[View]
    debug: int
    shared: bool


@dataclass(frozen=True)
class Manner:
    """How code is made: see `nxcc.backends.codegen.generator.generate`."""

    optlevel: int
    exact_transposes: bool
    work_bytes: int
    clock: Clock | None
    jobs: int
    findings: Findings


class RegionWriter:
    """Writes regions' tile programs, once for each key. alone: whether one region has the work of the entry that is
    being written.

    written: tile programs of other code of the same regions; see `nxcc.backends.codegen.generator.generate`.
    """

    def __init__(self, target: Target, manner: Manner, written: dict[Any, Lowered]) -> None:
        self.target = target
        self.manner = manner
        self.alone = False
        self._written = written
        self._lowered: dict[Any, Lowered] = {}

    def region(self, key: Any, instruction: Instruction, operands: list[View], results: list[View], debug: int,
               shared: bool) -> Lowered:
        """The tile program of the regions with this key.

        debug: index of the call's debug entry; the code carries that of the first call. shared: addresses are arguments.
        """
        found = self._lowered.get(key)
        if found is None:
            found = self._written.get(key)
            if found is None or not self._fits(found, debug):
                found = self._lower(_Region(instruction, operands, results, debug, shared))
            self._lowered[key] = found
            self._written.setdefault(key, found)
        return found

    def _fits(self, lowered: Lowered, debug: int) -> bool:
        """Whether a tile program that was written with more room keeps to what the first attempt has here."""
        limit = room(self.target, Berth.LOWER, self.manner.work_bytes).sbuf_bytes
        return lowered.program.sbuf_bytes <= limit and lowered.debug == debug

    def _lower(self, region: _Region) -> Lowered:
        """The first attempt that fits, or at level 3 what the search over the rule's choices finds."""
        manner = self.manner
        if manner.optlevel < 3 or manner.clock is None or not has_products(region.instruction):
            return self._first(region, {})[0]

        def write(choices: Mapping[str, int]) -> Written | None:
            try:
                lowered, asked = self._first(region, choices)
            except CompileError as error:
                if error.code is not OUT_OF_MEMORY:
                    raise
                return None
            need, whole = lowered.need, room(self.target, Berth.WHOLE)
            return Written(lowered.program, lowered.plan, asked, need is not None and 2 * need.sbuf_bytes <= whole.sbuf_bytes
                           and 2 * need.psum_banks <= whole.psum_banks)

        addresses = [view.address.constant for view in region.operands + region.results]
        choices = best_choices(write, manner.clock, self.target, addresses, manner.findings, self.alone,
                               manner.jobs)
        return self._first(region, choices)[0]

    def _first(self, region: _Region, choices: Mapping[str, int]) -> tuple[Lowered, Mapping[str, int]]:
        """The first attempt that fits, from that on which is chosen; and what the rule asked for."""
        attempts = self._attempts()
        for berth, copies, limit in attempts[min(choices.get(ATTEMPT, 0), len(attempts) - 1):]:
            try:
                kernel = self._write(region, berth, copies, limit, choices)
            except CompileError as error:
                if error.code is not OUT_OF_MEMORY or (berth, copies, limit) == attempts[-1]:
                    raise
                continue
            plan = plan_of(kernel.program, self.target, self.manner.optlevel > 0)
            shares = plan.overlaps and plan.semaphores <= room(self.target, Berth.LOWER).semaphores
            program = kernel.program
            need = Footprint(program.sbuf_bytes, program.psum_banks, plan.semaphores) if shares else None
            return Lowered(program, plan, need, region.debug), {ATTEMPT: len(attempts) - 1, **kernel.asked}
        raise AssertionError("the last attempt returns or raises")

    def _attempts(self) -> list[tuple[Berth, Copies, int]]:
        """Berth, rotating tiles and bytes of a partition (0: what the berth has) to try, best first.

        Where regions should be small, they get more before they work without rotating tiles.
        """
        if self.manner.optlevel == 0:
            return [(*ATTEMPTS[-1], 0)]
        usable, small = self.target.sbuf.usable_bytes, self.manner.work_bytes
        limits = range(small, usable, usable // WORK_STEPS) if small else ()
        return [*((berth, copies, limit) for limit in limits for berth, copies in ATTEMPTS if copies.rotates),
                *((berth, copies, 0) for berth, copies in ATTEMPTS)]

    def _write(self, region: _Region, berth: Berth, copies: Copies, work_bytes: int, choices: Mapping[str, int]) -> Kernel:
        """The tile program for part of the machine; CompileError(NXC0302) if it does not fit."""
        instruction, manner = region.instruction, self.manner
        kernel = Kernel(f"{instruction.opcode}.{len(self._lowered)}", self.target, copies,
                        room(self.target, berth, work_bytes), room(self.target, Berth.WHOLE, work_bytes))
        kernel.debug = region.debug
        kernel.tf32 = _multiplies_tf32(instruction)
        kernel.exact_transposes = manner.exact_transposes
        kernel.level, kernel.clock, kernel.jobs, kernel.findings = manner.optlevel, manner.clock, manner.jobs, manner.findings
        kernel.alone, kernel.choices = self.alone, choices
        views = region.operands + region.results
        if region.shared:
            views = _relocatable(kernel, views)
        count = len(region.operands)
        rules()[instruction.opcode].lower(kernel, instruction, views[:count], views[count:])
        return kernel


def _multiplies_tf32(instruction: Instruction) -> bool:
    """Whether autocast lets the products of a region run on tf32 (see nxcc.passes.dtypes.autocast)."""
    if instruction.opcode == "fusion":
        return any(map(_multiplies_tf32, instruction.called[0].instructions))
    return instruction.frontend_attributes.get(MATMUL) == "tf32"


def _relocatable(kernel: Kernel, views: Sequence[View]) -> list[View]:
    """The views with their addresses in argument registers; equal addresses share one, so that a rule sees what is in place."""
    symbols: dict[int, Symbol] = {}
    moved = []
    for view in views:
        address = view.address.constant
        if address not in symbols:
            symbols[address] = kernel.symbol("a", "argument", 0, kernel.target.hbm.bytes // ARGUMENT_UNIT)
        base = Expr(address % ARGUMENT_UNIT, ((symbols[address], ARGUMENT_UNIT),))
        moved.append(View(view.memory, view.dtype, base, view.dims))
    kernel.program.arguments = tuple(symbols.values())
    return moved
