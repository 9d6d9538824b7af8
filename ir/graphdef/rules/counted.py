"""Arrays of which only the first places count (Partial), and the operators that keep to that.

Where a size depends on values, as behind a non-maximum suppression or a mask, the array is held at its bound with a count
beside it, until a Pad, a count or a sum brings back a size that is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import GRAPH_DYNAMIC, CompileError
from nxcc.ir.dtypes import PRED, S32, S64
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter, highest, lowest
from nxcc.ir.graphdef.registry import find_rule, partial_rule
from nxcc.ir.graphdef.rules.indexing import gather_tuples, scatter, top
from nxcc.ir.graphdef.rules.reduction import cumulative
from nxcc.ir.graphdef.rules.slices import first_places
from nxcc.ir.graphdef.values import Partial, Value
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.literals import Array


def partial(call: Call, items: Instruction, count: Instruction, axis: int = 0) -> Partial:
    """A Partial whose count later sizes may follow from."""
    call.scope.constants.counts[count] = items.shape.dims[axis]
    return Partial(items, count, axis)


def kept_places(call: Call, mask: Instruction) -> Partial:
    """[n] s32: which places of a vector of booleans are true, in order."""
    e, (n,) = call.emit, mask.shape.dims
    ones = e.convert(mask, S32)
    rank = cumulative(e, ones, 0, "add", exclusive=True, backwards=False)
    target = e.select(mask, rank, e.like(rank, n))  # what lies outside is dropped
    places = scatter(e, e.full(S32, (n,), 0), e.reshape(target, (n, 1)), e.iota(S32, (n,), 0), "second")
    return partial(call, places, e.reduce("add", ones, [0]))


def distinct_values(call: Call, x: Instruction) -> list[Value]:
    """The distinct elements of a vector in order of appearance, and for each element which of them it is.

    Every element is compared with every other, so that no address depends on the order of values.
    """
    e, (n,) = call.emit, x.shape.dims
    call.table(n * n)
    dims = (n, n)
    same = e.compare(e.spread(x, dims, (0,)), e.spread(x, dims, (1,)), "EQ")
    places = e.iota(S32, dims, 1)
    first = e.reduce("minimum", e.select(same, places, e.like(places, n)), [1])
    fresh = e.compare(first, e.iota(S32, (n,), 0), "EQ")
    found = kept_places(call, fresh)
    # how many distinct ones come before the first of its kind
    before = e.compare(places, e.spread(first, dims, (0,)), "LT")
    ranks = e.reduce("add", e.convert(e.make("and", before, e.spread(fresh, dims, (1,))), S32), [1])
    return [Partial(e.take(x, found.items, 0), found.count), e.convert(ranks, call.dtype("out_idx"))]


def absent_values(call: Call, x: Instruction, y: Instruction) -> list[Value]:
    """The elements of a vector that are not in another, in order, and their places; each is compared with all of the other."""
    e, dims = call.emit, (*x.shape.dims, *y.shape.dims)
    call.table(math.prod(dims))
    same = e.compare(e.spread(x, dims, (0,)), e.spread(y, dims, (1,)), "EQ")
    found = kept_places(call, e.make("not", e.reduce("or", same, [1])))
    places = e.convert(found.items, call.dtype("out_idx"))
    return [Partial(e.take(x, found.items, 0), found.count), Partial(places, found.count)]


def index_tuples(call: Call, x: Instruction) -> Partial:
    """[n, rank] s64: the places of what is not zero."""
    e, dims = call.emit, x.shape.dims
    flat = e.reshape(x, (x.shape.element_count,))
    found = kept_places(call, flat if flat.shape.dtype is PRED else e.compare(flat, e.like(flat, 0), "NE"))
    columns = []
    for d, n in enumerate(dims):
        digit = e.divide(found.items, e.like(found.items, max(math.prod(dims[d + 1:]), 1)))
        columns.append(e.reshape(e.make("remainder", digit, e.like(digit, n)), (flat.shape.dims[0], 1)))
    return Partial(e.convert(e.concatenate(columns, 1), S64), found.count)


def whole(value: Value) -> Instruction:
    assert isinstance(value, Partial | Instruction)
    return value.items if isinstance(value, Partial) else value


def counted(call: Call, number: int) -> list[Array]:
    """The values of an integer input over all counts; CompileError(GRAPH_DYNAMIC) if it follows from anything else."""
    found = call.scope.constants.values_of_counts(call.x(number))
    if found is None:
        call.constant(number)
    assert found is not None
    return found


@partial_rule("Shape")
def shape(call: Call) -> Value:
    e, value, kind = call.emit, call.inputs[0], call.dtype("out_type")
    if not isinstance(value, Partial):
        return by_rule(call)
    parts = [e.convert(e.reshape(value.count, (1,)), kind) if d == value.axis else e.constant(np.array([n], kind.numpy))
             for d, n in enumerate(value.items.shape.dims)]
    return e.concatenate(parts, 0)


@partial_rule("Size")
def size(call: Call) -> Value:
    e, value = call.emit, call.inputs[0]
    if not isinstance(value, Partial):
        return by_rule(call)
    others = value.items.shape.element_count // max(value.bound, 1)
    return e.convert(value.count if others == 1 else e.scaled(value.count, others), call.dtype("out_type"))


@partial_rule("GatherV2")
def gather(call: Call) -> Value:
    e, indices = call.emit, call.inputs[1]
    x = whole(call.inputs[0])
    axis = call.axis(call.number(2), x.shape.rank)
    call.need(call.attr("batch_dims") == 0, "batch_dims must be 0 where sizes depend on values")
    found = e.take(x, whole(indices), axis)
    return Partial(found, indices.count, axis + indices.axis) if isinstance(indices, Partial) else found


@partial_rule("Fill")
def fill(call: Call) -> Value:
    e = call.emit
    sizes = counted(call, 0)
    least, most = sizes[0].reshape(-1), sizes[-1].reshape(-1)
    varying = np.flatnonzero(least != most)
    items = e.broadcast_to(call.x(1), [int(v) for v in most])
    if not len(varying):
        return items
    call.need(len(varying) == 1, "more than one dimension depends on values")
    axis = int(varying[0])
    count = e.convert(e.reshape(e.part(call.x(0), 0, axis, axis + 1), ()), S32)
    return partial(call, items, count, axis)


@partial_rule("ConcatV2")
def concat(call: Call) -> Value:
    """Each part is written behind the valid places of those before it."""
    e, parts = call.emit, call.inputs[:-1]
    if not any(isinstance(part, Partial) for part in parts):
        return by_rule(call)
    first = whole(parts[0])
    axis = call.axis(call.number(len(call.inputs) - 1), first.shape.rank)
    counts = []
    for part in parts:
        call.need(not isinstance(part, Partial) or part.axis == axis, "the axis must be the one that depends on values")
        counts.append(part.count if isinstance(part, Partial) else e.index(whole(part).shape.dims[axis]))
    dims = list(first.shape.dims)
    dims[axis] = sum(whole(part).shape.dims[axis] for part in parts)
    found, place = e.full(first.shape.dtype, dims, 0), e.index(0)
    for part, count in zip(parts, counts, strict=True):
        starts = [place if d == axis else e.index(0) for d in range(len(dims))]
        found = e.make("dynamic-update-slice", found, whole(part), *starts)
        place = e.add(place, count)
    return partial(call, found, place, axis)


def valid(e: Emitter, value: Partial) -> Instruction:
    """Which places of a Partial count."""
    dims = value.items.shape.dims
    places = e.iota(S32, dims, value.axis)
    return e.compare(places, e.broadcast_to(value.count, dims), "LT")


@partial_rule("TopKV2")
def top_k(call: Call) -> Sequence[Value]:
    e, value = call.emit, call.inputs[0]
    x = whole(value)
    if isinstance(value, Partial):
        call.need(value.axis == x.shape.rank - 1, "the last dimension must be the one that depends on values")
        x = e.select(valid(e, value), x, e.like(x, lowest(x.shape.dtype)))
    sizes = counted(call, 1)
    call.need(all(size.size == 1 for size in sizes), "k must be one number")
    wanted = [int(size.reshape(())) for size in sizes]
    values, places = top(e, x, min(wanted[-1], x.shape.dims[-1]))
    if wanted[0] == wanted[-1]:
        return [values, places]
    count = e.convert(e.reshape(call.x(1), ()), S32)
    last = x.shape.rank - 1
    return [partial(call, values, count, last), partial(call, places, count, last)]


@partial_rule("Pad", "PadV2")
def pad(call: Call) -> Value:
    """Padding that grows as the count shrinks gives a fixed size."""
    e, value = call.emit, call.inputs[0]
    x = whole(value)
    fill_value = e.reshape(call.x(2), ()) if call.node.op == "PadV2" else e.scalar(x.shape.dtype, 0)
    if not isinstance(value, Partial):
        raise _not_fixed(call)
    x = e.select(valid(e, value), x, fill_value)
    last = _fixing_padding(call, value)
    return e.pad(x, fill_value, [int(v) for v in last[:, 0]], [int(v) for v in last[:, 1]])


def _fixing_padding(call: Call, value: Partial) -> Array:
    """[rank, 2]: the padding at the bound, if for every count the padded size is the same; else CompileError."""
    kept: Array | None = None
    sizes = set()
    for count in sorted({int(value.bound * share) for share in (0.0, 0.34, 0.71, 1.0)}):
        kept = call.scope.constants.value_at(call.x(1), {value.count: np.asarray(count, np.int32)})
        if kept is None:
            raise _not_fixed(call)
        call.need(kept.shape == (value.items.shape.rank, 2), f"paddings {kept.tolist()} do not fit {value.items.shape}")
        grown = kept.sum(axis=1)
        grown[value.axis] += count
        sizes.add((*grown.tolist(), *kept[:, 0].tolist()))
    if kept is None or len(sizes) != 1:
        raise _not_fixed(call)
    return kept


def _not_fixed(call: Call) -> CompileError:
    return CompileError(GRAPH_DYNAMIC, f"the size of what {call.node.op} gives depends on values", call.name,
                        why="HLO shapes are fixed", remedy="end the graph before it with --io-config")


@partial_rule("ExpandDims")
def expand_dims(call: Call) -> Value:
    value = call.inputs[0]
    x = whole(value)
    axis = call.axis(call.number(1), x.shape.rank + 1)
    found = call.emit.reshape(x, (*x.shape.dims[:axis], 1, *x.shape.dims[axis:]))
    return Partial(found, value.count, value.axis + (axis <= value.axis)) if isinstance(value, Partial) else found


# Elementwise work: each place by itself

_ONE = ("Identity", "Cast", "Relu", "Relu6", "Sigmoid", "Tanh", "Exp", "Log", "Neg", "Abs", "Sign", "Sqrt", "Rsqrt", "Square",
        "Floor", "Ceil", "Round", "StopGradient", "LogicalNot", "ZerosLike", "OnesLike", "IsFinite", "IsNan", "Reciprocal",
        "Softplus", "LeakyRelu", "Elu", "Erf", "Snapshot", "EnsureShape")
_TWO = ("Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "FloorDiv", "FloorMod", "Maximum", "Minimum", "Pow", "DivNoNan",
        "MulNoNan", "SquaredDifference", "Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "LogicalAnd",
        "LogicalOr", "SelectV2", "ClipByValue", "BiasAdd")


def by_rule(call: Call) -> Value:
    """What the operator's own rule makes of the whole arrays."""
    found = find_rule(call.node.op)
    assert found is not None
    call.inputs[:] = [whole(value) if isinstance(value, Partial) else value for value in call.inputs]
    result = found(call)
    return result[0] if isinstance(result, Sequence) else result


