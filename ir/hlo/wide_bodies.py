"""A combiner in f32 where it computes with narrower floats, whose results a reduction rounds once, at its end.

Before, for bf16 sums of an array beside another one:
  s = bf16[] add(a, x)    ROOT r = (bf16[], s32[]) tuple(s, n)
After:
  s = f32[] add(a, x)     ROOT r = (f32[], s32[]) tuple(s, n)

XLA takes sums of bf16 and f16 so, and leaves the order open, in which roundings on the way would be seen. A conversion to a
narrow type that the combiner asks for is made. What only chooses among values is left as it is.
"""

from __future__ import annotations

import numpy as np

from nxcc.ir.dtypes import F32, DType
from nxcc.ir.hlo.builder import Builder, clone_instruction
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.shapes import Shape, tuple_of

EXACT = frozenset((
    "parameter", "constant", "tuple", "get-tuple-element", "maximum", "minimum", "select", "clamp", "negate", "abs", "sign",
    "copy", "reshape", "bitcast", "broadcast", "convert", "floor", "ceil", "round-nearest-even", "round-nearest-afz",
    "reduce-precision", "opt-barrier"))
"""Operators whose results need no more bits than their operands."""
CALLS = frozenset(("call", "fusion", "map"))
DEEPEST = 16
"""Calls inside calls that are followed."""


def widened(computation: Computation) -> Computation | None:
    """The combiner on f32 instead of narrower floats, in no module; None if it would give the same, or looks at their bits."""
    bodies = _called(computation)
    if bodies is None or not any(_rounds(i) for body in bodies for i in body.instructions):
        return None
    made: dict[Computation, Computation] = {}
    for body in reversed(bodies):
        made[body] = _wide(body, made)
    return made[computation]


def widened_dtype(dtype: DType) -> DType:
    return F32 if dtype.is_float and dtype.bits < F32.bits else dtype


def _called(computation: Computation) -> list[Computation] | None:
    """The computation and what it calls, callers first; None if there is more to it than scalars and calls."""
    found: dict[Computation, None] = {}
    level = [computation]
    for _ in range(DEEPEST):
        for body in level:
            found.pop(body, None)
            found[body] = None
        level = [i.called[0] for body in level for i in body.instructions if i.opcode in CALLS]
        if not level:
            return list(found) if all(map(_is_plain, found)) else None
    return None


def _is_plain(body: Computation) -> bool:
    return all((not i.called or i.opcode in CALLS) and i.opcode != "bitcast-convert" and
               all(leaf.is_array and not leaf.dims for leaf in i.shape.leaves()) for i in body.instructions)


def _rounds(instruction: Instruction) -> bool:
    shape = instruction.shape
    return shape.is_array and widened_dtype(shape.dtype) is not shape.dtype and instruction.opcode not in EXACT | CALLS


def _wide(body: Computation, made: dict[Computation, Computation]) -> Computation:
    copy = Computation(body.name)
    builder = Builder(copy)
    copies: dict[Instruction, Instruction] = {}
    for old in body.post_order():
        copies[old] = _copy(old, [copies[o] for o in old.operands], made, builder)
    copy.root = copies[body.root]
    return copy


def _copy(old: Instruction, operands: list[Instruction], made: dict[Computation, Computation], builder: Builder) -> Instruction:
    shape = _wide_shape(old.shape)
    if old.opcode == "constant" and shape is not old.shape:
        return builder.constant(np.asarray(old.attribute("literal").array).astype(shape.dtype.numpy))
    if old.opcode == "convert":
        if shape is old.shape:
            return operands[0] if operands[0].shape.dtype is shape.dtype else builder.convert(operands[0], shape.dtype)
        return builder.convert(builder.convert(operands[0], old.shape.dtype), shape.dtype)
    new = clone_instruction(old, operands, [made[c] for c in old.called], name=builder.unique_name(old.name))
    new.shape = shape
    return builder.computation.add(new)


def _wide_shape(shape: Shape) -> Shape:
    if shape.is_tuple:
        return tuple_of(*map(_wide_shape, shape.elements))
    wide = widened_dtype(shape.dtype)
    return shape if wide is shape.dtype else Shape(wide, shape.dims)
