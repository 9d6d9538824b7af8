"""Contractions: dot and its relatives, brought to one normal form and computed by BLAS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nxcc.ir import dtypes
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import (
    ALGORITHM,
    DOT_DIMS,
    OPERAND_PRECISION,
    RAGGED_DOT_DIMS,
)
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError, operator
from nxcc.ir.hlo.ops.conversion import converted
from nxcc.ir.hlo.ops.matrix_products import product, product_dtype
from nxcc.ir.shapes import Shape

Array = np.ndarray[Any, Any]
Dims = tuple[int, ...]


# dot

@dataclass(frozen=True, slots=True)
class DotDims:
    """Dimension lists of a dot; free dimensions are those neither batch nor contracting, in order."""

    lhs_batch: Dims
    lhs_contracting: Dims
    rhs_batch: Dims
    rhs_contracting: Dims

    def lhs_free(self, rank: int) -> Dims:
        return tuple(d for d in range(rank) if d not in self.lhs_batch and d not in self.lhs_contracting)

    def rhs_free(self, rank: int) -> Dims:
        return tuple(d for d in range(rank) if d not in self.rhs_batch and d not in self.rhs_contracting)


_DIM_KEYS = ("lhs_batch_dims", "lhs_contracting_dims", "rhs_batch_dims", "rhs_contracting_dims")


def _dims_in(attributes: dict[str, Any]) -> DotDims:
    return DotDims(*(tuple(attributes[key]) for key in _DIM_KEYS))


def dot_dims(instruction: Instruction) -> DotDims:
    return _dims_in({key: instruction.attribute(key) for key in _DIM_KEYS})


def _check_dims(name: str, side: str, shape: Shape, batch: Dims, contracting: Dims) -> None:
    used = (*batch, *contracting)
    if len(set(used)) != len(used) or any(not 0 <= d < shape.rank for d in used):
        raise ShapeError(f"{name}: batch dimensions {list(batch)} and contracting dimensions {list(contracting)} of the {side} "
                         f"must be distinct dimensions of {shape}")


def _check_pairs(name: str, lhs: Shape, rhs: Shape, dims: DotDims) -> None:
    _check_dims(name, "left side", lhs, dims.lhs_batch, dims.lhs_contracting)
    _check_dims(name, "right side", rhs, dims.rhs_batch, dims.rhs_contracting)
    for what, lefts, rights in (("batch", dims.lhs_batch, dims.rhs_batch),
                                ("contracting", dims.lhs_contracting, dims.rhs_contracting)):
        if len(lefts) != len(rights):
            raise ShapeError(f"{name}: as many {what} dimensions on the left as on the right, "
                             f"not {list(lefts)} and {list(rights)}")
        for left, right in zip(lefts, rights, strict=True):
            if lhs.dims[left] != rhs.dims[right]:
                raise ShapeError(f"{name}: {what} dimension {left} of {lhs} and {right} of {rhs} differ in size")


def _dot_result(lhs: Shape, rhs: Shape, dims: DotDims) -> list[tuple[int, bool]]:
    """(size, is dynamic) of each result dimension: batch, free of the left, free of the right."""
    from_left = [(lhs.dims[d], d in lhs.dynamic) for d in (*dims.lhs_batch, *dims.lhs_free(lhs.rank))]
    return from_left + [(rhs.dims[d], d in rhs.dynamic) for d in dims.rhs_free(rhs.rank)]


def _shape_of(dtype: DType, sizes: Sequence[tuple[int, bool]]) -> Shape:
    return Shape(dtype, tuple(size for size, _ in sizes), dynamic=tuple(i for i, (_, moves) in enumerate(sizes) if moves))


def _dot_shape(lhs: Shape, rhs: Shape, **attributes: Any) -> Shape:
    dims = _dims_in(attributes)
    dtype = product_dtype("dot", lhs, rhs)
    _check_pairs("dot", lhs, rhs, dims)
    return _shape_of(dtype, _dot_result(lhs, rhs, dims))


def _stacked(x: Array, batch: Dims, rows: Dims, columns: Dims) -> Array:
    """The operand as [batch, rows, columns], each group of dimensions merged."""
    sizes = [math.prod(x.shape[d] for d in group) for group in (batch, rows, columns)]
    return x.transpose(*batch, *rows, *columns).reshape(sizes)


def dot_general(lhs: Array, rhs: Array, dims: DotDims, result: DType) -> Array:
    """dot in normal form: [batch, m, k] x [batch, k, n], result dimensions batch, free left, free right."""
    lhs_free, rhs_free = dims.lhs_free(lhs.ndim), dims.rhs_free(rhs.ndim)
    left = _stacked(lhs, dims.lhs_batch, lhs_free, dims.lhs_contracting)
    right = _stacked(rhs, dims.rhs_batch, dims.rhs_contracting, rhs_free)
    sizes = [lhs.shape[d] for d in (*dims.lhs_batch, *lhs_free)] + [rhs.shape[d] for d in rhs_free]
    return product(left, right, result).reshape(sizes)


def _dot(instruction: Instruction, lhs: Array, rhs: Array) -> Array:
    return dot_general(lhs, rhs, dot_dims(instruction), instruction.shape.dtype)


operator("dot", 2, attributes=(*DOT_DIMS, OPERAND_PRECISION, ALGORITHM), shape=_dot_shape, evaluate=_dot)


# scaled-dot: each operand times its scale, whose every dimension divides the operand's

def _check_scale(side: str, operand: Shape, scale: Shape) -> None:
    if scale.rank == 0:
        return
    if scale.rank != operand.rank or any(s == 0 or d % s for d, s in zip(operand.dims, scale.dims, strict=True)):
        raise ShapeError(f"scaled-dot: every dimension of the {side} scale {scale} must divide that of {operand}")


def _scaled_dot_shape(lhs: Shape, rhs: Shape, lhs_scale: Shape, rhs_scale: Shape, **attributes: Any) -> Shape:
    dims = _dims_in(attributes)
    dtype = product_dtype("scaled-dot", lhs, rhs)
    _check_pairs("scaled-dot", lhs, rhs, dims)
    _check_scale("left", lhs, lhs_scale)
    _check_scale("right", rhs, rhs_scale)
    return _shape_of(dtype, _dot_result(lhs, rhs, dims))


def _scaled(x: Array, scale: Array) -> Array:
    wide = scale.astype(np.float32)
    for axis in range(wide.ndim):
        wide = np.repeat(wide, x.shape[axis] // wide.shape[axis], axis)
    return np.asarray(x.astype(np.float32) * wide)


def _scaled_dot(instruction: Instruction, lhs: Array, rhs: Array, lhs_scale: Array, rhs_scale: Array) -> Array:
    return dot_general(_scaled(lhs, lhs_scale), _scaled(rhs, rhs_scale), dot_dims(instruction), instruction.shape.dtype)


operator("scaled-dot", 4, attributes=(*DOT_DIMS, OPERAND_PRECISION, ALGORITHM), shape=_scaled_dot_shape, evaluate=_scaled_dot)


# ragged-dot: one dimension of the left side is cut into groups of run-time sizes

@dataclass(frozen=True, slots=True)
class RaggedDims:
    """Which dimensions a ragged dot multiplies; ragged: of the left side, cut into groups; group: of the right side, if any."""

    dims: DotDims
    ragged: int
    group: Dims

    @property
    def splits_contracting(self) -> bool:
        return self.ragged in self.dims.lhs_contracting

    def prefix(self, rank: int) -> Dims:
        """Dimensions of the left side with group sizes of their own: batch, and those of the ragged one's kind before it."""
        batch = self.dims.lhs_batch
        if self.ragged in batch:
            return batch[:batch.index(self.ragged)]
        alike = self.dims.lhs_contracting if self.splits_contracting else self.dims.lhs_free(rank)
        return (*batch, *alike[:alike.index(self.ragged)])

    def rhs_dims(self) -> DotDims:
        """Dimension lists after the group dimension of the right side is indexed away."""
        def shifted(listed: Dims) -> Dims:
            return tuple(d - sum(g < d for g in self.group) for d in listed)
        return DotDims(self.dims.lhs_batch, self.dims.lhs_contracting, shifted(self.dims.rhs_batch),
                       shifted(self.dims.rhs_contracting))


