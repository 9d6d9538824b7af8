"""Addresses known at run time: dynamic slices through sequencer registers, gathers through index vectors on GpSimd."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.index_words import LARGEST, element_offsets
from nxcc.backends.lowering.picking import gather_elements
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.turning import move
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import S32, S64, U32, U64
from nxcc.ir.hlo.module import Instruction


def _scalar_index(kernel: Kernel, index: View) -> Expr:
    """An index in registers, in the range of s32; -1 for all negative 64-bit numbers."""
    if index.dtype not in (S64, U64):
        return kernel.load_scalar(index)
    low = kernel.load_scalar(View(index.memory, U32, index.address, index.dims), 0, LARGEST)
    high = kernel.load_scalar(View(index.memory, S32, index.address + 4, index.dims))
    is_large = kernel.scalar("not_equal", high, 0, 0, 1)
    value = kernel.scalar("maximum", low, is_large * LARGEST, 0, LARGEST)
    if index.dtype is U64:
        return value
    is_negative = kernel.scalar("less", high, 0, 0, 1)
    return kernel.scalar("minimum", value, is_negative * (-LARGEST - 1) + LARGEST, -1, LARGEST)


def _starts(kernel: Kernel, indices: Sequence[View], sizes: Sequence[int], window: Sequence[int]) -> list[Expr]:
    """Start indices in registers, clamped so that the window fits."""
    if len(indices) == 1 and indices[0].dims:
        indices = [indices[0].at(0, d) for d in range(len(sizes))]
    starts = []
    for index, size, extent in zip(indices, sizes, window, strict=True):
        if size == extent:
            starts.append(Expr(0))
        else:
            starts.append(kernel.clamp_scalar(_scalar_index(kernel, index), 0, size - extent))
    return starts


@rule("dynamic-slice")
def lower_dynamic_slice(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """A DMA whose start address is in registers."""
    data, result = operands[0], results[0]
    for dim, start in enumerate(_starts(kernel, operands[1:], data.sizes, result.sizes)):
        data = data.cut(dim, start, result.sizes[dim])
    kernel.dma(result, data)


@rule("dynamic-update-slice", in_place=0)
def lower_dynamic_update_slice(kernel: Kernel, instruction: Instruction, operands: Sequence[View],
                               results: Sequence[View]) -> None:
    """Copy the operand unless the result lies in its place, then write the window."""
    data, update, result = operands[0], operands[1], results[0]
    starts = _starts(kernel, operands[2:], data.sizes, update.sizes)
    if data.address != result.address:
        move(kernel, result, data)
    for dim, start in enumerate(starts):
        result = result.cut(dim, start, update.sizes[dim])
    kernel.dma(result, update)


def _gather_unsupported(instruction: Instruction, target: Target) -> str | None:
    if instruction.operands[0].shape.element_count >= 2**31:
        return "an operand of 2^31 elements or more cannot be indexed"
    return None


@rule("gather", unsupported=_gather_unsupported, contiguous=(0,))
def lower_gather(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Offsets of the slices are computed on GpSimd, up to 128 at a time; one indirect DMA fetches their slices."""
    data, indices, result = operands[0], operands[1], results[0]
    attribute = instruction.attribute
    vector_dim = attribute("index_vector_dim")
    if vector_dim == len(indices.dims):
        indices = indices.insert(vector_dim)
    offset_dims = attribute("offset_dims")
    batch_dims = [d for d in range(len(result.dims)) if d not in offset_dims]
    index_batch = [d for d in range(len(indices.dims)) if d != vector_dim]
    data_batch = attribute("operand_batching_dims")
    shared = [index_batch.index(d) for d in attribute("start_indices_batching_dims")]
    single = [i for i in range(len(batch_dims)) if i not in shared]
    dropped = (*attribute("collapsed_slice_dims"), *data_batch)
    window = [(d, size) for d, size in enumerate(attribute("slice_sizes")) if d not in dropped]
    # [shared batch.., own batch.., components], [shared batch.., data..], [shared batch.., own batch.., window..]
    indices = indices.permute([index_batch[i] for i in (*shared, *single)] + [vector_dim])
    result = result.permute([batch_dims[i] for i in (*shared, *single)] + list(offset_dims))
    kept = [d for d in range(len(data.dims)) if d not in data_batch]
    limits = [(data.dims[d][0], data.sizes[d] - attribute("slice_sizes")[d]) for d in attribute("start_index_map")]
    data = data.permute((*data_batch, *kept))
    windows = [kept.index(d) for d, _ in window]
    if gather_elements(kernel, data, indices, result, limits, len(shared), windows):
        return
    rows = _shared_rows(kernel, data, indices, result, len(shared), len(single))
    parts = _shared_loops(kernel, data, indices, result, len(shared)) if rows is None else _picks(kernel, rows, len(single))
    for table, index, out in parts:
        source = View(table.memory, table.dtype, table.address,
                      tuple((table.dims[kept.index(d) - len(kept)][0], size) for d, size in window))
        step = table.dims[0][0] if rows is not None else 0
        _gather_rows(kernel, source, limits, index, out, 1 if rows is not None else len(single), step)


Gathered = tuple[View, View, View]
"""Data, indices, and the result of a gather, or of a part of it."""


