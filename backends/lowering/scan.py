"""Linear recurrences h' = a * h + b along one dimension, on the scan instruction of Vector: rows side by side on partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nxcc.backends.isa import instructions as isa
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.tiling import load, row_tiles, store
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.recurrences import is_linear_recurrence

COLUMNS = 2048
"""Steps of one instruction; the next one goes on where it ended."""


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    if is_linear_recurrence(instruction):
        return None
    return "only linear recurrences h' = a * h + b in f32 are scanned on the device"


@rule("scan", unsupported=_unsupported)
def scan(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Operands a, b, start; results every h' and the last one."""
    d = instruction.attribute("dimensions")[0]
    reverse = bool(instruction.attribute("is_reverse"))
    a, b, start = operands
    order = (*(i for i in range(len(a.dims)) if i != d), d)
    a, b, out = (view.permute(order) for view in (a, b, results[0]))
    if len(order) == 1:
        a, b, out, start, last = (view.insert(0) for view in (a, b, out, start, results[1]))
    else:
        last = results[1]
    steps = a.sizes[-1]
    for tiles in row_tiles(kernel, [a, b, out, start.insert(len(order) - 1), last.insert(len(order) - 1)], 1):
        carry = load(kernel, tiles[3], leading=len(tiles[3].dims) - 1)
        for piece, size in kernel.tiles(steps, min(COLUMNS, steps)):
            place = expr(steps - size) - piece if reverse else piece
            factors, terms, target = (view.cut(len(view.dims) - 1, place, size) for view in tiles[:3])
            h = kernel.sbuf((carry.partitions, size), F32)
            kernel.emit(isa.vector.TENSOR_TENSOR_SCAN, fields={"op0": "multiply", "op1": "add"},
                        a=_ordered(_row(kernel, factors), reverse), b=_ordered(_row(kernel, terms), reverse),
                        out=_ordered(h, reverse), initial=carry)
            kernel.copy(carry, h.cut(0, 0 if reverse else size - 1, 1))
            store(kernel, target, h)
        store(kernel, tiles[4], carry)


def _row(kernel: Kernel, view: View) -> Access:
    """The view's steps in a tile; one that repeats is loaded once a row."""
    last = len(view.dims) - 1
    if view.dims[last][0]:
        return load(kernel, view, leading=last)
    tile = load(kernel, view.cut(last, 0, 1), leading=last)
    return replace(tile, dims=((0, view.sizes[last]),))


def _ordered(tile: Access, reverse: bool) -> Access:
    size = tile.dims[0][1]
    return tile.cut(0, size - 1, size, -1) if reverse else tile
