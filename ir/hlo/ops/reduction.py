"""Reductions and windows: reduce, reduce-window, select-and-scatter, scan, sort, topk, batch norm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nxcc.ir.dtypes import PRED, S32, from_numpy
from nxcc.ir.hlo.attributes import (
    BATCH_NORM,
    DIMENSIONS,
    IS_STABLE,
    LARGEST,
    SCAN,
    WINDOW,
    K,
    PaddingDimension,
    Window,
    WindowDimension,
)
from nxcc.ir.hlo.combiners import (
    PLAIN,
    PlainOperation,
    plain_operation,
    reduce_arrays,
    scatter_into,
    sort_permutation,
    total_order_key,
)
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.operator import operator
from nxcc.ir.hlo.ops.checks import (
    need,
    need_array,
    need_arrays,
    need_called,
    need_combiner,
    need_compatible,
    need_dimension,
    need_dimensions,
    need_parameters,
    need_same_dims,
    need_scalar,
    same_numbers,
)
from nxcc.ir.hlo.ops.movement import pad
from nxcc.ir.hlo.scalar_function import ScalarFunction
from nxcc.ir.literals import Array
from nxcc.ir.shapes import Shape, array, tuple_of

Run = Callable[..., Any]
"""run(computation, *values) -> value"""


def _one_or_tuple(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _halves(shapes: Sequence[Shape]) -> tuple[Sequence[Shape], Sequence[Shape]]:
    """Data operands of equal dimensions and as many initial values."""
    need(len(shapes) % 2 == 0, f"there must be an initial value for each data operand, {len(shapes)} operands are given")
    need_arrays(shapes)
    data, inits = shapes[:len(shapes) // 2], shapes[len(shapes) // 2:]
    need_same_dims(data, "data operands")
    return data, inits


# reduce


def _reduce_shape(*shapes: Shape, dimensions: tuple[int, ...], called: Sequence[Computation]) -> Shape:
    data, inits = _halves(shapes)
    need_dimensions(dimensions, data[0].rank)
    need_called(called, 1)
    results = need_combiner(called[0], data, inits)
    kept = [d for d in range(data[0].rank) if d not in dimensions]
    dims = tuple(data[0].dims[d] for d in kept)
    dynamic = tuple(i for i, d in enumerate(kept) if d in data[0].dynamic)
    return _one_or_tuple_shape([Shape(result.dtype, dims, dynamic=dynamic) for result in results])


def _one_or_tuple_shape(shapes: Sequence[Shape]) -> Shape:
    return shapes[0] if len(shapes) == 1 else tuple_of(*shapes)


def _reduce(instruction: Instruction, *values: Any, run: Run) -> Any:
    half = len(values) // 2
    axes = instruction.attribute("dimensions")
    return _one_or_tuple(reduce_arrays(instruction.called[0], run, values[:half], values[half:], axes))


operator("reduce", (2, None), attributes=(DIMENSIONS,), called=("to_apply",), calls_back=True, shape=_reduce_shape,
         evaluate=_reduce)


# reduce-window


def windowed_size(size: int, window: WindowDimension) -> int:
    """How many places a window takes along a dimension of this size."""
    spread = 0 if size == 0 else (size - 1) * window.base_dilation + 1
    reach = (window.size - 1) * window.window_dilation + 1
    room = spread + window.padding_low + window.padding_high - reach
    return 0 if room < 0 else room // window.stride + 1


def _windowed_dims(x: Shape, window: Window) -> tuple[int, ...]:
    need(len(window.dims) == x.rank, f"window has {len(window.dims)} dimensions, the operand has {x.rank}")
    for d in window.dims:
        need(d.size > 0 and d.stride > 0 and d.window_dilation > 0 and d.base_dilation > 0,
             "window size, stride and dilations must be positive")
    return tuple(map(windowed_size, x.dims, window.dims))


def _reduce_window_shape(*shapes: Shape, window: Window, called: Sequence[Computation]) -> Shape:
    data, inits = _halves(shapes)
    dims = _windowed_dims(data[0], window)
    need_called(called, 1)
    results = need_combiner(called[0], data, inits)
    return _one_or_tuple_shape([Shape(result.dtype, dims) for result in results])


def _paddings(window: Window) -> list[PaddingDimension]:
    return [PaddingDimension(d.padding_low, d.padding_high, d.base_dilation - 1) for d in window.dims]


def _is_moved(window: Window) -> bool:
    return any(d.padding_low or d.padding_high or d.base_dilation > 1 for d in window.dims)


def _spread(x: Array, fill: Any, window: Window) -> Array:
    """The operand with holes and padding filled in, so that windows are plain slices of it."""
    return pad(x, fill, _paddings(window)) if _is_moved(window) else np.asarray(x)


def _window_slices(dims: Sequence[int], window: Window) -> Iterator[tuple[slice, ...]]:
    """For each cell of the window, row by row: which element of the spread operand it covers, for all places."""
    for cell in itertools.product(*(range(d.size) for d in window.dims)):
        starts = [c * d.window_dilation for c, d in zip(cell, window.dims, strict=True)]
        yield tuple(slice(start, start + (n - 1) * d.stride + 1, d.stride)
                    for start, n, d in zip(starts, dims, window.dims, strict=True))


def _reduce_window(instruction: Instruction, *values: Any, run: Run) -> Any:
    window, computation = instruction.attribute("window"), instruction.called[0]
    data, inits = values[:len(values) // 2], values[len(values) // 2:]
    dims = tuple(map(windowed_size, data[0].shape, window.dims))
    if len(data) == 1:
        plain = plain_operation(computation, from_numpy(data[0].dtype))
        if plain is not None:
            return _reduce_window_plain(_rounding(plain, window), data[0], inits[0], window, dims)
    function = ScalarFunction(computation, run)
    state = tuple(np.broadcast_to(np.asarray(init).astype(dtype), dims)
                  for init, dtype in zip(inits, function.result_types, strict=True))
    if 0 in dims:
        return _one_or_tuple(state)
    # holes and padding take no part: the initial value is combined once a window, not once a padded cell
    spread = [_spread(x, init, window) for x, init in zip(data, inits, strict=True)]
    real = _spread(np.ones(data[0].shape, np.bool_), False, window)
    for cells in _window_slices(dims, window):
        combined = function(*state, *(x[cells] for x in spread))
        inside = real[cells]
        state = tuple(np.where(inside, new, old) for new, old in zip(combined, state, strict=True))
    return _one_or_tuple(state)


ROUNDED_CELLS = 64
"""Cells of a window up to which each partial sum or product is rounded to the element type, as XLA CPU does; wider windows
are put together in another order and rounded once. Extremes are not rounded: not every type has the infinity at which they
start."""


def _rounding(plain: PlainOperation, window: Window) -> PlainOperation:
    is_float = plain.dtype.is_float or plain.dtype.is_complex
    if PLAIN[plain.opcode].exact or not is_float or math.prod(d.size for d in window.dims) > ROUNDED_CELLS:
        return plain
    return replace(plain, wide=plain.dtype.numpy)


def _reduce_window_plain(plain: PlainOperation, x: Array, init: Any, window: Window, dims: tuple[int, ...]) -> Array:
    if 0 in dims:
        return np.full(dims, init, plain.dtype.numpy)
    result = _spread(plain.widen(x), plain.identity, window)
    for axis, (d, size) in enumerate(zip(window.dims, dims, strict=True)):
        result = np.moveaxis(_slide(plain.ufunc, np.moveaxis(result, axis, 0), d, size), 0, axis)
    return plain.narrow(plain.ufunc(result, plain.widen(init)))


def _slide(ufunc: np.ufunc, x: Array, window: WindowDimension, count: int) -> Array:
    """Windows of one dimension over axis 0. Wide ones are put together from windows of 1, 2, 4, ... cells."""
    span = (count - 1) * window.stride + 1
    size, dilation = window.size, window.window_dilation
    if size * count <= 2 * size.bit_length() * len(x) or size <= 4:
        result = x[0:span:window.stride]
        for cell in range(1, size):
            result = ufunc(result, x[cell * dilation:cell * dilation + span:window.stride])
        return result
    covered, width, doubled, total = 0, 1, x, None
    while True:
        if size & width:
            piece = doubled[covered * dilation:covered * dilation + span]
            total = piece if total is None else ufunc(total, piece)
            covered += width
        if covered == size:
            assert total is not None
            return total[::window.stride]
        doubled = ufunc(doubled[:-width * dilation], doubled[width * dilation:])
        width *= 2


operator("reduce-window", (2, None), attributes=(WINDOW,), called=("to_apply",), calls_back=True,
         shape=_reduce_window_shape, evaluate=_reduce_window)


# select-and-scatter


def _select_and_scatter_shape(x: Shape, source: Shape, init: Shape, *, window: Window,
                              called: Sequence[Computation]) -> Shape:
    need_arrays((x, source, init))
    need_called(called, 2)
    select, scatter = called
    scalar = array(x.dtype)
    need_parameters(select, (scalar, scalar))
    need_scalar(select.root.shape, PRED, f"result of {select.name}")
    need_combiner(scatter, (x,), (init,))
    dims = _windowed_dims(x, window)
    need(source.dims == dims, f"source must be {Shape(x.dtype, dims)}, it is {source}")
    need(same_numbers(source.dtype, x.dtype), f"source must have the operand's type, it is {source}")
    return x


def _select_and_scatter(instruction: Instruction, x: Array, source: Array, init: Any, *, run: Run) -> Array:
    select, scatter = instruction.called
    window: Window = instruction.attribute("window")
    function = ScalarFunction(select, run)
    values = _spread(x, init, window)
    places = _spread(np.arange(x.size).reshape(x.shape), -1, window)
    picked = np.full(source.shape, -1)
    best = np.zeros(source.shape, x.dtype)
    if source.size:
        for cells in _window_slices(source.shape, window):
            keep = function(best, values[cells])[0]
            take = (places[cells] >= 0) & ((picked < 0) | ~keep)
            best, picked = np.where(take, values[cells], best), np.where(take, places[cells], picked)
    target = np.full(x.size, init, x.dtype)
    chosen = picked.reshape(-1) >= 0
    scatter_into(scatter, run, [target], picked.reshape(-1)[chosen], [np.asarray(source).reshape(-1)[chosen]])
    return target.reshape(x.shape)


operator("select-and-scatter", 3, attributes=(WINDOW,), called=("select", "scatter"), calls_back=True,
         shape=_select_and_scatter_shape, evaluate=_select_and_scatter)


# scan


def _scan_shape(*shapes: Shape, dimensions: tuple[int, ...], num_carries: int, called: Sequence[Computation],
                **_: Any) -> Shape:
    need(0 <= num_carries <= len(shapes), f"num_carries={num_carries} exceeds the {len(shapes)} operands")
    need_arrays(shapes)
    arrays, carries = shapes[:len(shapes) - num_carries], shapes[len(shapes) - num_carries:]
    need(len(arrays) > 0, "at least one operand must be scanned")
    d = need_dimension(dimensions, arrays[0].rank)
    length = arrays[0].dims[d]
    for shape in arrays:
        need(d < shape.rank and shape.dims[d] == length, f"operands must have size {length} in dimension {d}, one is {shape}")
    need_called(called, 1)
    body = called[0]
    need_parameters(body, [*(Shape(s.dtype, (*s.dims[:d], *s.dims[d + 1:])) for s in arrays), *carries])
    root = body.root.shape
    results = root.elements if root.is_tuple else (root,)
    need(len(results) >= num_carries, f"the body must return {num_carries} carries, it returns {root}")
    outputs = results[:len(results) - num_carries]
    for carry, result in zip(carries, results[len(outputs):], strict=True):
        need_compatible(result, carry, "carry that the body returns")
    need(all(d <= shape.rank for shape in outputs), f"the body's outputs have no place for dimension {d}")
    stacked = [Shape(s.dtype, (*s.dims[:d], length, *s.dims[d:])) for s in outputs]
    return tuple_of(*stacked, *carries) if root.is_tuple else (*stacked, *carries)[0]


def _scan(instruction: Instruction, *values: Any, run: Run) -> Any:
    body, count = instruction.called[0], len(values) - instruction.attribute("num_carries")
    d = instruction.attribute("dimensions")[0]
    arrays, carries = values[:count], tuple(values[count:])
    length = arrays[0].shape[d]
    shapes = instruction.shape.elements if instruction.shape.is_tuple else (instruction.shape,)
    outputs = [np.empty(s.dims, s.dtype.numpy) for s in shapes[:len(shapes) - len(carries)]]
    steps = range(length)
    for step in reversed(steps) if instruction.attribute("is_reverse") else steps:
        result = run(body, *(np.take(x, step, axis=d) for x in arrays), *carries)
        parts = result if body.root.shape.is_tuple else (result,)
        for output, part in zip(outputs, parts, strict=False):
            np.moveaxis(output, d, 0)[step] = part
        carries = tuple(parts[len(outputs):])
    results = (*outputs, *carries)
    return results if instruction.shape.is_tuple else results[0]


operator("scan", (1, None), attributes=SCAN, called=("to_apply",), calls_back=True, shape=_scan_shape, evaluate=_scan)


# sort, topk


def _sort_shape(*shapes: Shape, dimensions: tuple[int, ...], called: Sequence[Computation], **_: Any) -> Shape:
    need_arrays(shapes)
    need_same_dims(shapes)
    if shapes[0].rank or dimensions:
        need_dimension(dimensions, shapes[0].rank)
    need_called(called, 1)
    need_parameters(called[0], [array(shape.dtype) for shape in shapes for _ in range(2)])
    need_scalar(called[0].root.shape, PRED, f"result of the comparator {called[0].name}")
    return _one_or_tuple_shape(shapes)


def _sort(instruction: Instruction, *values: Array, run: Run) -> Any:
    if not values[0].size:
        return _one_or_tuple(values)
    d = instruction.attribute("dimensions")[0]
    rows = [np.moveaxis(x, d, -1) for x in values]
    order = sort_permutation(instruction.called[0], run, rows)
    return _one_or_tuple([np.moveaxis(np.take_along_axis(x, order, -1), -1, d) for x in rows])


def _topk_shape(x: Shape, *, k: int, **_: Any) -> Shape:
    need_array(x)
    need(x.rank > 0, "operand must have at least one dimension")
    need(0 <= k <= x.dims[-1], f"k={k} must not exceed the {x.dims[-1]} elements of the last dimension")
    dims = (*x.dims[:-1], k)
    return tuple_of(Shape(x.dtype, dims), Shape(S32, dims))


def top_k(x: Array, k: int, largest: bool) -> tuple[Array, Array]:
    """Values and s32 indices of the k first elements of the last axis, in total order (so NaN is the largest).

    Equal elements come by lower index.
    """
    key = total_order_key(x)
    order = np.argsort(np.invert(key) if largest else key, axis=-1, kind="stable")[..., :k]
    return np.take_along_axis(x, order, -1), order.astype(np.int32)


operator("sort", (1, None), attributes=(DIMENSIONS, IS_STABLE), called=("to_apply",), calls_back=True,
         shape=_sort_shape, evaluate=_sort)
operator("topk", 1, attributes=(K, LARGEST, IS_STABLE), shape=_topk_shape,
         evaluate=lambda i, x: top_k(x, i.attribute("k"), i.attribute("largest")))


# batch norm: computed in f64, rounded once


def _check_features(x: Shape, features: Sequence[Shape], feature_index: int) -> None:
    need_arrays((x, *features))
    need_dimension((feature_index,), x.rank, "feature_index")
    need(x.dtype.is_float, f"operand must be of a float type, it is {x}")
    for shape in features:
        fits = shape.dims == (x.dims[feature_index],) and same_numbers(shape.dtype, x.dtype)
        need(fits, f"one value a feature is needed: {x.dtype}[{x.dims[feature_index]}], not {shape}")


def _training_shape(x: Shape, scale: Shape, offset: Shape, *, feature_index: int, **_: Any) -> Shape:
    _check_features(x, (scale, offset), feature_index)
    return tuple_of(x, scale, scale)


def _inference_shape(x: Shape, *features: Shape, feature_index: int, **_: Any) -> Shape:
    _check_features(x, features, feature_index)
    return x


def _grad_shape(x: Shape, scale: Shape, mean: Shape, variance: Shape, gradient: Shape, *, feature_index: int,
                **_: Any) -> Shape:
    _check_features(x, (scale, mean, variance), feature_index)
    need_compatible(gradient, x, "gradient of the output")
    return tuple_of(x, scale, scale)


def _wide(x: Any) -> Array:
    return np.asarray(x).astype(np.float64)


def _per_feature(instruction: Instruction, rank: int) -> tuple[Callable[[Any], Array], tuple[int, ...]]:
    """How to spread one value a feature over the operand (in f64), and the axes that are not the feature's."""
    feature = instruction.attribute("feature_index")
    dims = [-1 if d == feature else 1 for d in range(rank)]
    return lambda v: _wide(v).reshape(dims), tuple(d for d in range(rank) if d != feature)


