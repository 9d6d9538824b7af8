"""Convolution: windows of the input as rows of a matrix product, piece by piece, so that no copy of all windows is made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nxcc.ir import dtypes
from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.attributes import (
    ALGORITHM,
    BATCH_GROUP_COUNT,
    CONVOLUTION_KIND,
    DIM_LABELS,
    FEATURE_GROUP_COUNT,
    OPERAND_PRECISION,
    SPARSITY_CONFIG,
    WINDOW,
    ConvolutionDimensions,
    Window,
    WindowDimension,
)
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError, operator
from nxcc.ir.hlo.ops.conversion import converted
from nxcc.ir.hlo.ops.matrix_products import PIECE_ELEMENTS, product, product_dtype
from nxcc.ir.shapes import Shape

Array = np.ndarray[Any, Any]
Dims = tuple[int, ...]


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
    dtype = product_dtype("convolution", lhs, rhs)
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
    if len(places) == 1 or inner * places[1] <= PIECE_ELEMENTS:
        step = max(1, PIECE_ELEMENTS // max(1, math.prod(places[1:]) * elements_each))
        return [(slice(start, start + step),) for start in range(0, places[0], step)]
    step = max(1, PIECE_ELEMENTS // inner)
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
