"""Dot: batch, row and column dimensions in any order, as passes of the tensor engine that accumulate in PSUM."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.tiling import loops
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.module import Instruction


@rule("dot")
def lower_dot(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """result[b, m, n] = sum_k lhs[b, m, k] * rhs[b, k, n]; the left operand is stationary."""
    lhs_batch, rhs_batch = instruction.attribute("lhs_batch_dims"), instruction.attribute("rhs_batch_dims")
    lhs_sum, rhs_sum = instruction.attribute("lhs_contracting_dims"), instruction.attribute("rhs_contracting_dims")
    lhs_rows = _others(operands[0], lhs_batch, lhs_sum)
    rhs_columns = _others(operands[1], rhs_batch, rhs_sum)
    lhs = operands[0].permute((*lhs_batch, *lhs_rows, *lhs_sum))
    rhs = operands[1].permute((*rhs_batch, *rhs_columns, *rhs_sum))
    b, m, n = len(lhs_batch), len(lhs_rows), len(rhs_columns)
    result = results[0]
    # Rank is brought to [batch.., m, k], [batch.., n, k], [batch.., m, n] by looping over what strides cannot join.
    for left, right, out in loops(kernel, [lhs.insert(0), rhs.insert(0), result.insert(0)], 1):
        for left_b, right_b, out_b in _batches(kernel, left, right, out, b):
            for left_m, out_m in _grouped(kernel, left_b, out_b, m, 0, 0):
                for right_n, out_n in _grouped(kernel, right_b, out_m, n, 0, 1):
                    _matmul(kernel, left_m, right_n, out_n)


def _others(view: View, batch: Sequence[int], contracting: Sequence[int]) -> tuple[int, ...]:
    return tuple(d for d in range(len(view.dims)) if d not in batch and d not in contracting)


def _batches(kernel: Kernel, left: View, right: View, out: View, count: int):  # type: ignore[no-untyped-def]
    if count == 0:
        yield left, right, out
        return
    with kernel.loop(out.sizes[0]) as index:
        yield from _batches(kernel, left.at(0, index), right.at(0, index), out.at(0, index), count - 1)


def _grouped(kernel: Kernel, operand: View, out: View, count: int, at: int, out_at: int):  # type: ignore[no-untyped-def]
    """Join `count` free dimensions of operand (from `at`) and of out (from `out_at`) into one, looping where it must."""
    if count == 0:
        yield operand.insert(at), out.insert(out_at)
        return
    if count == 1:
        yield operand, out
        return
    sizes = operand.sizes
    joined = operand.reshape((*sizes[:at], sizes[at] * sizes[at + 1], *sizes[at + 2:]))
    out_sizes = out.sizes
    out_joined = out.reshape((*out_sizes[:out_at], out_sizes[out_at] * out_sizes[out_at + 1], *out_sizes[out_at + 2:]))
    if joined is not None and out_joined is not None:
        yield from _grouped(kernel, joined, out_joined, count - 1, at, out_at)
        return
    with kernel.loop(sizes[at]) as index:
        yield from _grouped(kernel, operand.at(at, index), out.at(out_at, index), count - 1, at, out_at)


def _matmul(kernel: Kernel, left: View, right: View, out: View) -> None:
    """left [m, k..], right [n, k..], out [m, n]."""
    target = kernel.target
    depth = left.sizes[1:]
    left = left.reshape((left.sizes[0], _product(depth))) or left
    right = right.reshape((right.sizes[0], _product(depth))) or right
    assert len(left.dims) == 2 and len(right.dims) == 2
    k_total = left.sizes[1]
    for m, rows in kernel.tiles(left.sizes[0], target.tensor.stationary_max):
        for n, columns in kernel.tiles(right.sizes[0], target.tensor.moving_max):
            sums = kernel.psum((rows, columns))

            def accumulate(k: Index, size: int, first: bool, m: Index = m, rows: int = rows, n: Index = n, columns: int = columns,
                           sums: Access = sums) -> None:
                stationary = _load_transposed(kernel, left.cut(0, m, rows).cut(1, k, size))
                moving = _load_transposed(kernel, right.cut(0, n, columns).cut(1, k, size))
                kernel.matmul(sums, stationary, moving, accumulate=not first)

            lanes = target.partitions
            first = min(lanes, k_total)
            with kernel.scope():
                accumulate(0, first, True)
            full, rest = divmod(k_total - first, lanes)
            if full:
                with kernel.loop(full) as index:
                    accumulate(index * lanes + first, lanes, False)
            if rest:
                with kernel.scope():
                    accumulate(first + full * lanes, rest, False)
            tile = kernel.sbuf((rows, columns), out.dtype)
            kernel.copy(tile, sums)
            kernel.dma(out.cut(0, m, rows).cut(1, n, columns), tile)


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _load_transposed(kernel: Kernel, view: View) -> Access:
    """[rows, k] in memory as a tile [k partitions, rows]."""
    tile = kernel.sbuf((view.sizes[1], view.sizes[0]), view.dtype)
    kernel.dma(tile, view.permute((1, 0)))
    return tile


_ = F32
