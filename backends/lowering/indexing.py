"""Addresses known at run time: dynamic slices through sequencer registers, gathers through index vectors on GpSimd."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.registry import rule
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import S32, S64, U32, U64, DType
from nxcc.ir.hlo.module import Instruction

LOW_WORD: dict[DType, DType] = {S64: S32, U64: U32}
"""64-bit indices are read by their low words: an operand of 2^31 elements or more does not fit the device."""


def low_words(view: View) -> View:
    """A view of 64-bit integers as their low 32 bits (little endian); others as they are."""
    dtype = LOW_WORD.get(view.dtype)
    return view if dtype is None else View(view.memory, dtype, view.address, view.dims)


def _starts(kernel: Kernel, indices: Sequence[View], sizes: Sequence[int], window: Sequence[int]) -> list[Expr]:
    """Start indices in registers, clamped so that the window fits."""
    if len(indices) == 1 and indices[0].dims:
        indices = [indices[0].at(0, d) for d in range(len(sizes))]
    starts = []
    for index, size, extent in zip(indices, sizes, window, strict=True):
        if size == extent:
            starts.append(Expr(0))
        else:
            starts.append(kernel.clamp_scalar(kernel.load_scalar(low_words(index)), 0, size - extent))
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
        kernel.dma(result, data)
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
    data, indices, result = operands[0], low_words(operands[1]), results[0]
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
    for table, index, out in _shared_loops(kernel, data.permute((*data_batch, *kept)), indices, result, len(shared)):
        source = View(table.memory, table.dtype, table.address,
                      tuple((table.dims[kept.index(d)][0], size) for d, size in window))
        _gather_rows(kernel, source, data.elements, limits, index, out, len(single))


def _shared_loops(kernel: Kernel, data: View, indices: View, result: View, count: int):  # type: ignore[no-untyped-def]
    if count == 0:
        yield data, indices, result
        return
    with kernel.loop(result.sizes[0]) as i:
        yield from _shared_loops(kernel, data.at(0, i), indices.at(0, i), result.at(0, i), count - 1)


def _gather_rows(kernel: Kernel, source: View, elements: int, limits: Sequence[tuple[int, int]], indices: View, result: View,
                 batch: int) -> None:
    """source: the window at start 0. limits: (stride in bytes, greatest start) of each index component."""
    window = result.sizes[batch:]
    joined_index = indices.reshape((math.prod(indices.sizes[:-1]), indices.sizes[-1]))
    joined_result = result.reshape((math.prod(result.sizes[:batch]), *window))
    if joined_index is None or joined_result is None:
        for index, out in loops_pair(kernel, indices, result, batch - 1):
            _gather_rows(kernel, source, elements, limits, index, out, 1)
        return
    unit = source.dtype.byte_size
    for start, count in kernel.tiles(joined_index.sizes[0], kernel.target.partitions):
        offsets = element_offsets(kernel, joined_index.cut(0, start, count), [(s // unit, high) for s, high in limits])
        _fetch(kernel, source, elements, offsets, joined_result.cut(0, start, count))


def loops_pair(kernel: Kernel, first: View, second: View, count: int):  # type: ignore[no-untyped-def]
    """Loop over the first `count` dimensions of two views of different rank."""
    if count == 0:
        yield first, second
        return
    with kernel.loop(first.sizes[0]) as i:
        yield from loops_pair(kernel, first.at(0, i), second.at(0, i), count - 1)


def element_offsets(kernel: Kernel, indices: View, limits: Sequence[tuple[int, int]]) -> Access:
    """[n, components] indices as one element offset each, [n, 1]: components clamped to 0..high, times their strides."""
    rows, components = indices.sizes
    offsets = kernel.sbuf((rows, 1), S32)
    if not components or not limits:
        kernel.memset(offsets, 0, Engine.GPSIMD)
        return offsets
    raw = kernel.sbuf((rows, components), indices.dtype if indices.dtype in (S32, U32) else S32)
    kernel.dma(raw, indices)
    place = kernel.sbuf((rows, 1), raw.dtype)
    for component, (stride, high) in enumerate(limits):
        column = raw.cut(0, component, 1)
        kernel.tensor_scalar(place, column, "maximum", 0, "minimum", high, engine=Engine.GPSIMD)
        target = offsets if component == 0 else place.retype(S32)
        kernel.tensor_scalar(target, place.retype(S32), "multiply", stride, engine=Engine.GPSIMD)
        if component:
            kernel.tensor_tensor(offsets, offsets, target, "add", Engine.GPSIMD)
    return offsets


def _fetch(kernel: Kernel, source: View, elements: int, offsets: Access, result: View) -> None:
    """result[i, window..] = source[offsets[i], window..]; windows of more dimensions than a DMA has are looped over."""
    free = [(s, r) for s, r in zip(source.dims, result.dims[1:], strict=True) if s[1] != 1]
    merged: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for s, r in free:
        if merged and merged[-1][0][0] == s[0] * s[1] and merged[-1][1][0] == r[0] * r[1]:
            merged[-1] = ((s[0], merged[-1][0][1] * s[1]), (r[0], merged[-1][1][1] * r[1]))
        else:
            merged.append((s, r))
    if len(merged) + 1 > kernel.target.dma.dims_max:
        (s_stride, size), (r_stride, _) = merged[0]
        with kernel.loop(size) as i:
            inner = tuple(s for s, _ in merged[1:])
            outer = (result.dims[0], *(r for _, r in merged[1:]))
            _fetch(kernel, View(source.memory, source.dtype, source.address + i * s_stride, inner), elements, offsets,
                   View(result.memory, result.dtype, result.address + i * r_stride, outer))
        return
    dims = ((0, result.sizes[0]), *(s for s, _ in merged))
    to = View(result.memory, result.dtype, result.address, (result.dims[0], *(r for _, r in merged)))
    kernel.emit(isa.dma.DMA_GATHER, fields={"sizes": to.sizes, "index_stride": source.dtype.byte_size, "limit": elements},
                source=View(source.memory, source.dtype, source.address, dims), indices=offsets, destination=to)