def _shared_rows(kernel: Kernel, data: View, indices: View, result: View, shared: int, own: int) -> Gathered | None:
    """The three with their first `shared` dimensions as one, where more of these go at once than of the `own` ones behind."""
    if not shared or data.sizes[:shared] != result.sizes[:shared]:
        return None
    count, picks = math.prod(data.sizes[:shared]), math.prod(result.sizes[shared:shared + own])
    lanes = kernel.target.partitions
    if Engine.GPSIMD not in kernel.target.engines or picks * -(-count // lanes) >= count * -(-picks // lanes):
        return None
    joined = [view.reshape((count, *view.sizes[shared:])) for view in (data, indices, result)]
    table, index, out = joined
    return None if table is None or index is None or out is None else (table, index, out)


def _picks(kernel: Kernel, rows: Gathered, own: int) -> Iterator[Gathered]:
    """Loop over what each row picks."""
    table, index, out = rows
    if not own:
        yield rows
        return
    with kernel.loop(out.sizes[1]) as i:
        yield from _picks(kernel, (table, index.at(1, i), out.at(1, i)), own - 1)


def _shared_loops(kernel: Kernel, data: View, indices: View, result: View, count: int) -> Iterator[Gathered]:
    """Loop over `count` dimensions that data, indices and result share; numbers beyond the data mean its last part."""
    if count == 0:
        yield data, indices, result
        return
    inside = min(data.sizes[0], result.sizes[0])
    with kernel.loop(inside) as i:
        yield from _shared_loops(kernel, data.at(0, i), indices.at(0, i), result.at(0, i), count - 1)
    if result.sizes[0] > inside:
        last = data.at(0, inside - 1)
        with kernel.loop(result.sizes[0] - inside) as i:
            yield from _shared_loops(kernel, last, indices.at(0, i + inside), result.at(0, i + inside), count - 1)


def _gather_rows(kernel: Kernel, source: View, limits: Sequence[tuple[int, int]], indices: View, result: View,
                 batch: int, step: int) -> None:
    """source: the window at start 0. limits: (stride in bytes, greatest start) of each index component. step: bytes from the
    data of one index to that of the next; 0 where all read the same."""
    window = result.sizes[batch:]
    joined_index = indices.reshape((math.prod(indices.sizes[:-1]), indices.sizes[-1]))
    joined_result = result.reshape((math.prod(result.sizes[:batch]), *window))
    if joined_index is None or joined_result is None:
        for index, out in loops_pair(kernel, indices, result, batch - 1):
            _gather_rows(kernel, source, limits, index, out, 1, step)
        return
    unit = source.dtype.byte_size
    limit = 1 + sum(stride // unit * high for stride, high in limits) + step // unit * (joined_index.sizes[0] - 1)
    for start, count in kernel.tiles(joined_index.sizes[0], kernel.target.partitions):
        offsets = element_offsets(kernel, joined_index.cut(0, start, count), [(s // unit, high) for s, high in limits])
        if step:
            place = kernel.sbuf((count, 1), S32)
            kernel.iota(place, start * (step // unit), (0,), step // unit)
            kernel.tensor_tensor(offsets, offsets, place, "add", Engine.GPSIMD)
        _fetch(kernel, source, limit, offsets, joined_result.cut(0, start, count))


def loops_pair(kernel: Kernel, first: View, second: View, count: int) -> Iterator[tuple[View, View]]:
    """Loop over the first `count` dimensions of two views of different rank."""
    if count == 0:
        yield first, second
        return
    with kernel.loop(first.sizes[0]) as i:
        yield from loops_pair(kernel, first.at(0, i), second.at(0, i), count - 1)


def _fetch(kernel: Kernel, source: View, limit: int, offsets: Access, result: View) -> None:
    """result[i, window..] = source[offsets[i], window..], offsets below limit.

    Windows of more dimensions than a DMA has are looped over.
    """
    free = [(s, r) for s, r in zip(source.dims, result.dims[1:], strict=True) if s[1] != 1]
    merged: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for s, r in free:
        if merged and merged[-1][0][0] == s[0] * s[1] and merged[-1][1][0] == r[0] * r[1]:
            merged[-1] = ((s[0], merged[-1][0][1] * s[1]), (r[0], merged[-1][1][1] * r[1]))
        else:
            merged.append((s, r))
    if len(merged) + 1 > kernel.target.dma.loops_max:
        (s_stride, size), (r_stride, _) = merged[0]
        with kernel.loop(size) as i:
            inner = tuple(s for s, _ in merged[1:])
            outer = (result.dims[0], *(r for _, r in merged[1:]))
            _fetch(kernel, View(source.memory, source.dtype, source.address + i * s_stride, inner), limit, offsets,
                   View(result.memory, result.dtype, result.address + i * r_stride, outer))
        return
    dims = ((0, result.sizes[0]), *(s for s, _ in merged))
    to = View(result.memory, result.dtype, result.address, (result.dims[0], *(r for _, r in merged)))
    kernel.emit(isa.dma.DMA_GATHER, fields={"sizes": to.sizes, "index_stride": source.dtype.byte_size, "limit": limit},
                source=View(source.memory, source.dtype, source.address, dims), indices=offsets, destination=to)
