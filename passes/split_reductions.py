"""Reduce what lies far apart first, whole runs at a time, and what is left of short runs behind it.

Before (group norm of an image whose channels come last: 32 groups of 10):
  s = f32[2,32] reduce(x, zero), dimensions={1,2,4}, to_apply=add                 x = f32[2,64,64,32,10]
After:
  t = f32[2,32,10] reduce(x, zero), dimensions={1,2}, to_apply=add
  s = f32[2,32] reduce(t, zero), dimensions={2}, to_apply=add

Kept dimensions between reduced ones would be read in runs as short as the last of these. Only where combining twice is the same
as once: sums of f32 and of integers from 0, extremes and logic.
"""

from __future__ import annotations

import math

from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import plain_opcode
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.shapes import Shape
from nxcc.passes.patterns import splat_value
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

SHORT_BYTES = 512
"""Runs of memory from which transfers are long enough as they are."""

FIRST_MIN = 128
"""Elements that the first step makes one of, at least: as many as there are partitions."""

AGAIN = frozenset(("maximum", "minimum", "and", "or"))
"""Combiners for which the initial value may count twice."""


@dataclass(frozen=True)
class SplitReductions:
    name: str = "split-reductions"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _split(reduce: Instruction, builder: Builder) -> Instruction | None:
    if len(reduce.operands) != 2 or not reduce.shape.is_array or not _counts_twice(reduce):
        return None
    data, initial = reduce.operands
    reduced = sorted(reduce.attribute("dimensions"))
    kept = [d for d in range(data.shape.rank) if d not in reduced]
    if not kept or data.shape.dynamic:
        return None
    first, last = [d for d in reduced if d < kept[-1]], [d for d in reduced if d > kept[-1]]
    run = math.prod(data.shape.dims[d] for d in last)
    whole = math.prod(data.shape.dims[d] for d in first)
    # with a single run kept between them the reduced elements before it are far apart in any case
    between = math.prod(data.shape.dims[d] for d in kept if first and d > first[-1])
    if not first or between < 2 or run < 2 or run * data.shape.dtype.byte_size >= SHORT_BYTES or whole < FIRST_MIN:
        return None
    dims = tuple(size for d, size in enumerate(data.shape.dims) if d not in first)
    part = builder.make("reduce", data, initial, shape=Shape(reduce.shape.dtype, dims), called=reduce.called,
                        dimensions=tuple(first))
    left = tuple(d - sum(1 for other in first if other < d) for d in last)
    return builder.make("reduce", part, initial, shape=reduce.shape.without_layout(), called=reduce.called, dimensions=left)


def _counts_twice(reduce: Instruction) -> bool:
    opcode, dtype = plain_opcode(reduce.called[0]), reduce.shape.dtype
    if opcode in AGAIN:
        return True
    return opcode == "add" and (dtype is F32 or dtype.is_integer and dtype.bits == 32) and splat_value(reduce.operands[1]) == 0


_TABLE = rules_by_opcode((Rule("long-runs-first", ("reduce",), _split),))
