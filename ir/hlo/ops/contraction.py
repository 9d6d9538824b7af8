"""Contractions: dot, convolution and their relatives, and the dense linear algebra operators.

Dots and convolutions are brought to one normal form and computed by BLAS. Narrow floats accumulate in f32 and are rounded
once; integers are exact and wrap; pred is or-of-ands. Fourier transforms, Cholesky and triangular solves compute in f64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir import dtypes
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import (
    ALGORITHM,
    BATCH_GROUP_COUNT,
    CHOLESKY_LOWER,
    CONVOLUTION_KIND,
    DIM_LABELS,
    DOT_DIMS,
    FEATURE_GROUP_COUNT,
    FFT_LENGTH,
    FFT_TYPE,
    OPERAND_PRECISION,
    RAGGED_DOT_DIMS,
    SPARSITY_CONFIG,
    TRIANGULAR_SOLVE,
    WINDOW,
    ConvolutionDimensions,
    Window,
    WindowDimension,
)
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError, operator
from nxcc.ir.hlo.ops.elementwise import agreeing_dtype, converted
from nxcc.ir.shapes import Shape

Array = np.ndarray[Any, Any]
Dims = tuple[int, ...]

_IN_ORDER_DEPTH, _IN_ORDER_PRODUCTS = 16, 4096
"""Terms of a sum, and multiplications in all, up to which a float product sums in order: BLAS fuses and reorders, which
shows where terms cancel."""

_PIECE_ELEMENTS = 1 << 24
"""Elements of a narrow operand widened to f32, or of gathered convolution windows, at a time: bounds extra memory to 64 MiB."""


# Products of stacked matrices

def _limb_product(lhs: Array, rhs: Array) -> Array:
    """Integer product modulo 2^64 from 16-bit limbs, each partial product exact in f64 (k < 2^21)."""
    assert lhs.shape[-1] < 1 << 21
    left, right = lhs.astype(np.uint64), rhs.astype(np.uint64)
    limbs = [[((x >> np.uint64(16 * i)) & np.uint64(0xFFFF)).astype(np.float64) for i in range(4)] for x in (left, right)]
    total = np.zeros((*np.broadcast_shapes(lhs.shape[:-2], rhs.shape[:-2]), lhs.shape[-2], rhs.shape[-1]), np.uint64)
    for i, left_limb in enumerate(limbs[0]):
        for j, right_limb in enumerate(limbs[1][:4 - i]):
            if left_limb.any() and right_limb.any():
                total += np.matmul(left_limb, right_limb).astype(np.uint64) << np.uint64(16 * (i + j))
    return np.asarray(total.view(np.int64))


def _largest(x: Array) -> int:
    return max(abs(int(x.max())), abs(int(x.min()))) if x.size else 0


def _integer_product(lhs: Array, rhs: Array, result: DType) -> Array:
    """Exact modulo 2^64, then wrapped to the result type: in f64 where no sum can leave its 53 bits, else by limbs."""
    bound = _largest(lhs) * _largest(rhs) * lhs.shape[-1]
    if bound < 1 << 53:
        exact = np.matmul(lhs.astype(np.float64), rhs.astype(np.float64)).astype(np.int64)
    else:
        exact = _limb_product(lhs.astype(np.int64, copy=False), rhs.astype(np.int64, copy=False))
    return converted(exact, result)


def _accumulator(lhs: DType, rhs: DType, result: DType) -> np.dtype[Any]:
    """f32 for floats up to 32 bits, f64 or complex where an operand or the result is."""
    wide = {dtypes.F64: np.float64, dtypes.C64: np.complex64, dtypes.C128: np.complex128}
    return np.result_type(np.float32, *(wide[row] for row in (lhs, rhs, result) if row in wide))


def _sum_in_order(left: Array, right: Array) -> Array:
    """The product as its definition says: every term rounded, added one after another."""
    total = np.zeros((*left.shape[:-1], right.shape[-1]), left.dtype)
    for k in range(left.shape[-1]):
        total = total + left[..., :, k, None] * right[..., None, k, :]
    return total


def _float_product(lhs: Array, rhs: Array, accumulator: np.dtype[Any]) -> Array:
    """[.., m, k] x [.., k, n], widened to the accumulator; a big narrow right side goes piece by piece along n."""
    left = lhs.astype(accumulator, copy=False)
    if left.shape[-1] <= _IN_ORDER_DEPTH and left.size * rhs.shape[-1] <= _IN_ORDER_PRODUCTS:
        return _sum_in_order(left, rhs.astype(accumulator, copy=False))
    if rhs.dtype == accumulator or rhs.size <= _PIECE_ELEMENTS:
        return np.asarray(np.matmul(left, rhs.astype(accumulator, copy=False)))
    step = max(1, rhs.shape[-1] * _PIECE_ELEMENTS // rhs.size)
    pieces = [np.matmul(left, rhs[..., n:n + step].astype(accumulator)) for n in range(0, rhs.shape[-1], step)]
    return np.concatenate(pieces, axis=-1)


def product(lhs: Array, rhs: Array, result: DType) -> Array:
    """Stacked matrix product [.., m, k] x [.., k, n] -> [.., m, n] with HLO's arithmetic for the element types.

    Floats with an integer result are rounded to the operand type first and then truncated, as XLA CPU does.
    """
    left, right = dtypes.from_numpy(lhs.dtype), dtypes.from_numpy(rhs.dtype)
    if left is dtypes.PRED and result is dtypes.PRED:
        return np.asarray(np.matmul(lhs.astype(np.float32), rhs.astype(np.float32)) > 0)
    if not (left.is_float or left.is_complex or right.is_float or right.is_complex or result.is_float or result.is_complex):
        return _integer_product(lhs, rhs, result)
    summed = _float_product(lhs, rhs, _accumulator(left, right, result))
    if result.is_integer and left.is_float:
        summed = converted(summed, left)
    return converted(summed, result)


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


def _default_dtype(name: str, lhs: Shape, rhs: Shape) -> DType:
    """Element type when none is declared: the operands'; of mixed ones complex before float before integer, then the wider."""
    for shape in (lhs, rhs):
        if not shape.is_array:
            raise ShapeError(f"{name} takes arrays, not {shape}")
    return max((lhs.dtype, rhs.dtype), key=lambda row: (row.is_complex, row.is_float, row.is_integer, row.bits))


