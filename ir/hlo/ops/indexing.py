"""Data movement with addresses known at run time, and dynamic dimension sizes.

Indices may be of any integer type; they are widened to s64 before use, u64 beyond its range counting as far out of bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir.dtypes import S32
from nxcc.ir.hlo.attributes import DIMENSIONS, DYNAMIC_SLICE_SIZES, GATHER, SCATTER
from nxcc.ir.hlo.combiners import scatter_into
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.operator import operator
from nxcc.ir.hlo.ops.checks import (
    need,
    need_array,
    need_arrays,
    need_called,
    need_combiner,
    need_dimension,
    need_dimensions,
    need_integer,
    need_same_dims,
    need_scalar,
    need_sorted,
)
from nxcc.ir.literals import Array
from nxcc.ir.shapes import Shape, array, tuple_of

Run = Callable[..., Any]
"""run(computation, *values) -> value"""

FARTHEST = 2**62
"""Stands for any index that is out of bounds whatever is added to it."""


def _wide_indices(indices: Any) -> Array:
    wide: Array = np.asarray(indices)
    if wide.dtype == np.uint64:
        wide = np.minimum(wide, np.uint64(FARTHEST))
    return np.asarray(np.clip(wide.astype(np.int64), -FARTHEST, FARTHEST))


# dynamic-slice, dynamic-update-slice


def _need_starts(starts: Sequence[Shape], rank: int) -> None:
    """One scalar index a dimension, or the older form: all of them in one vector."""
    need_arrays(starts)
    for start in starts:
        need_integer(start, "start index")
    if len(starts) == 1 and starts[0].dims == (rank,):
        return
    need(len(starts) == rank, f"{rank} start indices are needed, {len(starts)} are given")
    for start in starts:
        need(start.dims == (), f"start indices must be scalars, one is {start}")
        need(start.dtype is starts[0].dtype, "start indices must be of one type")


def _dynamic_slice_shape(x: Shape, *starts: Shape, dynamic_slice_sizes: tuple[int, ...]) -> Shape:
    need_array(x)
    _need_starts(starts, x.rank)
    need(len(dynamic_slice_sizes) == x.rank, f"dynamic_slice_sizes must have {x.rank} sizes")
    fits = all(0 <= size <= full for size, full in zip(dynamic_slice_sizes, x.dims, strict=True))
    need(fits, f"dynamic_slice_sizes={{{','.join(map(str, dynamic_slice_sizes))}}} must fit into {x}")
    return Shape(x.dtype, dynamic_slice_sizes)


def _dynamic_update_slice_shape(x: Shape, update: Shape, *starts: Shape) -> Shape:
    need_arrays((x, update))
    _need_starts(starts, x.rank)
    fits = (update.dtype is x.dtype and update.rank == x.rank
            and all(size <= full for size, full in zip(update.dims, x.dims, strict=True)))
    need(fits, f"update {update} must fit into {x}")
    return x


def _clamped_window(x: Array, sizes: Sequence[int], starts: Sequence[Any]) -> tuple[slice, ...]:
    indices = np.concatenate([_wide_indices(start).reshape(-1) for start in starts]) if starts else ()
    return tuple(slice(first, first + size) for first, size in (
        (min(max(int(start), 0), full - size), size) for start, size, full in zip(indices, sizes, x.shape, strict=True)))


def _dynamic_slice(instruction: Instruction, x: Array, *starts: Any) -> Array:
    return x[_clamped_window(x, instruction.attribute("dynamic_slice_sizes"), starts)]


def _dynamic_update_slice(instruction: Instruction, x: Array, update: Array, *starts: Any) -> Array:
    result = np.array(x)
    result[_clamped_window(x, update.shape, starts)] = update
    return result


operator("dynamic-slice", (1, None), attributes=(DYNAMIC_SLICE_SIZES,), moves_data=True, shape=_dynamic_slice_shape,
         evaluate=_dynamic_slice)
operator("dynamic-update-slice", (2, None), moves_data=True, shape=_dynamic_update_slice_shape,
         evaluate=_dynamic_update_slice)


# gather


def _need_index_dimensions(indices: Shape, index_vector_dim: int, mapped: Sequence[int], rank: int, what: str) -> None:
    """The index vector has one element for each operand dimension that it addresses."""
    need_integer(indices, "indices")
    need(0 <= index_vector_dim <= indices.rank, f"index_vector_dim={index_vector_dim} must lie in [0, {indices.rank}]")
    need_dimensions(mapped, rank, what)
    length = indices.dims[index_vector_dim] if index_vector_dim < indices.rank else 1
    need(len(mapped) == length, f"{what} names {len(mapped)} dimensions, an index vector has {length} elements")


def _need_batching(x: Shape, indices: Shape, index_vector_dim: int, batching: Sequence[int],
                   index_batching: Sequence[int], others: Sequence[int]) -> None:
    """Operand and index dimensions that run together: as many, used for nothing else.

    Their sizes may differ, as XLA allows: a batch number beyond the operand is an index out of bounds.
    """
    need_dimensions(batching, x.rank, "operand batching dimensions")
    need_dimensions(index_batching, indices.rank, "index batching dimensions")
    need_sorted(batching, "operand batching dimensions")
    need(len(batching) == len(index_batching), "operand and indices must have as many batching dimensions")
    need(not set(batching) & set(others), "a batching dimension must not be collapsed, inserted or indexed")
    need(index_vector_dim not in index_batching, "the index vector must not be a batching dimension")


def _batch_dims(indices: Shape, index_vector_dim: int) -> list[int]:
    return [size for d, size in enumerate(indices.dims) if d != index_vector_dim]


def _gather_shape(x: Shape, indices: Shape, *, offset_dims: tuple[int, ...], collapsed_slice_dims: tuple[int, ...],
                  start_index_map: tuple[int, ...], operand_batching_dims: tuple[int, ...],
                  start_indices_batching_dims: tuple[int, ...], index_vector_dim: int, slice_sizes: tuple[int, ...],
                  **_: Any) -> Shape:
    need_arrays((x, indices))
    _need_index_dimensions(indices, index_vector_dim, start_index_map, x.rank, "start_index_map")
    need_dimensions(collapsed_slice_dims, x.rank, "collapsed_slice_dims")
    need_sorted(collapsed_slice_dims, "collapsed_slice_dims")
    need_sorted(offset_dims, "offset_dims")
    _need_batching(x, indices, index_vector_dim, operand_batching_dims, start_indices_batching_dims,
                   (*collapsed_slice_dims, *start_index_map))
    need(len(slice_sizes) == x.rank, f"slice_sizes must have {x.rank} sizes")
    for d, (size, full) in enumerate(zip(slice_sizes, x.dims, strict=True)):
        need(0 <= size <= full, f"slice size {size} does not fit dimension {d} of {x}")
    dropped = {*collapsed_slice_dims, *operand_batching_dims}
    need(all(slice_sizes[d] <= 1 for d in dropped), "slice sizes of collapsed and batching dimensions must be at most 1")
    window = [size for d, size in enumerate(slice_sizes) if d not in dropped]
    need(len(window) == len(offset_dims), f"offset_dims must name {len(window)} dimensions, one for each that is kept")
    batch = _batch_dims(indices, index_vector_dim)
    rank = len(batch) + len(window)
    need_dimensions(offset_dims, rank, "offset_dims")
    rest, offsets = iter(batch), iter(window)
    return Shape(x.dtype, tuple(next(offsets) if d in offset_dims else next(rest) for d in range(rank)))


def _index_vectors(indices: Array, index_vector_dim: int) -> Array:
    """[batch..., vector]: the index vectors last, an implicit one made explicit."""
    wide = _wide_indices(indices)
    return wide[..., None] if index_vector_dim == wide.ndim else np.moveaxis(wide, index_vector_dim, -1)


def _window_starts(vectors: Array, mapped: Sequence[int], batching: Sequence[int], index_batching: Sequence[int],
                   index_vector_dim: int) -> dict[int, Array]:
    """Where windows start in each operand dimension that is indexed or batched, shaped as the batch."""
    batch = vectors.shape[:-1]
    starts = {d: vectors[..., number] for number, d in enumerate(mapped)}
    for d, index_d in zip(batching, index_batching, strict=True):
        place = index_d - (index_d > index_vector_dim)
        counts = np.arange(batch[place]).reshape([-1 if b == place else 1 for b in range(len(batch))])
        starts[d] = np.broadcast_to(counts, batch)
    return starts


def _gather(instruction: Instruction, x: Array, indices: Array) -> Array:
    attribute = instruction.attribute
    sizes, batching = attribute("slice_sizes"), attribute("operand_batching_dims")
    if 0 in sizes:
        return np.zeros(instruction.shape.dims, x.dtype)
    vectors = _index_vectors(indices, attribute("index_vector_dim"))
    starts = _window_starts(vectors, attribute("start_index_map"), batching,
                            attribute("start_indices_batching_dims"), attribute("index_vector_dim"))
    # dimensions taken whole stay slices, so that rows of a table are copied as rows
    indexed = [d for d in range(x.ndim) if d in starts or sizes[d] != x.shape[d]]
    whole = [d for d in range(x.ndim) if d not in indexed]
    batch_rank = vectors.ndim - 1
    places = []
    for number, d in enumerate(indexed):
        start = np.clip(starts.get(d, np.zeros((1,) * batch_rank, np.int64)), 0, max(x.shape[d] - sizes[d], 0))
        spread = [1] * len(indexed)
        spread[number] = sizes[d]
        places.append(start.reshape(*start.shape, *(1,) * len(indexed)) + np.arange(sizes[d]).reshape(spread))
    shape = (*vectors.shape[:-1], *(sizes[d] for d in indexed), *(x.shape[d] for d in whole))
    taken = np.transpose(x, [*indexed, *whole])
    taken = np.broadcast_to(taken[tuple(np.broadcast_arrays(*places))] if places else taken, shape)
    return _place_windows(taken, batch_rank, [*indexed, *whole],
                          {*attribute("collapsed_slice_dims"), *batching}, attribute("offset_dims"))


def _place_windows(taken: Array, batch_rank: int, order: Sequence[int], dropped: set[int],
                   offset_dims: Sequence[int]) -> Array:
    """[batch..., window in `order`] to the result: collapsed dimensions go, the others move to offset_dims."""
    kept = sorted(d for d in order if d not in dropped)
    gone = tuple(batch_rank + number for number, d in enumerate(order) if d in dropped)
    remaining = [d for d in order if d not in dropped]
    window = np.transpose(np.squeeze(taken, gone), [*range(batch_rank), *(batch_rank + remaining.index(d) for d in kept)])
    return np.moveaxis(window, range(batch_rank, window.ndim), offset_dims)


operator("gather", 2, attributes=GATHER, moves_data=True, shape=_gather_shape, evaluate=_gather)


# scatter


def _scatter_shape(*shapes: Shape, update_window_dims: tuple[int, ...], inserted_window_dims: tuple[int, ...],
                   scatter_dims_to_operand_dims: tuple[int, ...], input_batching_dims: tuple[int, ...],
                   scatter_indices_batching_dims: tuple[int, ...], index_vector_dim: int,
                   called: Sequence[Computation], **_: Any) -> Shape:
    need(len(shapes) % 2 == 1, "scatter takes n operands, the indices, and n updates")
    need_arrays(shapes)
    count = len(shapes) // 2
    targets, indices, updates = shapes[:count], shapes[count], shapes[count + 1:]
    need_same_dims(targets)
    need_same_dims(updates, "updates")
    x, update = targets[0], updates[0]
    _need_index_dimensions(indices, index_vector_dim, scatter_dims_to_operand_dims, x.rank, "scatter_dims_to_operand_dims")
    need_dimensions(inserted_window_dims, x.rank, "inserted_window_dims")
    need_sorted(inserted_window_dims, "inserted_window_dims")
    need_dimensions(update_window_dims, update.rank, "update_window_dims")
    need_sorted(update_window_dims, "update_window_dims")
    _need_batching(x, indices, index_vector_dim, input_batching_dims, scatter_indices_batching_dims,
                   (*inserted_window_dims, *scatter_dims_to_operand_dims))
    windowed = [d for d in range(x.rank) if d not in inserted_window_dims and d not in input_batching_dims]
    need(len(windowed) == len(update_window_dims),
         f"update_window_dims must name {len(windowed)} dimensions, one for each operand dimension that is kept")
    for d, update_d in zip(windowed, update_window_dims, strict=True):
        need(update.dims[update_d] <= x.dims[d], f"update window of size {update.dims[update_d]} exceeds dimension {d} of {x}")
    batch = [size for d, size in enumerate(update.dims) if d not in update_window_dims]
    need(batch == _batch_dims(indices, index_vector_dim), f"updates {update} do not fit the indices {indices}")
    need_called(called, 1)
    need_combiner(called[0], targets, [array(t.dtype) for t in targets])
    return x if count == 1 else tuple_of(*targets)


def _scatter(instruction: Instruction, *values: Array, run: Run) -> Any:
    count = len(values) // 2
    targets = [np.array(x) for x in values[:count]]
    places, inside = _scatter_places(instruction, targets[0].shape, values[count], values[count + 1].shape)
    window_dims = instruction.attribute("update_window_dims")
    updates = []
    for update in values[count + 1:]:
        rest = [d for d in range(update.ndim) if d not in window_dims]
        ordered = np.transpose(update, [*rest, *window_dims]).reshape(places.shape)
        updates.append(ordered[inside].reshape(-1))
    flat = [x.reshape(-1) for x in targets]
    scatter_into(instruction.called[0], run, flat, places[inside].reshape(-1), updates)
    results = [x.reshape(target.shape) for x, target in zip(flat, targets, strict=True)]
    return results[0] if count == 1 else tuple(results)


def _scatter_places(instruction: Instruction, dims: tuple[int, ...], indices: Array,
                    update_dims: tuple[int, ...]) -> tuple[Array, Array]:
    """[windows, elements of a window] flat places in the operand, and which windows lie inside it altogether."""
    attribute = instruction.attribute
    vectors = _index_vectors(indices, attribute("index_vector_dim"))
    starts = _window_starts(vectors, attribute("scatter_dims_to_operand_dims"), attribute("input_batching_dims"),
                            attribute("scatter_indices_batching_dims"), attribute("index_vector_dim"))
    dropped = {*attribute("inserted_window_dims"), *attribute("input_batching_dims")}
    window_sizes = iter(update_dims[d] for d in attribute("update_window_dims"))
    sizes = [1 if d in dropped else next(window_sizes) for d in range(len(dims))]
    strides = [int(np.prod(dims[d + 1:])) for d in range(len(dims))]
    windows = int(np.prod(vectors.shape[:-1]))
    inside = np.ones(windows, np.bool_)
    base = np.zeros(windows, np.int64)
    for d, start in starts.items():
        column = start.reshape(-1)
        inside &= (column >= 0) & (column <= dims[d] - sizes[d])
        base += np.where(inside, column, 0) * strides[d]
    within = np.zeros(1, np.int64)
    for size, stride in zip(sizes, strides, strict=True):
        within = (within[:, None] + np.arange(size) * stride).reshape(-1)
    return base[:, None] + within, inside


operator("scatter", (3, None), attributes=SCATTER, called=("to_apply",), calls_back=True, shape=_scatter_shape,
         evaluate=_scatter)


# dynamic sizes: the array is as long as its true size


def _check_dynamic_reshape(instruction: Instruction) -> None:
    x, *sizes = (o.shape for o in instruction.operands)
    target = instruction.shape
    need_arrays((x, target, *sizes))
    need(x.dtype is target.dtype, f"dynamic-reshape must keep the element type, {x} becomes {target}")
    need(len(sizes) == target.rank, f"{target.rank} sizes are needed, {len(sizes)} are given")
    for size in sizes:
        need_scalar(size, S32, "size")
    need(x.element_count == target.element_count, f"{x} and {target} differ in their number of elements")


def _get_dimension_size_shape(x: Shape, *, dimensions: tuple[int, ...]) -> Shape:
    need_array(x)
    need_dimension(dimensions, x.rank)
    return array(S32)


def _set_dimension_size_shape(x: Shape, size: Shape, *, dimensions: tuple[int, ...]) -> Shape:
    need_array(x)
    d = need_dimension(dimensions, x.rank)
    need_scalar(size, S32, "size")
    return Shape(x.dtype, x.dims, dynamic=tuple(sorted({*x.dynamic, d})))


def _set_dimension_size(instruction: Instruction, x: Array, size: Any) -> Array:
    d = instruction.attribute("dimensions")[0]
    if d not in instruction.shape.dynamic:
        return x
    wanted = min(max(int(size), 0), instruction.operands[0].shape.dims[d])
    if wanted <= x.shape[d]:
        return np.asarray(x[(slice(None),) * d + (slice(0, wanted),)])
    # beyond the true size lies padding, which we hold to be zeros
    grown = np.zeros((*x.shape[:d], wanted, *x.shape[d + 1:]), x.dtype)
    grown[(slice(None),) * d + (slice(0, x.shape[d]),)] = x
    return grown


operator("dynamic-reshape", (1, None), moves_data=True, check=_check_dynamic_reshape,
         evaluate=lambda i, x, *sizes: x.reshape([int(size) for size in sizes]))
operator("get-dimension-size", 1, attributes=(DIMENSIONS,), shape=_get_dimension_size_shape,
         evaluate=lambda i, x: np.asarray(x.shape[i.attribute("dimensions")[0]], np.int32))
operator("set-dimension-size", 2, attributes=(DIMENSIONS,), shape=_set_dimension_size_shape,
         evaluate=_set_dimension_size)
