"""Data movement with addresses known at compile time.

A value of bounded dynamic shape is held as the array of its true size, everywhere in the evaluations; so nothing here
reads a size from the declared shape where the operand can tell it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import UNSUPPORTED_MODULE, CompileError
from nxcc.ir.dtypes import PRED
from nxcc.ir.hlo.attributes import (
    DIMENSIONS,
    INFERRED_DIMENSION,
    IOTA_DIMENSION,
    OPTIONAL_DIMENSIONS,
    PADDING,
    SLICE,
    PaddingDimension,
    SliceDimension,
)
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError, operator
from nxcc.ir.hlo.ops.checks import need, need_array, need_arrays, need_dimension, need_dimensions, need_scalar
from nxcc.ir.hlo.ops.conversion import bitcast_bits
from nxcc.ir.literals import Array
from nxcc.ir.shapes import UNBOUNDED, Shape, array, row_major

# bitcast: the same bytes in physical order under another shape


def _check_bitcast(instruction: Instruction) -> None:
    source, target = instruction.operands[0].shape, instruction.shape
    if source.is_tuple or target.is_tuple:
        return
    need_arrays((source, target))
    if source.element_count * source.dtype.bits != target.element_count * target.dtype.bits:
        raise ShapeError(f"bitcast must keep the number of bytes, {source} and {target} differ")


def _major_to_minor(shape: Shape) -> tuple[int, ...]:
    layout = shape.layout or row_major(shape.rank)
    return tuple(reversed(layout.minor_to_major))


def bitcast(x: Array, source: Shape, target: Shape) -> Array:
    """x, of shape `source`, read as `target`: both layouts say which element lies where."""
    order = _major_to_minor(target)
    physical = np.transpose(x, _major_to_minor(source)).reshape(-1)
    if source.dtype.bits % 8 or target.dtype.bits % 8:
        physical = bitcast_bits(physical, source.dtype, array(target.dtype, target.element_count))
    elif source.dtype is not target.dtype:
        physical = np.ascontiguousarray(physical).view(target.dtype.numpy)
    return physical.reshape([target.dims[d] for d in order]).transpose(np.argsort(order))


def _bitcast(instruction: Instruction, x: Array) -> Array:
    source, target = instruction.operands[0].shape, instruction.shape
    if source.is_tuple or target.is_tuple:
        raise CompileError(UNSUPPORTED_MODULE, f"{instruction.opcode} of {source} to {target} cannot be evaluated",
                           instruction.name, str(instruction.location), "a tuple's bytes are addresses")
    return bitcast(x, source, target)


operator("bitcast", 1, moves_data=True, check=_check_bitcast, evaluate=_bitcast)


# broadcast


def _check_broadcast(instruction: Instruction) -> None:
    source, target = instruction.operands[0].shape, instruction.shape
    need_arrays((source, target))
    need(source.dtype is target.dtype, f"broadcast must keep the element type, {source} becomes {target}")
    dimensions = instruction.attribute("dimensions")
    need_dimensions(dimensions, target.rank)
    need(len(dimensions) == source.rank, f"dimensions must name a result dimension for each of the {source.rank} "
                                         f"operand dimensions, {len(dimensions)} are named")
    for number, d in enumerate(dimensions):
        if source.dims[number] != target.dims[d] and UNBOUNDED not in (source.dims[number], target.dims[d]):
            raise ShapeError(f"operand dimension {number} has size {source.dims[number]}, "
                             f"result dimension {d} has size {target.dims[d]}: broadcast does not stretch")


def broadcast(x: Array, dims: Sequence[int], dimensions: Sequence[int]) -> Array:
    """A read-only view in which operand dimension i is result dimension dimensions[i]."""
    placed = [1] * len(dims)
    sizes = list(dims)
    for size, d in zip(x.shape, dimensions, strict=True):
        placed[d] = sizes[d] = size
    return np.broadcast_to(np.transpose(x, np.argsort(dimensions)).reshape(placed), sizes)


operator("broadcast", 1, attributes=(OPTIONAL_DIMENSIONS,), moves_data=True, check=_check_broadcast,
         evaluate=lambda i, x: broadcast(x, i.shape.dims, i.attribute("dimensions")))


# concatenate


def _concatenate_shape(*shapes: Shape, dimensions: tuple[int, ...]) -> Shape:
    need_arrays(shapes)
    first = shapes[0]
    d = need_dimension(dimensions, first.rank)
    for shape in shapes[1:]:
        same = (shape.dtype is first.dtype and shape.rank == first.rank
                and shape.dims[:d] == first.dims[:d] and shape.dims[d + 1:] == first.dims[d + 1:])
        need(same, f"operands must agree in type and in all dimensions but {d}, they are {first} and {shape}")
    total = sum(shape.dims[d] for shape in shapes)
    dynamic = tuple(sorted({i for shape in shapes for i in shape.dynamic}))
    return Shape(first.dtype, (*first.dims[:d], total, *first.dims[d + 1:]), dynamic=dynamic)


operator("concatenate", (1, None), attributes=(DIMENSIONS,), moves_data=True, shape=_concatenate_shape,
         evaluate=lambda i, *xs: np.concatenate(xs, i.attribute("dimensions")[0]))


# iota


def _check_iota(instruction: Instruction) -> None:
    shape = instruction.shape
    need_array(shape, "result")
    need(shape.dtype is not PRED, "iota counts in numbers, not in pred")
    need(shape.rank > 0, "iota must have at least one dimension")
    need_dimension((instruction.attribute("iota_dimension"),), shape.rank, "iota_dimension")


def _iota(instruction: Instruction) -> Array:
    shape, d = instruction.shape, instruction.attribute("iota_dimension")
    if not shape.element_count:
        return np.empty(shape.dims, shape.dtype.numpy)
    counts = np.arange(shape.dims[d]).astype(shape.dtype.numpy)
    return broadcast(counts, shape.dims, (d,))


operator("iota", 0, attributes=(IOTA_DIMENSION,), check=_check_iota, evaluate=_iota)


# pad


def padded_size(size: int, padding: PaddingDimension) -> int:
    return padding.low + padding.high + size + max(size - 1, 0) * padding.interior


def _pad_shape(x: Shape, value: Shape, *, padding: tuple[PaddingDimension, ...]) -> Shape:
    need_array(x)
    need_scalar(value, x.dtype, "padding value")
    need(len(padding) == x.rank, f"padding has {len(padding)} dimensions, the operand has {x.rank}")
    need(all(p.interior >= 0 for p in padding), "interior padding must not be negative")
    dims = tuple(map(padded_size, x.dims, padding))
    need(all(d >= 0 for d in dims), f"padding leaves a negative size: {x} would become [{','.join(map(str, dims))}]")
    return Shape(x.dtype, dims, dynamic=x.dynamic)


def pad(x: Array, value: Any, padding: Sequence[PaddingDimension]) -> Array:
    """Spread the elements by `interior`, then add (or, where negative, cut off) low and high."""
    dims = tuple(max(padded_size(n, p), 0) for n, p in zip(x.shape, padding, strict=True))
    result = np.full(dims, value, x.dtype)
    taken, places = [], []
    for size, out, p in zip(x.shape, dims, padding, strict=True):
        step = p.interior + 1
        first = max(-p.low + step - 1, 0) // step
        end = min(size, max((out - 1 - p.low) // step + 1, 0))
        start = p.low + first * step
        taken.append(slice(first, end))
        places.append(slice(start, start + (end - first - 1) * step + 1, step) if end > first else slice(0, 0))
        if end <= first:
            return result
    result[tuple(places)] = x[tuple(taken)]
    return result


operator("pad", 2, attributes=(PADDING,), moves_data=True, shape=_pad_shape,
         evaluate=lambda i, x, value: pad(x, value, i.attribute("padding")))


# reshape


def _check_reshape(instruction: Instruction) -> None:
    source, target = instruction.operands[0].shape, instruction.shape
    need_arrays((source, target))
    need(source.dtype is target.dtype, f"reshape must keep the element type, {source} becomes {target}")
    if UNBOUNDED not in source.dims + target.dims and source.element_count != target.element_count:
        raise ShapeError(f"reshape must keep the number of elements, {source} has {source.element_count}, "
                         f"{target} has {target.element_count}")


def _true_sizes(x: Array, source: Shape, target: Shape) -> list[int]:
    """Sizes of the result of a dynamic reshape: one dynamic dimension takes what is left, more keep their order."""
    sizes = list(target.dims)
    if len(target.dynamic) == 1:
        rest = math.prod(n for d, n in enumerate(sizes) if d not in target.dynamic)
        sizes[target.dynamic[0]] = x.size // rest if rest else 0
    elif len(target.dynamic) == len(source.dynamic):
        for d, origin in zip(target.dynamic, source.dynamic, strict=True):
            sizes[d] = x.shape[origin]
    return sizes


def _reshape(instruction: Instruction, x: Array) -> Array:
    target = instruction.shape
    sizes = list(target.dims)
    if math.prod(sizes) != x.size:
        sizes = _true_sizes(x, instruction.operands[0].shape, target)
        if math.prod(sizes) != x.size:
            raise CompileError(UNSUPPORTED_MODULE, "the sizes of a dynamic reshape cannot be told apart",
                               instruction.name, str(instruction.location))
    return x.reshape(sizes)


operator("reshape", 1, attributes=(INFERRED_DIMENSION,), moves_data=True, check=_check_reshape, evaluate=_reshape)


# reverse, slice, transpose


def _reverse_shape(x: Shape, *, dimensions: tuple[int, ...]) -> Shape:
    need_array(x)
    need_dimensions(dimensions, x.rank)
    return x


operator("reverse", 1, attributes=(DIMENSIONS,), moves_data=True, shape=_reverse_shape,
         evaluate=lambda i, x: np.flip(x, i.attribute("dimensions")))


def _slice_shape(x: Shape, *, slice: tuple[SliceDimension, ...]) -> Shape:
    need_array(x)
    need(len(slice) == x.rank, f"slice has {len(slice)} dimensions, the operand has {x.rank}")
    for d, (size, part) in enumerate(zip(x.dims, slice, strict=True)):
        if not 0 <= part.start <= part.limit <= size or part.stride < 1:
            raise ShapeError(f"slice [{part.start}:{part.limit}:{part.stride}] does not fit dimension {d} of {x}")
    dims = tuple((part.limit - part.start + part.stride - 1) // part.stride for part in slice)
    return Shape(x.dtype, dims, dynamic=tuple(d for d in x.dynamic if dims[d] == x.dims[d]))


def _slice(instruction: Instruction, x: Array) -> Array:
    return x[tuple(slice(part.start, part.limit, part.stride) for part in instruction.attribute("slice"))]


operator("slice", 1, attributes=(SLICE,), moves_data=True, shape=_slice_shape, evaluate=_slice)


def _transpose_shape(x: Shape, *, dimensions: tuple[int, ...]) -> Shape:
    need_array(x)
    need_dimensions(dimensions, x.rank)
    need(len(dimensions) == x.rank, f"dimensions must name all {x.rank} dimensions of {x}")
    dynamic = tuple(i for i, d in enumerate(dimensions) if d in x.dynamic)
    return Shape(x.dtype, tuple(x.dims[d] for d in dimensions), dynamic=dynamic)


operator("transpose", 1, attributes=(DIMENSIONS,), moves_data=True, shape=_transpose_shape,
         evaluate=lambda i, x: np.transpose(x, i.attribute("dimensions")))