@partial_rule(*_ONE, *_TWO)
def elementwise(call: Call) -> Value:
    """Operands that do not depend on values must not have the dimension that does, or have it of size 1."""
    given = [value for value in call.inputs if isinstance(value, Partial)]
    if not given:
        return by_rule(call)
    first = given[0]
    behind = first.items.shape.rank - first.axis
    for value in call.inputs:
        if isinstance(value, Partial):
            call.need(value.count is first.count and value.items.shape.rank - value.axis == behind,
                      "both operands must depend on the same values")
        else:
            dims = whole(value).shape.dims
            call.need(len(dims) < behind or dims[-behind] == 1,
                      f"{whole(value).shape} does not fit a size that depends on values")
    result = by_rule(call)
    assert isinstance(result, Instruction)
    return Partial(result, first.count, result.shape.rank - behind)


# Reductions

_EMPTY: dict[str, Callable[[Instruction], Any]] = {
    "Sum": lambda x: 0, "Mean": lambda x: 0, "Prod": lambda x: 1, "Max": lambda x: lowest(x.shape.dtype),
    "Min": lambda x: highest(x.shape.dtype), "All": lambda x: True, "Any": lambda x: False}


@partial_rule(*_EMPTY)
def reduction(call: Call) -> Value:
    """Over the dimension that depends on values, what does not count is as if it were not there."""
    e, value = call.emit, call.inputs[0]
    if not isinstance(value, Partial):
        return by_rule(call)
    rank, op = value.items.shape.rank, call.node.op
    axes, keep = call.axes(1, rank), call.attr("keep_dims")
    call.inputs[0] = e.select(valid(e, value), value.items, e.like(value.items, _EMPTY[op](value.items)))
    result = by_rule(call)
    assert isinstance(result, Instruction)
    if value.axis not in axes:
        return Partial(result, value.count, value.axis - (0 if keep else sum(d < value.axis for d in axes)))
    if op != "Mean":
        return result
    share = e.divide(e.scalar(result.shape.dtype, value.bound), e.convert(value.count, result.shape.dtype))
    return e.multiply(result, e.broadcast_to(share, result.shape.dims))


