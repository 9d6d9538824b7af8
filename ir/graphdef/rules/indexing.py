"""Gathers, scatters, one-hot, top-k and other operators whose addresses are data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nxcc.ir.dtypes import S32
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.graph import variable_value
from nxcc.ir.graphdef.values import Value, Variable
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.shapes import Shape

# Gathers


def gather_axis(e: Emitter, x: Instruction, indices: Instruction, axis: int, batch: int = 0) -> Instruction:
    """x[:axis] + indices[batch:] + x[axis + 1:], the first `batch` dimensions shared; out of range is clamped."""
    if not batch:
        return e.take(x, indices, axis)
    rank, count = x.shape.rank, indices.shape.rank
    shared = tuple(range(batch))
    middle = count - batch
    offsets = tuple(d for d in range(rank - 1 + middle) if batch <= d < axis or d >= axis + middle)
    sizes = tuple(1 if d == axis or d < batch else n for d, n in enumerate(x.shape.dims))
    return e.make("gather", x, indices, offset_dims=offsets, collapsed_slice_dims=(axis,), start_index_map=(axis,),
                  operand_batching_dims=shared, start_indices_batching_dims=shared, index_vector_dim=count, slice_sizes=sizes)


@rule("GatherV2", needs=("gather",))
def gather_v2(call: Call) -> Value:
    x, indices = call.x(0), call.x(1)
    axis = call.axis(call.number(2), x.shape.rank)
    batch = call.attr("batch_dims")
    batch += indices.shape.rank if batch < 0 else 0
    call.need(0 <= batch <= min(axis, indices.shape.rank), f"batch_dims {batch} does not fit axis {axis}")
    return gather_axis(call.emit, x, indices, axis, batch)


@rule("Gather", needs=("gather",), ranks=("1+",))
def gather(call: Call) -> Value:
    return call.emit.take(call.x(0), call.x(1), 0)


@rule("ResourceGather", needs=("gather",))
def resource_gather(call: Call) -> Value:
    call.need(isinstance(call.inputs[0], Variable), "input 0 must be the handle of a variable")
    x, indices, batch = call.emit.builder.literal(variable_value(call)), call.x(1), call.attr("batch_dims")
    call.need(0 <= batch <= indices.shape.rank and batch < x.shape.rank and x.shape.dims[:batch] == indices.shape.dims[:batch],
              f"batch_dims {batch} does not fit {x.shape} and {indices.shape}")
    return gather_axis(call.emit, x, indices, batch, batch)


@rule("GatherNd", needs=("gather",), ranks=(None, "1+"))
def gather_nd(call: Call) -> Value:
    return gather_tuples(call.emit, call.x(0), call.x(1))


def gather_tuples(e: Emitter, x: Instruction, indices: Instruction) -> Instruction:
    """The last dimension of the indices is an index tuple into the first dimensions of x."""
    depth, batch = indices.shape.dims[-1], indices.shape.rank - 1
    kept = x.shape.rank - depth
    sizes = tuple(1 if d < depth else n for d, n in enumerate(x.shape.dims))
    return e.make("gather", x, indices, offset_dims=tuple(range(batch, batch + kept)), collapsed_slice_dims=tuple(range(depth)),
                  start_index_map=tuple(range(depth)), index_vector_dim=batch, slice_sizes=sizes)


@rule("ReverseSequence", needs=("gather",), ranks=("2+", 1))
def reverse_sequence(call: Call) -> Value:
    """The first seq_lengths[b] places along seq_dim in reverse order, the rest as they are."""
    e, x, lengths = call.emit, call.x(0), call.x(1)
    along, batch = call.axis(call.attr("seq_dim"), x.shape.rank), call.axis(call.attr("batch_dim"), x.shape.rank)
    order = [batch, along, *(d for d in range(x.shape.rank) if d not in (batch, along))]
    moved = e.transpose(x, order)
    dims = moved.shape.dims[:2]
    place, length = e.iota(S32, dims, 1), e.spread(e.convert(lengths, S32), dims, (0,))
    turned = e.offset(e.subtract(length, place), -1)
    source = e.select(e.compare(place, length, "LT"), turned, place)
    found = gather_axis(e, moved, source, 1, 1)
    return e.transpose(found, [order.index(d) for d in range(x.shape.rank)])


@rule("InvertPermutation", needs=("scatter",), ranks=(1,))
def invert_permutation(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    places = e.iota(x.shape.dtype, x.shape.dims, 0)
    return scatter(e, e.like(x, 0), e.reshape(x, (*x.shape.dims, 1)), places, "second")


@rule("OneHot")
def one_hot(call: Call) -> Value:
    """Indices outside the depth give off_value throughout."""
    e, indices, depth = call.emit, call.x(0), call.number(1)
    rank = indices.shape.rank
    axis = call.axis(call.attr("axis"), rank + 1)
    dims = (*indices.shape.dims[:axis], depth, *indices.shape.dims[axis:])
    wide = e.spread(indices, dims, [d for d in range(rank + 1) if d != axis])
    hot = e.compare(wide, e.iota(indices.shape.dtype, dims, axis), "EQ")
    return e.select(hot, call.x(2), call.x(3))


# Scatters


def scatter(e: Emitter, target: Instruction, indices: Instruction, updates: Instruction, opcode: str) -> Instruction:
    """Rows of `updates` go where index tuples say; "second" overwrites. Tuples out of range are dropped."""
    depth, batch = indices.shape.dims[-1], indices.shape.rank - 1
    window = tuple(range(batch, updates.shape.rank))
    return e.make("scatter", target, indices, updates, update_window_dims=window, inserted_window_dims=tuple(range(depth)),
                  scatter_dims_to_operand_dims=tuple(range(depth)), index_vector_dim=batch,
                  called=[_second(e, target) if opcode == "second" else e.combiner(opcode, target.shape.dtype)])


def _second(e: Emitter, x: Instruction) -> Computation:
    key = ("second", x.shape.dtype)
    if key not in e.combiners:
        inner = e.within(e.computation(f"second_{x.shape.dtype}"))
        inner.builder.location = e.builder.location
        inner.builder.parameter(0, Shape(x.shape.dtype))
        inner.builder.computation.root = inner.builder.parameter(1, Shape(x.shape.dtype))
        e.combiners[key] = inner.builder.computation
    return e.combiners[key]


@rule("ScatterNd", needs=("scatter",), ranks=("1+", None, 1))
def scatter_nd(call: Call) -> Value:
    e, updates = call.emit, call.x(1)
    return scatter(e, e.full(updates.shape.dtype, call.ints(2), 0), call.x(0), updates, "add")


_SCATTERS = {"TensorScatterUpdate": "second", "TensorScatterAdd": "add", "TensorScatterMax": "maximum",
             "TensorScatterMin": "minimum", "ScatterNdNonAliasingAdd": "add"}


@rule(*_SCATTERS, needs=("scatter",), ranks=(None, "1+"))
def tensor_scatter(call: Call) -> Value:
    target, indices, updates = call.operands
    return scatter(call.emit, target, indices, updates, _SCATTERS[call.node.op])


@rule("TensorScatterSub", needs=("scatter",), ranks=(None, "1+"))
def tensor_scatter_sub(call: Call) -> Value:
    e = call.emit
    return scatter(e, call.x(0), call.x(1), e.make("negate", call.x(2)), "add")


@rule("SparseToDense", needs=("scatter",), ranks=(None, 1))
def sparse_to_dense(call: Call) -> Value:
    e, indices, dims, values = call.emit, call.x(0), call.ints(1), call.x(2)
    if indices.shape.rank < 2:
        indices = e.reshape(indices, (indices.shape.element_count, 1) if len(dims) == 1 else (1, len(dims)))
    updates = e.broadcast_to(values, (indices.shape.dims[0],))
    return scatter(e, e.broadcast_to(call.x(3), dims), indices, updates, "second")


# Order


def top(e: Emitter, x: Instruction, k: int) -> list[Instruction]:
    """The k largest along the last axis and their places, equal ones by lower place."""
    found = e.make("topk", x, k=k, largest=True, is_stable=True)
    return [e.builder.get_tuple_element(found, n) for n in (0, 1)]


@rule("TopKV2", "TopK", needs=("topk",))
def top_k(call: Call) -> Sequence[Value]:
    e, x = call.emit, call.x(0)
    k = call.number(1) if call.node.op == "TopKV2" else call.attr("k")
    call.need(x.shape.rank > 0 and 0 <= k <= x.shape.dims[-1], f"{k} elements of the last dimension of {x.shape}")
    values, places = top(e, x, k)
    return [values, e.convert(places, call.dtype("index_type"))] if call.node.op == "TopKV2" else [values, places]


@rule("InTopKV2", "InTopK", needs=("gather",), ranks=(2, 1))
def in_top_k(call: Call) -> Value:
    """Whether fewer than k predictions exceed the target's; false where the target's is not finite."""
    e, x, targets = call.emit, call.x(0), call.x(1)
    k = call.number(2) if call.node.op == "InTopKV2" else call.attr("k")
    own = gather_axis(e, x, e.reshape(targets, (x.shape.dims[0], 1)), 1, 1)
    larger = e.convert(e.compare(x, e.broadcast_to(own, x.shape.dims), "GT"), S32)
    few = e.compare(e.reduce("add", larger, [1]), e.full(S32, (x.shape.dims[0],), k), "LT")
    finite = e.make("is-finite", e.reshape(own, (x.shape.dims[0],)))
    inside = e.compare(targets, e.like(targets, x.shape.dims[1]), "LT")
    return e.make("and", e.make("and", few, finite), inside)


@rule("Bucketize")
def bucketize(call: Call) -> Value:
    """How many boundaries are not above each element."""
    e, x = call.emit, call.x(0)
    edges = np.array(call.attr("boundaries"), np.float32).astype(x.shape.dtype.numpy)
    dims = (*x.shape.dims, len(edges))
    wide = e.spread(x, dims, range(x.shape.rank))
    reached = e.compare(wide, e.spread(e.constant(edges), dims, (x.shape.rank,)), "GE")
    return e.reduce("add", e.convert(reached, S32), [x.shape.rank])


@rule("LowerBound", "UpperBound", ranks=(2, 2))
def search_sorted(call: Call) -> Value:
    """[rows, n]: how many elements of each sorted row lie below each value, or at it too."""
    e, edges, values = call.emit, call.x(0), call.x(1)
    (rows, count), n = edges.shape.dims, values.shape.dims[1]
    call.need(values.shape.dims[0] == rows, f"{edges.shape} and {values.shape} must have as many rows")
    dims = (rows, n, count)
    below = e.compare(e.spread(edges, dims, (0, 2)), e.spread(values, dims, (0, 1)),
                      "LT" if call.node.op == "LowerBound" else "LE")
    return e.convert(e.reduce("add", e.convert(below, S32), [2]), call.dtype("out_type"))


@rule("NthElement", needs=("topk",), ranks=("1+", 0))
def nth_element(call: Call) -> Value:
    """The element that has `n` smaller (or with reverse, larger) ones in its row."""
    e, x, n = call.emit, call.x(0), call.number(1)
    last = x.shape.rank - 1
    call.need(0 <= n < x.shape.dims[last], f"there is no element {n} in the last dimension of {x.shape}")
    at = n if call.attr("reverse") else x.shape.dims[last] - 1 - n
    values, _ = top(e, x, at + 1)
    return e.reshape(e.part(values, last, at, at + 1), x.shape.dims[:last])


@rule("ApproxTopK", needs=("topk",), ranks=("1+",))
def approximate_top_k(call: Call) -> Sequence[Value]:
    """All of them, exactly: the recall that is asked for is a lower bound."""
    e, x, k = call.emit, call.x(0), call.attr("k")
    rank = x.shape.rank
    axis = call.axis(call.attr("reduction_dimension"), rank)
    call.need(0 <= k <= x.shape.dims[axis], f"{k} elements of dimension {axis} of {x.shape}")
    order = [*(d for d in range(rank) if d != axis), axis]
    back = [order.index(d) for d in range(rank)]
    keys = e.transpose(x, order)
    largest = call.attr("is_max_k")
    values, places = top(e, keys if largest else e.make("negate", keys), k)
    return [e.transpose(values if largest else e.make("negate", values), back), e.transpose(places, back)]


@rule("Bincount", "DenseBincount", needs=("scatter",))
def bincount(call: Call) -> Value:
    """Counts, or sums of weights, of the values 0 to size - 1 in all or in each of several rows; others are dropped.

    With binary_output, whether a value comes at all.
    """
    e, x, size, weights = call.emit, call.x(0), call.number(1), call.x(2)
    dense = call.node.op == "DenseBincount"
    rows = x.shape.dims[0] if dense and x.shape.rank == 2 else 1
    call.need(size >= 0 and (not dense or x.shape.rank in (1, 2)), f"{size} values of {x.shape} cannot be counted")
    count, binary = x.shape.element_count, dense and call.attr("binary_output")
    empty = weights.shape.element_count == 0 or binary
    flat = e.full(weights.shape.dtype, (count,), 1) if empty else e.reshape(weights, (count,))
    values = e.reshape(x, (count, 1))
    # negative values would count from the end; they are sent past it
    sent = e.select(e.compare(values, e.like(values, 0), "LT"), e.like(values, size), values)
    row = np.repeat(np.arange(rows), count // max(rows, 1)).astype(values.shape.dtype.numpy)
    places = e.concatenate([e.constant(row.reshape(count, 1)), sent], 1)
    found = scatter(e, e.full(weights.shape.dtype, (rows, size), 0), places, flat, "maximum" if binary else "add")
    return found if dense and x.shape.rank == 2 else e.reshape(found, (size,))


@rule("DynamicStitch", "ParallelDynamicStitch", needs=("scatter",))
def dynamic_stitch(call: Call) -> Value:
    """Rows of several tensors at the places that constant indices say; later ones win."""
    count = call.attr("N")
    e = call.emit
    rows = max((max((int(v) for v in call.constant(k).reshape(-1)), default=-1) for k in range(count)), default=-1) + 1
    tail = call.x(count).shape.dims[call.x(0).shape.rank:]
    found = e.full(call.x(count).shape.dtype, (rows, *tail), 0)
    for k in range(count):
        places, data = call.x(k), call.x(count + k)
        n = places.shape.element_count
        found = scatter(e, found, e.reshape(places, (n, 1)), e.reshape(data, (n, *tail)), "second")
    return found
