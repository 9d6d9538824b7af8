"""Matrix products on the tensor engine: operands in HBM brought to [k on partitions, ..], sums over k in PSUM.

The left operand of a block of rows is brought in once and stays; the right one streams past it in chunks of k. An operand whose
rows are contiguous along k is loaded as it lies and turned by the tensor engine where tiles rotate; the plain order of level 0
lets the transfer turn it, which takes far longer and is exact for rows beside one with NaN or infinity as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.halo import blocked
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import DType

RESIDENT_BYTES = 131072
"""Bytes a partition that the left operand of a block of rows may take."""

RESIDENT_TILES = 4
"""Tiles of rows in a block, at most: each has a PSUM bank for its sums, the other banks are for turning."""

CHUNK_PASSES = 4
"""Passes of the tensor engine, at least, for one transfer of the right operand."""

RING = 4
"""Chunks of the right operand under way at once: bandwidth and not the time that a transfer takes to begin is the limit."""

SHALLOW_BLOCKS = 8
"""Blocks of k up to which a single tile of rows takes the whole depth of the right operand in one transfer."""

TURN_CHUNK = 512
"""Elements of k in one transfer of the left operand's rows."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How the summed dimension is cut: k = outer * inner; a block of `unit` k, a multiple of inner, lies on partitions."""

    outer: int
    inner: int
    unit: int

    @property
    def total(self) -> int:
        return self.outer * self.inner

    @property
    def blocks(self) -> int:
        return -(-self.total // self.unit)


def depth_of(kernel: Kernel, sizes: tuple[int, int]) -> Depth:
    """sizes: outer and inner; inner is at most the number of partitions."""
    outer, inner = sizes
    return Depth(outer, inner, inner * max(1, min(outer, kernel.target.partitions // inner)))


def split_depth(kernel: Kernel, view: View) -> View:
    """[rows, k..] as [rows, further k.., k outer, k inner], where inner fits on the partitions."""
    if len(view.dims) == 2 or view.dims[-1][1] > kernel.target.partitions:
        return view.insert(len(view.dims))
    return view


def steady(kernel: Kernel, total: int, step: int, copies: int) -> Iterator[tuple[Expr, int]]:
    """As kernel.tiles, but always a loop where there are two full pieces: the form does not depend on their number."""
    full, rest = divmod(total, step)
    rounds, single = divmod(full, copies)
    if full > 1 and rounds:
        with kernel.loop(rounds) as index:
            for copy in range(copies):
                yield index * (step * copies) + copy * step, step
    else:
        single = full
    with kernel.scope():
        for piece in range(full - single, full):
            yield expr(piece * step), step
        if rest:
            yield expr(full * step), rest


def multiply(kernel: Kernel, left: View, right: View, out: View, dtype: DType) -> None:
    """out[m, n] = sum over k of left[m, k outer, k inner] * right[n, k outer, k inner]; dtype: both operands' on the chip."""
    if left.elements == 0 or right.elements == 0:
        _zeros(kernel, out)
        return
    depth = depth_of(kernel, (left.sizes[1], left.sizes[2]))
    lanes = kernel.target.partitions
    most = RESIDENT_BYTES // (depth.blocks * lanes * dtype.byte_size)
    if most == 0:
        _stream(kernel, left, right, out, dtype)
        return
    tiles = min(RESIDENT_TILES, most, -(-left.sizes[0] // lanes))
    ring = turning_ring(kernel, left, dtype)
    for m, rows in steady(kernel, left.sizes[0], tiles * lanes, 1):
        block = left.cut(0, m, rows)
        resident = kernel.sbuf((min(depth.unit, depth.total), depth.blocks, rows), dtype)
        chunk = max(1, TURN_CHUNK // depth.unit) * depth.unit
        for k, size in steady(kernel, depth.total, chunk, kernel.copies.inner):
            place = resident.cut(0, blocked(k, depth.unit), -(-size // depth.unit))
            bring(kernel, block, depth, k, size, place, ring)
        _row_block(kernel, resident, right, out.cut(0, m, rows), depth, ring)


def _row_block(kernel: Kernel, left: Access, right: View, out: View, depth: Depth, ring: Ring) -> None:
    """out [rows, n] from a resident left operand [unit, blocks, rows]."""
    turned = (ring or turning_ring(kernel, right, left.dtype)) if _turns(kernel, right) else None
    lanes, width = kernel.target.partitions, kernel.target.tensor.moving_max
    rows = left.sizes[-1]
    cuts = [(start, min(lanes, rows - start)) for start in range(0, rows, lanes)]
    shared = _sums(kernel, cuts, width) if len(cuts) > RESIDENT_TILES // 2 else None
    chunk, copies = max(1, CHUNK_PASSES // len(cuts)) * depth.unit, kernel.copies.inner
    if len(cuts) == 1 and depth.blocks <= SHALLOW_BLOCKS:
        chunk, copies = depth.blocks * depth.unit, _ring(kernel)
    for n, columns in steady(kernel, right.sizes[0], width, copies):
        sums = [tile.cut(0, 0, columns) for tile in shared or _sums(kernel, cuts, width)]
        matrix = right.cut(0, n, columns)

        def step(k: Index, size: int, first: bool, matrix: View = matrix, sums: Sequence[Access] = sums) -> None:
            moving = kernel.sbuf((min(depth.unit, size), -(-size // depth.unit), matrix.sizes[0]), left.dtype)
            bring(kernel, matrix, depth, k, size, moving, turned)
            for b, part in enumerate(_block_sizes(size, depth.unit)):
                stationary = left.at(0, blocked(k, depth.unit) + b).rows(0, part)
                for (start, count), tile in zip(cuts, sums, strict=True):
                    kernel.matmul(tile, stationary.cut(0, start, count), moving.at(0, b).rows(0, part),
                                  accumulate=not (first and b == 0))

        accumulate(kernel, depth.total, chunk, step)
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


# ---- operands ----------------------------------------------------------------------------------------------------------


def _block_sizes(size: int, unit: int) -> list[int]:
    """Sizes of the blocks of a chunk of k."""
    full, rest = divmod(size, unit)
    return [unit] * full + [rest] * bool(rest)


def _turns(kernel: Kernel, view: View) -> bool:
    """Whether an operand [rows, .., k] is contiguous along k and not along its rows, so that the tensor engine turns it."""
    unit = view.dtype.byte_size
    rows, *depths = view.dims
    stride, size = next((dim for dim in reversed(depths) if dim[1] > 1), (0, 1))
    return kernel.copies.rotates and stride == unit and size > 1 and rows[1] > 1 and abs(rows[0]) != unit


Ring = Iterator[Access] | None
"""PSUM tiles that take turns for an operand that the tensor engine turns; None for one that comes as it is."""


def turning_ring(kernel: Kernel, view: View, dtype: DType) -> Ring:
    """Two banks, if the operand [rows, .., k] is to be turned."""
    if not _turns(kernel, view):
        return None
    sizes = (kernel.target.partitions, kernel.target.tensor.moving_max)
    return itertools.cycle([kernel.psum(sizes, dtype) for _ in range(2)])


def bring(kernel: Kernel, view: View, depth: Depth, k: Index, size: int, tile: Access, ring: Ring) -> None:
    """tile [unit, blocks, rows] = view [rows, k outer, k inner] from k on; rows are at most as many as a PSUM bank holds."""
    chunk = view.cut(1, blocked(k, depth.inner), size // depth.inner)
    if ring is not None:
        _bring_turned(kernel, chunk, depth, size, tile, ring)
        return
    full, rest = divmod(size, depth.unit)
    outer = depth.unit // depth.inner
    if full:
        row_dim, (stride, _), inner = chunk.dims
        source = replace(chunk, dims=((stride, outer), inner, (stride * outer, full), row_dim))
        _gather(kernel, tile.rows(0, depth.unit).cut(0, 0, full), source)
    if rest:
        _gather(kernel, tile.rows(0, rest).at(0, full), chunk.cut(1, full * outer, rest // depth.inner).permute((1, 2, 0)))


def _gather(kernel: Kernel, tile: Access, source: View) -> None:
    """tile = source, whose first two dimensions are the tile's partitions."""
    linear = tile.linear()
    (pitch, _), *free = linear.dims
    outer, inner = source.sizes[:2]
    kernel.dma(replace(linear, dims=((pitch * inner, outer), (pitch, inner), *free)), source)


def _bring_turned(kernel: Kernel, chunk: View, depth: Depth, size: int, tile: Access, ring: Iterator[Access]) -> None:
    """Rows as they lie, then squares through the tensor engine; one bank takes a block of k of all rows."""
    lanes = kernel.target.partitions
    total = chunk.sizes[0]
    raws = []
    for start in range(0, total, lanes):
        count = min(lanes, total - start)
        raw = kernel.sbuf((count, size), tile.dtype)
        (pitch, _), (near, _) = raw.linear().dims
        inner = chunk.sizes[2]
        kernel.dma(replace(raw.linear(), dims=((pitch, count), (near * inner, size // inner), (near, inner))),
                   chunk.cut(0, start, count))
        raws.append((start, count, raw))
    for b, part in enumerate(_block_sizes(size, depth.unit)):
        turned = next(ring).rows(0, part).cut(0, 0, total)
        for start, count, raw in raws:
            kernel.pe_transpose(turned.cut(0, start, count), raw.cut(0, b * depth.unit, part))
        kernel.copy(tile.at(0, b).rows(0, part), turned, Engine.SCALAR)
