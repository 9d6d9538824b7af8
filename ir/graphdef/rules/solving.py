"""Systems of linear equations, inverses, determinants and factors of rectangular matrices.

All go column by column in a loop over whole batches of matrices, with masks in place of indices, so that no address depends
on values. Elimination pivots: the largest element of the column that is left goes first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nxcc.ir.dtypes import S32
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.reduction import position_of_extreme
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction

_NEEDS = ("while", "reduce")
_BATCH, _ROW, _COLUMN = 0, 1, 2


def _only(e: Emitter, where: Instruction, x: Instruction, axis: int) -> Instruction:
    """The one element along an axis that a mask leaves."""
    return e.reduce("add", e.select(where, x, e.like(x, 0)), [axis])


def _rows_are(e: Emitter, dims: Sequence[int], number: Instruction, axis: int = _ROW) -> Instruction:
    """Where the row (or column) of [batch, rows, columns] has a number, which is a scalar or one a matrix."""
    places = e.iota(S32, dims, axis)
    wide = e.broadcast_to(number, dims) if number.shape.rank == 0 else e.spread(number, dims, (_BATCH,))
    return e.compare(places, wide, "EQ")


def _exchanged(e: Emitter, x: Instruction, first: Instruction, second: Instruction) -> tuple[Instruction, Instruction]:
    """x with two rows of each matrix exchanged, and the row that is first now."""
    dims = x.shape.dims
    at, to = _rows_are(e, dims, first), _rows_are(e, dims, second)
    one, other = _only(e, at, x, _ROW), _only(e, to, x, _ROW)
    below = e.select(to, e.spread(one, dims, (_BATCH, _COLUMN)), x)
    return e.select(at, e.spread(other, dims, (_BATCH, _COLUMN)), below), other


def eliminate(e: Emitter, a: Instruction, b: Instruction) -> list[Instruction]:
    """Gauss and Jordan's elimination of a [batch, n, n] with b [batch, n, m] beside it.

    Returns the solution x of a x = b [batch, n, m], the pivots [batch, n] and the sign of the exchanges of rows [batch].
    """
    batch, n, _ = a.shape.dims
    kind = a.shape.dtype
    state = [e.index(0), a, b, e.full(kind, (batch, n), 1), e.full(kind, (batch,), 1)]

    def turn(inner: Emitter, parts: list[Instruction]) -> list[Instruction]:
        k, left, right, pivots, sign = parts
        column = _only(inner, _rows_are(inner, left.shape.dims, k, _COLUMN), left, _COLUMN)
        places = inner.iota(S32, (batch, n), 1)
        size = inner.make("abs", column)
        open_ = inner.compare(places, inner.broadcast_to(k, (batch, n)), "GE")
        best = position_of_extreme(inner, inner.select(open_, size, inner.like(size, -1)), 1, "GT")
        sign = inner.select(inner.compare(best, inner.broadcast_to(k, (batch,)), "EQ"), sign, inner.make("negate", sign))
        left, row = _exchanged(inner, left, k, best)
        right, beside = _exchanged(inner, right, k, best)
        here = inner.compare(places, inner.broadcast_to(k, (batch, n)), "EQ")
        pivot = _only(inner, here, row, 1)
        pivots = inner.select(here, inner.spread(pivot, (batch, n), (0,)), pivots)
        column = _only(inner, _rows_are(inner, left.shape.dims, k, _COLUMN), left, _COLUMN)
        return [inner.offset(k, 1), *(_cleared(inner, x, top, column, pivot, k) for x, top in ((left, row), (right, beside))),
                pivots, sign]

    after = e.loop(state, lambda inner, parts: inner.compare(parts[0], inner.index(n), "LT"), turn, "elimination")
    return after[2:]


def _cleared(e: Emitter, x: Instruction, row: Instruction, column: Instruction, pivot: Instruction,
             k: Instruction) -> Instruction:
    """x with row k over the pivot, and so much of it taken from all others that column k is cleared in them."""
    dims = x.shape.dims
    scaled = e.spread(e.divide(row, e.spread(pivot, row.shape.dims, (0,))), dims, (_BATCH, _COLUMN))
    rest = e.subtract(x, e.multiply(e.spread(column, dims, (_BATCH, _ROW)), scaled))
    return e.select(_rows_are(e, dims, k), scaled, rest)


def _matrices(call: Call, number: int = 0) -> Instruction:
    """An input of square matrices, its leading dimensions as one; narrow floats in f32."""
    x = call.emit.wide(call.x(number))
    *lead, rows, columns = x.shape.dims
    call.need(rows == columns, f"the matrices must be square, they are {x.shape}")
    call.need(not x.shape.dtype.is_complex, "complex matrices are not supported")
    return call.emit.reshape(x, (math.prod(lead), rows, columns))


def _turned(call: Call, x: Instruction) -> Instruction:
    return call.emit.transpose(x, (0, 2, 1)) if call.attr("adjoint") else x


def _result(call: Call, x: Instruction, dims: Sequence[int]) -> Instruction:
    return call.emit.convert(call.emit.reshape(x, dims), call.x(0).shape.dtype)


@rule("MatrixSolve", "BatchMatrixSolve", needs=_NEEDS, ranks=("2+", "2+"))
def matrix_solve(call: Call) -> Value:
    e, a, b = call.emit, _turned(call, _matrices(call)), call.x(1)
    call.need(b.shape.dims[:-1] == call.x(0).shape.dims[:-1], f"{call.x(0).shape} and {b.shape} do not fit together")
    right = e.reshape(e.convert(b, a.shape.dtype), (*a.shape.dims[:2], b.shape.dims[-1]))
    return _result(call, eliminate(e, a, right)[0], b.shape.dims)


@rule("MatrixInverse", "BatchMatrixInverse", needs=_NEEDS, ranks=("2+",))
def matrix_inverse(call: Call) -> Value:
    e, a = call.emit, _turned(call, _matrices(call))
    dims = a.shape.dims
    unit = e.convert(e.compare(e.iota(S32, dims, _ROW), e.iota(S32, dims, _COLUMN), "EQ"), a.shape.dtype)
    return _result(call, eliminate(e, a, unit)[0], call.x(0).shape.dims)


def _pivots(call: Call) -> tuple[Instruction, Instruction]:
    a = _matrices(call)
    _, pivots, sign = eliminate(call.emit, a, call.emit.full(a.shape.dtype, (*a.shape.dims[:2], 1), 0))
    return pivots, sign


@rule("MatrixDeterminant", "BatchMatrixDeterminant", needs=_NEEDS, ranks=("2+",))
def determinant(call: Call) -> Value:
    e, (pivots, sign) = call.emit, _pivots(call)
    return _result(call, e.multiply(e.reduce("multiply", pivots, [1]), sign), call.x(0).shape.dims[:-2])


@rule("LogMatrixDeterminant", needs=_NEEDS, ranks=("2+",))
def log_determinant(call: Call) -> Sequence[Value]:
    """The determinant's sign, and the logarithm of its size."""
    e, (pivots, sign) = call.emit, _pivots(call)
    dims = call.x(0).shape.dims[:-2]
    signs = e.multiply(e.reduce("multiply", e.make("sign", pivots), [1]), sign)
    logs = e.reduce("add", e.make("log", e.make("abs", pivots)), [1])
    return [_result(call, signs, dims), _result(call, logs, dims)]


