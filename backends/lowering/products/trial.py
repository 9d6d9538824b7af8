"""Level 3's search: the cuts that the closed form finds best are written, and run on the timing simulator.

A large product is tried on a part of it, the same for all cuts. The quickest counts, the closed form's order where two are
equally quick, so the answer does not depend on how many processes look for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import parent_process

from nxcc.backends.assembly import BASE_REGISTER, assemble, plan_of
from nxcc.backends.berths import Room
from nxcc.backends.isa.instructions import control
from nxcc.backends.isa.program import Affine, Function, Instruction, Memory, Program
from nxcc.backends.lowering.products.plan import Machine, Plan, Product, every_plan
from nxcc.backends.lowering.products.product import Batch, Multiplication
from nxcc.backends.target import load_target
from nxcc.backends.tile.builder import Clock, Copies, Kernel
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import View
from nxcc.ir.dtypes import DType, dtype
from nxcc.ir.facts import dataclass

TRIALS = 8
"""Cuts that are timed."""

ROWS_MOST, COLUMNS_MOST, COUNT_MOST = 2048, 4096, 4
"""Extents of the part that is timed, at most: some ten thousand passes of the tensor engine."""

PLACES = (0, 1 << 32, 1 << 33)
"""Addresses of the operands and the result in a trial: far enough apart for each."""


@dataclass(frozen=True)
class Trial:
    """A product to time: of each operand and the result the sizes and strides, and what plans are for."""

    target: str
    left: tuple[tuple[int, int], ...]
    right: tuple[tuple[int, int], ...]
    out: tuple[tuple[int, int], ...]
    kind: str
    out_kind: str
    tf32: bool
    batch: Batch
    product: Product
    sbuf_bytes: int
    banks: int

    def ticks(self, clock: Clock, plan: Plan) -> int:
        """What the product takes, cut so."""
        target, of = load_target(self.target), dtype(self.kind)
        kernel = Kernel("trial", target, Copies(2, 2), Room(self.sbuf_bytes, self.banks, target.sequencer.semaphores))
        kernel.tf32 = self.tf32
        left, right, out = (View(Memory.HBM, held, Expr(place), dims) for held, place, dims in zip(
            (of, of, dtype(self.out_kind)), PLACES, (self.left, self.right, self.out), strict=True))
        Multiplication(kernel, plan, self.product, of).run(left, right, out, self.batch)
        function = assemble(kernel.program, target, plan_of(kernel.program, target, overlapped=True)).function
        calls = {engine: [Instruction(control.REGISTER_SET, fields={"register": BASE_REGISTER, "value": Affine(0)}),
                          Instruction(control.CALL, fields={"function": 0}), Instruction(control.HALT)]
                 for engine in function.streams}
        return clock(Program([function], [Function("trial", calls)]), target)


def quickest(kernel: Kernel, views: tuple[View, View, View], of: DType, batch: Batch, product: Product,
             on: Machine) -> Plan | None:
    """The cut that is quickest on the clock of those that are best by the closed form; None if none fits.

    What was found before is taken if it is one of these: a finding can make code slower, never wrong.
    """
    room = kernel.sbuf_free_bytes, kernel.room.psum_banks
    best: list[Plan] = heapq.nsmallest(TRIALS, every_plan(product, on, *room), key=lambda plan: plan.seconds)
    if kernel.clock is None or len(best) < 2:
        return best[0] if best else None
    key = repr((kernel.target.name, product, on, room, *((view.dtype.name, view.dims) for view in views), of.name, batch,
                kernel.tf32))
    known = kernel.findings.get(key)
    for one in best:
        if _cut(one) == known:
            return one
    trial = _trial(kernel, views, of, batch, product, room)
    found = _least(partial(trial.ticks, kernel.clock), best, kernel.jobs)
    kernel.findings[key] = _cut(found)
    return found


def _cut(plan: Plan) -> tuple[int, ...]:
    return plan.rows, plan.group, plan.wide, plan.sets, plan.chunk, plan.ring


def _trial(kernel: Kernel, views: tuple[View, View, View], of: DType, batch: Batch, product: Product,
           room: tuple[int, int]) -> Trial:
    rows, columns = min(product.rows, ROWS_MOST), min(product.columns, COLUMNS_MOST)
    count = min(batch.count, COUNT_MOST)
    left, right, out = views
    return Trial(kernel.target.name, left.cut(0, 0, rows).dims, right.cut(0, 0, columns).dims,
                 out.cut(0, 0, rows).cut(1, 0, columns).dims, of.name, out.dtype.name, kernel.tf32, replace(batch, count=count),
                 replace(product, rows=rows, columns=columns, count=count), *room)


def _least(ticks_of: Callable[[Plan], int], plans: Sequence[Plan], jobs: int) -> Plan:
    if jobs > 1 and parent_process() is None:  # else this is one of the processes that search a region
        with ProcessPoolExecutor(min(jobs, len(plans))) as pool:
            ticks = list(pool.map(ticks_of, plans))
    else:
        ticks = [ticks_of(plan) for plan in plans]
    return plans[min(range(len(plans)), key=lambda number: (ticks[number], number))]
