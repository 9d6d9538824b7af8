"""Diagonals, bands, factorisations."""

from __future__ import annotations

from typing import cast

import numpy as np

from nxcc.ir.dtypes import S32
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter, broadcast_dims
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.literals import Array


@rule("Cross")
def cross(call: Call) -> Value:
    """Of the last dimensions, which are 3."""
    e, a, b = call.emit, call.x(0), call.x(1)
    call.need(a.shape == b.shape and a.shape.rank > 0 and a.shape.dims[-1] == 3,
              f"both inputs must have the same shape, which ends in 3; they are {a.shape} and {b.shape}")
    axis = a.shape.rank - 1

    def turned(x: Instruction, by: int) -> Instruction:
        return e.concatenate([e.part(x, axis, by, 3), e.part(x, axis, 0, by)], axis)

    return e.subtract(e.multiply(turned(a, 1), turned(b, 2)), e.multiply(turned(a, 2), turned(b, 1)))


def _places(e: Emitter, dims: tuple[int, ...]) -> tuple[Instruction, Instruction]:
    """Row and column numbers of matrices."""
    return e.iota(S32, dims, len(dims) - 2), e.iota(S32, dims, len(dims) - 1)


@rule("MatrixBandPart", "BatchMatrixBandPart", ranks=("2+",))
def band(call: Call) -> Value:
    """Keeps (lower < 0 or i - j <= lower) and (upper < 0 or j - i <= upper)."""
    e, x = call.emit, call.x(0)
    i, j = _places(e, x.shape.dims)
    keep = None
    for number, distance in ((1, e.subtract(i, j)), (2, e.subtract(j, i))):
        limit = e.reshape(e.convert(call.x(number), S32), ())
        inside = e.compare(distance, limit, "LE")
        free = e.broadcast_to(e.compare(limit, e.scalar(S32, 0), "LT"), x.shape.dims)
        part = e.make("or", inside, free)
        keep = part if keep is None else e.make("and", keep, part)
    return e.select(cast(Instruction, keep), x, e.like(x, 0))


def _on_diagonal(e: Emitter, dims: tuple[int, ...]) -> Instruction:
    i, j = _places(e, dims)
    return e.compare(i, j, "EQ")


