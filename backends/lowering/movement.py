"""Data movement that strides cannot express: copies, padding, concatenation, index patterns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.counting import Counter, count_reason
from nxcc.backends.lowering.registry import always, rule
from nxcc.backends.lowering.tiling import COLUMNS_MOST, memory_order, parted, row_tiles, rows_together, store, unfolded
from nxcc.backends.lowering.turning import FILL_COLUMNS, fill, move
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import S32
from nxcc.ir.hlo.module import Instruction

LEAST_JOINED = 1 << 16
"""Bytes of a result whose short parts are worth a detour over the chip."""

JOINED_BYTES = 16384
"""Bytes a partition of a tile whose parts come from several operands, at most."""

COUNTS = 4096
"""Counts made at a time in one row."""


@rule("copy", "reshape")
def lower_copy(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Move the elements in row-major order; the result is contiguous, so it takes the operand's sizes."""
    source, result = operands[0], results[0]
    target = result if result.sizes == source.sizes else result.reshape(source.sizes)
    assert target is not None
    move(kernel, target, source)


@rule("concatenate")
def lower_concatenate(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Each operand is copied into its part of the result; short parts lie beside each other in a tile first."""
    dim = instruction.attribute("dimensions")[0]
    free = _joined_on_chip(kernel, results[0], operands, dim)
    if free:
        _concatenate_tiles(kernel, operands, results[0], dim, free)
        return
    start = 0
    for operand in operands:
        size = operand.sizes[dim]
        move(kernel, results[0].cut(dim, start, size), operand)
        start += size


def _joined_on_chip(kernel: Kernel, result: View, operands: Sequence[View], dim: int) -> int:
    """How many of the last dimensions a partition takes, where parts of the result are short runs; 0 where they are not."""
    unit, least = result.dtype.byte_size, kernel.target.dma.descriptor_bytes_min
    if not kernel.copies.rotates or not result.is_contiguous or result.elements * unit < LEAST_JOINED:
        return 0
    inner = unit * math.prod(result.sizes[dim + 1:])
    if max(operand.sizes[dim] for operand in operands) * inner * 2 > least:
        return 0
    fitting = [n for n in range(len(result.dims) - dim, len(result.dims))
               if math.prod(result.sizes[-n:]) * unit <= JOINED_BYTES]
    return next((n for n in fitting if math.prod(result.sizes[-n:]) * unit >= 2 * least), fitting[-1] if fitting else 0)


def _concatenate_tiles(kernel: Kernel, operands: Sequence[View], result: View, dim: int, free: int) -> None:
    views, place = [result, *operands], dim - (len(result.dims) - free)
    if free < len(result.dims):
        columns = math.prod(result.sizes[-free:])
        together = rows_together(result.sizes[:-free], COLUMNS_MOST // columns, kernel.target.partitions)
        if together > 1:
            views = [parted(view, len(view.dims) - free - 1, together) for view in views]
            free, place = free + 1, place + 1
    for target, *sources in row_tiles(kernel, views, free):
        lead, start = len(target.dims) - free, 0
        tile = kernel.sbuf((math.prod(target.sizes[:lead]), *target.sizes[lead:]), target.dtype)
        for source in sources:
            size = source.sizes[lead + place]
            line = tile.cut(place, start, size).linear()
            part = line.reshape((*source.sizes[:lead], *source.sizes[lead:]))
            assert part is not None
            kernel.dma(part, source)
            start += size
        kernel.dma(target, unfolded(tile, target))


@rule("pad", follows=always, resizes=True)
def lower_pad(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Fill the result with the padding value, then copy what of the operand lies inside."""
    order = memory_order(results[0])
    data, value, result = operands[0].permute(order), operands[1], results[0].permute(order)
    fill(kernel, result, value)
    for dim, padding in enumerate(instruction.attribute("padding")[d] for d in order):
        step = padding.interior + 1
        first = max(0, -(padding.low // step))
        stop = min(data.sizes[dim], (result.sizes[dim] - 1 - padding.low) // step + 1)
        size = max(0, stop - first)
        data = data.cut(dim, first if size else 0, size)
        result = result.cut(dim, padding.low + first * step if size else 0, size, step)
    if data.elements:
        move(kernel, result, data)


def _iota_unsupported(instruction: Instruction, target: Target) -> str | None:
    return count_reason(instruction.shape.dims[instruction.attribute("iota_dimension")], target)


@rule("iota", unsupported=_iota_unsupported)
def lower_iota(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Counts made by GpSimd: along a row where the last dimension counts, else one number a row; the store repeats them.

    Without GpSimd, Vector counts up along a row.
    """
    result = results[0]
    dim, last = instruction.attribute("iota_dimension"), len(result.dims) - 1
    if Engine.GPSIMD not in kernel.target.engines:
        _count_up(kernel, result, dim)
        return
    rows = math.prod(result.sizes[:-1])
    if dim == last and rows > 1 and kernel.copies.rotates and result.dtype.is_integer and result.dtype.bits <= 32:
        _count_in_rows(kernel, result, rows)
        return
    if dim == last:
        for start, count in kernel.tiles(result.sizes[dim], COUNTS):
            words = kernel.sbuf((1, count), S32)
            kernel.iota(words, start, (1,))
            _store_counts(kernel, words, result.cut(dim, start, count), {last: 1})
        return
    for start, count in kernel.tiles(result.sizes[dim], kernel.target.partitions):
        for column, width in kernel.tiles(result.sizes[last], FILL_COLUMNS):
            words = kernel.sbuf((count, width), S32)
            kernel.iota(words, start, (0,), 1)
            _store_counts(kernel, words, result.cut(dim, start, count).cut(last, column, width), {dim: 0, last: 1})


def _count_in_rows(kernel: Kernel, result: View, rows: int) -> None:
    """The same counts in many rows: they leave from all partitions, which all DMA engines serve."""
    last = len(result.dims) - 1
    for start, count in kernel.tiles(result.sizes[last], COUNTS):
        words = kernel.sbuf((min(rows, kernel.target.partitions), count), S32)
        kernel.iota(words, start, (1,))
        ratio = words.dtype.byte_size // result.dtype.byte_size
        tile = replace(words, dtype=result.dtype, dims=((ratio, count),))
        for (part,) in row_tiles(kernel, [result.cut(last, start, count)], 1):
            store(kernel, part, tile.rows(0, math.prod(part.sizes[:-1])))


def _store_counts(kernel: Kernel, words: Access, result: View, places: dict[int, int]) -> None:
    """Store s32 counts in the result's dtype; places: which dimension of the tile a dimension of the result is."""
    tile = words
    if result.dtype.bits == 64:
        tile = kernel.sbuf((*words.sizes, 2), S32)
        kernel.memset(tile.at(1, 1), 0)
        kernel.copy(tile.at(1, 0), words)
        result = View(result.memory, S32, result.address, (*result.dims, (4, 2)))
        places = places | {len(result.dims) - 1: 2}
    elif result.dtype.is_integer:
        ratio = words.dtype.byte_size // result.dtype.byte_size
        tile = replace(words, dtype=result.dtype, dims=tuple((stride * ratio, size) for stride, size in words.dims))
    else:
        tile = kernel.sbuf(words.sizes, result.dtype)
        kernel.copy(tile, words)
    line = tile.linear()
    dims = tuple((line.dims[places[d]][0] if d in places else 0, size) for d, size in enumerate(result.sizes))
    kernel.dma(result, replace(line, dims=dims))


def _count_up(kernel: Kernel, result: View, dim: int) -> None:
    counted = Counter(kernel)
    for start, count in kernel.tiles(result.sizes[dim], COUNTS):
        row = kernel.sbuf((1, count), result.dtype)
        counted.next(row)
        line = row.linear()
        part = result.cut(dim, start, count)
        dims = tuple((line.dims[-1][0] if d == dim else 0, size) for d, size in enumerate(part.sizes))
        kernel.dma(part, replace(line, dims=dims))
