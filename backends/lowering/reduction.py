"""Reductions: one array, a combiner that is one operator; kept dimensions are rows, reduced ones columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.elementwise import tile_width
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.tiling import load, row_tiles, store
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32, PRED, U8, DType
from nxcc.ir.hlo.module import Computation, Instruction

COMBINERS = {"add": "add", "multiply": "multiply", "maximum": "maximum", "minimum": "minimum", "and": "bitwise_and",
             "or": "bitwise_or", "xor": "bitwise_xor"}
"""HLO operator of a combiner -> reduction operator of the engines."""


def combiner(computation: Computation) -> str | None:
    """The engines' operator for a combiner of two parameters, or None if it is anything else."""
    root = computation.root
    if len(computation.parameters) != 2 or root.opcode not in COMBINERS:
        return None
    if {o.opcode for o in root.operands} != {"parameter"} or root.operands[0] is root.operands[1]:
        return None
    op = COMBINERS[root.opcode]
    if root.shape.dtype is PRED:
        return {"add": "bitwise_or", "maximum": "bitwise_or", "multiply": "bitwise_and", "minimum": "bitwise_and"}.get(op, op)
    return op


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    if len(instruction.operands) != 2:
        return "a reduction of several arrays at once has no lowering"
    if combiner(instruction.called[0]) is None:
        return "the combiner is not a single operator"
    return None


def engine_for(dtype: DType) -> Engine:
    """GpSimd computes 32-bit integers natively; everything else is exact, or float, on Vector."""
    return Engine.GPSIMD if dtype.is_integer and dtype.bits == 32 else Engine.VECTOR


def accumulator(dtype: DType) -> DType:
    """The dtype in which sums are kept: narrow floats in f32, pred as its byte."""
    if dtype.is_float:
        return F32
    return U8 if dtype is PRED else dtype


def emit_row_reduce(kernel: Kernel, instruction: Instruction, data: Access, out: Access) -> None:
    """out[r] = init combined with data[r, :]; the initial value must be a constant (see rows_reducible)."""
    op = combiner(instruction.called[0])
    assert op is not None
    initial = instruction.operands[1].attributes["literal"].splat_value
    dtype = instruction.shape.dtype
    wide = accumulator(dtype)
    source = data.retype(U8) if dtype is PRED else data
    sums = kernel.sbuf((data.partitions, 1), wide)
    kernel.tensor_reduce(sums, source.flat(), op, len(source.flat().dims), engine=engine_for(dtype))
    kernel.tensor_scalar(out.retype(U8) if dtype is PRED else out, sums, op, float(initial), engine=engine_for(dtype))


@rule("reduce", unsupported=_unsupported)
def lower_reduce(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Rows on partitions; long rows in pieces whose partial results are combined as they come."""
    data, initial = operands
    result = results[0]
    op = combiner(instruction.called[0])
    assert op is not None
    dtype = instruction.shape.dtype
    if dtype is PRED:
        data, initial, result = data.retype(U8), initial.retype(U8), result.retype(U8)
    dims = instruction.attribute("dimensions")
    kept = [d for d in range(len(data.dims)) if d not in dims]
    rows = data.permute((*kept, *dims))
    if not kept:
        rows, result, kept = rows.insert(0), result.insert(0), [0]
    width = tile_width(kernel, 4) * 4
    split = _chunked(rows, len(kept), width)
    wide = accumulator(result.dtype)
    for piece, out in row_tiles_pair(kernel, rows, result, len(kept)):
        count = math.prod(out.sizes)
        sums = kernel.sbuf((count, 1), wide)
        first = View(initial.memory, initial.dtype, initial.address, tuple((0, n) for n in out.sizes))
        start = load(kernel, View(first.memory, first.dtype, first.address, ((0, count), (0, 1))))
        kernel.copy(sums, start, engine_for(wide))
        _fold(kernel, piece, len(out.dims), split, op, sums)
        if wide is out.dtype:
            store(kernel, _with_column(out), sums)
        else:
            cast = kernel.sbuf((count, 1), out.dtype)
            kernel.copy(cast, sums)
            store(kernel, _with_column(out), cast)


def _with_column(view: View) -> View:
    return view.insert(len(view.dims))


def _chunked(rows: View, kept: int, width: int) -> int:
    """How many trailing reduced dimensions fit into one tile of `width` columns."""
    count, columns = 0, 1
    while count < len(rows.dims) - kept and columns * rows.sizes[-1 - count] <= width:
        columns *= rows.sizes[-1 - count]
        count += 1
    return count


def row_tiles_pair(kernel: Kernel, rows: View, result: View, kept: int):  # type: ignore[no-untyped-def]
    """Tiles of at most 128 rows of both; the reduced dimensions of `rows` stay whole."""
    padded = result
    for _ in range(len(rows.dims) - kept):
        padded = padded.insert(len(padded.dims))
    reduced = len(rows.dims) - kept
    for piece, out in row_tiles(kernel, [rows, padded], reduced):
        yield piece, View(out.memory, out.dtype, out.address, out.dims[:len(out.dims) - reduced])


def _fold(kernel: Kernel, piece: View, leading: int, whole: int, op: str, sums: Access) -> None:
    """Combine all columns of a tile of rows into sums, in pieces that fit."""
    free = len(piece.dims) - leading
    if free > whole:
        size = piece.sizes[leading]
        step = max(1, tile_width(kernel, 4) * 4 // math.prod(piece.sizes[leading + 1:])) if free == whole + 1 else 1
        for start, count in kernel.tiles(size, min(step, size)):
            cut = piece.cut(leading, start, count)
            if free == whole + 1:
                _combine(kernel, cut, leading, op, sums)
            else:
                _fold(kernel, cut.at(leading, 0), leading, whole, op, sums)
        return
    _combine(kernel, piece, leading, op, sums)


def _combine(kernel: Kernel, piece: View, leading: int, op: str, sums: Access) -> None:
    tile = load(kernel, piece, leading=leading)
    part = kernel.sbuf((sums.partitions, 1), sums.dtype)
    engine = engine_for(sums.dtype)
    kernel.tensor_reduce(part, tile, op, 1, engine=engine)
    kernel.tensor_tensor(sums, sums, part, op, engine)
