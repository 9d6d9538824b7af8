"""Reduce-window: every axis of the window in turn, as reductions over overlapping access patterns of a tile with its halo.

A combiner of one operator is associative, so the window is reduced axis by axis: short windows by one reduction whose operand
reads each element once a window, wide ones by windows of 1, 2, 4, ... cells. A window that reaches back to the beginning of its
axis is a scan. Dimensions without a window lie on partitions; where they are the fast ones in memory, the outputs of one
windowed dimension lie there instead, loaded once a window cell, so that transfers keep long runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.halo import Axis, Strip, all_strips, halo, load_halo, steps_within, strips
from nxcc.backends.lowering.products.limbs import narrowed
from nxcc.backends.lowering.reduction import combiner
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.tiling import loops, row_tiles, unfolded
from nxcc.backends.lowering.turning import comes_in_elements
from nxcc.backends.lowering.window_body import axes_of, is_still, reduce_window_by_body, still_first, window_reason
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32, PRED, S32, U8, U32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import WindowDimension
from nxcc.ir.hlo.module import Instruction

TILE_ELEMENTS = 8192
"""Elements a partition of a tile with its halo, at most; its intermediate results are no larger."""

WINDOW_ELEMENTS = 4096
"""Coordinates that one window may reach over in all its dimensions: more does not fit beside its intermediate results."""

SCAN_COLUMNS = 2048
"""Columns of one piece of a cumulative window."""

SCAN_WINDOW = 16
"""Cumulative windows up to this size are cheaper as plain windows."""

ROW_TAPS = 8
"""Window cells of a dimension on partitions, at most: each is loaded by a transfer of its own."""


# ---- what combines ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fold:
    """An associative operator on tiles. dtype: of the tiles that it works on; neutral: what changes nothing."""

    op: str
    dtype: DType
    engine: Engine
    neutral: float

    def combine(self, kernel: Kernel, out: Access, a: Access, b: Access) -> None:
        kernel.tensor_tensor(out, a, b, self.op, self.engine)


_FLOAT_NEUTRAL = {"add": -0.0, "multiply": 1.0, "maximum": -math.inf, "minimum": math.inf}
_BIT_OPS = ("bitwise_and", "bitwise_or", "bitwise_xor")
_PRED_AS_NUMBER = {"bitwise_and": "minimum", "bitwise_or": "maximum", "bitwise_xor": "not_equal"}


def fold_of(op: str, dtype: DType) -> Fold:
    """How an operator of the engines combines elements of an HLO dtype: floats and pred in f32, integers in 32 bits."""
    if dtype is PRED:
        name = _PRED_AS_NUMBER[op]
        return Fold(name, F32, Engine.VECTOR, 1.0 if name == "minimum" else 0.0)
    if dtype.is_float:
        return Fold(op, F32, Engine.VECTOR, _FLOAT_NEUTRAL[op])
    wide = U32 if dtype is U32 else S32
    least, most = (0, 2**32 - 1) if wide is U32 else (-2**31, 2**31 - 1)
    neutral = {"multiply": 1, "maximum": least, "minimum": most, "bitwise_and": most if wide is U32 else -1}.get(op, 0)
    return Fold(op, wide, Engine.VECTOR if op in _BIT_OPS else Engine.GPSIMD, float(neutral))


def _is_plain(instruction: Instruction) -> bool:
    """Whether one operator of the engines combines one array."""
    if len(instruction.operands) != 2 or instruction.shape.dtype.bits > 32:
        return False
    op = combiner(instruction.called[0])
    return op is not None and not (op == "bitwise_xor" and instruction.shape.dtype is PRED)


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    axes = _axes(instruction)
    if not _is_plain(instruction):
        return window_reason(instruction, axes, target)
    if instruction.shape.element_count and _cumulative(instruction) is None and \
            math.prod(axis.length(1) for axis in axes) > WINDOW_ELEMENTS:
        return f"one window reaches over more than {WINDOW_ELEMENTS} elements"
    return None


def _axes(instruction: Instruction) -> list[Axis]:
    shape = instruction.shape if instruction.shape.is_array else instruction.shape.elements[0]
    return axes_of(instruction.operands[0].shape.dims, shape.dims, instruction)


def _cumulative(instruction: Instruction) -> int | None:
    """The only windowed dimension, if each window holds all elements up to its own, or all from its own."""
    moved = [d for d, axis in enumerate(_axes(instruction)) if not is_still(axis)]
    if len(moved) != 1:
        return None
    axis = _axes(instruction)[moved[0]]
    w, n = axis.window, axis.size
    plain = w.stride == w.base_dilation == w.window_dilation == 1 and w.size == axis.size > SCAN_WINDOW
    return moved[0] if plain and (w.padding_low, w.padding_high) in ((n - 1, 0), (0, n - 1)) else None


def _still_first(instruction: Instruction) -> tuple[int, ...]:
    """Dimensions without a window come from partitions: a result that keeps them slowest is stored in long runs."""
    return still_first(_axes(instruction))


def _lies(instruction: Instruction, operands: Sequence[View | None]) -> Iterator[tuple[int, Sequence[int]]]:
    """Data of a window back to the beginning that lies together along another dimension."""
    view, scanned = operands[0], _cumulative(instruction) if _is_plain(instruction) else None
    others = range(len(view.dims)) if view is not None else ()
    if view is not None and scanned is not None and any(comes_in_elements(view, d) for d in others if d != scanned):
        yield 0, _still_first(instruction)


# ---- lowering --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Problem:
    """data and result as [rows.., windowed..]; axes: of the windowed dimensions; initial: [lanes, 1] in the fold's dtype."""

    fold: Fold
    data: View
    result: View
    axes: tuple[Axis, ...]
    initial: Access


