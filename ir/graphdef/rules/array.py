"""Shapes and movement: reshape, slice, concatenate, pad, tile, transpose, and what asks for shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nxcc.ir.dtypes import S32
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter, broadcast_dims
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction

# Shapes as values


def _of_type(call: Call, values: Sequence[int] | int) -> Value:
    return call.emit.constant(np.asarray(values, call.dtype("out_type").numpy))


@rule("Shape")
def shape(call: Call) -> Value:
    return _of_type(call, call.x(0).shape.dims)


@rule("ShapeN")
def shape_n(call: Call) -> Sequence[Value]:
    return [_of_type(call, x.shape.dims) for x in call.operands]


@rule("Size")
def size(call: Call) -> Value:
    return _of_type(call, call.x(0).shape.element_count)


@rule("Rank")
def rank(call: Call) -> Value:
    return call.emit.scalar(S32, call.x(0).shape.rank)


@rule("BroadcastArgs", ranks=(1, 1))
def broadcast_args(call: Call) -> Value:
    dims = broadcast_dims(call.ints(0), call.ints(1))
    return call.emit.constant(np.asarray(dims, call.dtype("T").numpy))


@rule("BroadcastGradientArgs")
def broadcast_gradient_args(call: Call) -> Sequence[Value]:
    dims = broadcast_dims(call.ints(0), call.ints(1))
    found = []
    for number in (0, 1):
        own = call.ints(number)
        missing = len(dims) - len(own)
        axes = [d for d, size in enumerate(dims) if d < missing or own[d - missing] == 1 != size]
        found.append(call.emit.constant(np.asarray(axes, call.dtype("T").numpy)))
    return found


@rule("ConcatOffset")
def concat_offset(call: Call) -> Sequence[Value]:
    axis = call.number(0)
    total, found = 0, []
    for number in range(1, len(call.inputs)):
        dims = call.ints(number)
        call.axis(axis, len(dims))
        offset = np.zeros(len(dims), np.int32)
        offset[axis] = total
        total += dims[axis]
        found.append(call.emit.constant(offset.astype(call.x(number).shape.dtype.numpy)))
    return found


@rule("UnravelIndex", ranks=(None, 1))
def unravel_index(call: Call) -> Value:
    e, indices, dims = call.emit, call.x(0), call.ints(1)
    rows = []
    for d, size_d in enumerate(dims):
        stride = math.prod(dims[d + 1:])
        digit = e.make("remainder", e.divide(indices, e.like(indices, stride)), e.like(indices, size_d))
        rows.append(e.reshape(digit, (1, *indices.shape.dims)))
    return e.concatenate(rows, 0)


def _formats(call: Call) -> tuple[str, str]:
    source, target = str(call.attr("src_format")), str(call.attr("dst_format"))
    call.need(bool(source) and sorted(source) == sorted(target), f"{source!r} and {target!r} are not the same dimensions")
    return source, target


@rule("DataFormatDimMap")
def data_format_dim_map(call: Call) -> Value:
    source, target = _formats(call)
    table = np.array([target.index(c) for c in source], call.x(0).shape.dtype.numpy)
    e, x = call.emit, call.x(0)
    positive = e.select(e.compare(x, e.like(x, 0), "LT"), e.offset(x, len(source)), x)
    return e.take(e.constant(table), positive, 0)


@rule("DataFormatVecPermute", ranks=("1+",))
def data_format_vec_permute(call: Call) -> Value:
    (source, target), x = _formats(call), call.x(0)
    if x.shape.dims[0] == len(source) - 2:
        source, target = (text.translate({ord("N"): None, ord("C"): None}) for text in (source, target))
    order = np.array([source.index(c) for c in target], np.int32)
    return call.emit.take(x, call.emit.constant(order), 0)


# Reshaping


@rule("Reshape")
def reshape(call: Call) -> Value:
    x, dims = call.x(0), call.ints(1)
    if dims.count(-1) == 1:
        rest = math.prod(d for d in dims if d != -1)
        call.need(rest > 0 and x.shape.element_count % rest == 0, f"{x.shape} cannot be reshaped to {dims}")
        dims[dims.index(-1)] = x.shape.element_count // rest
    call.need(min(dims, default=0) >= 0 and math.prod(dims) == x.shape.element_count, f"{x.shape} cannot be reshaped to {dims}")
    return call.emit.reshape(x, dims)


@rule("ExpandDims")
def expand_dims(call: Call) -> Value:
    x = call.x(0)
    axis = call.axis(call.number(1), x.shape.rank + 1)
    return call.emit.reshape(x, (*x.shape.dims[:axis], 1, *x.shape.dims[axis:]))


@rule("Squeeze")
def squeeze(call: Call) -> Value:
    x = call.x(0)
    axes = [call.axis(d, x.shape.rank) for d in call.attr("squeeze_dims")] or [d for d, n in enumerate(x.shape.dims) if n == 1]
    call.need(all(x.shape.dims[d] == 1 for d in axes), f"a squeezed dimension of {x.shape} is not 1")
    return call.emit.reshape(x, [n for d, n in enumerate(x.shape.dims) if d not in axes])


@rule("Transpose", "ConjugateTranspose")
def transpose(call: Call) -> Value:
    x = call.x(0)
    order = [call.axis(d, x.shape.rank) for d in call.ints(1)]
    call.need(sorted(order) == list(range(x.shape.rank)), f"{order} is no permutation of the dimensions of {x.shape}")
    e = call.emit
    if call.node.op == "ConjugateTranspose" and x.shape.dtype.is_complex:
        x = e.make("complex", e.make("real", x), e.make("negate", e.make("imag", x)))
    return e.transpose(x, order)


@rule("BroadcastTo")
def broadcast_to(call: Call) -> Value:
    return call.emit.broadcast_to(call.x(0), call.ints(1))


@rule("Fill")
def fill(call: Call) -> Value:
    dims = call.ints(0)
    call.need(min(dims, default=0) >= 0, f"a tensor cannot have the shape {dims}")
    return call.emit.broadcast_to(call.x(1), dims)


@rule("Empty")
def empty(call: Call) -> Value:
    return call.emit.full(call.dtype("dtype"), call.ints(0), 0)


@rule("Tile")
def tile(call: Call) -> Value:
    """[a, b] repeated [m, n] times: broadcast to [m, a, n, b], then reshape."""
    e, x, times = call.emit, call.x(0), call.ints(1)
    dims = x.shape.dims
    call.need(len(times) == len(dims) and min(times, default=0) >= 0, f"{times} repetitions do not fit {x.shape}")
    if all(n == 1 for n in times):
        return x
    spread = [n for pair in zip(times, dims, strict=True) for n in pair]
    wide = e.spread(x, spread, range(1, 2 * len(dims), 2))
    return e.reshape(wide, [n * size_d for n, size_d in zip(times, dims, strict=True)])


@rule("Range")
def range_(call: Call) -> Value:
    ends = [call.constant(k) for k in range(3)]
    call.need(all(end.size == 1 for end in ends), "start, limit and delta must be one number each")
    start, limit, delta = (end.reshape(()) for end in ends)
    call.need(bool(delta != 0), "delta must not be 0")
    dtype = call.dtype("Tidx").numpy
    call.table(abs(float(limit) - float(start)) / abs(float(delta)))
    if np.issubdtype(dtype, np.integer):
        values = np.arange(int(start), int(limit), int(delta), dtype=np.int64).astype(dtype)
    else:
        count = max(0, math.ceil((float(limit) - float(start)) / float(delta)))
        values = (float(start) + np.arange(count) * float(delta)).astype(dtype)
    return call.emit.constant(values)


@rule("LinSpace")
def linspace(call: Call) -> Value:
    ends, count = [call.known(k) for k in (0, 1)], call.number(2)
    call.need(count > 0, "num must be positive")
    if ends[0] is None or ends[1] is None:
        return _dynamic_linspace(call, count)
    start, stop = (float(end) for end in ends if end is not None)
    call.need(math.isfinite(start) and math.isfinite(stop), "start and stop must be finite")
    call.table(count)
    return call.emit.constant(np.linspace(start, stop, count).astype(call.dtype("T").numpy))


def _dynamic_linspace(call: Call, count: int) -> Value:
    """start + k * step; the last is stop itself."""
    e = call.emit
    start, stop = (e.wide(e.reshape(call.x(k), ())) for k in (0, 1))
    step = e.scaled(e.subtract(stop, start), 1 / max(count - 1, 1))
    places = e.iota(S32, (count,), 0)
    way = e.multiply(e.convert(places, step.shape.dtype), e.spread(step, (count,), ()))
    between = e.add(e.spread(start, (count,), ()), way)
    last = e.compare(places, e.like(places, count - 1), "EQ")
    found = between if count == 1 else e.select(last, e.spread(stop, (count,), ()), between)
    return e.convert(found, call.dtype("T"))


# Joining and cutting


def _concatenate(call: Call, parts: list[Instruction], axis: int) -> Value:
    call.need(bool(parts), "there is nothing to concatenate")
    ranks = {x.shape.rank for x in parts}
    if len(ranks) == 2 and 1 in ranks:
        parts = [x for x in parts if x.shape.dims != (0,)]
    return call.emit.concatenate(parts, call.axis(axis, parts[0].shape.rank))


@rule("Concat")
def concat(call: Call) -> Value:
    return _concatenate(call, call.operands[1:], call.number(0))


@rule("ConcatV2")
def concat_v2(call: Call) -> Value:
    return _concatenate(call, call.operands[:-1], call.number(len(call.inputs) - 1))


@rule("Pack", "ParallelConcat")
def pack(call: Call) -> Value:
    first = call.x(0).shape
    axis = call.axis(call.attr("axis"), first.rank + 1) if call.node.op == "Pack" else 0
    call.need(all(x.shape == first for x in call.operands), f"all inputs must be {first}")
    dims = (*first.dims[:axis], 1, *first.dims[axis:])
    return call.emit.concatenate([call.emit.reshape(x, dims) for x in call.operands], axis)


@rule("Unpack")
def unpack(call: Call) -> Sequence[Value]:
    x, count = call.x(0), call.attr("num")
    axis = call.axis(call.attr("axis"), x.shape.rank)
    call.need(x.shape.dims[axis] == count, f"{count} results of dimension {axis} of {x.shape}")
    dims = [n for d, n in enumerate(x.shape.dims) if d != axis]
    return [call.emit.reshape(call.emit.part(x, axis, k, k + 1), dims) for k in range(count)]


def cut(e: Emitter, x: Instruction, axis: int, sizes: Sequence[int]) -> list[Instruction]:
    """Consecutive parts of one dimension."""
    parts, at = [], 0
    for n in sizes:
        parts.append(e.part(x, axis, at, at + n))
        at += n
    return parts


@rule("Split")
def split(call: Call) -> Sequence[Value]:
    x, count = call.x(1), call.attr("num_split")
    axis = call.axis(call.number(0), x.shape.rank)
    call.need(count > 0 and x.shape.dims[axis] % count == 0, f"dimension {axis} of {x.shape} cannot be cut in {count} parts")
    return cut(call.emit, x, axis, [x.shape.dims[axis] // count] * count)


@rule("SplitV")
def split_v(call: Call) -> Sequence[Value]:
    x, sizes = call.x(0), call.ints(1)
    axis = call.axis(call.number(2), x.shape.rank)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = x.shape.dims[axis] - sum(n for n in sizes if n != -1)
    fits = min(sizes, default=0) >= 0 and sum(sizes) == x.shape.dims[axis]
    call.need(fits, f"parts {sizes} do not make dimension {axis} of {x.shape}")
    return cut(call.emit, x, axis, sizes)


# Edges


def amounts_of(call: Call, number: int = 1) -> tuple[list[int], list[int]]:
    """What an input of paddings adds before and behind each dimension of the first input."""
    x, amounts = call.x(0), call.constant(number)
    call.need(amounts.shape == (x.shape.rank, 2) and bool((amounts >= 0).all()), f"paddings {amounts.tolist()} of {x.shape}")
    return [int(v) for v in amounts[:, 0]], [int(v) for v in amounts[:, 1]]


@rule("Pad", "PadV2")
def pad(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    value = call.x(2) if call.node.op == "PadV2" else e.scalar(x.shape.dtype, 0)
    return e.pad(x, e.reshape(value, ()), *amounts_of(call))


@rule("MirrorPad")
def mirror_pad(call: Call) -> Value:
    """REFLECT leaves the edge out, SYMMETRIC repeats it."""
    return mirrored(call, call.x(0), amounts_of(call))


def mirrored(call: Call, x: Instruction, amounts: tuple[list[int], list[int]]) -> Instruction:
    """x with its edges mirrored by so many places before and behind, as the call's mode says."""
    e = call.emit
    skip = 1 if call.text("mode", "REFLECT", "SYMMETRIC") == "REFLECT" else 0
    for axis, (low, high) in enumerate(zip(*amounts, strict=True)):
        n = x.shape.dims[axis]
        call.need(max(low, high) <= n - skip, f"dimension {axis} of size {n} cannot be mirrored by {max(low, high)}")
        parts = [e.reverse(e.part(x, axis, skip, skip + low), [axis])] if low else []
        parts.append(x)
        if high:
            parts.append(e.reverse(e.part(x, axis, n - skip - high, n - skip), [axis]))
        x = e.concatenate(parts, axis)
    return x