def _normalized(instruction: Instruction, x: Array, scale: Any, offset: Any, mean: Any, variance: Any) -> Array:
    spread, _ = _per_feature(instruction, x.ndim)
    inverse = 1.0 / np.sqrt(_wide(variance) + instruction.attribute("epsilon"))
    return ((_wide(x) - spread(mean)) * spread(_wide(scale) * inverse) + spread(offset)).astype(x.dtype)


def _training(instruction: Instruction, x: Array, scale: Array, offset: Array) -> Any:
    """Sums are rounded to the features' dtype, in which XLA makes them: squares of large numbers overflow there."""
    spread, axes = _per_feature(instruction, x.ndim)
    if x.size:
        mean = _wide(x).mean(axes)
        squares = np.square(_wide(x) - spread(mean)).sum(axes).astype(np.result_type(scale.dtype, np.float32))
        variance = _wide(squares) / (x.size // scale.size)
    else:
        mean = variance = np.full(scale.shape, np.nan)
    return (_normalized(instruction, x, scale, offset, mean, variance), mean.astype(scale.dtype),
            variance.astype(scale.dtype))


def _grad(instruction: Instruction, x: Array, scale: Array, mean: Array, variance: Array, gradient: Array) -> Any:
    spread, axes = _per_feature(instruction, x.ndim)
    count = math.prod(x.shape[d] for d in axes)
    inverse = 1.0 / np.sqrt(_wide(variance) + instruction.attribute("epsilon"))
    centred, dy = _wide(x) - spread(mean), _wide(gradient)
    offset_gradient = dy.sum(axes)
    projection = (dy * centred).sum(axes)
    inner = dy - spread(offset_gradient / count) - centred * spread(projection * inverse**2 / count)
    x_gradient = spread(_wide(scale) * inverse) * inner
    return (x_gradient.astype(x.dtype), (projection * inverse).astype(scale.dtype), offset_gradient.astype(scale.dtype))


operator("batch-norm-training", 3, attributes=BATCH_NORM, shape=_training_shape, evaluate=_training)
operator("batch-norm-inference", 5, attributes=BATCH_NORM, shape=_inference_shape, evaluate=_normalized)
operator("batch-norm-grad", 5, attributes=BATCH_NORM, shape=_grad_shape, evaluate=_grad)
