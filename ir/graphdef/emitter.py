"""The steps that lowering rules share: HLO instructions with numpy's broadcasting, reductions, gathers and loops.

An Emitter appends to one computation. All emitters of a module share its names and its combiners.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir.dtypes import BF16, F16, F32, PRED, S32, DType
from nxcc.ir.hlo.attributes import PaddingDimension
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.literals import Array
from nxcc.ir.shapes import Shape

Number = int | float | bool


def lowest(dtype: DType) -> Any:
    """The identity of a maximum."""
    if dtype is PRED:
        return False
    return -np.inf if dtype.is_float else np.iinfo(dtype.numpy).min


def highest(dtype: DType) -> Any:
    """The identity of a minimum."""
    if dtype is PRED:
        return True
    return np.inf if dtype.is_float else np.iinfo(dtype.numpy).max


_IDENTITY: dict[str, Callable[[DType], Any]] = {
    "add": lambda dtype: 0, "multiply": lambda dtype: 1, "maximum": lowest, "minimum": highest,
    "and": lambda dtype: dtype is PRED or -1, "or": lambda dtype: 0}


def broadcast_dims(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape by numpy's rule; ShapeError if there is none."""
    try:
        return tuple(np.broadcast_shapes(*map(tuple, shapes)))
    except ValueError:
        raise ShapeError(f"shapes {' and '.join(str(list(s)) for s in shapes)} cannot be broadcast together") from None


