"""Conversions of values to another float type: at compile time where they can be, else where they cost least.

A conversion moves up through operators that only move data, so that a weight is cast as it is stored and an activation where
it is made. Reading a value again in the type that it came from needs no conversion.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.builder import Builder, clone_instruction
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.literals import Array, DerivedLiteral, Literal
from nxcc.ir.shapes import Shape
from nxcc.passes.patterns import holds_exactly

_finfo: Any = ml_dtypes.finfo

VIEWS = frozenset(("reshape", "transpose", "broadcast", "reverse", "copy"))
"""Operators that keep every element, or repeat it: a conversion may stand before them."""

HELD_BYTES = 4096
"""Casts of constants up to this size are computed at once."""


class Casts:
    """The casts of one computation to one type; each value is cast once. The builder's names are shared with others."""

    def __init__(self, builder: Builder, dtype: DType) -> None:
        self.builder = builder
        self.computation = builder.computation
        self.dtype = dtype
        self._found: dict[Instruction, Instruction] = {}

    def of(self, value: Instruction) -> Instruction:
        """The value in this type; itself if it has it."""
        chain = [value]
        while chain[-1] not in self._found and chain[-1].shape.dtype is not self.dtype and chain[-1].opcode in VIEWS:
            chain.append(chain[-1].operands[0])
        source = chain.pop()
        cast = source if source.shape.dtype is self.dtype else self._found.get(source)
        if cast is None:
            cast = self._found[source] = self._source(source)
        for view in reversed(chain):
            moved = clone_instruction(view, [cast], name=self.builder.unique_name(view.name))
            moved.shape = view.shape.with_dtype(self.dtype)
            cast = self._found[view] = self.computation.add(moved)
        return cast

    def _source(self, value: Instruction) -> Instruction:
        self.builder.location = value.location
        if value.opcode == "constant":
            return self.builder.literal(cast_literal(value.attributes["literal"], self.dtype), f"{value.name}.{self.dtype}")
        if value.opcode == "convert" and holds_exactly(value.operands[0].shape.dtype, value.shape.dtype) and (
                value.operands[0].shape.dtype is self.dtype):
            return value.operands[0]
        return self.builder.convert(value, self.dtype)


def cast_literal(literal: Literal, dtype: DType) -> Literal:
    """The literal in a smaller float type, nearest even; what is finite stays finite, since masks hold the lowest float.

    A large one is cast each time it is read, so that weights are never held twice.
    """
    shape = Shape(dtype, literal.shape.dims)
    if literal.is_splat:
        value = cast_array(np.asarray(literal.splat_value), dtype)
        return Literal(shape, np.broadcast_to(value, shape.dims))
    if shape.byte_size <= HELD_BYTES:
        return Literal(shape, cast_array(literal.array, dtype))
    return DerivedLiteral(shape, literal, cast=lambda array: cast_array(array, dtype))


def cast_array(array: Array, dtype: DType) -> Array:
    """Nearest even; finite values beyond the range become the largest finite one."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = array.astype(dtype.numpy)
    beyond = np.isinf(found) & np.isfinite(array)
    if not beyond.any():
        return found
    return np.where(beyond, np.copysign(largest(dtype), array).astype(dtype.numpy), found)


def largest(dtype: DType) -> float:
    """The largest finite value of a float type."""
    return float(_finfo(dtype.numpy).max)