# Shapes


@partial_rule("Reshape")
def reshape(call: Call) -> Value:
    """The places stay rows: what lies behind them may change its shape, not they."""
    value = call.inputs[0]
    if not isinstance(value, Partial):
        return by_rule(call)
    dims = [int(v) for v in counted(call, 1)[-1].reshape(-1)]
    rest = math.prod(n for n in dims if n != -1)
    if dims.count(-1) == 1 and rest > 0:
        dims[dims.index(-1)] = value.items.shape.element_count // rest
    own = value.items.shape.dims
    before, behind = math.prod(own[:value.axis]), math.prod(own[value.axis + 1:])
    axis = next((d for d, n in enumerate(dims) if n == value.bound and math.prod(dims[:d]) == before
                 and math.prod(dims[d + 1:]) == behind), -1)
    call.need(axis >= 0, f"places of {value.items.shape} that depend on values cannot be mixed to {dims}")
    return Partial(call.emit.reshape(value.items, dims), value.count, axis)


@partial_rule("Squeeze")
def squeeze(call: Call) -> Value:
    value = call.inputs[0]
    if not isinstance(value, Partial):
        return by_rule(call)
    dims = value.items.shape.dims
    named = [call.axis(d, len(dims)) for d in call.attr("squeeze_dims")]
    axes = named or [d for d, n in enumerate(dims) if n == 1 and d != value.axis]
    call.need(value.axis not in axes and all(dims[d] == 1 for d in axes), "a squeezed dimension depends on values")
    found = call.emit.reshape(value.items, [n for d, n in enumerate(dims) if d not in axes])
    return Partial(found, value.count, value.axis - sum(d < value.axis for d in axes))


