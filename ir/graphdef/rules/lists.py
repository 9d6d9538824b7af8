"""Tensor lists and TensorArrays: a list of n elements is one array [n, ...] that is updated row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nxcc.ir.diagnostics import GRAPH_DYNAMIC, CompileError
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.distances import number_at
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.indexing import scatter
from nxcc.ir.graphdef.values import ArrayHandle, Stack, Value
from nxcc.ir.hlo.module import Instruction


def _stack(call: Call, number: int) -> Stack:
    value = call.inputs[number]
    if not isinstance(value, Stack):
        raise call.invalid(f"input {number} of {call.node.op} is no list")
    return value


def _dims(call: Call, number: int) -> tuple[int, ...] | None:
    """An element shape if it is fully known."""
    values = call.known(number)
    if values is None or values.shape == () or (values < 0).any():
        return None
    return tuple(int(v) for v in values.reshape(-1))


def _whole(call: Call, number: int) -> Stack:
    """A list whose length is asked for, or everything in it."""
    stack = _stack(call, number)
    if stack.growing:
        raise CompileError(GRAPH_DYNAMIC, f"{call.node.op} asks how long a list is by now", call.name,
                           why="the loop is still filling it, and HLO shapes are fixed", remedy="use it behind the loop")
    return stack


def _items(call: Call, stack: Stack, dims: tuple[int, ...] | None = None) -> Instruction:
    """The array of a list; of one that was never written, zeros."""
    if stack.end is not None:
        raise CompileError(GRAPH_DYNAMIC, "it is not known how long the list is", call.name,
                           why="it was written at a place that values say", remedy="make the list with its size")
    if stack.items is not None:
        return stack.items
    shape = stack.dims if stack.dims is not None else dims
    if shape is None:
        raise CompileError(GRAPH_DYNAMIC, "the shape of the list's elements is not known", call.name,
                           why="nothing was written to it", remedy="give input shapes in --io-config")
    return call.emit.full(stack.dtype, (stack.length, *shape), 0)


def _read(call: Call, stack: Stack, index: Instruction, dims: tuple[int, ...] | None = None) -> Value:
    return call.emit.row(_items(call, stack, dims), index)


def _write(call: Call, stack: Stack, index: Instruction, item: Instruction) -> Value:
    return stack.holding(call.emit.with_row(_items(call, stack, item.shape.dims), index, item))


# Tensor lists


@rule("TensorListReserve")
def reserve(call: Call) -> Value:
    length = call.number(1)
    call.need(length >= 0, f"a list cannot have {length} elements")
    return Stack(call.dtype("element_dtype"), length, _dims(call, 0))


@rule("EmptyTensorList")
def empty_list(call: Call) -> Value:
    return Stack(call.dtype("element_dtype"), 0, _dims(call, 0))


@rule("TensorListFromTensor")
def from_tensor(call: Call) -> Value:
    x = call.x(0)
    call.need(x.shape.rank > 0, "a scalar is no list")
    return Stack(x.shape.dtype, x.shape.dims[0]).holding(x)


@rule("TensorListGetItem", needs=("dynamic-slice",))
def get_item(call: Call) -> Value:
    return _read(call, _stack(call, 0), call.x(1), _dims(call, 2))


@rule("TensorListSetItem", needs=("dynamic-update-slice",))
def set_item(call: Call) -> Value:
    stack, index, item = _stack(call, 0), call.x(1), call.x(2)
    if call.attr("resize_if_index_out_of_bounds"):
        place = number_at(call.scope.constants, index, 0)
        if place.base is not None and not stack.length:
            return replace(stack, dims=item.shape.dims, end=place)
        if place.base is None and place.offset >= stack.length:
            stack = _resized(call, stack, place.offset + 1, item.shape.dims)
    return _write(call, stack, index, item)


def _resized(call: Call, stack: Stack, length: int, dims: tuple[int, ...] | None = None) -> Stack:
    """A list cut, or filled up with zeros."""
    call.need(length >= 0, f"a list cannot have {length} elements")
    call.table(length)
    if stack.items is None:
        return replace(stack, length=length)
    x = _items(call, stack, dims)
    kept = call.emit.part(x, 0, 0, min(length, stack.length))
    more = [length - kept.shape.dims[0]] + [0] * (x.shape.rank - 1)
    return stack.holding(call.emit.pad(kept, call.emit.scalar(x.shape.dtype, 0), [0] * x.shape.rank, more))


@rule("TensorListResize")
def resize_list(call: Call) -> Value:
    return _resized(call, _whole(call, 0), call.number(1))


@rule("TensorListStack")
def stack_list(call: Call) -> Value:
    return _items(call, _whole(call, 0), _dims(call, 1))


@rule("TensorListGather")
def gather_list(call: Call) -> Value:
    return call.emit.take(_items(call, _whole(call, 0), _dims(call, 2)), call.x(1), 0)


@rule("TensorListConcatV2")
def concat_list(call: Call) -> Sequence[Value]:
    x = _items(call, _whole(call, 0))
    call.need(x.shape.rank >= 2, "the elements of the list are scalars")
    n, each = x.shape.dims[:2]
    return [call.emit.reshape(x, (n * each, *x.shape.dims[2:])), call.emit.constant(np.full(n, each, np.int64))]


@rule("TensorListLength")
def list_length(call: Call) -> Value:
    return call.emit.constant(np.asarray(_whole(call, 0).length, np.int32))


@rule("TensorListElementShape")
def element_shape(call: Call) -> Value:
    dims = _stack(call, 0).dims
    return call.emit.constant(np.asarray(-1 if dims is None else dims, call.dtype("shape_type").numpy))


@rule("TensorListSplit", ranks=("1+", None, 1))
def split_list(call: Call) -> Value:
    """Parts of the first dimension, all of one length, as elements of a list have one shape."""
    x, lengths = call.x(0), call.ints(2)
    n = len(lengths)
    each = lengths[0] if lengths else 0
    call.need(all(length == each for length in lengths) and n * each == x.shape.dims[0],
              f"{x.shape} cannot be cut in parts {lengths[:8]} of one length")
    return Stack(x.shape.dtype, n).holding(call.emit.reshape(x, (n, each, *x.shape.dims[1:])))


@rule("TensorListPushBack")
def push_back(call: Call) -> Value:
    stack, item = _stack(call, 0), call.x(1)
    row = call.emit.reshape(item, (1, *item.shape.dims))
    return stack.holding(row if stack.items is None else call.emit.concatenate([stack.items, row], 0))


@rule("TensorListPopBack")
def pop_back(call: Call) -> Sequence[Value]:
    stack = _stack(call, 0)
    x = _items(call, stack, _dims(call, 1))
    n = stack.length
    call.need(n > 0, "the list is empty")
    last = call.emit.reshape(call.emit.part(x, 0, n - 1, n), x.shape.dims[1:])
    return [stack.holding(call.emit.part(x, 0, 0, n - 1)), last]


# TensorArrays: the contents follow the flow, so the handle is only a name


@rule("TensorArrayV3")
def tensor_array(call: Call) -> Sequence[Value]:
    declared = call.attr("element_shape")
    known = isinstance(declared, tuple) and min(declared, default=0) >= 0
    return [ArrayHandle(call.name), Stack(call.dtype("dtype"), call.number(0), tuple(declared) if known else None)]


@rule("TensorArrayReadV3", needs=("dynamic-slice",))
def array_read(call: Call) -> Value:
    return _read(call, _stack(call, 2), call.x(1))


@rule("TensorArrayWriteV3", needs=("dynamic-update-slice",))
def array_write(call: Call) -> Value:
    return _write(call, _stack(call, 3), call.x(1), call.x(2))


@rule("TensorArrayGatherV3")
def array_gather(call: Call) -> Value:
    stack, places = _stack(call, 2), call.known(1)
    x = _items(call, stack)
    if places is not None and np.array_equal(places, np.arange(stack.length)):
        return x
    return call.emit.take(x, call.x(1), 0)


@rule("TensorArrayScatterV3")
def array_scatter(call: Call) -> Value:
    stack, places, x = _stack(call, 3), call.known(1), call.x(2)
    if places is not None and np.array_equal(places, np.arange(stack.length)):
        return stack.holding(x)
    before = _items(call, stack, x.shape.dims[1:])
    indices = call.emit.reshape(call.x(1), (x.shape.dims[0], 1))
    return stack.holding(scatter(call.emit, before, indices, x, "second"))


@rule("TensorArraySizeV3")
def array_size(call: Call) -> Value:
    return call.emit.constant(np.asarray(_stack(call, 1).length, np.int32))


@rule("TensorArrayCloseV3")
def array_close(call: Call) -> Sequence[Value]:
    return ()