def _dot_result(lhs: Shape, rhs: Shape, dims: DotDims) -> list[tuple[int, bool]]:
    """(size, is dynamic) of each result dimension: batch, free of the left, free of the right."""
    from_left = [(lhs.dims[d], d in lhs.dynamic) for d in (*dims.lhs_batch, *dims.lhs_free(lhs.rank))]
    return from_left + [(rhs.dims[d], d in rhs.dynamic) for d in dims.rhs_free(rhs.rank)]


def _shape_of(dtype: DType, sizes: Sequence[tuple[int, bool]]) -> Shape:
    return Shape(dtype, tuple(size for size, _ in sizes), dynamic=tuple(i for i, (_, moves) in enumerate(sizes) if moves))


def _dot_shape(lhs: Shape, rhs: Shape, **attributes: Any) -> Shape:
    dims = _dims_in(attributes)
    dtype = _default_dtype("dot", lhs, rhs)
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
    dtype = _default_dtype("scaled-dot", lhs, rhs)
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
    dtype = _default_dtype("ragged-dot", lhs, rhs)
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
    """Sum over groups of dot(left side masked to the group, right side of the group); contracting: one result a group."""
    ragged = ragged_dims(instruction)
    dtype = instruction.shape.dtype
    accumulate = dtypes.F32 if dtype.is_float and dtype.bits < 32 else dtype
    parts = []
    for group in range(sizes.shape[-1]):
        masked = np.where(_group_mask(lhs, ragged, sizes, group), lhs, lhs.dtype.type(0))
        right = np.take(rhs, group, axis=ragged.group[0]) if ragged.group else rhs
        parts.append(dot_general(masked, right, ragged.rhs_dims(), accumulate))
    result = np.stack(parts) if ragged.splits_contracting else sum(parts[1:], start=parts[0])
    return converted(np.asarray(result), dtype)


operator("ragged-dot", 3, attributes=(*RAGGED_DOT_DIMS, OPERAND_PRECISION, ALGORITHM), shape=_ragged_shape,
         evaluate=_ragged_dot)


# convolution

def dilated(size: int, dilation: int) -> int:
    """Extent of `size` elements with dilation - 1 holes between neighbours."""
    return 0 if size == 0 else (size - 1) * dilation + 1


def window_count(size: int, window: WindowDimension) -> int:
    """How many places a window takes over a dimension of this size."""
    extent = dilated(size, window.base_dilation) + window.padding_low + window.padding_high
    reach = dilated(window.size, window.window_dilation)
    return 0 if extent < reach or extent < 0 else (extent - reach) // window.stride + 1