class Emitter:
    """builder: what it appends with. combiners: computations of reductions by opcode and dtype, shared in the module."""

    def __init__(self, builder: Builder, combiners: dict[tuple[str, DType], Computation]) -> None:
        self.builder = builder
        self.combiners = combiners

    def within(self, computation: Computation) -> Emitter:
        return Emitter(self.builder.within(computation), self.combiners)

    # Constants

    def constant(self, values: Array) -> Instruction:
        return self.builder.constant(values)

    def full(self, dtype: DType, dims: Sequence[int], value: Number) -> Instruction:
        if min(dims, default=0) < 0:
            raise ShapeError(f"a tensor cannot have the shape {list(dims)}")
        return self.builder.splat(dtype, dims, value)

    def scalar(self, dtype: DType, value: Number) -> Instruction:
        return self.builder.splat(dtype, (), value)

    def like(self, x: Instruction, value: Number) -> Instruction:
        """A splat of x's shape and type."""
        return self.builder.splat(x.shape.dtype, x.shape.dims, value)

    def iota(self, dtype: DType, dims: Sequence[int], dimension: int) -> Instruction:
        if not 0 <= dimension < len(dims):
            raise ShapeError(f"there is no dimension {dimension} in {list(dims)}")
        return self.builder.make("iota", shape=Shape(dtype, tuple(dims)), iota_dimension=dimension)

    # Elementwise

    def make(self, opcode: str, *operands: Instruction, **attributes: Any) -> Instruction:
        return self.builder.make(opcode, *operands, **attributes)

    def binary(self, opcode: str, left: Instruction, right: Instruction) -> Instruction:
        """Two operands of one type, broadcast as numpy does."""
        return self.builder.make(opcode, *self.together(left, right))

    def add(self, left: Instruction, right: Instruction) -> Instruction:
        return self.binary("add", left, right)

    def subtract(self, left: Instruction, right: Instruction) -> Instruction:
        return self.binary("subtract", left, right)

    def multiply(self, left: Instruction, right: Instruction) -> Instruction:
        return self.binary("multiply", left, right)

    def divide(self, left: Instruction, right: Instruction) -> Instruction:
        return self.binary("divide", left, right)

    def maximum(self, left: Instruction, right: Instruction) -> Instruction:
        return self.binary("maximum", left, right)

    def minimum(self, left: Instruction, right: Instruction) -> Instruction:
        return self.binary("minimum", left, right)

    def scaled(self, x: Instruction, factor: Number) -> Instruction:
        return self.builder.make("multiply", x, self.like(x, factor))

    def offset(self, x: Instruction, amount: Number) -> Instruction:
        return self.builder.make("add", x, self.like(x, amount))

    def compare(self, left: Instruction, right: Instruction, direction: str) -> Instruction:
        one, other = self.together(left, right)
        return self.builder.compare(one, other, direction)

    def select(self, condition: Instruction, yes: Instruction, no: Instruction) -> Instruction:
        return self.builder.make("select", *self.together(condition, yes, no))

    def clamp(self, x: Instruction, low: Number, high: Number) -> Instruction:
        return self.minimum(self.maximum(x, self.like(x, low)), self.like(x, high))

    def convert(self, x: Instruction, dtype: DType) -> Instruction:
        return x if x.shape.dtype is dtype else self.builder.convert(x, dtype)

    def wide(self, x: Instruction) -> Instruction:
        """f32 where the type is a narrower float."""
        return self.convert(x, F32) if x.shape.dtype in (F16, BF16) else x

    # Shapes

    def together(self, *operands: Instruction) -> list[Instruction]:
        dims = operands[0].shape.dims
        if all(o.shape.dims == dims for o in operands):
            return list(operands)
        dims = broadcast_dims(*(o.shape.dims for o in operands))
        return [self.broadcast_to(o, dims) for o in operands]

    def broadcast_to(self, x: Instruction, dims: Sequence[int]) -> Instruction:
        """Numpy's broadcast_to. Dimensions of size 1 that grow are dropped first, as HLO asks."""
        dims, own = tuple(dims), x.shape.dims
        if own == dims:
            return x
        if len(own) > len(dims) or broadcast_dims(own, dims) != dims:
            raise ShapeError(f"{list(own)} cannot be broadcast to {list(dims)}")
        first = len(dims) - len(own)
        kept = [d for d, size in enumerate(own) if size == dims[first + d]]
        if len(kept) < len(own):
            x = self.builder.reshape(x, [own[d] for d in kept])
        return self.builder.broadcast(x, dims, [first + d for d in kept])

    def spread(self, x: Instruction, dims: Sequence[int], dimensions: Sequence[int]) -> Instruction:
        """Operand dimension i becomes result dimension dimensions[i]."""
        own = x.shape.dims
        places = list(dimensions)
        if len(own) != len(places) or any(not 0 <= d < len(dims) or dims[d] != n for d, n in zip(places, own, strict=False)):
            raise ShapeError(f"{list(own)} cannot become the dimensions {places} of {list(dims)}")
        return self.builder.broadcast(x, dims, dimensions)

    def reshape(self, x: Instruction, dims: Sequence[int]) -> Instruction:
        if x.shape.element_count != math.prod(dims):
            raise ShapeError(f"{x.shape} cannot be reshaped to {list(dims)}")
        return x if x.shape.dims == tuple(dims) else self.builder.reshape(x, dims)

    def transpose(self, x: Instruction, permutation: Sequence[int]) -> Instruction:
        return x if list(permutation) == list(range(x.shape.rank)) else self.builder.transpose(x, permutation)

    def slice(self, x: Instruction, starts: Sequence[int], limits: Sequence[int],
              strides: Sequence[int] | None = None) -> Instruction:
        if not any(starts) and tuple(limits) == x.shape.dims and not any(s != 1 for s in strides or ()):
            return x
        return self.builder.slice(x, starts, limits, strides)

    def part(self, x: Instruction, axis: int, start: int, limit: int) -> Instruction:
        """Elements start to limit of one dimension."""
        if not 0 <= axis < x.shape.rank:
            raise ShapeError(f"{x.shape} has no dimension {axis}")
        starts, limits = [0] * x.shape.rank, list(x.shape.dims)
        starts[axis], limits[axis] = start, limit
        return self.slice(x, starts, limits)

    def concatenate(self, parts: Sequence[Instruction], axis: int) -> Instruction:
        return parts[0] if len(parts) == 1 else self.builder.make("concatenate", *parts, dimensions=(axis,))

    def pad(self, x: Instruction, value: Instruction, low: Sequence[int], high: Sequence[int],
            interior: Sequence[int] | None = None) -> Instruction:
        inner = interior or [0] * len(low)
        if not any((*low, *high, *inner)):
            return x
        return self.builder.make("pad", x, value, padding=tuple(map(PaddingDimension, low, high, inner)))

    def reverse(self, x: Instruction, dimensions: Sequence[int]) -> Instruction:
        return self.builder.make("reverse", x, dimensions=tuple(sorted(dimensions))) if dimensions else x

    # Reductions

    def combiner(self, opcode: str, dtype: DType) -> Computation:
        """The computation of this operator on two scalars."""
        found = self.combiners.get((opcode, dtype))
        if found is None:
            found = Computation(f"{opcode}_{dtype}")
            module = self.builder.computation.parent
            assert module is not None
            module.add(found)
            inner = self.builder.within(found)
            inner.location = self.builder.location
            left, right = inner.parameter(0, Shape(dtype)), inner.parameter(1, Shape(dtype))
            found.root = inner.make(opcode, left, right)
            self.combiners[opcode, dtype] = found
        return found

    def identity(self, opcode: str, dtype: DType) -> Instruction:
        return self.scalar(dtype, _IDENTITY[opcode](dtype))

    def reduce(self, opcode: str, x: Instruction, axes: Sequence[int], keep: bool = False) -> Instruction:
        """Sums and products of narrow floats accumulate in f32."""
        if not axes:
            return x
        dtype = x.shape.dtype
        work = self.wide(x) if opcode in ("add", "multiply") else x
        kind = work.shape.dtype
        found = self.builder.make("reduce", work, self.identity(opcode, kind), dimensions=tuple(sorted(axes)),
                                  called=[self.combiner(opcode, kind)])
        found = self.convert(found, dtype)
        return self.reshape(found, [1 if d in axes else n for d, n in enumerate(x.shape.dims)]) if keep else found

    # Data-dependent addresses

    def index(self, value: int) -> Instruction:
        return self.scalar(S32, value)

    def dynamic_slice(self, x: Instruction, starts: Sequence[Instruction], sizes: Sequence[int]) -> Instruction:
        return self.builder.make("dynamic-slice", x, *starts, dynamic_slice_sizes=tuple(sizes))

    def row(self, x: Instruction, number: Instruction) -> Instruction:
        """x[number], a row along the first dimension."""
        starts = [number] + [self.scalar(number.shape.dtype, 0)] * (x.shape.rank - 1)
        found = self.dynamic_slice(x, starts, (1, *x.shape.dims[1:]))
        return self.reshape(found, x.shape.dims[1:])

    def with_row(self, x: Instruction, number: Instruction, row: Instruction) -> Instruction:
        """x with x[number] replaced."""
        starts = [number] + [self.scalar(number.shape.dtype, 0)] * (x.shape.rank - 1)
        return self.builder.make("dynamic-update-slice", x, self.reshape(row, (1, *x.shape.dims[1:])), *starts)

    def take(self, x: Instruction, indices: Instruction, axis: int) -> Instruction:
        """numpy.take: x[:axis] + indices + x[axis+1:]; indices out of range are clamped."""
        rank, count = x.shape.rank, indices.shape.rank
        sizes = tuple(1 if d == axis else n for d, n in enumerate(x.shape.dims))
        offsets = tuple(d for d in range(rank - 1 + count) if d < axis or d >= axis + count)
        return self.builder.make("gather", x, indices, offset_dims=offsets, collapsed_slice_dims=(axis,),
                                 start_index_map=(axis,), index_vector_dim=count, slice_sizes=sizes)

    # Control flow

    def computation(self, name: str) -> Computation:
        """A new computation of the module, empty."""
        module = self.builder.computation.parent
        assert module is not None
        return module.add(Computation(self.builder.unique_name(name)))

    def loop(self, state: Sequence[Instruction], condition: Callable[[Emitter, list[Instruction]], Instruction],
             body: Callable[[Emitter, list[Instruction]], Sequence[Instruction]], name: str = "loop") -> list[Instruction]:
        """A while loop over a tuple; both callbacks get an emitter of their computation and the state's elements."""
        start = self.builder.tuple(*state)
        made = []
        for callback, suffix in ((body, "body"), (condition, "condition")):
            inner = self.within(self.computation(f"{name}_{suffix}"))
            inner.builder.location = self.builder.location
            whole = inner.builder.parameter(0, start.shape)
            parts = [inner.builder.get_tuple_element(whole, k) for k in range(len(state))]
            found = callback(inner, parts)
            root = found if isinstance(found, Instruction) else inner.builder.tuple(*found)
            inner.builder.computation.root = root
            made.append(inner.builder.computation)
        result = self.builder.make("while", start, called=made)
        return [self.builder.get_tuple_element(result, k) for k in range(len(state))]
