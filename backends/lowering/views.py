"""Instructions that only rearrange data by strides: their value is a view of the operand and costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nxcc.backends.tile.program import View
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import find
from nxcc.ir.hlo.ops.opaque import TARGETS
from nxcc.ir.shapes import Shape


def _reshape(instruction: Instruction, view: View) -> View | None:
    return view.reshape(instruction.shape.dims)


def _transpose(instruction: Instruction, view: View) -> View:
    return view.permute(instruction.attribute("dimensions"))


def _broadcast(instruction: Instruction, view: View) -> View:
    dims = [(0, size) for size in instruction.shape.dims]
    for source, target in enumerate(instruction.attribute("dimensions")):
        dims[target] = view.dims[source]
    return View(view.memory, view.dtype, view.address, tuple(dims))


def _slice(instruction: Instruction, view: View) -> View:
    for dim, (piece, size) in enumerate(zip(instruction.attribute("slice"), instruction.shape.dims, strict=True)):
        view = view.cut(dim, piece.start, size, piece.stride)
    return view


def _reverse(instruction: Instruction, view: View) -> View:
    for dim in instruction.attribute("dimensions"):
        size = view.dims[dim][1]
        view = view.cut(dim, max(size - 1, 0), size, -1)
    return view


def _same(instruction: Instruction, view: View) -> View:
    return view


def _bitcast(instruction: Instruction, view: View) -> View | None:
    """A bitcast between row-major layouts of one width is a reshape; others move data between layouts."""
    source, result = instruction.operands[0].shape, instruction.shape
    plain = all(s.layout is None or s.layout.is_row_major for s in (source, result))
    if not plain or source.dtype is not result.dtype:
        return None
    return view.reshape(result.dims)


def _bitcast_convert(instruction: Instruction, view: View) -> View | None:
    dtype = instruction.shape.dtype
    return view.retype(dtype) if dtype.bits == view.dtype.bits == 8 * dtype.byte_size else None


def _custom_call(instruction: Instruction, view: View) -> View | None:
    """Markers and annotations pass their one operand through."""
    row = TARGETS.get(instruction.attribute("custom_call_target"))
    same = len(instruction.operands) == 1 and instruction.shape == instruction.operands[0].shape
    return view if row is not None and row.identity and same else None


_VIEWS: dict[str, Callable[[Instruction, View], View | None]] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast": _broadcast,
    "slice": _slice,
    "reverse": _reverse,
    "copy": _same,
    "bitcast": _bitcast,
    "bitcast-convert": _bitcast_convert,
    "custom-call": _custom_call,
}


def as_view(instruction: Instruction, operands: Sequence[View | None]) -> View | None:
    """The instruction's value as a view of its operand, or None if data must be computed or moved."""
    rule = _VIEWS.get(instruction.opcode)
    if rule is None or not operands or operands[0] is None:
        return None
    return rule(instruction, operands[0])


VIEW_OPCODES = frozenset(_VIEWS) - {"custom-call"}
"""Opcodes that are views as such; a custom call is one only by its target."""


def copy_view(source: View, destination: View) -> Instruction:
    """A copy instruction for moving one view into another, for regions that the generator itself needs."""
    return Instruction("copy", find("copy"), Shape(destination.dtype, destination.sizes))