def ragged_dims(instruction: Instruction) -> RaggedDims:
    return RaggedDims(dot_dims(instruction), instruction.attribute("lhs_ragged_dims")[0],
                      tuple(instruction.attribute("rhs_group_dims")))


def _ragged_shape(lhs: Shape, rhs: Shape, groups: Shape, *, lhs_ragged_dims: Dims, rhs_group_dims: Dims,
                  **attributes: Any) -> Shape:
    dims = _dims_in(attributes)
    dtype = product_dtype("ragged-dot", lhs, rhs)
    _check_pairs("ragged-dot", lhs, rhs, dims)
    if len(lhs_ragged_dims) != 1 or not 0 <= lhs_ragged_dims[0] < lhs.rank:
        raise ShapeError(f"ragged-dot takes one ragged dimension of {lhs}, not {list(lhs_ragged_dims)}")
    if groups.rank < 1 or not groups.dtype.is_integer:
        raise ShapeError(f"ragged-dot takes integer group sizes of at least one dimension, not {groups}")
    prefix = RaggedDims(dims, lhs_ragged_dims[0], tuple(rhs_group_dims)).prefix(lhs.rank)
    if groups.rank > 1 and groups.dims[:-1] != tuple(lhs.dims[d] for d in prefix):
        raise ShapeError(f"ragged-dot takes group sizes of one dimension, or of dimensions {list(prefix)} of {lhs} too, "
                         f"not {groups}")
    is_free = lhs_ragged_dims[0] not in (*dims.lhs_batch, *dims.lhs_contracting)
    if len(rhs_group_dims) != int(is_free):
        raise ShapeError("ragged-dot takes one group dimension on the right exactly when the ragged dimension is a free one")
    if is_free and rhs.dims[rhs_group_dims[0]] != groups.dims[-1]:
        raise ShapeError(f"ragged-dot: {rhs} has other than {groups.dims[-1]} groups in dimension {rhs_group_dims[0]}")
    sizes = [(lhs.dims[d], d in lhs.dynamic) for d in (*dims.lhs_batch, *dims.lhs_free(lhs.rank))]
    sizes += [(rhs.dims[d], d in rhs.dynamic) for d in dims.rhs_free(rhs.rank) if d not in rhs_group_dims]
    lead = [(groups.dims[-1], False)] if lhs_ragged_dims[0] in dims.lhs_contracting else []
    return _shape_of(dtype, lead + sizes)


