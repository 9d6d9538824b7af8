"""Matrix products on the tensor engine: operands in HBM brought to [k on partitions, ..], sums over k in PSUM.

Where tiles rotate, a search over the cost model cuts the product (see `product`). In the plain order of level 0 the left
operand of a block of rows is brought in once and stays; the right one streams past it in chunks of k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from nxcc.backends.lowering.halo import blocked
from nxcc.backends.lowering.products.operands import Depth, block_sizes, bring, depth_of, split_depth, steady, turning_ring
from nxcc.backends.lowering.products.product import ONCE, Batch, Multiplication, planned
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import DType

__all__ = ["ONCE", "Batch", "accumulate", "multiply", "multiply_deep", "open_sums", "split_depth"]

RESIDENT_BYTES = 131072
"""Bytes a partition that the left operand of a block of rows may take."""

RESIDENT_TILES = 4
"""Tiles of rows in a block, at most: each has a PSUM bank for its sums."""

CHUNK_PASSES = 4
"""Passes of the tensor engine, at least, for one transfer of the right operand."""

RING = 4
"""Chunks under way at once where both operands stream: bandwidth, not the time that a transfer takes to begin, is the limit."""


def multiply(kernel: Kernel, left: View, right: View, out: View, dtype: DType, batch: Batch = ONCE) -> None:
    """out[m, n] = sum over k of left[m, k outer, k inner] * right[n, k outer, k inner]; dtype: both operands' on the chip."""
    if left.elements and right.elements and kernel.copies.rotates:
        found = planned(kernel, left, right, out, dtype, batch)
        if found is not None:
            Multiplication(kernel, *found, dtype).run(left, right, out, batch)
            return
    for a, b, c in batch.each(kernel, left, right, out):
        _plain(kernel, a, b, c, dtype)


