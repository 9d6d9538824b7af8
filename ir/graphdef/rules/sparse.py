"""Sparse tensors given as places and values: [n, rank] indices, [n] values, [rank] shape, which must be known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.indexing import gather_tuples, scatter
from nxcc.ir.graphdef.rules.normalization import softmax_over
from nxcc.ir.graphdef.rules.segments import segments
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction


def _column(e: Emitter, indices: Instruction, number: int) -> Instruction:
    return e.reshape(e.part(indices, 1, number, number + 1), indices.shape.dims[:1])


def _shape(call: Call, number: int) -> list[int]:
    dims = call.ints(number)
    indices, values = call.x(number - 2), call.x(number - 1)
    call.need(indices.shape.dims == (values.shape.element_count, len(dims)) and min(dims, default=0) >= 0,
              f"indices {indices.shape}, values {values.shape} and the shape {dims} do not fit together")
    call.table(math.prod(dims))
    return dims


def _dense(e: Emitter, indices: Instruction, values: Instruction, dims: Sequence[int], default: float = 0) -> Instruction:
    return scatter(e, e.full(values.shape.dtype, dims, default), indices, values, "add" if not default else "second")


@rule("SparseTensorDenseMatMul", needs=("gather", "scatter"), ranks=(2, 1, 1, 2))
def sparse_product(call: Call) -> Value:
    """Each value takes its row of b and adds it to its row of the result."""
    e, indices, values, b = call.emit, call.x(0), call.x(1), call.x(3)
    dims = _shape(call, 2)
    side = int(call.attr("adjoint_a"))
    b = e.transpose(b, (1, 0)) if call.attr("adjoint_b") else b
    call.need(not values.shape.dtype.is_complex or not (side or call.attr("adjoint_b")), "complex adjoints are not supported")
    call.need(len(dims) == 2 and dims[1 - side] == b.shape.dims[0], f"{dims} and {b.shape} do not fit together")
    rows = e.take(b, _column(e, indices, 1 - side), 0)
    return segments(e, e.multiply(rows, e.spread(values, rows.shape.dims, (0,))), _column(e, indices, side), dims[side], "add")


@rule("SparseTensorDenseAdd", needs=("scatter",), ranks=(2, 1, 1))
def sparse_plus_dense(call: Call) -> Value:
    call.need(_shape(call, 2) == list(call.x(3).shape.dims), "both must have one shape")
    return scatter(call.emit, call.x(3), call.x(0), call.x(1), "add")


_ELEMENTWISE = {"SparseDenseCwiseAdd": "add", "SparseDenseCwiseMul": "multiply", "SparseDenseCwiseDiv": "divide"}


@rule(*_ELEMENTWISE, needs=("gather",), ranks=(2, 1, 1))
def sparse_with_dense(call: Call) -> Value:
    """The values alone: the places stay."""
    e = call.emit
    other = gather_tuples(e, e.broadcast_to(call.x(3), _shape(call, 2)), call.x(0))
    return e.binary(_ELEMENTWISE[call.node.op], call.x(1), other)


@rule("SparseReduceSum", needs=("scatter",), ranks=(2, 1, 1))
def sparse_sum(call: Call) -> Value:
    e = call.emit
    whole = _dense(e, call.x(0), call.x(1), _shape(call, 2))
    return e.reduce("add", whole, call.axes(3, whole.shape.rank), call.attr("keep_dims"))


@rule("SparseSoftmax", needs=("gather", "scatter"), ranks=(2, 1, 1))
def sparse_softmax(call: Call) -> Value:
    """Over the values that each row has."""
    e = call.emit
    whole = _dense(e, call.x(0), call.x(1), _shape(call, 2), -math.inf)
    return gather_tuples(e, softmax_over(e, whole), call.x(0))


@rule("SparseReshape", ranks=(2, 1, 1))
def sparse_reshape(call: Call) -> Sequence[Value]:
    """Places by the number of their element, counted out anew."""
    e, indices, before, after = call.emit, call.x(0), call.ints(1), call.ints(2)
    if after.count(-1) == 1:
        rest = math.prod(n for n in after if n != -1)
        call.need(rest > 0 and math.prod(before) % rest == 0, f"{before} cannot be reshaped to {after}")
        after[after.index(-1)] = math.prod(before) // rest
    call.need(indices.shape.dims[1] == len(before) and math.prod(before) == math.prod(after) and min(after, default=0) >= 0,
              f"{before} cannot be reshaped to {after}")
    number = e.full(indices.shape.dtype, indices.shape.dims[:1], 0)
    for d, n in enumerate(before):
        number = e.add(e.scaled(number, n), _column(e, indices, d))
    columns = []
    for d, n in enumerate(after):
        digit = e.divide(number, e.like(number, max(math.prod(after[d + 1:]), 1)))
        digit = e.make("remainder", digit, e.like(number, max(n, 1)))
        columns.append(e.reshape(digit, (*digit.shape.dims, 1)))
    call.need(bool(columns), "a scalar has no places")
    kind = call.x(2).shape.dtype.numpy
    return [e.concatenate(columns, 1), e.constant(np.array(after, kind))]
