"""Transposes through the tensor engine: as a product, or bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.tile.program import Access, contiguous
from nxcc.backends.tile.walks import part_of
from nxcc.ir.dtypes import BF16, F32, U8, U16

if TYPE_CHECKING:
    from nxcc.backends.tile.builder import Kernel


def turn(kernel: Kernel, out: Access, data: Access) -> None:
    kernel.emit(isa.pe.PE_TRANSPOSE, data=data, out=out)


def turn_bits(kernel: Kernel, out: Access, data: Access) -> None:
    """As `turn`, bit by bit: bytes or halves of each element are turned as numbers, which are finite whatever they spell.

    A half is exact in f32, a byte in bf16. The parts pass through `out` one after another, and are put together in SBUF.
    """
    size = data.dtype.byte_size
    if size == 1:
        _move_transposed(kernel, out, data)
        return
    part, number = (U16, F32) if size == F32.byte_size and F32 in kernel.target.engines[Engine.PE].dtypes else (U8, BF16)
    bank = replace(out, dtype=number, dims=contiguous([out.free]))
    with kernel.scope():
        turned = kernel.sbuf((out.partitions, out.free), data.dtype)
        for place in range(size // part.byte_size):
            numbers = kernel.sbuf(data.sizes, number)
            kernel.copy(numbers, part_of(data, part, place))
            turn(kernel, bank, numbers.flat())
            kernel.copy(part_of(turned, part, place), bank)
        kernel.copy(replace(out, dims=turned.dims), turned)


def _move_transposed(kernel: Kernel, out: Access, data: Access) -> None:
    with kernel.scope():
        turned, columns = (kernel.sbuf((tile.partitions, tile.free), data.dtype) for tile in (out, data))
        kernel.copy(columns, data)
        kernel.dma(turned.linear().permute((1, 0)), columns.linear())
        kernel.copy(out, turned)


def column_pieces(kernel: Kernel, data: Access, most: int) -> Iterator[tuple[int, Access]]:
    """Pieces of at most `most` columns, of a copy where the columns do not lie in one stride."""
    columns = data.flat()
    if len(columns.dims) > 1:
        columns = kernel.sbuf((data.partitions, data.free), data.dtype)
        kernel.copy(columns, data)
    for start in range(0, columns.free, most):
        yield start, columns.cut(0, start, min(most, columns.free - start))