# Factors of rectangular matrices


@rule("Qr", needs=(*_NEEDS, "dot"), ranks=("2+",))
def qr(call: Call) -> Sequence[Value]:
    """Householder's reflections, with the signs of LAPACK: a column with nothing below the diagonal is left as it is."""
    e, given = call.emit, call.emit.wide(call.x(0))
    call.need(not given.shape.dtype.is_complex, "complex matrices are not supported")
    *lead, m, n = given.shape.dims
    batch, kind = math.prod(lead), given.shape.dtype
    dims = (batch, m, m)
    unit = e.convert(e.compare(e.iota(S32, dims, _ROW), e.iota(S32, dims, _COLUMN), "EQ"), kind)

    def turn(inner: Emitter, parts: list[Instruction]) -> list[Instruction]:
        k, q, r = parts
        vector, factor = _reflection(inner, r, k)
        across = inner.builder.dot(vector, r, ((1,), (1,)), ((0,), (0,)))
        along = inner.builder.dot(q, vector, ((2,), (1,)), ((0,), (0,)))
        return [inner.offset(k, 1), _reflected(inner, q, along, vector, factor), _reflected(inner, r, vector, across, factor)]

    state = [e.index(0), unit, e.reshape(given, (batch, m, n))]
    _, q, r = e.loop(state, lambda inner, parts: inner.compare(parts[0], inner.index(min(m, n)), "LT"), turn, "reflections")
    above = e.compare(e.iota(S32, r.shape.dims, _ROW), e.iota(S32, r.shape.dims, _COLUMN), "LE")
    r = e.select(above, r, e.like(r, 0))
    kept = m if call.attr("full_matrices") else min(m, n)
    return [_result(call, e.part(q, _COLUMN, 0, kept), (*lead, m, kept)),
            _result(call, e.part(r, _ROW, 0, kept), (*lead, kept, n))]


def _reflection(e: Emitter, r: Instruction, k: Instruction) -> tuple[Instruction, Instruction]:
    """[batch, m] and [batch]: v and f of the reflection 1 - f v v' that clears column k below its diagonal."""
    batch, m, _ = r.shape.dims
    column = _only(e, _rows_are(e, r.shape.dims, k, _COLUMN), r, _COLUMN)
    places, here = e.iota(S32, (batch, m), 1), e.broadcast_to(k, (batch, m))
    below = e.select(e.compare(places, here, "GT"), column, e.like(column, 0))
    rest = e.reduce("add", e.multiply(below, below), [1])
    head = _only(e, e.compare(places, here, "EQ"), column, 1)
    length = e.make("sqrt", e.add(e.multiply(head, head), rest))
    first = e.select(e.compare(head, e.like(head, 0), "LT"), e.subtract(head, length), e.add(head, length))
    vector = e.select(e.compare(places, here, "EQ"), e.spread(first, (batch, m), (0,)), below)
    size = e.add(e.multiply(first, first), rest)
    nothing = e.compare(rest, e.like(rest, 0), "EQ")
    factor = e.divide(e.like(size, 2), e.select(nothing, e.like(size, 1), size))
    return vector, e.select(nothing, e.like(factor, 0), factor)


def _reflected(e: Emitter, x: Instruction, left: Instruction, right: Instruction, factor: Instruction) -> Instruction:
    """x less factor times the outer product of two vectors."""
    dims = x.shape.dims
    product = e.multiply(e.spread(left, dims, (_BATCH, _ROW)), e.spread(right, dims, (_BATCH, _COLUMN)))
    return e.subtract(x, e.multiply(e.spread(factor, dims, (_BATCH,)), product))