@partial_rule("StridedSlice")
def strided_slice(call: Call) -> Value:
    """Columns of every place, or the first places: t[:n] has as many as there are, at most n."""
    e, value = call.emit, call.inputs[0]
    if not isinstance(value, Partial):
        return by_rule(call)
    kept, axis = first_places(call, value.items, value.axis)
    items = e.part(value.items, value.axis, 0, kept)
    call.inputs[0] = items
    result = by_rule(call)
    assert isinstance(result, Instruction)
    if kept == value.bound:
        return Partial(result, value.count, axis)
    return partial(call, result, e.minimum(value.count, e.index(kept)), axis)


@partial_rule("Range")
def range_(call: Call) -> Value:
    """0, 1, .. up to a count."""
    e = call.emit
    start, limit, delta = (counted(call, k) for k in range(3))
    plain = not any(v.any() for v in start) and all((v == 1).all() for v in delta)
    call.need(plain, "only ranges from 0 by 1 may depend on values")
    items = e.iota(call.x(1).shape.dtype, (int(limit[-1]),), 0)
    return partial(call, items, e.convert(e.reshape(call.x(1), ()), S32))


# Places


@partial_rule("GatherNd")
def gather_nd(call: Call) -> Value:
    x, indices = call.inputs
    call.need(not isinstance(x, Partial) and (not isinstance(indices, Partial) or indices.axis < indices.items.shape.rank - 1),
              "only the places may depend on values")
    found = gather_tuples(call.emit, whole(x), whole(indices))
    return Partial(found, indices.count, indices.axis) if isinstance(indices, Partial) else found


@partial_rule("TensorScatterUpdate", "TensorScatterAdd", "TensorScatterSub", "TensorScatterMax", "TensorScatterMin",
              "ScatterNd")
def scatter_nd(call: Call) -> Value:
    """Places that do not count are sent outside, where a scatter drops them."""
    number = 0 if call.node.op == "ScatterNd" else 1
    indices = call.inputs[number]
    if isinstance(indices, Partial):
        e = call.emit
        call.inputs[number] = e.select(valid(e, indices), indices.items, e.like(indices.items, np.iinfo(np.int32).max))
    return by_rule(call)


@partial_rule("CropAndResize")
def crop_and_resize(call: Call) -> Value:
    """Each box by itself."""
    boxes = [value for value in call.inputs[1:3] if isinstance(value, Partial)]
    if not boxes:
        return by_rule(call)
    call.need(all(value.axis == 0 for value in boxes), "only the boxes may depend on values")
    result = by_rule(call)
    assert isinstance(result, Instruction)
    return Partial(result, boxes[0].count)
