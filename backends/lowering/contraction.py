"""Dot: batch, row, column and summed dimensions in any order, brought to products of matrices.

Neighbouring dimensions of one kind are joined where strides allow; rows and columns that remain are looped over, summed ones
accumulate. Floats go to the tensor engine in a dtype that holds both operands; integers are multiplied byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nxcc.backends.isa import instructions as isa
from nxcc.backends.lowering.products.limbs import as_bytes, multiply_integers, multiply_truths
from nxcc.backends.lowering.products.matmul import ONCE, Batch, multiply, multiply_deep, split_depth
from nxcc.backends.lowering.products.small import can_be_small, multiply_small
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.tiling import join
from nxcc.backends.lowering.turning import comes_in_elements
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import View
from nxcc.ir.dtypes import BF16, F16, F32, PRED, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.small_products import are_many_small

Product = Callable[[Kernel, View, View, View, Batch], None]
"""product(kernel, left [m, k..], right [n, k..], out [m, n], how often)"""


def tensor_dtype(left: DType, right: DType) -> DType:
    """The dtype in which the tensor engine multiplies two operands: one of theirs, or the narrowest that holds both."""
    if left is right and left in isa.pe.PE_INPUTS:
        return left
    narrow = [dtype for dtype in (left, right) if dtype.is_float and dtype.bits == 8]
    others = {dtype for dtype in (left, right) if dtype not in narrow} or {BF16}
    wide = others.pop()
    return wide if narrow and not others and wide in (BF16, F16) else F32


def product_reason(left: DType, right: DType, result: DType, target: Target, integer_bits: int = 32) -> str | None:
    """Why products of these element types, summed in this one, have no lowering; None if they have.

    integer_bits: of the widest integers.
    """
    for dtype in (left, right, result):
        if dtype.bits > (integer_bits if dtype.is_integer else 32) or dtype.is_complex or dtype.bits < 8 and dtype is not PRED:
            return f"the engines of {target.name} do not multiply {dtype}"
    if left.is_float or right.is_float:
        return None if result.is_float else f"float products into {result} have no lowering"
    if result is PRED and not left is right is PRED:
        return "products of integers into pred have no lowering"
    return None


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    left, right = (operand.shape.dtype for operand in instruction.operands[:2])
    return product_reason(left, right, instruction.shape.dtype, target, integer_bits=64)


TURNED_FIRST = 2048
"""Rows, columns and depth, at least, of a product whose right operand is turned in memory before it: the left one does not stay
on the chip as a whole, so that the right one would be turned again for each part of it."""


def _lies(instruction: Instruction, operands: Sequence[View | None]) -> Iterator[tuple[int, Sequence[int]]]:
    """The right operand of a large product along its columns, if it lies along k."""
    right = operands[1]
    columns = [d for d in range(instruction.operands[1].shape.rank) if d not in instruction.attribute("rhs_contracting_dims")]
    if right is None or instruction.attribute("rhs_batch_dims") or len(columns) != 1 or right.elements == 0:
        return
    width = right.sizes[columns[0]]
    if min(width, right.elements // width, instruction.shape.element_count // width) < TURNED_FIRST:
        return
    if any(comes_in_elements(right, d) for d in range(len(right.dims)) if d not in columns):
        yield 1, (*instruction.attribute("rhs_contracting_dims"), *columns)


@rule("dot", unsupported=_unsupported, lies=_lies)
def lower_dot(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """result[b.., m.., n..] = sum over k of lhs[b, m, k] * rhs[b, k, n]."""
    if results[0].elements == 0:
        return
    problem = _normalize(instruction, operands[0], operands[1], results[0])
    sides = problem.left, problem.right, problem.out
    is_plain = problem.batch == problem.rows == problem.columns == 1
    if is_plain and are_many_small(instruction) and can_be_small(kernel, *sides):
        multiply_small(kernel, *sides)
        return
    product = _product_of(operands[0].dtype, operands[1].dtype, results[0].dtype)
    for single, batch in _batches(kernel, problem):
        for part in _longest_rows(kernel, single):
            for turned in _longest_rows(kernel, _swapped(part)):
                _multiply(kernel, product, turned, batch.swapped())


@dataclass(frozen=True, slots=True)
class _Problem:
    """left [batch.., m.., k..], right [batch.., n.., k..], out [batch.., m.., n..], with so many dimensions of each kind."""

    left: View
    right: View
    out: View
    batch: int
    rows: int
    columns: int


def _normalize(instruction: Instruction, left: View, right: View, out: View) -> _Problem:
    """Join what can be joined. Summed dimensions are ordered as they lie in the left operand: their order is free."""
    left_batch, right_batch = instruction.attribute("lhs_batch_dims"), instruction.attribute("rhs_batch_dims")
    pairs = zip(instruction.attribute("lhs_contracting_dims"), instruction.attribute("rhs_contracting_dims"), strict=True)
    summed = sorted(pairs, key=lambda pair: -abs(left.dims[pair[0]][0]))
    left_sum, right_sum = [d for d, _ in summed], [d for _, d in summed]
    left_rows = [d for d in range(len(left.dims)) if d not in left_batch and d not in left_sum]
    right_columns = [d for d in range(len(right.dims)) if d not in right_batch and d not in right_sum]
    b, m = len(left_batch), len(left_rows)
    batch = join([left.permute(left_batch), right.permute(right_batch), out.permute(range(b))])
    rows = join([left.permute(left_rows), out.permute(range(b, b + m))])
    columns = join([right.permute(right_columns), out.permute(range(b + m, len(out.dims)))])
    depth = join([left.permute(left_sum), right.permute(right_sum)])
    return _Problem(replace(left, dims=(*batch[0].dims, *rows[0].dims, *depth[0].dims)),
                    replace(right, dims=(*batch[1].dims, *columns[0].dims, *depth[1].dims)),
                    replace(out, dims=(*batch[2].dims, *rows[1].dims, *columns[1].dims)),
                    len(batch[0].dims), len(rows[0].dims), len(columns[0].dims))


def _batches(kernel: Kernel, problem: _Problem) -> Iterator[tuple[_Problem, Batch]]:
    """Loops over the batch dimensions but the last one, which the product itself repeats: the first product of it."""
    if problem.batch == 0:
        yield problem, ONCE
        return
    sizes = problem.out.sizes[:problem.batch]
    sides = (problem.left, problem.right, problem.out)
    if problem.batch == 1:
        strides = [side.dims[0][0] for side in sides]
        first = [side.at(0, 0) for side in sides]
        yield replace(problem, left=first[0], right=first[1], out=first[2], batch=0), Batch(sizes[0], *strides)
        return
    shortest = sizes.index(min(sizes))
    with kernel.loop(sizes[shortest]) as index:
        one = [side.at(shortest, index) for side in sides]
        yield from _batches(kernel, replace(problem, left=one[0], right=one[1], out=one[2], batch=problem.batch - 1))


def _longest_rows(kernel: Kernel, problem: _Problem) -> Iterator[_Problem]:
    """Loops over all dimensions of rows but the longest."""
    if problem.rows == 1:
        yield problem
        return
    sizes = problem.left.sizes[:problem.rows]
    shortest = sizes.index(min(sizes))
    with kernel.loop(sizes[shortest]) as index:
        yield from _longest_rows(kernel, replace(
            problem, left=problem.left.at(shortest, index), out=problem.out.at(shortest, index), rows=problem.rows - 1))


def _swapped(problem: _Problem) -> _Problem:
    """The transposed product: rows and columns, left and right change places."""
    m = problem.rows
    order = (*range(m, len(problem.out.dims)), *range(m))
    return replace(problem, left=problem.right, right=problem.left, out=problem.out.permute(order), rows=problem.columns,
                   columns=problem.rows)


def _multiply(kernel: Kernel, product: Product, problem: _Problem, batch: Batch) -> None:
    """Of a product and its transpose the one whose results are contiguous along the columns."""
    (row_stride, rows), (column_stride, columns) = problem.out.dims
    unit = problem.out.dtype.byte_size
    if columns == 1 < rows or (row_stride == unit and column_stride != unit and rows > 1):
        problem = _swapped(problem)
        batch = batch.swapped()
    product(kernel, problem.left, problem.right, problem.out, batch)


def _product_of(left: DType, right: DType, result: DType) -> Product:
    """How operands of these element types are multiplied."""
    if left.is_float or right.is_float or result.is_float:
        return _float_product(tensor_dtype(left, right))
    return _each(multiply_truths if result is PRED else multiply_integers)


def _each(product: Callable[[Kernel, View, View, View], None]) -> Product:
    """One product after the other."""
    def repeated(kernel: Kernel, left: View, right: View, out: View, batch: Batch) -> None:
        for a, b, c in batch.each(kernel, left, right, out):
            product(kernel, a, b, c)
    return repeated


def _float_product(dtype: DType) -> Product:
    def product(kernel: Kernel, left: View, right: View, out: View, batch: Batch) -> None:
        a, b = (split_depth(kernel, as_bytes(side)) for side in (left, right))
        if len(a.dims) == 3:
            multiply(kernel, a, b, out, dtype, batch)
        else:
            _each(lambda kernel, left, right, out: multiply_deep(kernel, left, right, out, dtype))(kernel, a, b, out, batch)
    return product
