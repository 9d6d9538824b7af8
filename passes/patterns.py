"""What rules look for: values that are one number everywhere, and how the dimensions of a reshape correspond."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

from nxcc.ir.dtypes import DType, Kind
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction

_finfo: Any = ml_dtypes.finfo

Segment = tuple[tuple[int, ...], tuple[int, ...]]
"""Dimensions of the source and of the result of a reshape that hold the same elements between them."""


def splat_source(instruction: Instruction) -> Instruction | None:
    """The value of one element that an instruction repeats: it itself, or what a broadcast or reshape reads."""
    while instruction.opcode in ("broadcast", "reshape"):
        instruction = instruction.operands[0]
    return instruction if instruction.shape.is_array and instruction.shape.element_count == 1 else None


def splat_value(instruction: Instruction) -> Any:
    """The number that all elements of a value are known to be, as a numpy scalar; None if there is none."""
    source = splat_source(instruction)
    if source is None or source.opcode != "constant":
        return None
    return source.attributes["literal"].splat_value


def is_number(instruction: Instruction, number: float) -> bool:
    """Whether all elements are this number; a negative zero is not a zero."""
    value = splat_value(instruction)
    if value is None or not instruction.shape.dtype.is_float and not instruction.shape.dtype.is_integer:
        return False
    wide = float(value) if instruction.shape.dtype.is_float else int(value)
    return wide == number and (number != 0 or not instruction.shape.dtype.is_float or np.signbit(wide) == np.signbit(number))


def is_identity(permutation: Sequence[int]) -> bool:
    return all(i == p for i, p in enumerate(permutation))


@lru_cache(maxsize=4096)
def segments(source: tuple[int, ...], result: tuple[int, ...]) -> tuple[Segment, ...]:
    """The finest cut of two dimension lists of equal element count into runs that hold the same elements.

    Dimensions of size 1 pair with each other where they meet and stand alone elsewhere. No size may be 0.
    """
    found: list[Segment] = []
    i = j = 0
    while i < len(source) or j < len(result):
        s = source[i] if i < len(source) else 0
        r = result[j] if j < len(result) else 0
        if s == r:
            found.append(((i,), (j,)))
            i, j = i + 1, j + 1
        elif s == 1:
            found.append(((i,), ()))
            i += 1
        elif r == 1:
            found.append(((), (j,)))
            j += 1
        else:
            left, right = i + 1, j + 1
            while s != r:
                if s < r:
                    s, left = s * source[left], left + 1
                else:
                    r, right = r * result[right], right + 1
            found.append((tuple(range(i, left)), tuple(range(j, right))))
            i, j = left, right
    return tuple(found)


def broadcast_to(builder: Builder, x: Instruction, dims: Sequence[int], dimensions: Sequence[int]) -> Instruction:
    """A broadcast, or the operand itself where nothing is repeated or moved."""
    if x.shape.dims == tuple(dims) and is_identity(dimensions):
        return x
    return builder.broadcast(x, dims, dimensions)


def reshape_to(builder: Builder, x: Instruction, dims: Sequence[int]) -> Instruction:
    """A reshape, or the operand itself where it has these sizes."""
    return x if x.shape.dims == tuple(dims) else builder.reshape(x, dims)


def transpose_to(builder: Builder, x: Instruction, permutation: Sequence[int]) -> Instruction:
    """A transpose, or the operand itself where the order stays."""
    return x if is_identity(permutation) else builder.transpose(x, permutation)


@lru_cache(maxsize=1024)
def holds_exactly(narrow: DType, wide: DType) -> bool:
    """Whether every value of one element type is a value of the other."""
    if narrow is wide or narrow.kind is Kind.BOOL and (wide.is_integer or wide.is_float):
        return True
    if narrow.is_integer:
        value_bits = narrow.bits - narrow.is_signed
        if wide.is_integer:
            return (wide.is_signed or not narrow.is_signed) and value_bits <= wide.bits - wide.is_signed
        return wide.is_float and value_bits <= _mantissa(wide) and 2.0 ** value_bits <= float(_finfo(wide.numpy).max)
    if narrow.is_float and wide.is_float and narrow.bits < wide.bits:
        small, large = _finfo(narrow.numpy), _finfo(wide.numpy)
        return (_mantissa(narrow) <= _mantissa(wide) and float(small.max) <= float(large.max)
                and float(small.smallest_subnormal) >= float(large.smallest_subnormal))
    return False


def _mantissa(dtype: DType) -> int:
    """Bits of precision, the hidden one included."""
    return int(_finfo(dtype.numpy).nmant) + 1
