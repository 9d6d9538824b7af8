"""Values of all turns of a loop at once: how each operator works on operands that have one more dimension, the last.

A value is the same in all turns (`Turned.last` false) or has a place along its last dimension for each turn. The turns are
the last dimension because it lies together in memory: a row of a tile then holds one element of a value in many turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import PaddingDimension, SliceDimension
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import Shape


@dataclass(frozen=True, slots=True)
class Turned:
    """value: in the computation around the loop. last: whether its last dimension is the turns."""

    value: Instruction
    last: bool


Batch = Callable[[Instruction, Sequence[Turned], int, Builder], Instruction | None]
"""batch(instruction, operands, turns, builder) -> its value in all turns; at least one operand has one; None: not known how."""


def in_all_turns(instruction: Instruction, operands: Sequence[Turned], turns: int, builder: Builder) -> Turned | None:
    """An instruction of the loop's body in all turns; None if its operator does not work on turns."""
    if not any(operand.last for operand in operands):
        return Turned(_same(instruction, [o.value for o in operands], instruction.shape, builder), False)
    batch = _elementwise if instruction.operator.elementwise else _BATCHES.get(instruction.opcode)
    made = batch(instruction, operands, turns, builder) if batch is not None else None
    return None if made is None else Turned(made, True)


def spread(value: Turned, dims: Sequence[int], turns: int, builder: Builder) -> Instruction:
    """A value of sizes `dims`, or one element for all of them, in each turn."""
    if value.last and len(value.value.shape.dims) == len(dims) + 1:
        return value.value
    rank = len(dims)
    places = ((rank,) if value.last else ()) if rank and len(value.value.shape.dims) == value.last else tuple(range(rank))
    return builder.broadcast(value.value, (*dims, turns), places)


def _same(instruction: Instruction, operands: Sequence[Instruction], shape: Shape, builder: Builder,
          **changed: object) -> Instruction:
    attributes = {**instruction.attributes, **changed}
    return builder.make(instruction.opcode, *operands, shape=shape, called=instruction.called, **attributes)


def _longer(shape: Shape, turns: int) -> Shape:
    return Shape(shape.dtype, (*shape.dims, turns))


def _elementwise(instruction: Instruction, operands: Sequence[Turned], turns: int, builder: Builder) -> Instruction:
    """Scalars that select and clamp take beside arrays are spread too."""
    dims = instruction.shape.dims
    return _same(instruction, [spread(o, dims, turns, builder) for o in operands], _longer(instruction.shape, turns), builder)


def _broadcast(instruction: Instruction, operands: Sequence[Turned], turns: int, builder: Builder) -> Instruction:
    rank = instruction.shape.rank
    return builder.broadcast(operands[0].value, (*instruction.shape.dims, turns), (*instruction.attribute("dimensions"), rank))


def _reshape(instruction: Instruction, operands: Sequence[Turned], turns: int, builder: Builder) -> Instruction:
    return builder.reshape(operands[0].value, (*instruction.shape.dims, turns))


def _transpose(instruction: Instruction, operands: Sequence[Turned], turns: int, builder: Builder) -> Instruction:
    return builder.transpose(operands[0].value, (*instruction.attribute("dimensions"), instruction.shape.rank))


def _reverse(instruction: Instruction, operands: Sequence[Turned], turns: int, builder: Builder) -> Instruction:
    return _same(instruction, [operands[0].value], _longer(instruction.shape, turns), builder)


def _slice(instruction: Instruction, operands: Sequence[Turned], turns: int, builder: Builder) -> Instruction:
    return builder.make("slice", operands[0].value, slice=(*instruction.attribute("slice"), SliceDimension(0, turns, 1)))


def _concatenate(instruction: Instruction, operands: Sequence[Turned], turns: int, builder: Builder) -> Instruction:
    wide = [spread(o, i.shape.dims, turns, builder) for o, i in zip(operands, instruction.operands, strict=True)]
    return _same(instruction, wide, _longer(instruction.shape, turns), builder)


def _pad(instruction: Instruction, operands: Sequence[Turned], turns: int, builder: Builder) -> Instruction | None:
    data, value = operands
    if value.last:
        return None
    return builder.make("pad", data.value, value.value, padding=(*instruction.attribute("padding"), PaddingDimension(0, 0, 0)))


def _reduce(instruction: Instruction, operands: Sequence[Turned], turns: int, builder: Builder) -> Instruction | None:
    """One array or several; what they begin with is the same in all turns."""
    count = len(operands) // 2
    if not instruction.shape.is_array or any(o.last for o in operands[count:]):
        return None
    arrays = [spread(o, i.shape.dims, turns, builder) for o, i in zip(operands[:count], instruction.operands, strict=False)]
    return _same(instruction, [*arrays, *(o.value for o in operands[count:])], _longer(instruction.shape, turns), builder)


def _dot(instruction: Instruction, operands: Sequence[Turned], turns: int, builder: Builder) -> Instruction:
    """Turns of one operand are free dimensions of it; those of both are a batch dimension, which comes first in the result."""
    left, right = operands
    rank = instruction.shape.rank
    keys = ("lhs_batch_dims", "rhs_batch_dims")
    changed: dict[str, object] = {}
    if left.last and right.last:
        for key, operand in zip(keys, operands, strict=True):
            changed[key] = (operand.value.shape.rank - 1, *instruction.attribute(key))
        place = 0
    elif left.last:
        right_batch, right_contracted = (len(instruction.attribute(f"rhs_{kind}_dims")) for kind in ("batch", "contracting"))
        place = rank - (right.value.shape.rank - right_batch - right_contracted)
    else:
        place = rank
    dims = (*instruction.shape.dims[:place], turns, *instruction.shape.dims[place:])
    made = _same(instruction, [left.value, right.value], Shape(instruction.shape.dtype, dims), builder, **changed)
    order = [d for d in range(rank + 1) if d != place]
    return made if place == rank else builder.transpose(made, (*order, place))


_BATCHES: dict[str, Batch] = {
    "broadcast": _broadcast, "reshape": _reshape, "transpose": _transpose, "reverse": _reverse, "slice": _slice,
    "concatenate": _concatenate, "pad": _pad, "reduce": _reduce, "dot": _dot,
}
