"""Single elementwise instructions as regions: load tiles, compute by the pointwise rule, store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nxcc.backends.lowering.pointwise.formulas import REASONS, TEMPORARIES, emits
from nxcc.backends.lowering.registry import always, rule
from nxcc.backends.lowering.tiling import flat_tiles, fold, load, memory_order, store, tile_like
from nxcc.backends.lowering.turning import unlike_the_first
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.module import Instruction

WIDTH_MAX = 2048
"""Columns of a tile at most: beyond it a longer free size no longer hides fixed costs."""


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    reason = REASONS.get(instruction.opcode)
    return reason(instruction, target) if reason else None


def tile_width(kernel: Kernel, tiles: int) -> int:
    """Columns that leave room for so many 4-byte tiles."""
    return max(1, min(WIDTH_MAX, kernel.sbuf_free_bytes // (4 * max(tiles, 1)) // 64 * 64))


def _lies(instruction: Instruction, operands: Sequence[View | None]) -> Iterable[tuple[int, Sequence[int]]]:
    return unlike_the_first(instruction.shape.dims, operands)


@rule(*(opcode for opcode in emits() if opcode != "copy"), unsupported=_unsupported, follows=always, lies=_lies)
def lower_elementwise(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """One pass over the elements as the result lies; scalar operands of clamp and select repeat along all dimensions."""
    result = results[0]
    views = [operand if operand.sizes == result.sizes else _repeat(operand, result) for operand in operands]
    width = tile_width(kernel, len(views) + 1 + TEMPORARIES[instruction.opcode])
    order = memory_order(result)
    for *inputs, out in flat_tiles(kernel, [view.permute(order) for view in (*views, result)], width):
        whole = [not _is_column(view, out) for view in inputs]
        tiles = [load(kernel, view) if keep or not any(whole) and view is inputs[0] else _load_column(kernel, view, out)
                 for view, keep in zip(inputs, whole, strict=True)]
        tile = tile_like(kernel, out)
        emits()[instruction.opcode](kernel, instruction, tiles, tile)
        store(kernel, out, tile)


def _leading(view: View) -> int:
    """How many dimensions of a tile's view are its rows (see `fold`)."""
    rows, leading = fold(view)[0], 0
    while math.prod(view.sizes[:leading]) < rows:
        leading += 1
    return leading


def _is_column(view: View, out: View) -> bool:
    """Whether an operand has one element for each row of the tile, which a transfer would fetch again for each column."""
    columns = view.dims[_leading(out):]
    return math.prod(size for _, size in columns) > 1 and all(stride == 0 or size == 1 for stride, size in columns)


def _load_column(kernel: Kernel, view: View, out: View) -> Access:
    """A column [rows, 1] that repeats along the tile."""
    leading = _leading(out)
    column = View(view.memory, view.dtype, view.address, (*view.dims[:leading], (view.dtype.byte_size, 1)))
    return load(kernel, column, leading=leading)


def _repeat(scalar: View, like: View) -> View:
    assert scalar.elements == 1
    return View(scalar.memory, scalar.dtype, scalar.address, tuple((0, size) for size in like.sizes))


@rule("bitcast-convert")
def lower_bitcast_convert(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Between widths: both sides as the narrower type, the wider one with a last dimension that counts its parts."""
    source, result = operands[0], results[0]
    narrow = min(source.dtype, result.dtype, key=lambda dtype: dtype.bits)
    kernel.dma(_parts(result, narrow), _parts(source, narrow))


def _parts(view: View, narrow: DType) -> View:
    size = narrow.byte_size
    ratio = view.dtype.byte_size // size
    dims = view.dims if ratio == 1 else (*view.dims, (size, ratio))
    return View(view.memory, narrow, view.address, dims)
