"""GpSimd: integer patterns, masks, gathers along the free dimension, reductions over partitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nxcc.backends.isa.instructions import gpsimd as isa
from nxcc.backends.simulator.engines.vector import reduce_kernel
from nxcc.backends.simulator.memory import Array, View, invalid, raw, refine
from nxcc.backends.simulator.numerics import constant, immediate, narrow, widen
from nxcc.backends.simulator.operation import Kernel, Operation, Prepared, semantics
from nxcc.ir.dtypes import S32, U32

COMPARISONS: dict[str, Any] = {
    "equal": np.equal, "not_equal": np.not_equal, "greater_equal": np.greater_equal, "greater": np.greater,
    "less_equal": np.less_equal, "less": np.less,
}


def _pattern(view: View, channel_multiplier: int, steps: Sequence[int]) -> Kernel:
    """A function (base, out) that writes base + p * channel_multiplier + sum of i_k * steps[k], 32-bit, wrapping."""
    sizes = view.shape[1:]
    if len(steps) != len(sizes):
        raise invalid("one step is needed for each free dimension")
    free = np.zeros(sizes, np.int64)
    for axis, (size, step) in enumerate(zip(sizes, steps, strict=True)):
        free += (np.arange(size) * step).reshape((size,) + (1,) * (len(sizes) - axis - 1))
    channel = (np.arange(view.shape[0]) * channel_multiplier).reshape((-1,) + (1,) * len(sizes))
    row, column = free.astype(np.uint32), channel.astype(np.uint32)

    def write(base: int, out: Array) -> None:
        np.add(row, column + np.uint32(base & 0xFFFFFFFF), out.view(np.uint32))
    return write


@semantics(isa.IOTA)
def iota(op: Operation) -> Prepared:
    pattern = op.pattern("out")
    steps = tuple(op.field("steps"))
    out = op.view(pattern, pattern.dims or ((1, 1),))
    write = _pattern(out, op.field("channel_multiplier"), steps or (0,))
    base = (op.field("base"),)
    if pattern.dtype in (S32, U32):
        return Prepared(lambda to, start: write(start, to), (out,), base)
    integers, values = op.scratch.array("a", out.shape, np.int32), op.scratch.array("b", out.shape)
    store = narrow(pattern.dtype, out.shape, op.scratch)

    def kernel(to: Array, start: int) -> None:
        write(start, integers)
        np.copyto(values, integers, casting="same_kind")
        store(values, to)
    return Prepared(kernel, (out,), base)


@semantics(isa.AFFINE_SELECT)
def affine_select(op: Operation) -> Prepared:
    patterns = op.pattern("data"), op.pattern("out")
    if patterns[0].sizes != patterns[1].sizes or patterns[0].partitions != patterns[1].partitions:
        raise invalid("data and out of affine_select must have one shape")
    data, out = (op.view(p, p.dims or ((1, 1),)) for p in patterns)
    write = _pattern(data, op.field("channel_multiplier"), tuple(op.field("steps")) or (0,))
    compare, integers = COMPARISONS[op.field("compare")], op.scratch.array("work", data.shape, np.int32)
    source, target = patterns[0].dtype, patterns[1].dtype
    if source is target:
        data.dtype = out.dtype = raw(source)
        bits = constant(op.field("fill"), target).view(raw(target))

        def move(x: Array, to: Array, start: int) -> None:
            write(start, integers)
            np.copyto(to, np.where(compare(integers, 0), x, bits))
        return Prepared(move, (data, out), (op.field("base"),))
    load = widen(source, data.shape, op.scratch, "a") or (lambda x: x)
    store, fill = narrow(target, out.shape, op.scratch), immediate(op.field("fill"))

    def kernel(x: Array, to: Array, start: int) -> None:
        write(start, integers)
        store(np.where(compare(integers, 0), load(x), fill), to)
    return Prepared(kernel, (data, out), (op.field("base"),))


@semantics(isa.GATHER_FREE)
def gather_free(op: Operation) -> Prepared:
    patterns = [op.pattern(name) for name in ("data", "indices", "out")]
    data, indices, out = (op.view(p, p.dims or ((1, 1),)) for p in patterns)
    if patterns[0].dtype is not patterns[2].dtype:
        raise invalid("gather_free keeps the dtype")
    if len({p.partitions for p in patterns}) != 1 or patterns[1].free_elements != patterns[2].free_elements:
        raise invalid("indices and out of gather_free must have one shape")
    data.dtype = out.dtype = raw(patterns[0].dtype)
    partitions, count = patterns[0].partitions, patterns[0].free_elements

    def kernel(x: Array, at: Array, to: Array) -> None:
        columns = at.reshape(partitions, -1).astype(np.intp)
        if columns.min() < 0 or columns.max() >= count:
            raise invalid(f"an index lies outside 0..{count - 1}")
        np.copyto(to, np.take_along_axis(x.reshape(partitions, count), columns, 1).reshape(to.shape))
    return Prepared(kernel, (data, indices, out))


@semantics(isa.PARTITION_REDUCE)
def partition_reduce(op: Operation) -> Prepared:
    patterns = op.pattern("data"), op.pattern("out")
    if patterns[1].partitions != 1 or patterns[0].free_elements != patterns[1].free_elements:
        raise invalid("out of partition_reduce has one partition and the free elements of data")
    dims = refine([p.dims for p in patterns])
    data, out = (op.view(p, d or [(1, 1)]) for p, d in zip(patterns, dims, strict=True))
    reduce = reduce_kernel(op, (data, out), op.field("op"), (0,))
    return Prepared(lambda x, to: reduce(x, to[0]), (data, out))