@rule("reduce-window", unsupported=_unsupported, order=_still_first, lies=_lies)
def lower_reduce_window(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """result[o] = initial value combined with data over the window at o."""
    if not _is_plain(instruction):
        reduce_window_by_body(kernel, instruction, _axes(instruction), operands, results)
        return
    op = combiner(instruction.called[0])
    assert op is not None
    data, initial, result = (view.retype(U8) if view.dtype is PRED else view for view in (*operands, *results))
    fold = fold_of(op, instruction.shape.dtype)
    lanes = kernel.target.partitions
    column = kernel.sbuf((lanes, 1), fold.dtype)
    kernel.dma(column, View(initial.memory, initial.dtype, initial.address, ((0, lanes), (0, 1))))
    order = _still_first(instruction)
    axes = [_axes(instruction)[d] for d in order]
    windowed = [axis for axis in axes if not is_still(axis)]
    problem = _Problem(fold, data.permute(order), result.permute(order), tuple(windowed), column)
    if _cumulative(instruction) is not None:
        _cumulate(kernel, problem)
    elif _prefers_row_axis(problem):
        _reduce_by_row_axis(kernel, problem)
    else:
        _reduce(kernel, problem)


def _with_rows(problem: _Problem) -> _Problem:
    """At least one row dimension."""
    if len(problem.data.dims) > len(problem.axes):
        return problem
    return replace(problem, data=problem.data.insert(0), result=problem.result.insert(0))


# ---- windowed dimensions along the free axis ---------------------------------------------------------------------------


def _reduce(kernel: Kernel, problem: _Problem) -> None:
    """Rows on partitions, windowed dimensions along them in strips that fit."""
    problem = _with_rows(problem)
    free = len(problem.axes)
    steps = steps_within(problem.axes, _budget(kernel))
    for data, result in row_tiles(kernel, [problem.data, problem.result], free):
        lead = len(data.dims) - free
        for pieces in all_strips(kernel, problem.axes, steps):
            rows = math.prod(data.sizes[:lead])
            spans = [piece.axis.length(piece.count) for piece in pieces]
            tile = kernel.sbuf((rows, *spans), problem.fold.dtype)
            load_halo(kernel, tile, data, pieces, problem.fold.neutral)
            for d, piece in enumerate(pieces):
                tile = _slide(kernel, problem.fold, tile, d, piece.axis.window, piece.count)
            out = result
            for d, piece in enumerate(pieces):
                out = out.cut(lead + d, piece.start, piece.count)
            _finish(kernel, problem, out, tile)


def _budget(kernel: Kernel) -> int:
    """Elements of a tile with halo such that its intermediate results fit beside it in every rotating copy."""
    return min(TILE_ELEMENTS, kernel.sbuf_free_bytes // (F32.byte_size * 5))


def _finish(kernel: Kernel, problem: _Problem, out: View, sums: Access) -> None:
    """Combine the initial value and store."""
    fold = problem.fold
    started = kernel.sbuf(sums.sizes, out.dtype if fold.dtype is F32 else fold.dtype)
    kernel.tensor_scalar(started.flat(), sums.flat(), fold.op, problem.initial.rows(0, sums.partitions), engine=fold.engine)
    _store(kernel, out, started)


def _store(kernel: Kernel, out: View, tile: Access) -> None:
    """Bring a tile in a fold's dtype to the result's and store it."""
    if tile.dtype is not out.dtype:
        tile = _rounded(kernel, tile, out.dtype) if tile.dtype is F32 else narrowed(kernel, tile, out.dtype)
    kernel.dma(out, unfolded(tile, out))


def _rounded(kernel: Kernel, tile: Access, dtype: DType) -> Access:
    narrow = kernel.sbuf(tile.sizes, dtype)
    kernel.copy(narrow.flat(), tile.flat())
    return narrow


def _slide(kernel: Kernel, fold: Fold, tile: Access, d: int, window: WindowDimension, count: int) -> Access:
    """Reduce windows along free dimension d of a row-major tile to `count` results."""
    sizes = [size for _, size in tile.dims]
    outer, length, inner = math.prod(sizes[:d]), sizes[d], math.prod(sizes[d + 1:])
    walk = tile.reshape(outer, length, inner)
    if window.size == 1 and length == count:
        return tile
    out = kernel.sbuf((tile.partitions, *sizes[:d], count, *sizes[d + 1:]), fold.dtype)
    place = out.reshape(outer, count, inner)
    if window.size == 1:
        kernel.copy(place, walk.cut(1, 0, count, window.stride))
    elif window.size * count > 4 * window.size.bit_length() * length:
        _slide_wide(kernel, fold, walk, place, window)
    else:
        _slide_short(kernel, fold, walk, place, window)
    return out


def _slide_short(kernel: Kernel, fold: Fold, walk: Access, out: Access, window: WindowDimension) -> None:
    """One reduction over the cells of each window, cut where the operand has too many elements."""
    (far, outer), (step, _), (near, inner) = walk.dims
    sizes = (outer, out.dims[1][1], inner)
    cells = replace(walk, dims=((far, outer), (step * window.stride, sizes[1]), (near, inner),
                                (step * window.window_dilation, window.size)))
    most = kernel.target.sbuf.operand_elements_max
    d = sizes.index(max(sizes))
    for start, size in kernel.tiles(sizes[d], max(1, most * sizes[d] // (math.prod(sizes) * window.size))):
        kernel.tensor_reduce(out.cut(d, start, size).flat(), cells.cut(d, start, size), fold.op, 1, engine=fold.engine)


def _slide_wide(kernel: Kernel, fold: Fold, walk: Access, out: Access, window: WindowDimension) -> None:
    """Windows of any size from windows of 1, 2, 4, ... cells."""
    outer, count, inner = (size for _, size in out.dims)
    spare = [kernel.sbuf((walk.partitions, outer, walk.dims[1][1], inner), fold.dtype) for _ in range(2)]
    doubled, width, covered = walk, 1, 0
    while True:
        if window.size & width:
            piece = doubled.cut(1, covered * window.window_dilation, count, window.stride)
            if covered:
                fold.combine(kernel, out, out, piece)
            else:
                kernel.copy(out, piece)
            covered += width
        if covered == window.size:
            return
        shift = width * window.window_dilation
        length = doubled.dims[1][1] - shift
        wider = spare[0].cut(1, 0, length)
        fold.combine(kernel, wider, doubled.cut(1, 0, length), doubled.cut(1, shift, length))
        spare.reverse()
        doubled, width = wider, width * 2


# ---- outputs of a windowed dimension on partitions ---------------------------------------------------------------------


def _reach(view: View, d: int) -> int | None:
    """Bytes between neighbours along a dimension; None if there are none."""
    stride, size = view.dims[d]
    return abs(stride) if size > 1 else None


def _channels(problem: _Problem) -> int | None:
    """The dimension that is fastest in memory, if it has no window."""
    reaches = {d: reach for d in range(len(problem.data.dims)) if (reach := _reach(problem.data, d)) is not None}
    fastest = min(reaches, key=lambda d: reaches[d], default=None)
    return fastest if fastest is not None and fastest < len(problem.data.dims) - len(problem.axes) else None


def _prefers_row_axis(problem: _Problem) -> bool:
    if not problem.axes or _channels(problem) is None:
        return False
    axis = problem.axes[0]
    return axis.window.base_dilation == 1 and axis.window.size <= ROW_TAPS and axis.out > 1


def _reduce_by_row_axis(kernel: Kernel, problem: _Problem) -> None:
    """The first windowed dimension's outputs on partitions; its window cells, the other windows and the channels along them."""
    lead = len(problem.data.dims) - len(problem.axes)
    channels = _channels(problem)
    assert channels is not None
    outer = [d for d in range(lead) if d != channels]
    order = (*outer, *range(lead, len(problem.data.dims)), channels)
    first, others = problem.axes[0], problem.axes[1:]
    budget = _budget(kernel) // first.window.size
    least = math.prod(axis.length(1) for axis in others)
    width = max(1, min(problem.data.sizes[channels], budget // least))
    steps = steps_within(others, budget // width)
    for data, result in loops(kernel, [problem.data.permute(order), problem.result.permute(order)], len(outer)):
        last = len(data.dims) - 1
        for c, size in kernel.tiles(data.sizes[last], width):
            for strip in strips(kernel, first, kernel.target.partitions):
                for pieces in all_strips(kernel, others, steps):
                    _row_axis_tile(kernel, problem, data.cut(last, c, size), result.cut(last, c, size), [strip, *pieces])


def _row_axis_tile(kernel: Kernel, problem: _Problem, data: View, result: View, pieces: Sequence[Strip]) -> None:
    """One tile of result [first.., others.., channels]."""
    first, *others = pieces
    taps = first.axis.window.size
    spans = [piece.axis.length(piece.count) for piece in others]
    tile = kernel.sbuf((first.count, taps, *spans, data.sizes[-1]), problem.fold.dtype)
    if not all(piece.is_whole for piece in pieces):
        kernel.memset(tile.flat(), problem.fold.neutral)
    for tap in range(taps):
        _load_tap(kernel, tile.at(0, tap), data, pieces, tap)
    sums = _slide(kernel, problem.fold, tile, 0, WindowDimension(taps), 1)
    for d, piece in enumerate(others):
        sums = _slide(kernel, problem.fold, sums, 1 + d, piece.axis.window, piece.count)
    out = result
    for d, piece in enumerate(pieces):
        out = out.cut(d, piece.start, piece.count)
    _finish(kernel, problem, out, sums)


def _load_tap(kernel: Kernel, tile: Access, data: View, pieces: Sequence[Strip], tap: int) -> None:
    """Into row o of tile [outputs, spans.., channels], the element that window cell `tap` of output o covers, if it exists."""
    first, *others = pieces
    window = first.axis.window
    offset = first.first * window.stride - window.padding_low + tap * window.window_dilation
    low = max(0, -(offset // window.stride))
    high = min(first.count, (first.axis.size - 1 - offset) // window.stride + 1)
    if high <= low:
        return
    moved = (first.start - first.first) * window.stride
    rows = data.cut(0, moved + (offset + low * window.stride), high - low, window.stride)
    destination, source = halo(tile.rows(low, high - low).linear(), rows, 1, others)
    kernel.dma(destination, source)


# ---- windows back to the beginning -------------------------------------------------------------------------------------


def _cumulate(kernel: Kernel, problem: _Problem) -> None:
    """A scan along the windowed dimension, piece by piece; each piece begins with what the one before ended with."""
    problem = _with_rows(problem)
    axis, fold = problem.axes[0], problem.fold
    backwards = axis.window.padding_low == 0
    ones = kernel.sbuf((kernel.target.partitions, 1), F32)
    kernel.memset(ones, 1.0)
    for data, result in row_tiles(kernel, [problem.data, problem.result], 1):
        last = len(data.dims) - 1
        rows = math.prod(data.sizes[:last])
        carry = kernel.sbuf((rows, 1), fold.dtype)
        kernel.copy(carry, problem.initial.rows(0, rows))
        for start, size in kernel.tiles(axis.size, min(SCAN_COLUMNS, axis.size)):
            place = expr(axis.size - size) - start if backwards else start
            piece, out = data.cut(last, place, size), result.cut(last, place, size)
            tile = kernel.sbuf((rows, size), fold.dtype)
            kernel.dma(unfolded(tile, piece), piece)
            sums = kernel.sbuf((rows, size), fold.dtype)
            source, target = (_reversed(tile), _reversed(sums)) if backwards else (tile, sums)
            if fold.dtype is F32:
                weight = replace(ones.rows(0, rows), dims=((0, size),))
                kernel.emit(isa.vector.TENSOR_TENSOR_SCAN, fields={"op0": fold.op, "op1": "multiply"},
                            a=source, b=weight, out=target, initial=carry)
            else:
                _scan_integers(kernel, fold, source, target, carry)
            kernel.copy(carry, target.cut(0, size - 1, 1))
            _store(kernel, out, sums)


def _reversed(tile: Access) -> Access:
    size = tile.dims[0][1]
    return tile.cut(0, size - 1, size, -1)


def _scan_integers(kernel: Kernel, fold: Fold, data: Access, out: Access, carry: Access) -> None:
    """out = data combined with everything before it, reaching 1, 2, 4, ... columns back; the scan instruction is not exact."""
    size = data.dims[0][1]
    reach, current = 1, data
    spare = [kernel.sbuf((data.partitions, size), fold.dtype) for _ in range(2)]
    while reach < size:
        farther = spare[0]
        kernel.copy(farther.cut(0, 0, reach), current.cut(0, 0, reach))
        fold.combine(kernel, farther.cut(0, reach, size - reach), current.cut(0, reach, size - reach),
                     current.cut(0, 0, size - reach))
        spare.reverse()
        current, reach = farther, reach * 2
    kernel.tensor_scalar(out, current, fold.op, carry, engine=fold.engine)
