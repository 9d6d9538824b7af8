"""Sums of windows at places that indices name, many windows at a time.

A transfer that adds to memory must not meet a place twice. Of up to 128 windows each is replaced by the sum of all that
share its place: the product with a matrix that has 1 where two indices are equal. The first of them is written, the others are
left out. Such matrices choose and add, and a product with them is right where everything is finite; what is not goes apart
from it, as a mark in the type that is multiplied at full rate, which makes infinities of both signs where they belong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.index_words import index_words, offsets_of, word_tiles
from nxcc.backends.lowering.tiling import join
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import BF16, F32, S32, U8, DType

WINDOWS_MIN = 8
"""Fewer windows go one by one: each takes a transfer, and comparing them takes the time of some."""

COLUMNS = 1024
"""Elements of a window that are summed up together."""

LARGE, MARK = float(2**127), 4.0
"""Their product is infinite."""


def sums_windows(kernel: Kernel, target: View, updates: View) -> bool:
    """Whether windows of updates [n, window..] are summed up here rather than one by one."""
    return updates.sizes[0] >= WINDOWS_MIN and kernel.copies.rotates and Engine.GPSIMD in kernel.target.engines and \
        len(join([target, updates.at(0, 0)])[0].dims) == 1


def scatter_sums(kernel: Kernel, target: View, updates: View, indices: View, limits: Sequence[tuple[int, int]],
                 outside: int) -> None:
    """target[offset of indices[n], window..] += updates[n, window..].

    indices: [n, components]. limits: (stride in elements, greatest start) of each component; windows of different indices
    share no element. outside: the offset at which a transfer writes nothing.
    """
    lanes = kernel.target.partitions
    window, row = join([target, updates.at(0, 0)])
    width = window.sizes[0]
    rows = View(updates.memory, updates.dtype, updates.address, (updates.dims[0], *row.dims))
    zeros = kernel.sbuf((lanes, min(width, COLUMNS)), updates.dtype)
    kernel.memset(zeros, 0)
    for start, count in kernel.tiles(updates.sizes[0], lanes):
        index = indices.cut(0, start, count)
        own = index_words(kernel, index, rows=True)
        equal = _equal(kernel, own, word_tiles(kernel, index.insert(0, count)))
        _, writes = offsets_of(kernel, own, (count, 1), limits, outside)
        _leave_out(kernel, writes, equal, outside)
        sums = _Sums(kernel, equal, updates.dtype, zeros)
        for first, columns in kernel.tiles(width, COLUMNS):
            summed = sums.of(rows.cut(0, start, count).cut(1, first, columns))
            part = window.cut(0, first, columns)
            to = View(part.memory, part.dtype, part.address, ((0, count), *part.dims))
            kernel.emit(isa.dma.DMA_SCATTER, source=summed.linear(), indices=writes, destination=to, fields={
                "sizes": to.sizes, "index_stride": target.dtype.byte_size, "limit": outside, "accumulate": "add"})


def _equal(kernel: Kernel, own: Sequence[Access], others: Sequence[Access]) -> Access:
    """s32[n, n]: 1 where two indices are equal. own: components [n, 1], others: [n, n], the same in each partition."""
    count = own[0].partitions
    equal, part = (kernel.sbuf((count, count), S32) for _ in range(2))
    for number, (mine, other) in enumerate(zip(own, others, strict=True)):
        kernel.tensor_scalar(part if number else equal, other, "equal", mine, engine=Engine.GPSIMD)
        if number:
            kernel.tensor_tensor(equal, equal, part, "multiply", Engine.GPSIMD)
    return equal


def _leave_out(kernel: Kernel, writes: Access, equal: Access, outside: int) -> None:
    """writes [n, 1] = outside where an earlier window has the same place."""
    count = equal.partitions
    with kernel.scope():
        earlier, again = kernel.sbuf((count, count), S32), kernel.sbuf((count, 1), S32)
        kernel.emit(isa.gpsimd.AFFINE_SELECT, fields={"base": expr(0), "channel_multiplier": 1, "steps": (-1,),
                                                      "compare": "greater", "fill": 0.0}, data=equal, out=earlier)
        kernel.tensor_reduce(again, earlier, "maximum", engine=Engine.GPSIMD)
        kernel.tensor_scalar(again, again, "multiply", -1, "add", 1, engine=Engine.GPSIMD)
        kernel.tensor_scalar(writes, writes, "subtract", outside, engine=Engine.GPSIMD)
        kernel.tensor_tensor(writes, writes, again, "multiply", Engine.GPSIMD)
        kernel.tensor_scalar(writes, writes, "add", outside, engine=Engine.GPSIMD)


class _Sums:
    """Sums of windows that share a place. zeros: [lanes, columns] of the updates' dtype."""

    def __init__(self, kernel: Kernel, equal: Access, dtype: DType, zeros: Access) -> None:
        self.kernel, self.zeros, self.dtype = kernel, zeros, dtype
        self.choice = kernel.sbuf(equal.sizes, dtype)
        self.marks = kernel.sbuf(equal.sizes, BF16)
        kernel.copy(self.choice, equal)
        kernel.tensor_scalar(self.marks, equal, "multiply", LARGE)

    def of(self, rows: View) -> Access:
        """f32[n, columns]: for each of the rows the sum of those that share its place."""
        kernel, (count, columns) = self.kernel, rows.sizes
        data, out = kernel.sbuf(rows.sizes, self.dtype), kernel.sbuf(rows.sizes, F32)
        kernel.dma(data, rows)
        above, below, bad = (kernel.sbuf(rows.sizes, dtype) for dtype in (BF16, BF16, U8))
        most = float(np.finfo(np.float32).max)
        kernel.tensor_scalar(above, data, "less_equal", most, "equal", 0)  # of a NaN both marks are set
        kernel.tensor_scalar(below, data, "greater_equal", -most, "less", 0.5)
        kernel.activation(above, above, scale=MARK)
        kernel.activation(below, below, scale=-MARK)
        kernel.tensor_scalar(bad, data, "multiply", 0, "not_equal", 0)
        kernel.copy_predicated(data, bad, self.zeros.rows(0, count).cut(0, 0, columns))
        step = kernel.target.tensor.moving_max
        for first in range(0, columns, step):
            size = min(step, columns - first)
            with kernel.psum_scope():
                bank = kernel.psum((count, size))
                for number, part in enumerate((data, above, below)):
                    kernel.matmul(bank, self.marks if number else self.choice, part.cut(0, first, size), number > 0, exact=True)
                kernel.copy(out.cut(0, first, size), bank, Engine.SCALAR)
        return out