@rule("ReverseV2")
def reverse(call: Call) -> Value:
    x = call.x(0)
    return call.emit.reverse(x, call.axes(1, x.shape.rank))


@rule("Roll")
def roll(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    shifts, axes = call.known(1), [call.axis(a, x.shape.rank) for a in call.ints(2)]
    count = call.x(1).shape.element_count
    call.need(count == len(axes), f"{count} shifts along {len(axes)} axes")
    for number, axis in enumerate(axes):
        x = _rolled(e, x, axis, int(shifts.reshape(-1)[number])) if shifts is not None else _rolled_by(
            e, x, axis, e.reshape(e.part(e.reshape(call.x(1), (count,)), 0, number, number + 1), ()))
    return x


def _rolled(e: Emitter, x: Instruction, axis: int, shift: int) -> Instruction:
    n = x.shape.dims[axis]
    at = -shift % n if n else 0
    return e.concatenate([e.part(x, axis, at, n), e.part(x, axis, 0, at)], axis) if at else x


def _rolled_by(e: Emitter, x: Instruction, axis: int, shift: Instruction) -> Instruction:
    """By a number that values say: a stretch of x twice over, from n - shift modulo n on."""
    n = x.shape.dims[axis]
    if n < 2:
        return x
    size = e.like(shift, n)
    start = e.subtract(size, e.make("remainder", shift, size))  # 1 to 2 n - 1
    twice = e.concatenate([x, x, x], axis)
    zero = e.like(shift, 0)
    return e.dynamic_slice(twice, [start if d == axis else zero for d in range(x.shape.rank)], x.shape.dims)


# Space and batch, space and depth


def _blocks(call: Call) -> tuple[list[int], list[tuple[int, int]]]:
    if call.node.op.endswith("ND"):
        block, edges = call.ints(1), call.constant(2)
    else:
        block, edges = [call.attr("block_size")] * 2, call.constant(1)
    call.need(edges.shape == (len(block), 2) and len(block) < call.x(0).shape.rank and min(block, default=1) > 0,
              f"blocks {block} and edges {edges.tolist()} do not fit {call.x(0).shape}")
    return block, [(int(a), int(b)) for a, b in edges]


@rule("SpaceToBatchND", "SpaceToBatch", ranks=("1+",))
def space_to_batch(call: Call) -> Value:
    """[n, s1, s2, rest] to [b1 * b2 * n, s1 / b1, s2 / b2, rest]."""
    e, x = call.emit, call.x(0)
    block, edges = _blocks(call)
    m, rest = len(block), x.shape.rank - 1 - len(block)
    low, high = ([0, *(edge[k] for edge in edges), *[0] * rest] for k in (0, 1))
    x = e.pad(x, e.scalar(x.shape.dtype, 0), low, high)
    n, *space = x.shape.dims[:m + 1]
    tail = x.shape.dims[m + 1:]
    call.need(not any(s % b for s, b in zip(space, block, strict=True)), f"{block} does not divide {x.shape} after padding")
    small = [s // b for s, b in zip(space, block, strict=True)]
    parted = e.reshape(x, [n, *(v for pair in zip(small, block, strict=True) for v in pair), *tail])
    order = [*range(2, 2 * m + 1, 2), 0, *range(1, 2 * m + 1, 2), *range(2 * m + 1, 2 * m + 1 + rest)]
    return e.reshape(e.transpose(parted, order), [n * math.prod(block), *small, *tail])


@rule("BatchToSpaceND", "BatchToSpace", ranks=("1+",))
def batch_to_space(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    block, crops = _blocks(call)
    m, rest = len(block), x.shape.rank - 1 - len(block)
    n, *space = x.shape.dims[:m + 1]
    tail = x.shape.dims[m + 1:]
    call.need(n % math.prod(block) == 0, f"blocks {block} do not divide the batch of {x.shape}")
    batch = n // math.prod(block)
    parted = e.reshape(x, [*block, batch, *space, *tail])
    order = [m, *(v for k in range(m) for v in (m + 1 + k, k)), *range(2 * m + 1, 2 * m + 1 + rest)]
    large = [s * b for s, b in zip(space, block, strict=True)]
    found = e.reshape(e.transpose(parted, order), [batch, *large, *tail])
    starts = [0, *(a for a, _ in crops), *[0] * rest]
    limits = [batch, *(s - b for s, (_, b) in zip(large, crops, strict=True)), *tail]
    return e.slice(found, starts, limits)


@rule("DepthToSpace", "SpaceToDepth", ranks=(4,))
def depth_space(call: Call) -> Value:
    e, x, b = call.emit, call.x(0), call.attr("block_size")
    channels_first = call.text("data_format", "NHWC", "NCHW") == "NCHW"
    if channels_first:
        x = e.transpose(x, (0, 2, 3, 1))
    n, h, w, c = x.shape.dims
    if call.node.op == "DepthToSpace":
        call.need(c % (b * b) == 0, f"{c} channels are no multiple of {b * b}")
        parted = e.transpose(e.reshape(x, (n, h, w, b, b, c // (b * b))), (0, 1, 3, 2, 4, 5))
        x = e.reshape(parted, (n, h * b, w * b, c // (b * b)))
    else:
        call.need(h % b == 0 and w % b == 0, f"block {b} does not divide {x.shape}")
        parted = e.transpose(e.reshape(x, (n, h // b, b, w // b, b, c)), (0, 1, 3, 2, 4, 5))
        x = e.reshape(parted, (n, h // b, w // b, b * b * c))
    return e.transpose(x, (0, 3, 1, 2)) if channels_first else x
