"""Operators whose result's size depends on values: a constant where those are known at compile time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.counted import index_tuples
from nxcc.ir.graphdef.values import Value
from nxcc.ir.literals import Array


@rule("ListDiff", ranks=(1, 1))
def list_diff(call: Call) -> Sequence[Value]:
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


@rule("Unique", "UniqueWithCounts", "UniqueV2", "UniqueWithCountsV2")
def unique(call: Call) -> Sequence[Value]:
    axis = None
    if call.node.op.endswith("V2"):
        axes = call.axes(1, call.x(0).shape.rank)
        call.need(len(axes) <= 1, f"at most one axis may be given, not {axes}")
        axis = axes[0] if axes else None
    values, places, counts = _distinct(call, axis)
    kind = call.dtype("out_idx").numpy
    found = [values, places.astype(kind), counts.astype(kind)]
    return [call.emit.constant(array) for array in found[:3 if "Counts" in call.node.op else 2]]
