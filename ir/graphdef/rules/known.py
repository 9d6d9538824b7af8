"""Operators whose result's size depends on values: a constant where those are known at compile time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nxcc.ir.graphdef.call import MAX_TENSORS, Call
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.counted import absent_values, distinct_values, index_tuples, kept_places
from nxcc.ir.graphdef.values import Partial, Value
from nxcc.ir.literals import Array


@rule("ListDiff", ranks=(1, 1), needs=("scatter",))
def list_diff(call: Call) -> Sequence[Value]:
    """What of x is not in y, and where it stood."""
    if call.known(0) is None or call.known(1) is None:
        return absent_values(call, call.x(0), call.x(1))
    x, y = call.constant(0), call.constant(1)
    kept = np.flatnonzero(~np.isin(x, y))
    return [call.emit.constant(x[kept]), call.emit.constant(kept.astype(call.dtype("out_idx").numpy))]


@rule("Where", needs=("scatter",))
def where(call: Call) -> Value:
    """Index tuples of what is not zero, in order."""
    if call.known(0) is None and call.x(0).shape.rank:
        return index_tuples(call, call.x(0))
    return call.emit.constant(np.argwhere(call.constant(0)).astype(np.int64))


def _distinct(call: Call, axis: int | None) -> tuple[Array, Array, Array]:
    """The distinct slices along an axis in order of appearance, which of them each slice is, and how often each comes."""
    x = call.constant(0)
    if axis is None:
        call.need(x.ndim == 1, f"the values must be a vector, they have {x.ndim} dimensions")
        axis = 0
    _, first, inverse, counts = np.unique(x, axis=axis, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return np.take(x, first[order], axis), rank[inverse.reshape(-1)], counts[order]


@rule("Unique", "UniqueWithCounts", "UniqueV2", "UniqueWithCountsV2", needs=("scatter",))
def unique(call: Call) -> Sequence[Value]:
    if call.known(0) is None and call.node.op == "Unique" and call.x(0).shape.rank == 1:
        return distinct_values(call, call.x(0))
    axis = None
    if call.node.op.endswith("V2"):
        axes = call.axes(1, call.x(0).shape.rank)
        call.need(len(axes) <= 1, f"at most one axis may be given, not {axes}")
        axis = axes[0] if axes else None
    values, places, counts = _distinct(call, axis)
    kind = call.dtype("out_idx").numpy
    found = [values, places.astype(kind), counts.astype(kind)]
    return [call.emit.constant(array) for array in found[:3 if "Counts" in call.node.op else 2]]


@rule("DynamicPartition", needs=("scatter",))
def dynamic_partition(call: Call) -> Sequence[Value]:
    """The rows of each number, in order."""
    e, x, numbers, count = call.emit, call.x(0), call.x(1), call.attr("num_partitions")
    depth, rows = numbers.shape.rank, numbers.shape.element_count
    call.need(x.shape.dims[:depth] == numbers.shape.dims and 0 < count <= MAX_TENSORS,
              f"partitions {numbers.shape} do not fit {x.shape}")
    flat = e.reshape(x, (rows, *x.shape.dims[depth:]))
    known = call.known(1)
    if known is not None:
        return [e.take(flat, e.constant(np.flatnonzero(known.reshape(-1) == k).astype(np.int32)), 0) for k in range(count)]
    given = e.reshape(numbers, (rows,))
    places = [kept_places(call, e.compare(given, e.like(given, k), "EQ")) for k in range(count)]
    return [Partial(e.take(flat, place.items, 0), place.count) for place in places]
