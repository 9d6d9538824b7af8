"""Reductions over axes, positions of extremes, sums along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nxcc.ir.dtypes import F32, S32, S64, U64, DType
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import row, rule
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.attributes import Window, WindowDimension
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.shapes import Shape

_OPCODES = {"Sum": "add", "Prod": "multiply", "Max": "maximum", "Min": "minimum", "All": "and", "Any": "or"}


def _reduction(opcode: str) -> Callable[[Call], Value]:
    def lower(call: Call) -> Value:
        x = call.x(0)
        return call.emit.reduce(opcode, x, call.axes(1, x.shape.rank), call.attr("keep_dims"))
    return lower


for _name, _opcode in _OPCODES.items():
    row(_name, _reduction(_opcode))


def mean_over(e: Emitter, x: Instruction, axes: Sequence[int], keep: bool = False) -> Instruction:
    """The mean; of integers summed in 64 bits and truncated towards zero; of narrow floats summed in f32."""
    count = 1
    for d in axes:
        count *= x.shape.dims[d]
    work = e.convert(x, U64 if x.shape.dtype.is_unsigned else S64) if x.shape.dtype.is_integer else e.wide(x)
    total = e.reduce("add", work, axes, keep)
    if total.shape.dtype.is_integer:
        total = e.divide(total, e.like(total, count)) if count else total
        return e.convert(total, x.shape.dtype)
    return e.convert(e.divide(total, e.like(total, count)), x.shape.dtype)


@rule("Mean")
def mean(call: Call) -> Value:
    x = call.x(0)
    axes = call.axes(1, x.shape.rank)
    return mean_over(call.emit, x, axes, call.attr("keep_dims")) if axes else x


@rule("EuclideanNorm")
def euclidean_norm(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    dtype = x.shape.dtype
    if dtype.is_complex:
        x = e.make("abs", x)
    total = e.reduce("add", e.multiply(x, x), call.axes(1, x.shape.rank), call.attr("keep_dims"))
    root = e.make("sqrt", e.convert(total, F32) if dtype.is_integer else total)
    return e.make("complex", root, e.like(root, 0)) if dtype.is_complex else e.convert(root, dtype)


@rule("L2Loss")
def l2_loss(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    total = e.reduce("add", e.multiply(e.wide(x), e.wide(x)), range(x.shape.rank))
    return e.convert(e.scaled(total, 0.5), x.shape.dtype)


# Positions


def _first_of(e: Emitter, dtype: DType, direction: str) -> Computation:
    """Combines (value, position) pairs: the larger (GT) or smaller (LT) value, among equals the smaller position.

    A NaN is never better, and anything is better than a NaN.
    """
    key = (f"first_{direction}", dtype)
    found = e.combiners.get(key)
    if found is not None:
        return found
    inner = e.within(e.computation(f"first_{direction}_{dtype}".lower()))
    b = inner.builder
    b.location = e.builder.location
    left, at, right, to = (b.parameter(k, Shape(t)) for k, t in enumerate((dtype, S32, dtype, S32)))
    better = b.make("or", inner.compare(right, left, direction), inner.compare(left, left, "NE"))
    same = b.make("and", inner.compare(left, right, "EQ"), inner.compare(to, at, "LT"))
    change = b.make("or", better, same)
    b.computation.root = b.tuple(inner.select(change, right, left), inner.select(change, to, at))
    e.combiners[key] = b.computation
    return b.computation


def position_of_extreme(e: Emitter, x: Instruction, axis: int, direction: str) -> Instruction:
    """s32 positions along an axis of the first largest (GT) or smallest (LT) element."""
    dtype = x.shape.dtype
    start = e.identity("maximum" if direction == "GT" else "minimum", dtype)
    places = e.iota(S32, x.shape.dims, axis)
    pair = e.make("reduce", x, places, start, e.scalar(S32, 2**31 - 1), dimensions=(axis,),
                  called=[_first_of(e, dtype, direction)])
    found = e.builder.get_tuple_element(pair, 1)
    # a row of NaN alone answers with its first place
    return e.select(e.compare(found, e.like(found, x.shape.dims[axis]), "LT"), found, e.like(found, 0))


@rule("ArgMax", "ArgMin", needs=("reduce",))
def arg_extreme(call: Call) -> Value:
    x = call.x(0)
    axis = call.axis(call.number(1), x.shape.rank)
    call.need(x.shape.dims[axis] > 0, f"dimension {axis} of {x.shape} is empty")
    found = position_of_extreme(call.emit, x, axis, "GT" if call.node.op == "ArgMax" else "LT")
    return call.emit.convert(found, call.dtype("output_type"))


# Along an axis


def cumulative(e: Emitter, x: Instruction, axis: int, opcode: str, exclusive: bool, backwards: bool) -> Instruction:
    """Each element combined with all before it: a window that reaches back to the start."""
    size = x.shape.dims[axis]
    if size == 0:
        return x
    work = e.wide(x)
    low, high = (0, size - 1) if backwards else (size - 1, 0)
    if exclusive:
        # one step further from the element itself: shift by one and drop what falls out
        fill = e.identity(opcode, work.shape.dtype)
        shift = [0] * x.shape.rank
        shift[axis] = 1
        drop = [-s for s in shift]
        work = e.pad(work, fill, drop if backwards else shift, shift if backwards else drop)
    window = Window(tuple(WindowDimension(size, padding_low=low, padding_high=high) if d == axis else WindowDimension(1)
                          for d in range(x.shape.rank)))
    kind = work.shape.dtype
    found = e.make("reduce-window", work, e.identity(opcode, kind), window=window, called=[e.combiner(opcode, kind)])
    return e.convert(found, x.shape.dtype)


@rule("Cumsum", "Cumprod", needs=("reduce-window",))
def cumulate(call: Call) -> Value:
    x = call.x(0)
    opcode = "add" if call.node.op == "Cumsum" else "multiply"
    axis = call.axis(call.number(1), x.shape.rank)
    return cumulative(call.emit, x, axis, opcode, call.attr("exclusive"), call.attr("reverse"))


@rule("CumulativeLogsumexp")
def cumulative_logsumexp(call: Call) -> Value:
    """By doubling distances: each element takes in what lies 1, 2, 4 .. before it, as max + log(1 + exp(-|difference|))."""
    e = call.emit
    x = e.wide(call.x(0))
    axis, backwards = call.axis(call.number(1), x.shape.rank), call.attr("reverse")
    size = x.shape.dims[axis]
    if call.attr("exclusive") and size:
        x = _shifted(e, x, axis, 1, backwards)
    distance = 1
    while distance < size:
        x = _log_of_sum(e, x, _shifted(e, x, axis, distance, backwards))
        distance *= 2
    return e.convert(x, call.x(0).shape.dtype)


def _shifted(e: Emitter, x: Instruction, axis: int, by: int, backwards: bool) -> Instruction:
    """What lies so many places before each element (behind it, if backwards); the logarithm of nothing where there is none."""
    near, far = [0] * x.shape.rank, [0] * x.shape.rank
    near[axis], far[axis] = by, -by
    nothing = e.scalar(x.shape.dtype, -math.inf)
    return e.pad(x, nothing, far, near) if backwards else e.pad(x, nothing, near, far)


def _log_of_sum(e: Emitter, a: Instruction, b: Instruction) -> Instruction:
    high = e.maximum(a, b)
    way = e.make("negate", e.make("abs", e.subtract(a, b)))
    found = e.add(high, e.make("log-plus-one", e.make("exponential", way)))
    return e.select(e.compare(a, b, "EQ"), e.offset(high, math.log(2.0)), found)
