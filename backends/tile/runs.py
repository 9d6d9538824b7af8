"""Which elements a transfer brings beside those that are wanted, so that it moves long runs of memory.

A transfer pays for each run as if it had some 512 bytes. Where elements that lie apart by a few others go to one partition,
it is quicker to bring all that lies between as well, and to let an engine pick; where elements leave a partition in another
order than they have in memory, an engine puts them in order first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nxcc.backends.isa.program import DMA_PARTITION_STRIDE, Memory
from nxcc.backends.tile.program import View
from nxcc.ir.facts import dataclass

GAIN = 1.5
"""How many times the bytes of long runs short ones must cost."""

LEAST_SAVED = 1 << 18
"""Bytes that must be saved in all: an engine's instruction takes about as long."""


@dataclass(frozen=True, slots=True)
class Cover:
    """Dimensions of a view in HBM: those over partitions, those that the transfer walks over beside them, and those inside a
    run of `span` elements, which begins `before` bytes before the view does."""

    rows: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    span: int
    before: int

    def runs(self, view: View) -> View:
        """The view's runs: [rows.., outer.., span]."""
        dims = (*(view.dims[d] for d in (*self.rows, *self.outer)), (view.dtype.byte_size, self.span))
        return View(view.memory, view.dtype, view.address - self.before, dims)

    def size(self, view: View) -> int:
        """Elements a partition of all runs."""
        return math.prod(view.dims[d][1] for d in self.outer) * self.span


def cover(far: View, near: View, least: int, *, dense: bool) -> Cover | None:
    """The cheapest runs of a view in HBM that goes to or comes from `near` in SBUF; None if it is well moved as it is.

    least: bytes that a run costs at least. dense: nothing may lie between the view's elements, since runs are written.
    """
    if near.memory is not Memory.SBUF or far.memory is not Memory.HBM or not _is_block(near):
        return None
    over_rows = {d for d, (stride, size) in enumerate(near.dims) if size > 1 and stride and stride % DMA_PARTITION_STRIDE == 0}
    rows = tuple(sorted(over_rows, key=lambda d: -near.dims[d][0]))
    free = [d for d in range(len(far.dims)) if d not in over_rows and far.dims[d][1] > 1]
    if any(far.dims[d][0] == 0 or near.dims[d][0] <= 0 for d in free):
        return None
    unit = far.dtype.byte_size
    lanes = math.prod(far.dims[d][1] for d in rows)
    alone = _cost(far, free, _run(far, near, free), least)
    found, best = None, alone
    by_reach = sorted(free, key=lambda d: abs(far.dims[d][0]))
    for count in range(1, len(free) + 1):
        inner = tuple(sorted(by_reach[:count]))
        span = 1 + sum((far.dims[d][1] - 1) * abs(far.dims[d][0]) for d in inner) // unit
        if any(far.dims[d][0] % unit for d in inner) or dense and not _is_dense(far, by_reach[:count]):
            break
        outer = tuple(d for d in free if d not in inner)
        cost = math.prod(far.dims[d][1] for d in outer) * max(span * unit, least)
        if cost < best:
            before = sum(-(far.dims[d][1] - 1) * far.dims[d][0] for d in inner if far.dims[d][0] < 0)
            found, best = Cover(rows, outer, inner, span, before), cost
    if found is None or alone < GAIN * best or (alone - best) * lanes < LEAST_SAVED:
        return None
    return found


def _is_block(near: View) -> bool:
    """Whether the dimensions over partitions are the rows of one block."""
    pitch = DMA_PARTITION_STRIDE
    for stride, size in sorted(dim for dim in near.dims if dim[1] > 1 and dim[0] and dim[0] % DMA_PARTITION_STRIDE == 0):
        if stride != pitch:
            return False
        pitch *= size
    return True


def _run(far: View, near: View, free: Sequence[int]) -> int:
    """Elements of a run that lies together on both sides."""
    unit, run = far.dtype.byte_size, 1
    for d in reversed(free):
        if far.dims[d][0] != run * unit or near.dims[d][0] != run * near.dtype.byte_size:
            break
        run *= far.dims[d][1]
    return run


def _cost(far: View, free: Sequence[int], run: int, least: int) -> int:
    elements = math.prod(far.dims[d][1] for d in free)
    return elements // run * max(run * far.dtype.byte_size, least)


def _is_dense(far: View, dims: Sequence[int]) -> bool:
    step = far.dtype.byte_size
    for d in dims:
        if far.dims[d][0] != step:
            return False
        step *= far.dims[d][1]
    return True
