"""Fold large windows in few steps: windows of 2, 4, 8.. cells are two of half the size.

Before, where `c` is no single operator of the engines, as 64-bit sums or the logarithm of a sum of exponentials:
  r = s64[141] reduce-window(x, zero), window={size=141 pad=140_0}, to_apply=c
After:
  p = s64[281] pad(x, zero), padding=140_0    a = s64[280] add(p[:-1], p[1:])    b = s64[278] add(a[:-2], a[2:])    ..
  r = s64[141] add(zero, the windows of 128 cells, of 8, 4 and 1 behind them, joined)

What pads is what an operator leaves as it is, or takes no part: where one half of a window has no real cell, the other half
is the whole of it; which these are is known for each place. Groupings change, so that the computation must allow any. Windows
along several dimensions are folded one dimension after the other, for single operators only, which take their operands in any
order.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from nxcc.ir.dtypes import PRED, S64, U64, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.associativity import takes_any_grouping
from nxcc.ir.hlo.attributes import PaddingDimension, WindowDimension
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import plain_opcode
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.wide_bodies import widened
from nxcc.passes.rewriting import Rule, rewrite_module

Mask = np.ndarray[Any, np.dtype[np.bool_]]
"""Which places along a dimension have a real cell."""
Values = tuple[Instruction, ...]
Fold = Callable[[Values, Values], Values]

_WITHOUT = frozenset(("parameter", "constant", "tuple"))

_NEUTRAL: dict[str, Callable[[DType], int]] = {
    "add": lambda dtype: 0, "or": lambda dtype: 0, "xor": lambda dtype: 0, "multiply": lambda dtype: 1,
    "and": lambda dtype: int(np.array(-1).astype(dtype.numpy)), "maximum": lambda dtype: int(np.iinfo(dtype.numpy).min),
    "minimum": lambda dtype: int(np.iinfo(dtype.numpy).max)}
"""What single operators of integers leave as it is."""


@dataclass(frozen=True)
class ExpandWindows:
    """cells: of windows that the target folds cell by cell, at most; None: any. dtypes: that it has; empty: all."""

    cells: int | None
    dtypes: frozenset[DType] = frozenset()
    name: str = "expand-windows"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, {"reduce-window": (Rule("halves", ("reduce-window",), self._halves),)})

    def _halves(self, window: Instruction, builder: Builder) -> Instruction | None:
        if not self._is_wanted(window):
            return None
        computation = widened(window.called[0]) or window.called[0]
        fold, opcode = _folding(computation, builder), plain_opcode(computation)
        given = tuple(_as(value, parameter.shape.dtype, builder)
                      for value, parameter in zip(window.operands, computation.parameters, strict=True))
        values, starts = given[:len(given) // 2], given[len(given) // 2:]
        neutral = None if opcode is None else _NEUTRAL[opcode](values[0].shape.dtype)
        is_real = []
        for number, dim in enumerate(window.attribute("window").dims):
            values, along = _folded(_padded(values, number, dim, neutral, builder), number, dim, fold, builder)
            is_real.append(along)
        first = tuple(builder.broadcast(start, values[0].shape.dims) for start in starts)
        found = fold(first, values)
        for number, along in enumerate(is_real):
            found = _where(along, found, first, number, builder)
        found = tuple(_as(value, leaf.dtype, builder) for value, leaf in zip(found, window.shape.leaves(), strict=True))
        return found[0] if window.shape.is_array else builder.tuple(*found)

    def _is_wanted(self, window: Instruction) -> bool:
        dims = window.attribute("window").dims
        leaves = list(window.shape.leaves())
        if self.cells is None or prod(dim.size for dim in dims) <= self.cells or any(dim.reversal for dim in dims):
            return False
        if any(leaf.dynamic or not leaf.element_count for leaf in leaves) or any(o.shape.dynamic for o in window.operands):
            return False
        if self.dtypes and any(leaf.dtype not in self.dtypes for leaf in leaves):
            return False
        opcode = plain_opcode(window.called[0])
        if opcode is not None:
            return leaves[0].dtype in (S64, U64) or (opcode == "xor" and leaves[0].dtype is PRED)
        along = sum(dim.size > 1 for dim in dims)
        return along == 1 and _is_elementwise(window.called[0]) and takes_any_grouping(window.called[0])


def _as(value: Instruction, dtype: DType, builder: Builder) -> Instruction:
    return value if value.shape.dtype is dtype else builder.convert(value, dtype)


def _is_elementwise(computation: Computation) -> bool:
    """Whether it computes on numbers alone, each in a type that its results have on arrays as well."""
    return all(i.shape.is_tuple if i.opcode == "tuple" else i.shape.is_array and not i.called
               and (i.opcode in _WITHOUT or i.operator.elementwise) and not i.control_predecessors
               for i in computation.instructions) and (computation.root.opcode == "tuple" or computation.root.shape.is_array)


def _folding(computation: Computation, builder: Builder) -> Fold:
    """The computation on arrays, accumulators first."""
    order = computation.post_order()

    def fold(left: Values, right: Values) -> Values:
        given, dims = (*left, *right), left[0].shape.dims
        found: dict[Instruction, Instruction] = {}
        for instruction in order:
            if instruction.opcode == "parameter":
                found[instruction] = given[int(instruction.attribute("parameter_number"))]
            elif instruction.opcode == "constant":
                found[instruction] = builder.broadcast(builder.literal(instruction.attribute("literal")), dims)
            elif instruction.opcode != "tuple":
                found[instruction] = builder.make(
                    instruction.opcode, *(found[o] for o in instruction.operands), **instruction.attributes,
                    shape=left[0].shape.with_dtype(instruction.shape.dtype))
        root = computation.root
        return tuple(found[o] for o in (root.operands if root.opcode == "tuple" else (root,)))

    return fold


Part = tuple[Values, Mask]
"""Arrays, and which of their places along the dimension have a real cell."""


def _folded(power: Part, number: int, dim: WindowDimension, fold: Fold, builder: Builder) -> Part:
    """Padded arrays with the windows along one dimension folded."""
    out = len(power[1]) - (dim.size - 1) * dim.window_dilation
    found, taken, size = None, 0, 1
    while True:
        if dim.size & size:
            part = _cut(power, number, taken * dim.window_dilation, out, builder)
            found = part if found is None else _joined(found, part, number, fold, builder)
            taken += size
        if taken == dim.size:
            break
        step = size * dim.window_dilation
        shorter = len(power[1]) - step
        power = _joined(_cut(power, number, 0, shorter, builder), _cut(power, number, step, shorter, builder), number, fold,
                        builder)
        size *= 2
    assert found is not None
    return _cut(found, number, 0, out, builder, dim.stride)


def _padded(values: Values, number: int, dim: WindowDimension, neutral: int | None, builder: Builder) -> Part:
    """Arrays with padding along a dimension; neutral: what it may be to count as real."""
    cells = values[0].shape.dims[number]
    length = dim.padding_low + (cells - 1) * dim.base_dilation + 1 + dim.padding_high
    places = dim.padding_low + np.arange(cells) * dim.base_dilation
    real = np.full(length, neutral is not None)
    real[places[(places >= 0) & (places < length)]] = True
    padding = [PaddingDimension(0, 0, 0)] * values[0].shape.rank
    padding[number] = PaddingDimension(dim.padding_low, dim.padding_high, dim.base_dilation - 1)
    if padding[number] == PaddingDimension(0, 0, 0):
        return values, real
    return tuple(builder.make("pad", value, builder.splat(value.shape.dtype, (), neutral or 0), padding=tuple(padding))
                 for value in values), real


def _cut(part: Part, number: int, start: int, length: int, builder: Builder, stride: int = 1) -> Part:
    values, real = part
    if length == len(real) and stride == 1:
        return part
    found = []
    for value in values:
        starts, limits, strides = [0] * value.shape.rank, list(value.shape.dims), [1] * value.shape.rank
        starts[number], limits[number], strides[number] = start, start + length, stride
        found.append(builder.slice(value, starts, limits, strides))
    return tuple(found), real[start:start + length:stride]


def _joined(left: Part, right: Part, number: int, fold: Fold, builder: Builder) -> Part:
    """Windows next to each other as one."""
    both = fold(left[0], right[0])
    found = _where(right[1], _where(left[1], both, right[0], number, builder), left[0], number, builder)
    return found, left[1] | right[1]


def _where(is_real: Mask, values: Values, others: Values, number: int, builder: Builder) -> Values:
    """values where it says so along a dimension, else the others."""
    if is_real.all():
        return values
    if not is_real.any():
        return others
    mask = builder.constant(is_real)
    return tuple(builder.make("select", builder.broadcast(mask, value.shape.dims, (number,)), value, other)
                 for value, other in zip(values, others, strict=True))
