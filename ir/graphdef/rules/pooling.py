"""Pooling over windows, and windows taken out as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nxcc.ir.dtypes import S32
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.contraction import Format, data_format, paddings, spatial_attr
from nxcc.ir.graphdef.rules.reduction import position_of_extreme
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.attributes import Window, WindowDimension
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.literals import Array

Rows = list[tuple[int, int, tuple[int, int]]]
"""Size, stride and padding of a window, a spatial dimension each."""


def _window(layout: Format, rows: Rows, rank: int) -> Window:
    dims = [WindowDimension(1)] * rank
    for d, (size, stride, (low, high)) in zip(layout.spatial, rows, strict=True):
        dims[d] = WindowDimension(size, stride, low, high)
    return Window(tuple(dims))


def _layout(call: Call, x: Instruction) -> Format:
    space = 3 if call.node.op.endswith("3D") else 2
    call.need(x.shape.rank == space + 2, f"the input must have {space + 2} dimensions, it is {x.shape}")
    return data_format(call, space)


def _rows(call: Call, layout: Format, x: Instruction) -> Rows:
    ksize, strides = spatial_attr(call, "ksize", layout), spatial_attr(call, "strides", layout)
    call.need(call.attr("ksize")[layout.feature] == 1 == call.attr("strides")[layout.feature],
              "pooling over channels is not possible together with space")
    sizes = [x.shape.dims[d] for d in layout.spatial]
    edges = paddings(call, layout, sizes, ksize, strides, [1] * len(ksize))
    if call.attr("padding") == "SAME" and len(sizes) == 3:
        edges = [_centred(*row) for row in zip(sizes, ksize, strides, edges, strict=True)]
    return list(zip(ksize, strides, edges, strict=True))


def _centred(n: int, size: int, stride: int, edge: tuple[int, int]) -> tuple[int, int]:
    """Where strides leave elements out, TensorFlow's windows over volumes leave out as many before as behind."""
    left_out = n - (-(-n // stride) - 1) * stride - size
    return (-(left_out // 2), left_out // 2 - left_out) if left_out > 0 else edge


def pool(e: Emitter, x: Instruction, opcode: str, window: Window) -> Instruction:
    kind = x.shape.dtype
    return e.make("reduce-window", x, e.identity(opcode, kind), window=window, called=[e.combiner(opcode, kind)])


@rule("MaxPool", "MaxPool3D", needs=("reduce-window",), ranks=("4+",))
def max_pool(call: Call) -> Value:
    x = call.x(0)
    sizes, strides = call.attr("ksize"), call.attr("strides")
    if call.node.op == "MaxPool" and len(sizes) == 4 and sizes[3] > 1 and sizes[:3] == (1, 1, 1):
        return pool(call.emit, x, "maximum", Window((*[WindowDimension(1)] * 3, WindowDimension(sizes[3], strides[3]))))
    layout = _layout(call, x)
    return pool(call.emit, x, "maximum", _window(layout, _rows(call, layout, x), x.shape.rank))


@rule("MaxPoolV2", needs=("reduce-window",), ranks=(4, 1, 1))
def max_pool_v2(call: Call) -> Value:
    x, layout = call.x(0), data_format(call)
    sizes, strides = ([call.ints(k)[d] for d in layout.spatial] for k in (1, 2))
    edges = paddings(call, layout, [x.shape.dims[d] for d in layout.spatial], sizes, strides, [1, 1])
    return pool(call.emit, x, "maximum", _window(layout, list(zip(sizes, strides, edges, strict=True)), x.shape.rank))


def _in_range(n: int, size: int, stride: int, edge: tuple[int, int]) -> Array:
    """How many elements of each window along one dimension lie inside the data."""
    starts = np.arange((n + sum(edge) - size) // stride + 1) * stride - edge[0]
    return np.minimum(starts + size, n) - np.maximum(starts, 0)


@rule("AvgPool", "AvgPool3D", needs=("reduce-window",), ranks=("4+",))
def avg_pool(call: Call) -> Value:
    """The sum over the number of elements in range; that number is known for each place of the window."""
    e, x = call.emit, call.x(0)
    layout = _layout(call, x)
    rows = _rows(call, layout, x)
    total = pool(e, e.wide(x), "add", _window(layout, rows, x.shape.rank))
    for d, (size, _, edge) in zip(layout.spatial, rows, strict=True):
        call.table(x.shape.dims[d] + size + sum(edge))
    counts: Array = np.ones((1,) * x.shape.rank, np.int64)
    for d, (size, stride, edge) in zip(layout.spatial, rows, strict=True):
        counts = counts * np.expand_dims(_in_range(x.shape.dims[d], size, stride, edge),
                                         [k for k in range(x.shape.rank) if k != d])
    if counts.size and counts.min() == counts.max():
        divisor = e.like(total, int(counts.flat[0]))
    else:
        divisor = e.broadcast_to(e.constant(counts.astype(total.shape.dtype.numpy)), total.shape.dims)
    return e.convert(e.divide(total, divisor), x.shape.dtype)


MAX_WINDOW_PLACES = 4096


def patches(e: Emitter, x: Instruction, rows: Sequence[tuple[int, int, int, tuple[int, int]]],
            fill: Instruction) -> Instruction:
    """Windows of NHWC data: [n, oh, ow, kh * kw, c]. rows: size, stride, rate and padding of each spatial dimension."""
    if rows[0][0] * rows[1][0] > MAX_WINDOW_PLACES:
        raise ShapeError(f"a window of {rows[0][0]} x {rows[1][0]} places is too large to be taken apart")
    padded = e.pad(x, fill, [0, *(row[3][0] for row in rows), 0], [0, *(row[3][1] for row in rows), 0])
    n, *space, c = padded.shape.dims
    outs = [(size - (k - 1) * rate - 1) // stride + 1 for size, (k, stride, rate, _) in zip(space, rows, strict=True)]
    parts = []
    for i in range(rows[0][0]):
        for j in range(rows[1][0]):
            starts = [0, i * rows[0][2], j * rows[1][2], 0]
            limits = [n, *(starts[d + 1] + (outs[d] - 1) * rows[d][1] + 1 for d in range(2)), c]
            taken = e.slice(padded, starts, limits, [1, rows[0][1], rows[1][1], 1])
            parts.append(e.reshape(taken, (n, *outs, 1, c)))
    return e.concatenate(parts, 3)


@rule("ExtractImagePatches", ranks=(4,))
def extract_image_patches(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    layout = Format(0, 3, (1, 2))
    sizes, strides, rates = (spatial_attr(call, name, layout) for name in ("ksizes", "strides", "rates"))
    edges = paddings(call, layout, x.shape.dims[1:3], sizes, strides, rates)
    found = patches(e, x, list(zip(sizes, strides, rates, edges, strict=True)), e.scalar(x.shape.dtype, 0))
    return e.reshape(found, (*found.shape.dims[:3], found.shape.dims[3] * found.shape.dims[4]))


@rule("Dilation2D", ranks=(4, 3))
def dilation(call: Call) -> Value:
    """max over the window of input + filter."""
    e, x, kernel = call.emit, call.x(0), call.x(1)
    layout = Format(0, 3, (1, 2))
    kh, kw, c = kernel.shape.dims
    strides, rates = spatial_attr(call, "strides", layout), spatial_attr(call, "rates", layout)
    edges = paddings(call, layout, x.shape.dims[1:3], (kh, kw), strides, rates)
    found = patches(e, x, list(zip((kh, kw), strides, rates, edges, strict=True)), e.identity("maximum", x.shape.dtype))
    return e.reduce("maximum", e.add(found, e.reshape(kernel, (kh * kw, c))), [3])


@rule("MaxPoolWithArgmax", ranks=(4,))
def max_pool_with_argmax(call: Call) -> list[Value]:
    """Also the flat position of each maximum in its image (and batch, if include_batch_in_index)."""
    e, x = call.emit, call.x(0)
    layout = Format(0, 3, (1, 2))
    sizes, strides = spatial_attr(call, "ksize", layout), spatial_attr(call, "strides", layout)
    edges = paddings(call, layout, x.shape.dims[1:3], sizes, strides, [1, 1])
    rows = list(zip(sizes, strides, [1, 1], edges, strict=True))
    windows = patches(e, x, rows, e.identity("maximum", x.shape.dtype))
    n, h, w, c = x.shape.dims
    call.table(n * h * w * c)
    places = np.arange(h * w * c, dtype=np.int32).reshape(1, h, w, c) + np.zeros((n, 1, 1, 1), np.int32)
    if call.attr("include_batch_in_index"):
        places = places + (np.arange(n, dtype=np.int32) * (h * w * c)).reshape(n, 1, 1, 1)
    flat = patches(e, e.constant(np.ascontiguousarray(places)), rows, e.scalar(S32, 0))
    first = position_of_extreme(e, windows, 3, "GT")
    chosen = e.compare(e.iota(S32, windows.shape.dims, 3), e.spread(first, windows.shape.dims, (0, 1, 2, 4)), "EQ")
    index = e.reduce("add", e.select(chosen, flat, e.like(flat, 0)), [3])
    return [e.reduce("maximum", windows, [3]), e.convert(index, call.dtype("Targmax"))]