@rule("MatrixDiag", "BatchMatrixDiag", ranks=("1+",))
def matrix_diag(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    dims = (*x.shape.dims, x.shape.dims[-1])
    wide = e.spread(x, dims, range(x.shape.rank))
    return e.select(_on_diagonal(e, dims), wide, e.like(wide, 0))


@rule("MatrixSetDiag", ranks=("2+", "1+"))
def matrix_set_diag(call: Call) -> Value:
    e, x, diagonal = call.emit, call.x(0), call.x(1)
    rank, (m, n) = x.shape.rank, x.shape.dims[-2:]
    # the diagonal lies along the shorter side; along it, row and column numbers agree
    along = rank - 2 if m <= n else rank - 1
    wide = e.spread(diagonal, x.shape.dims, [*range(rank - 2), along])
    return e.select(_on_diagonal(e, x.shape.dims), wide, x)


@rule("MatrixDiagPart", ranks=("2+",))
def matrix_diag_part(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    size = min(x.shape.dims[-2:])
    square = e.slice(x, [0] * x.shape.rank, (*x.shape.dims[:-2], size, size))
    kept = e.select(_on_diagonal(e, square.shape.dims), square, e.like(square, 0))
    return e.reduce("add", kept, [x.shape.rank - 1])


@rule("Diag")
def diag(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    size = x.shape.element_count
    wide = e.spread(e.reshape(x, (size,)), (size, size), (0,))
    return e.reshape(e.select(_on_diagonal(e, (size, size)), wide, e.like(wide, 0)), (*x.shape.dims, *x.shape.dims))


@rule("DiagPart")
def diag_part(call: Call) -> Value:
    e, x = call.emit, call.x(0)
    half = x.shape.dims[:x.shape.rank // 2]
    size = int(np.prod(half))
    square = e.reshape(x, (size, size))
    return e.reshape(e.reduce("add", e.select(_on_diagonal(e, (size, size)), square, e.like(square, 0)), [1]), half)


# The V3 forms: a range of diagonals, kept as rows that are aligned to one side. Which element comes from where is known at
# compile time, so each is one gather by a constant table into the flat matrix with the padding value behind it.


def _range_of(call: Call, number: int) -> tuple[int, int]:
    given = call.ints(number)
    call.need(len(given) in (1, 2) and given[0] <= given[-1], f"k {given} must be one diagonal or a range")
    return given[0], given[-1]


def _offset(align: str, k: int, rows: int, columns: int, longest: int) -> int:
    """How far a diagonal is shifted to the right in its row."""
    length = min(rows + min(k, 0), columns - max(k, 0))
    right = align == "RIGHT_LEFT" and k >= 0 or align == "LEFT_RIGHT" and k <= 0 or align == "RIGHT_RIGHT"
    return longest - length if right else 0


def _diagonal_table(call: Call, low: int, high: int, rows: int, columns: int) -> Array:
    """[high - low + 1, longest]: flat places in a matrix, -1 where a row of diagonals is padding; highest diagonal first."""
    has_align = "align" in call.signature.attributes
    align = call.text("align", "RIGHT_LEFT", "LEFT_RIGHT", "LEFT_LEFT", "RIGHT_RIGHT") if has_align else "LEFT_LEFT"
    call.need(-rows < low <= high < columns, f"diagonals {low} to {high} do not lie in a {rows} x {columns} matrix")
    call.table(float(high - low + 1) * (rows + columns) + float(rows) * columns)
    lengths = [min(rows + min(k, 0), columns - max(k, 0)) for k in range(low, high + 1)]
    longest = max(lengths)
    table = np.full((high - low + 1, longest), -1, np.int32)
    for number, k in enumerate(range(high, low - 1, -1)):
        start = _offset(align, k, rows, columns, longest)
        for n in range(min(rows + min(k, 0), columns - max(k, 0))):
            table[number, start + n] = (n - min(k, 0)) * columns + n + max(k, 0)
    return table


def _take_flat(e: Emitter, x: Instruction, kept: int, table: Array, padding: Instruction) -> Instruction:
    """Elements of the flattened last dimensions of x by a table; -1 takes the padding."""
    lead = x.shape.dims[:kept]
    size = int(np.prod(x.shape.dims[kept:]))
    flat = e.reshape(x, (*lead, size))
    places = np.where(table < 0, 0, table).astype(np.int32)
    found = e.take(flat, e.constant(places), kept)
    valid = e.spread(e.constant(table >= 0), found.shape.dims, range(kept, found.shape.rank))
    return e.select(valid, found, e.reshape(padding, ()))


@rule("MatrixDiagPartV3", "MatrixDiagPartV2", needs=("gather",), ranks=("2+",))
def matrix_diag_part_v3(call: Call) -> Value:
    x = call.x(0)
    low, high = _range_of(call, 1)
    table = _diagonal_table(call, low, high, *x.shape.dims[-2:])
    return _take_flat(call.emit, x, x.shape.rank - 2, table if low != high else table[0], call.x(2))


def _inverse(table: Array, rows: int, columns: int) -> Array:
    """[rows, columns]: which place of the diagonals each element of the matrix comes from, -1 for none."""
    found = np.full(rows * columns, -1, np.int32)
    flat = table.reshape(-1)
    found[flat[flat >= 0]] = np.flatnonzero(flat >= 0)
    return found.reshape(rows, columns)


@rule("MatrixDiagV3", "MatrixDiagV2", needs=("gather",), ranks=("1+",))
def matrix_diag_v3(call: Call) -> Value:
    x = call.x(0)
    low, high = _range_of(call, 1)
    held = 1 if low == high else x.shape.dims[-2] if x.shape.rank >= 2 else 0
    call.need(held == high - low + 1, f"{x.shape} does not hold {high - low + 1} diagonals")
    longest = x.shape.dims[-1]
    rows, columns = call.number(2), call.number(3)
    smallest_rows, smallest_columns = longest - min(high, 0), longest + max(low, 0)
    if rows < 0 and columns < 0:
        rows = columns = max(smallest_rows, smallest_columns)
    rows, columns = (smallest_rows if rows < 0 else rows), (smallest_columns if columns < 0 else columns)
    table = _inverse(_diagonal_table(call, low, high, rows, columns), rows, columns)
    return _take_flat(call.emit, x, x.shape.rank - (1 if low == high else 2), table, call.x(4))


@rule("MatrixSetDiagV3", "MatrixSetDiagV2", needs=("gather",), ranks=("2+", "1+"))
def matrix_set_diag_v3(call: Call) -> Value:
    e, x, diagonals = call.emit, call.x(0), call.x(1)
    low, high = _range_of(call, 2)
    rows, columns = x.shape.dims[-2:]
    table = _inverse(_diagonal_table(call, low, high, rows, columns), rows, columns)
    kept = x.shape.rank - 2
    fresh = _take_flat(e, diagonals, kept, table, e.scalar(x.shape.dtype, 0))
    return e.select(e.spread(e.constant(table >= 0), x.shape.dims, (kept, kept + 1)), fresh, x)


# Factorisations


@rule("Cholesky", needs=("cholesky",), ranks=("2+",))
def cholesky(call: Call) -> Value:
    """The lower factor; HLO leaves the upper triangle open, TensorFlow says zero."""
    e = call.emit
    found = e.make("cholesky", call.x(0), lower=True)
    i, j = _places(e, found.shape.dims)
    return e.select(e.compare(i, j, "GE"), found, e.like(found, 0))


@rule("MatrixTriangularSolve", needs=("triangular-solve",), ranks=("2+", "2+"))
def triangular_solve(call: Call) -> Value:
    e, a, b = call.emit, call.x(0), call.x(1)
    lead = broadcast_dims(a.shape.dims[:-2], b.shape.dims[:-2])
    a = e.broadcast_to(a, (*lead, *a.shape.dims[-2:]))
    b = e.broadcast_to(b, (*lead, *b.shape.dims[-2:]))
    return e.make("triangular-solve", a, b, left_side=True, lower=call.attr("lower"),
                  transpose_a="ADJOINT" if call.attr("adjoint") else "NO_TRANSPOSE")