def _check_labels(lhs: Shape, rhs: Shape, window: Window, dims: ConvolutionDimensions) -> None:
    spatial = len(dims.input_spatial)
    lists = {"input": ((dims.input_batch, dims.input_feature, *dims.input_spatial), lhs.rank),
             "kernel": ((dims.kernel_input_feature, dims.kernel_output_feature, *dims.kernel_spatial), rhs.rank),
             "output": ((dims.output_batch, dims.output_feature, *dims.output_spatial), lhs.rank)}
    for what, (listed, rank) in lists.items():
        if sorted(listed) != list(range(rank)):
            raise ShapeError(f"convolution: dim_labels must name each of the {rank} dimensions of the {what} once")
    if len(window.dims) != spatial:
        raise ShapeError(f"convolution: the window has {len(window.dims)} dimensions and dim_labels {spatial} spatial ones")
    for place, spot in zip(dims.kernel_spatial, window.dims, strict=True):
        if rhs.dims[place] != spot.size:
            raise ShapeError(f"convolution: window size {spot.size} is not that of kernel {rhs} in dimension {place}")


def _check_groups(lhs: Shape, rhs: Shape, dims: ConvolutionDimensions, feature_groups: int, batch_groups: int) -> None:
    features, outputs = lhs.dims[dims.input_feature], rhs.dims[dims.kernel_output_feature]
    if feature_groups < 1 or batch_groups < 1 or (feature_groups > 1 and batch_groups > 1):
        raise ShapeError(f"convolution: group counts must be positive and at most one of them above 1, "
                         f"not {feature_groups} and {batch_groups}")
    if rhs.dims[dims.kernel_input_feature] * feature_groups != features:
        raise ShapeError(f"convolution: kernel {rhs} takes {rhs.dims[dims.kernel_input_feature]} input features in each of "
                         f"{feature_groups} groups, the input has {features}")
    if outputs % feature_groups or outputs % batch_groups:
        raise ShapeError(f"convolution: {outputs} output features do not divide into "
                         f"{max(feature_groups, batch_groups)} groups")
    if lhs.dims[dims.input_batch] % batch_groups:
        raise ShapeError(f"convolution: batch {lhs.dims[dims.input_batch]} does not divide into {batch_groups} groups")


def _convolution_shape(lhs: Shape, rhs: Shape, *more: Shape, window: Window, dim_labels: ConvolutionDimensions,
                       feature_group_count: int, batch_group_count: int, **_: Any) -> Shape:
    if more:
        raise ShapeError("convolution takes two operands; sparse metadata is not supported")
    dtype = _default_dtype("convolution", lhs, rhs)
    _check_labels(lhs, rhs, window, dim_labels)
    _check_groups(lhs, rhs, dim_labels, feature_group_count, batch_group_count)
    sizes = [0] * lhs.rank
    sizes[dim_labels.output_batch] = lhs.dims[dim_labels.input_batch] // batch_group_count
    sizes[dim_labels.output_feature] = rhs.dims[dim_labels.kernel_output_feature]
    for source, target, spot in zip(dim_labels.input_spatial, dim_labels.output_spatial, window.dims, strict=True):
        sizes[target] = window_count(lhs.dims[source], spot)
    return Shape(dtype, tuple(sizes))


