"""Rows of counts 0, 1, 2, .. on a target without GpSimd's index patterns: a scan on Vector, exact while f32 counts."""

from __future__ import annotations

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.emission import bytes_of
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access
from nxcc.ir.dtypes import F32, S32

COUNTS_MAX = 2**24
"""f32 holds every whole number up to here."""


def count_reason(size: int, target: Target) -> str | None:
    """Why a dimension of this size cannot be numbered; None if it can."""
    if Engine.GPSIMD in target.engines or size <= COUNTS_MAX:
        return None
    return f"{target.name} counts in f32, exactly up to {COUNTS_MAX}"


class Counter:
    """Counts on from row to row: each starts after the last number of the one before."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.last = kernel.sbuf((1, 1), F32)
        kernel.memset(self.last, -1.0)

    def next(self, row: Access) -> None:
        """row [1, n] = the next n numbers; integers wrap in row's dtype, floats round."""
        kernel = self.kernel
        ones, counts = kernel.sbuf(row.sizes, F32), kernel.sbuf(row.sizes, F32)
        kernel.memset(ones, 1.0)
        kernel.emit(isa.vector.TENSOR_TENSOR_SCAN, fields={"op0": "multiply", "op1": "add"}, a=ones, b=ones, initial=self.last,
                    out=counts)
        kernel.copy(self.last, counts.cut(0, row.free - 1, 1))
        if row.dtype.is_integer and row.dtype.bits < 32:
            whole = kernel.sbuf(row.sizes, S32)
            kernel.copy(whole, counts)
            kernel.copy(row, bytes_of(whole, row.dtype, 0))
        else:
            kernel.copy(row, counts)