def _plain(kernel: Kernel, left: View, right: View, out: View, dtype: DType) -> None:
    if left.elements == 0 or right.elements == 0:
        _zeros(kernel, out)
        return
    depth = depth_of(kernel, (left.sizes[1], left.sizes[2]))
    lanes = kernel.target.partitions
    most = RESIDENT_BYTES // (depth.blocks * lanes * dtype.byte_size)
    if most == 0 or kernel.copies.rotates:
        _stream(kernel, left, right, out, dtype)
        return
    tiles = min(RESIDENT_TILES, most, -(-left.sizes[0] // lanes))
    for m, rows in steady(kernel, left.sizes[0], tiles * lanes, 1):
        resident = kernel.sbuf((min(depth.unit, depth.total), depth.blocks, rows), dtype)
        for k, size in steady(kernel, depth.total, depth.unit, 1):
            bring(kernel, left.cut(0, m, rows), depth, k, size, resident.cut(0, blocked(k, depth.unit), 1), None)
        _row_block(kernel, resident, right, out.cut(0, m, rows), depth)


def _row_block(kernel: Kernel, left: Access, right: View, out: View, depth: Depth) -> None:
    """out [rows, n] from a resident left operand [unit, blocks, rows]."""
    lanes, width = kernel.target.partitions, kernel.target.tensor.moving_max
    rows = left.sizes[-1]
    cuts = [(start, min(lanes, rows - start)) for start in range(0, rows, lanes)]
    shared = _sums(kernel, cuts, width) if len(cuts) > RESIDENT_TILES // 2 else None
    for n, columns in steady(kernel, right.sizes[0], width, 1):
        sums = [tile.cut(0, 0, columns) for tile in shared or _sums(kernel, cuts, width)]
        matrix = right.cut(0, n, columns)

        def step(k: Index, size: int, first: bool, matrix: View = matrix, sums: Sequence[Access] = sums) -> None:
            moving = kernel.sbuf((min(depth.unit, size), -(-size // depth.unit), matrix.sizes[0]), left.dtype)
            bring(kernel, matrix, depth, k, size, moving, None)
            for b, part in enumerate(block_sizes(size, depth.unit)):
                stationary = left.at(0, blocked(k, depth.unit) + b).rows(0, part)
                for (start, count), tile in zip(cuts, sums, strict=True):
                    kernel.matmul(tile, stationary.cut(0, start, count), moving.at(0, b).rows(0, part),
                                  accumulate=not (first and b == 0))

        accumulate(kernel, depth.total, max(1, CHUNK_PASSES // len(cuts)) * depth.unit, step)
        for (start, count), tile in zip(cuts, sums, strict=True):
            evict(kernel, tile, out.cut(0, start, count).cut(1, n, columns))


def _sums(kernel: Kernel, cuts: Sequence[tuple[int, int]], width: int) -> list[Access]:
    return [kernel.psum((count, width)) for _, count in cuts]


def _stream(kernel: Kernel, left: View, right: View, out: View, dtype: DType) -> None:
    """Both operands stream by; left and right may have more dimensions of k, of which all but two are looped over."""
    target = kernel.target
    extra = len(left.dims) - 3
    depth = depth_of(kernel, (left.sizes[-2], left.sizes[-1]))
    left_ring, right_ring = (turning_ring(kernel, side, dtype) for side in (left, right))
    for m, rows in kernel.tiles(left.sizes[0], target.tensor.stationary_max, outer=True):
        for n, columns in kernel.tiles(right.sizes[0], target.tensor.moving_max):
            sums = kernel.psum((rows, columns))

            def step(a: View, b: View, k: Index, size: int, first: bool, sums: Access = sums) -> None:
                stationary = kernel.sbuf((size, 1, a.sizes[0]), dtype)
                moving = kernel.sbuf((size, 1, b.sizes[0]), dtype)
                bring(kernel, a, depth, k, size, stationary, left_ring)
                bring(kernel, b, depth, k, size, moving, right_ring)
                kernel.matmul(sums, stationary.at(0, 0), moving.at(0, 0), accumulate=not first)

            whole, matrix = left.cut(0, m, rows), right.cut(0, n, columns)
            if extra == 0:
                accumulate(kernel, depth.total, depth.unit, partial(step, whole, matrix))
            else:
                open_sums(kernel, sums, dtype)
                for a, b in _depth_loops(kernel, whole, matrix, extra):
                    for k, size in kernel.tiles(depth.total, depth.unit):
                        step(a, b, k, size, False)
            evict(kernel, sums, out.cut(0, m, rows).cut(1, n, columns))


def _depth_loops(kernel: Kernel, left: View, right: View, count: int) -> Iterator[tuple[View, View]]:
    """Loops over the first `count` dimensions of k of both operands."""
    if count == 0:
        yield left, right
        return
    with kernel.loop(left.sizes[1]) as index:
        yield from _depth_loops(kernel, left.at(1, index), right.at(1, index), count - 1)


def multiply_deep(kernel: Kernel, left: View, right: View, out: View, dtype: DType) -> None:
    """As multiply, with any number of dimensions of k."""
    if left.elements == 0 or right.elements == 0:
        _zeros(kernel, out)
    else:
        _stream(kernel, left, right, out, dtype)


def open_sums(kernel: Kernel, sums: Access, dtype: DType) -> None:
    """Begin an accumulation with zeros, for loops whose body cannot tell its first run."""
    with kernel.scope():
        zeros = kernel.sbuf((1, max(sums.partitions, sums.free)), dtype)
        kernel.memset(zeros, 0.0)
        kernel.matmul(sums, zeros.cut(0, 0, sums.partitions), zeros.cut(0, 0, sums.free), accumulate=False)


def _zeros(kernel: Kernel, out: View) -> None:
    """A sum over nothing."""
    for m, rows in kernel.tiles(out.sizes[0], kernel.target.partitions):
        for n, columns in kernel.tiles(out.sizes[1], kernel.target.tensor.moving_max):
            tile = kernel.sbuf((rows, columns), out.dtype)
            kernel.memset(tile, 0.0)
            kernel.dma(out.cut(0, m, rows).cut(1, n, columns), tile)


def evict(kernel: Kernel, sums: Access, out: View) -> None:
    """Store sums with the result's dtype."""
    tile = kernel.sbuf(sums.sizes, out.dtype)
    kernel.copy(tile, sums)
    kernel.dma(out, tile)


def _ring(kernel: Kernel) -> int:
    return RING if kernel.copies.rotates else 1


def accumulate(kernel: Kernel, total: int, chunk: int, step: Callable[[Index, int, bool], None]) -> None:
    """Run step(k, size, first) over the summed dimension: the first chunk opens the sums, the others add."""
    opening = min(chunk, total)
    step(0, opening, True)
    for k, size in steady(kernel, total - opening, chunk, _ring(kernel)):
        step(k + opening, size, False)
