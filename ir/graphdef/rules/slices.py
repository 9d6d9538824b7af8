"""Slices of tensors, at places that are known or that values say."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.dtypes import PRED, S32, S64
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.distances import Number, number_at
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction


@dataclass(frozen=True, slots=True)
class _Row:
    """What is taken of one dimension: start to limit in steps, or `limit` elements from a place that values say."""

    start: int
    limit: int
    step: int = 1
    place: Instruction | None = None


def _numbers(call: Call, number: int) -> list[Number]:
    """The elements of an input that gives places."""
    vector = call.x(number)
    call.need(vector.shape.rank <= 1 and vector.shape.dtype.is_integer, f"input {number} must be a vector of integers")
    return [number_at(call.scope.constants, vector, i) for i in range(vector.shape.element_count)]


def _place(call: Call, number: int, index: int, size: int) -> Instruction:
    """An element of an input as the start of a slice; a negative one counts from the end."""
    e = call.emit
    vector = call.x(number)
    place = e.reshape(e.part(e.reshape(vector, (vector.shape.element_count,)), 0, index, index + 1), ())
    place = e.convert(place, S32 if place.shape.dtype.bits <= 32 else S64)
    return e.select(e.compare(place, e.like(place, 0), "LT"), e.offset(place, size), place)


def _cut(e: Emitter, x: Instruction, rows: Sequence[_Row]) -> Instruction:
    """What rows of dimensions leave of x: first what is known, then what is not."""
    fixed = [_Row(0, n) if row.place is not None else row for row, n in zip(rows, x.shape.dims, strict=True)]
    backwards = [d for d, row in enumerate(fixed) if row.step < 0]
    for d in backwards:
        # counted from the other end, a negative step is a positive one
        n, row = x.shape.dims[d], fixed[d]
        fixed[d] = _Row(n - 1 - row.start, n - 1 - row.limit, -row.step)
    found = e.slice(e.reverse(x, backwards), [row.start for row in fixed], [max(row.start, row.limit) for row in fixed],
                    [row.step for row in fixed])
    places = [row.place for row in rows if row.place is not None]
    if not places:
        return found
    kind = max((place.shape.dtype for place in places), key=lambda dtype: dtype.bits)
    starts = [e.scalar(kind, 0) if row.place is None else e.convert(row.place, kind) for row in rows]
    sizes = [n if row.place is None else row.limit for row, n in zip(rows, found.shape.dims, strict=True)]
    return e.dynamic_slice(found, starts, sizes)


@rule("Slice", ranks=(None, 1, 1))
def slice_(call: Call) -> Value:
    x, sizes = call.x(0), call.ints(2)
    begin = _numbers(call, 1)
    call.need(len(begin) == len(sizes) == x.shape.rank, f"begin and size must have {x.shape.rank} numbers")
    rows = [_slice_row(call, d, begin[d], sizes[d], n) for d, n in enumerate(x.shape.dims)]
    return _cut(call.emit, x, rows)


def _slice_row(call: Call, d: int, begin: Number, size: int, n: int) -> _Row:
    if begin.base is not None:
        if size == -1 and n != 1:
            call.constant(1)
        call.need(-1 <= size <= n, f"size {size} of dimension {d} reaches outside {n}")
        return _Row(0, n) if size in (-1, n) else _Row(0, size, 1, _place(call, 1, d, n))
    limit = n if size == -1 else begin.offset + size
    call.need(0 <= begin.offset <= limit <= n, f"begin {begin.offset} and size {size} reach outside dimension {d} of {n}")
    return _Row(begin.offset, limit)


# StridedSlice


class _Spec:
    """StridedSlice's masks resolved, one row a dimension of the input. Source: GraphDef format reference, section 12."""

    def __init__(self, call: Call, rank_x: int, count: int) -> None:
        self.call = call
        self.masks = {name: call.attr(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
        self.count = count
        self.rank = rank_x

    def has(self, mask: str, bit: int) -> bool:
        return bool(self.masks[mask] >> bit & 1)

    def actions(self) -> list[tuple[str, int]]:
        """("new", i), ("take", i), ("slice", i) or ("whole", -1), in order; i counts the sparse positions."""
        ellipses = [i for i in range(self.count) if self.has("ellipsis", i)]
        self.call.need(len(ellipses) <= 1, "more than one ellipsis")
        at = ellipses[0] if ellipses else self.count
        used = sum(1 for i in range(self.count) if i != at and not self.has("new_axis", i))
        self.call.need(used <= self.rank, f"{used} dimensions are indexed, the input has {self.rank}")
        found: list[tuple[str, int]] = []
        for i in range(self.count + (not ellipses)):
            if i == at:
                found += [("whole", -1)] * (self.rank - used)
            elif self.has("new_axis", i):
                found.append(("new", i))
            else:
                found.append(("take" if self.has("shrink_axis", i) else "slice", i))
        return found


@dataclass(frozen=True)
class _Taken:
    """rows: one a dimension of the input. layout: of the result, -1 a new axis, else a dimension of the input."""

    rows: list[_Row]
    layout: list[int]
    shrunk: set[int]

    def final_dims(self, sizes: Sequence[int]) -> list[int]:
        return [1 if d == -1 else sizes[d] for d in self.layout if d == -1 or d not in self.shrunk]


def _taken(call: Call, dims: Sequence[int], first: int) -> _Taken:
    """What a node's begin, end and strides, the inputs from `first` on, take of a tensor of these dimensions."""
    strides = call.ints(first + 2)
    fits = all(call.x(first + k).shape.dims == (len(strides),) for k in range(3))
    call.need(fits, "begin, end and strides must be vectors of one length")
    begin, end = _numbers(call, first), _numbers(call, first + 1)
    spec = _Spec(call, len(dims), len(strides))
    rows: list[_Row] = []
    layout: list[int] = []
    shrunk: set[int] = set()
    for action, i in spec.actions():
        if action == "new":
            layout.append(-1)
            continue
        n = dims[len(rows)]
        if action == "take":
            shrunk.add(len(rows))
        layout.append(len(rows))
        rows.append(_Row(0, n) if action == "whole" else _one(call, begin[i], n, first, i) if action == "take" else
                    _range(call, spec, begin[i], end[i], strides[i], n, first, i))
    return _Taken(rows, layout, shrunk)


def _one(call: Call, begin: Number, n: int, first: int, i: int) -> _Row:
    if begin.base is not None:
        return _Row(0, 1, 1, _place(call, first, i, n))
    start = begin.offset + (n if begin.offset < 0 else 0)
    call.need(0 <= start < n, f"index {begin.offset} is outside a dimension of size {n}")
    return _Row(start, start + 1)


def _range(call: Call, spec: _Spec, begin: Number, end: Number, stride: int, n: int, first: int, i: int) -> _Row:
    call.need(stride != 0, "a stride is 0")
    low = None if spec.has("begin", i) else begin
    high = None if spec.has("end", i) else end
    if (low is None or low.base is None) and (high is None or high.base is None):
        return _Row(*slice(low and low.offset, high and high.offset, stride).indices(n))
    size = high.distance_from(low) if low is not None and high is not None else None
    if size is None or stride != 1:
        call.constant(first)
        call.constant(first + 1)
    assert size is not None
    return _Row(0, min(max(size, 0), n), 1, _place(call, first, i, n))


@rule("StridedSlice")
def strided_slice(call: Call) -> Value:
    x = call.x(0)
    taken = _taken(call, x.shape.dims, 1)
    found = _cut(call.emit, x, taken.rows)
    return call.emit.reshape(found, taken.final_dims(found.shape.dims))


def first_places(call: Call, x: Instruction, axis: int) -> tuple[int, int]:
    """How many places from the first on a StridedSlice takes of a dimension, and which dimension of the result they are.

    CompileError if it takes others, or places that depend on values.
    """
    taken = _taken(call, x.shape.dims, 1)
    row = taken.rows[axis]
    call.need(row.place is None and row.start == 0 and row.step == 1 and axis not in taken.shrunk,
              "of places that depend on values only the first can be sliced")
    return row.limit, [d for d in taken.layout if d == -1 or d not in taken.shrunk].index(axis)


def _put_back(call: Call, taken: _Taken, dims: Sequence[int], value: Instruction) -> Instruction:
    """Zeros of these dimensions, with a value at the places that were taken of them."""
    e = call.emit
    call.need(all(row.place is None for row in taken.rows), "the places must be known at compile time")
    places = [range(row.start, row.limit, row.step) for row in taken.rows]
    x = e.reshape(value, [len(p) for p in places])
    if x.shape.element_count == 0:
        return e.full(x.shape.dtype, dims, 0)
    x = e.reverse(x, [d for d, row in enumerate(taken.rows) if row.step < 0])
    low, high = [min(p) for p in places], [n - 1 - max(p) for p, n in zip(places, dims, strict=True)]
    return e.pad(x, e.scalar(x.shape.dtype, 0), low, high, [abs(row.step) - 1 for row in taken.rows])


@rule("StridedSliceGrad", ranks=(1, 1, 1, 1))
def strided_slice_grad(call: Call) -> Value:
    dims = call.ints(0)
    call.need(min(dims, default=0) >= 0, f"a tensor cannot have the shape {dims}")
    return _put_back(call, _taken(call, dims, 1), dims, call.x(4))


@rule("TensorStridedSliceUpdate")
def strided_slice_update(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    taken = _taken(call, x.shape.dims, 1)
    whole = taken.final_dims([len(range(row.start, row.limit, row.step)) for row in taken.rows])
    value = e.broadcast_to(call.x(4), whole)
    there = _put_back(call, taken, x.shape.dims, e.full(PRED, whole, True))
    return e.select(there, _put_back(call, taken, x.shape.dims, value), x)
