"""Operands of matrix products: how the summed dimension is cut into blocks of partitions, and how they come into SBUF.

An operand whose rows are contiguous along k is loaded as it lies and turned by the tensor engine where tiles rotate; the
plain order of level 0 lets the transfer turn it, which takes far longer and is exact for rows beside one with NaN or infinity
as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.halo import blocked
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass


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
    """sizes: outer and inner; inner is at most the number of partitions. Blocks are of one size where that needs no more
    of them and loops are not written out anyway."""
    outer, inner = sizes
    most = max(1, min(outer, kernel.target.partitions // inner))
    blocks = -(-outer // most)
    even = outer % blocks == 0 and kernel.target.features.registers
    return Depth(outer, inner, inner * (outer // blocks if even else most))


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


def block_sizes(size: int, unit: int) -> list[int]:
    """Sizes of the blocks of a chunk of k."""
    full, rest = divmod(size, unit)
    return [unit] * full + [rest] * bool(rest)


def turns(kernel: Kernel, view: View) -> bool:
    """Whether an operand [rows, .., k] is contiguous along k and not along its rows, so that the tensor engine turns it."""
    unit = view.dtype.byte_size
    rows, *depths = view.dims
    stride, size = next((dim for dim in reversed(depths) if dim[1] > 1), (0, 1))
    return kernel.copies.rotates and stride == unit and size > 1 and rows[1] > 1 and abs(rows[0]) != unit


Ring = Iterator[Access] | None
"""PSUM tiles that take turns for an operand that the tensor engine turns; None for one that comes as it is."""


def turning_ring(kernel: Kernel, view: View, dtype: DType) -> Ring:
    """Two banks, if the operand [rows, .., k] is to be turned."""
    if not turns(kernel, view):
        return None
    sizes = (kernel.target.partitions, kernel.target.tensor.moving_max)
    return itertools.cycle([kernel.psum(sizes, dtype) for _ in range(2)])


def bring(kernel: Kernel, view: View, depth: Depth, k: Index, size: int, tile: Access, ring: Ring,
          engine: Engine = Engine.SYNC) -> None:
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
        _gather(kernel, tile.rows(0, depth.unit).cut(0, 0, full), source, engine)
    if rest:
        source = chunk.cut(1, full * outer, rest // depth.inner).permute((1, 2, 0))
        _gather(kernel, tile.rows(0, rest).at(0, full), source, engine)


def _gather(kernel: Kernel, tile: Access, source: View, engine: Engine) -> None:
    """tile = source, whose first two dimensions are the tile's partitions."""
    linear = tile.linear()
    (pitch, _), *free = linear.dims
    outer, inner = source.sizes[:2]
    kernel.dma(replace(linear, dims=((pitch * inner, outer), (pitch, inner), *free)), source, engine=engine)


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
    for b, part in enumerate(block_sizes(size, depth.unit)):
        turned = next(ring).rows(0, part).cut(0, 0, total)
        for start, count, raw in raws:
            kernel.pe_transpose(turned.cut(0, start, count), raw.cut(0, b * depth.unit, part))
        kernel.copy(tile.at(0, b).rows(0, part), turned, Engine.SCALAR)