def _padded_axis(x: Array, axis: int, window: WindowDimension) -> Array:
    """One axis dilated, padded and cropped; a view where nothing changes."""
    if window.base_dilation == 1 and window.padding_low <= 0 and window.padding_high <= 0:
        crop = [slice(None)] * x.ndim
        crop[axis] = slice(-window.padding_low, max(-window.padding_low, x.shape[axis] + window.padding_high))
        return x[tuple(crop)]
    extent = dilated(x.shape[axis], window.base_dilation)
    low, total = window.padding_low, max(0, extent + window.padding_low + window.padding_high)
    shape = [*x.shape]
    shape[axis] = total
    result = np.zeros(shape, x.dtype)
    step = window.base_dilation
    first = max(0, -(low // step))  # index of the first element that is not cropped away
    count = max(0, min(x.shape[axis], (total - 1 - low) // step + 1) - first)
    target, source = [slice(None)] * x.ndim, [slice(None)] * x.ndim
    start = low + first * step
    target[axis] = slice(start, start + (count - 1) * step + 1 if count else start, step)
    source[axis] = slice(first, first + count)
    result[tuple(target)] = x[tuple(source)]
    return result


def _windows(x: Array, window: Window) -> Array:
    """A view [n, out.., kernel.., groups, c] of x [n, spatial.., groups, c], which is padded already."""
    spatial = len(window.dims)
    sizes, steps = list(x.shape), x.strides
    counts, kernel, count_steps, kernel_steps = [], [], [], []
    for axis, spot in enumerate(window.dims, 1):
        reach = dilated(spot.size, spot.window_dilation)
        counts.append(0 if sizes[axis] < reach else (sizes[axis] - reach) // spot.stride + 1)
        kernel.append(spot.size)
        count_steps.append(steps[axis] * spot.stride)
        kernel_steps.append(steps[axis] * spot.window_dilation)
    shape = (sizes[0], *counts, *kernel, *sizes[1 + spatial:])
    strides = (steps[0], *count_steps, *kernel_steps, *steps[1 + spatial:])
    raw = x.view(np.dtype(f"u{x.dtype.itemsize}")) if x.dtype.itemsize == 1 else x  # numpy cannot name some of the fp8 types
    return np.lib.stride_tricks.as_strided(raw, shape, strides, writeable=False).view(x.dtype)


def _gathered_product(windows: Array, kernel: Array, spatial: int, dtype: DType) -> Array:
    """One matrix product over gathered windows: [n, out.., kernel.., g, c] x [kernel.., g, c, o] -> [n, out.., g, o].

    The gathered rows are cut along the leading dimensions so that they never take more than a piece of memory.
    """
    places = windows.shape[:1 + spatial]
    groups, channels, outputs = kernel.shape[-3:]
    depth = math.prod(kernel.shape[:spatial]) * channels
    by_group = np.moveaxis(kernel, -3, 0).reshape(groups, depth, outputs)
    result = np.empty((*places, groups, outputs), dtype.numpy)
    for index in _pieces(places, groups * depth):
        piece = windows[index]
        rows = math.prod(piece.shape[:1 + spatial])
        gathered: Array = np.moveaxis(piece, -2, 0).reshape(groups, rows, depth)
        summed = product(gathered, by_group, dtype)
        result[index] = np.moveaxis(summed, 0, 1).reshape(*piece.shape[:1 + spatial], groups, outputs)
    return result


def _pieces(places: Dims, elements_each: int) -> list[tuple[slice, ...]]:
    """Slices over the first dimension, or the first two, such that each covers at most a piece of elements."""
    outer = places[0] * (places[1] if len(places) > 1 else 1)
    if not outer or not elements_each:
        return [(slice(None),)]
    inner = math.prod(places) // outer * elements_each
    if len(places) == 1 or inner * places[1] <= _PIECE_ELEMENTS:
        step = max(1, _PIECE_ELEMENTS // max(1, math.prod(places[1:]) * elements_each))
        return [(slice(start, start + step),) for start in range(0, places[0], step)]
    step = max(1, _PIECE_ELEMENTS // inner)
    return [(slice(n, n + 1), slice(start, start + step)) for n in range(places[0]) for start in range(0, places[1], step)]


def _channelwise_sum(windows: Array, kernel: Array, spatial: int, dtype: DType) -> Array:
    """Groups of one input channel, where a matrix product has no depth: a sum over kernel places of scaled views."""
    accumulator = np.dtype(np.float64) if dtype is dtypes.F64 else np.dtype(np.float32)
    total = np.zeros((*windows.shape[:1 + spatial], *kernel.shape[-3::2]), accumulator)
    lead = (slice(None),) * (1 + spatial)
    for place in np.ndindex(*kernel.shape[:spatial]):
        total += windows[(*lead, *place)].astype(accumulator, copy=False) * kernel[(*place, slice(None), 0)].astype(accumulator)
    return converted(total, dtype)


def _kernel_matrix(rhs: Array, window: Window, dims: ConvolutionDimensions, groups: int) -> Array:
    """The kernel as [kernel.., groups, c, o], reversed where the window says so; output features come in consecutive blocks."""
    kernel = rhs.transpose(*dims.kernel_spatial, dims.kernel_input_feature, dims.kernel_output_feature)
    flips = [axis for axis, spot in enumerate(window.dims) if spot.reversal]
    kernel = np.flip(kernel, tuple(flips)) if flips else kernel
    *spatial, channels, outputs = kernel.shape
    return np.moveaxis(kernel.reshape(*spatial, channels, groups, outputs // groups), -2, -3)


def _input_rows(lhs: Array, dims: ConvolutionDimensions, feature_groups: int, batch_groups: int) -> Array:
    """The input as [n, spatial.., groups, c]; a batch group k becomes feature group k of a smaller batch."""
    rows = lhs.transpose(dims.input_batch, *dims.input_spatial, dims.input_feature)
    batch, *spatial, features = rows.shape
    if batch_groups > 1:
        return np.moveaxis(rows.reshape(batch_groups, batch // batch_groups, *spatial, features), 0, -2)
    return rows.reshape(batch, *spatial, feature_groups, features // feature_groups)


_CHANNELWISE_PLACES = 256
"""Kernel places up to which a channelwise convolution is summed place by place; above, batched products are quicker."""


def convolve(lhs: Array, rhs: Array, window: Window, dims: ConvolutionDimensions, feature_groups: int, batch_groups: int,
             dtype: DType) -> Array:
    """Correlation of lhs with rhs in all of HLO's forms; result dimensions as dim_labels say."""
    rows = _input_rows(lhs, dims, feature_groups, batch_groups)
    kernel = _kernel_matrix(rhs, window, dims, max(feature_groups, batch_groups))
    for axis, spot in enumerate(window.dims, 1):
        rows = _padded_axis(rows, axis, spot)
    windows, spatial = _windows(rows, window), len(window.dims)
    places = math.prod(kernel.shape[:spatial])
    operands = {dtypes.from_numpy(lhs.dtype), dtypes.from_numpy(rhs.dtype)}
    is_plain = dtype.is_float and all(row.is_float for row in operands)
    if is_plain and kernel.shape[-2] == 1 and kernel.shape[-3] > 1 and places <= _CHANNELWISE_PLACES:
        result = _channelwise_sum(windows, kernel, spatial, dtype)
    else:
        result = _gathered_product(windows, kernel, spatial, dtype)
    result = result.reshape(*result.shape[:1 + spatial], -1 if result.size else rhs.shape[dims.kernel_output_feature])
    order = (dims.output_batch, *dims.output_spatial, dims.output_feature)
    return result.transpose(*np.argsort(order))


def _convolution(instruction: Instruction, lhs: Array, rhs: Array) -> Array:
    return convolve(lhs, rhs, instruction.attribute("window"), instruction.attribute("dim_labels"),
                    instruction.attribute("feature_group_count"), instruction.attribute("batch_group_count"),
                    instruction.shape.dtype)


operator("convolution", (2, None), attributes=(WINDOW, DIM_LABELS, FEATURE_GROUP_COUNT, BATCH_GROUP_COUNT, OPERAND_PRECISION,
                                               ALGORITHM, CONVOLUTION_KIND, SPARSITY_CONFIG),
         shape=_convolution_shape, evaluate=_convolution)


# fft

_COMPLEX_OF = {dtypes.F32: dtypes.C64, dtypes.F64: dtypes.C128, dtypes.C64: dtypes.C64, dtypes.C128: dtypes.C128}
_REAL_OF = {dtypes.C64: dtypes.F32, dtypes.C128: dtypes.F64}


def _fft_shape(x: Shape, fft_type: str, fft_length: Dims) -> Shape:
    if fft_type not in _TRANSFORMS:
        raise ShapeError(f"fft has no type {fft_type}")
    if not 1 <= len(fft_length) <= x.rank:
        raise ShapeError(f"fft over {len(fft_length)} dimensions needs as many in {x}")
    takes_complex = fft_type != "RFFT"
    if x.dtype.is_complex != takes_complex or x.dtype not in _COMPLEX_OF:
        raise ShapeError(f"fft of type {fft_type} takes {'complex' if takes_complex else 'f32 or f64'} elements, not {x.dtype}")
    lengths = tuple(fft_length)
    half = (*lengths[:-1], lengths[-1] // 2 + 1)
    expected = half if fft_type == "IRFFT" else lengths
    if x.dims[-len(lengths):] != expected:
        raise ShapeError(f"fft of type {fft_type} and length {list(lengths)} takes last dimensions {list(expected)}, not {x}")
    last = half if fft_type == "RFFT" else lengths
    return Shape(_REAL_OF[x.dtype] if fft_type == "IRFFT" else _COMPLEX_OF[x.dtype], x.dims[:-len(lengths)] + last)


_TRANSFORMS: dict[str, Callable[..., Array]] = {
    "FFT": np.fft.fftn, "IFFT": np.fft.ifftn, "RFFT": np.fft.rfftn, "IRFFT": np.fft.irfftn}


def _fft(instruction: Instruction, x: Array) -> Array:
    lengths = instruction.attribute("fft_length")
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    if 0 in instruction.shape.dims:
        return np.zeros(instruction.shape.dims, instruction.shape.dtype.numpy)
    transform = _TRANSFORMS[instruction.attribute("fft_type")]
    result = transform(x.astype(wide), s=lengths, axes=range(x.ndim - len(lengths), x.ndim))
    return result.astype(instruction.shape.dtype.numpy)


operator("fft", 1, attributes=(FFT_TYPE, FFT_LENGTH), shape=_fft_shape, evaluate=_fft)


# cholesky and triangular-solve

def _check_square(name: str, x: Shape) -> None:
    if x.rank < 2 or x.dims[-1] != x.dims[-2]:
        raise ShapeError(f"{name} takes matrices that are square in the last two dimensions, not {x}")
    if not (x.dtype.is_float or x.dtype.is_complex):
        raise ShapeError(f"{name} takes float or complex elements, not {x.dtype}")


def _cholesky_shape(x: Shape, lower: bool) -> Shape:
    _check_square("cholesky", x)
    return x


def _factor(matrix: Array, lower: bool) -> Array:
    """The Cholesky factor; NaN throughout where the matrix is not positive definite. The other triangle is never read."""
    try:
        return np.linalg.cholesky(matrix, upper=not lower)
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)


def _cholesky(instruction: Instruction, x: Array) -> Array:
    wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    result = np.empty_like(wide)
    for index in np.ndindex(x.shape[:-2]):
        result[index] = _factor(wide[index], instruction.attribute("lower"))
    return result.astype(instruction.shape.dtype.numpy)


operator("cholesky", 1, attributes=(CHOLESKY_LOWER,), shape=_cholesky_shape, evaluate=_cholesky)


def _triangular_solve_shape(a: Shape, b: Shape, *, left_side: bool, **_: Any) -> Shape:
    _check_square("triangular-solve", a)
    agreeing_dtype("triangular-solve", (a, b))
    if b.rank != a.rank or b.dims[:-2] != a.dims[:-2]:
        raise ShapeError(f"triangular-solve takes operands of equal batch dimensions, not {a} and {b}")
    if b.dims[-2 if left_side else -1] != a.dims[-1]:
        raise ShapeError(f"triangular-solve with a on the {'left' if left_side else 'right'}: {a} does not fit {b}")
    return b


_TRANSPOSES = {"NO_TRANSPOSE": lambda a: a, "TRANSPOSE": lambda a: a.swapaxes(-1, -2),
               "ADJOINT": lambda a: np.conj(a).swapaxes(-1, -2), "TRANSPOSE_INVALID": lambda a: a}


def _solve_lower(a: Array, b: Array, unit_diagonal: bool) -> Array:
    """Forward substitution over the rows, for all batches and right-hand sides at once; never reads above the diagonal."""
    x = np.empty_like(b)
    for row in range(a.shape[-1]):
        known = np.matmul(a[..., row:row + 1, :row], x[..., :row, :])[..., 0, :]
        rest = b[..., row, :] - known
        x[..., row, :] = rest if unit_diagonal else rest / a[..., row, row, None]
    return x


def _triangular_solve(instruction: Instruction, a: Array, b: Array) -> Array:
    """op(a) x = b or x op(a) = b, brought to a lower triangle on the left by transposing and reversing."""
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    transpose, lower = instruction.attribute("transpose_a"), instruction.attribute("lower")
    matrix, known = _TRANSPOSES[transpose](a.astype(wide)), b.astype(wide)
    is_lower = lower == (transpose in ("NO_TRANSPOSE", "TRANSPOSE_INVALID"))
    left_side = instruction.attribute("left_side")
    if not left_side:
        matrix, known, is_lower = matrix.swapaxes(-1, -2), known.swapaxes(-1, -2), not is_lower
    if not is_lower:
        matrix, known = matrix[..., ::-1, ::-1], known[..., ::-1, :]
    solved = _solve_lower(matrix, known, instruction.attribute("unit_diagonal"))
    solved = solved if is_lower else solved[..., ::-1, :]
    return (solved if left_side else solved.swapaxes(-1, -2)).astype(instruction.shape.dtype.numpy)


operator("triangular-solve", 2, attributes=TRIANGULAR_SOLVE, shape=_triangular_solve_shape, evaluate=_triangular_solve)