def _group_mask(lhs: Array, ragged: RaggedDims, sizes: Array, group: int) -> Array:
    """True where the left side's element is in the group; dimensions of `sizes` before the last are those of `prefix`."""
    ends = np.cumsum(sizes.astype(np.int64), axis=-1)[..., group]
    starts = ends - sizes[..., group]
    place = [1] * lhs.ndim
    for dimension, count in zip(ragged.prefix(lhs.ndim), np.shape(ends), strict=False):
        place[dimension] = count
    index_place = [1] * lhs.ndim
    index_place[ragged.ragged] = lhs.shape[ragged.ragged]
    index = np.arange(lhs.shape[ragged.ragged]).reshape(index_place)
    return np.asarray((index >= np.reshape(starts, place)) & (index < np.reshape(ends, place)))


def _ragged_dot(instruction: Instruction, lhs: Array, rhs: Array, sizes: Array) -> Array:
    """Sum over groups of dot(left side masked to the group, right side of the group); contracting: one result a group.

    Where batches are ragged all groups have the same right side, and a batch is multiplied once.
    """
    ragged = ragged_dims(instruction)
    dtype = instruction.shape.dtype
    accumulate = dtypes.F32 if dtype.is_float and dtype.bits < 32 else dtype
    masks = [_group_mask(lhs, ragged, sizes, group) for group in range(sizes.shape[-1])]
    if masks and ragged.ragged in ragged.dims.lhs_batch:
        masks = [np.logical_or.reduce(masks)]
    parts = []
    for group, mask in enumerate(masks):
        masked = np.where(mask, lhs, lhs.dtype.type(0))
        right = np.take(rhs, group, axis=ragged.group[0]) if ragged.group else rhs
        parts.append(dot_general(masked, right, ragged.rhs_dims(), accumulate))
    result = np.stack(parts) if ragged.splits_contracting else sum(parts[1:], start=parts[0])
    return converted(np.asarray(result), dtype)


operator("ragged-dot", 3, attributes=(*RAGGED_DOT_DIMS, OPERAND_PRECISION, ALGORITHM), shape=_ragged_shape,
         evaluate=_ragged_dot)
