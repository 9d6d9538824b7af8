"""DMA: copies with casts, accumulation, gathers and scatters of rows. A kernel moves a whole transfer."""

from __future__ import annotations

import numpy as np

from nxcc.backends.isa.instructions import dma as isa
from nxcc.backends.isa.program import DmaPattern
from nxcc.backends.simulator.memory import Array, View, invalid, merge, raw
from nxcc.backends.simulator.numerics import narrow, widen
from nxcc.backends.simulator.operation import Kernel, Operation, Prepared, semantics
from nxcc.ir.dtypes import DType


def _sizes(op: Operation) -> tuple[int, ...]:
    sizes = tuple(op.field("sizes"))
    if not 1 <= len(sizes) <= 5 or any(size < 1 for size in sizes):
        raise invalid(f"a transfer has one to five sizes of at least 1, not {sizes}")
    for name in ("source", "destination"):
        if len(op.dma(name).strides) != len(sizes):
            raise invalid(f"{name} needs one stride for each size")
    return sizes


def _move(op: Operation, shape: tuple[int, ...], accumulate: bool) -> tuple[Kernel, bool]:
    """kernel(source, destination) for arrays of `shape`, and whether it takes them as raw bits."""
    source, target = op.dma("source").dtype, op.dma("destination").dtype
    if accumulate:
        return _accumulate(op, source, target, shape), False
    if source is target:
        return (lambda x, to: np.copyto(to, x)), True
    load = widen(source, shape, op.scratch, "a") or (lambda x: x)
    store = narrow(target, shape, op.scratch)
    return (lambda x, to: store(load(x), to)), False


def _accumulate(op: Operation, source: DType, target: DType, shape: tuple[int, ...]) -> Kernel:
    load = widen(source, shape, op.scratch, "a") or (lambda x: x)
    present = widen(target, shape, op.scratch, "b") or (lambda x: x)
    store, total = narrow(target, shape, op.scratch), op.scratch.array("result", shape)

    def kernel(x: Array, to: Array) -> None:
        np.add(present(to), load(x), total)
        store(total, to)
    return kernel


@semantics(isa.DMA_COPY)
def dma_copy(op: Operation) -> Prepared:
    return _copy(op, op.field("accumulate") == "add")


@semantics(isa.DMA_TRANSPOSE)
def dma_transpose(op: Operation) -> Prepared:
    if op.dma("source").dtype is not op.dma("destination").dtype or op.dma("source").dtype.byte_size != 2:
        raise invalid("dma_transpose moves elements of one dtype of 2 bytes")
    return _copy(op, False)


def _copy(op: Operation, accumulate: bool) -> Prepared:
    source, destination = op.dma("source"), op.dma("destination")
    sizes, (source_strides, destination_strides) = merge(_sizes(op), [source.strides, destination.strides])
    if not sizes:
        sizes, source_strides, destination_strides = [1], [0], [0]
    kernel, is_raw = _move(op, tuple(sizes), accumulate)
    views = (op.memories.dma_view(source, sizes, source_strides, raw(source.dtype) if is_raw else None),
             op.memories.dma_view(destination, sizes, destination_strides, raw(destination.dtype) if is_raw else None))
    return Prepared(kernel, views)


def _indices(op: Operation, count: int) -> View:
    pattern = op.pattern("indices")
    if count != pattern.partitions * pattern.free_elements or 1 not in (pattern.partitions, pattern.free_elements):
        raise invalid(f"the transfer needs {count} indices, one a partition or all in one partition")
    return op.view(pattern, pattern.dims or ((1, 1),))


def _rows(op: Operation, pattern: DmaPattern, sizes: tuple[int, ...], is_raw: bool) -> Kernel:
    """A function (address, n): the first n rows of an indexed side, `index_stride` bytes apart."""
    strides = (op.field("index_stride"), *pattern.strides[1:])
    dtype = raw(pattern.dtype) if is_raw else None
    return lambda address, n: op.memories.dma_view(pattern, (n, *sizes[1:]), strides, dtype).at(address)


@semantics(isa.DMA_GATHER)
def dma_gather(op: Operation) -> Prepared:
    sizes, limit = _sizes(op), op.field("limit")
    source, destination = op.dma("source"), op.dma("destination")
    move, is_raw = _move(op, sizes, False)
    rows, indices = _rows(op, source, sizes, is_raw), _indices(op, sizes[0])
    out = op.memories.dma_view(destination, sizes, destination.strides, raw(destination.dtype) if is_raw else None)

    def kernel(at: Array, to: Array, address: int) -> None:
        chosen = at.reshape(-1).astype(np.intp)
        if chosen.min() < 0 or chosen.max() >= limit:
            raise invalid(f"an index of a gather lies outside 0..{limit - 1}")
        move(rows(address, int(chosen.max()) + 1)[chosen], to)
    return Prepared(kernel, (indices, out), (source.address,))


@semantics(isa.DMA_SCATTER)
def dma_scatter(op: Operation) -> Prepared:
    sizes, limit = _sizes(op), op.field("limit")
    source, destination = op.dma("source"), op.dma("destination")
    move, is_raw = _move(op, sizes, op.field("accumulate") == "add")
    rows, indices = _rows(op, destination, sizes, is_raw), _indices(op, sizes[0])
    view = op.memories.dma_view(source, sizes, source.strides, raw(source.dtype) if is_raw else None)

    def kernel(x: Array, at: Array, address: int) -> None:
        chosen = at.reshape(-1).astype(np.intp)
        if chosen.min() < 0 or chosen.max() > limit:
            raise invalid(f"an index of a scatter lies outside 0..{limit}")
        kept = chosen < limit
        if not kept.any():
            return
        table = rows(address, int(chosen[kept].max()) + 1)
        values = table[np.where(kept, chosen, chosen[kept][0])]
        move(x, values)
        table[chosen[kept]] = values[kept]
    return Prepared(kernel, (view, indices), (destination.address,))
