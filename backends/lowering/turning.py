"""Copies between orders of memory: elements that lie together on one side only are turned on the chip, in long transfers.

Vector transposes blocks of 32 x 32 elements in place, bit by bit as they are. A tile holds blocks of the source's slow
dimension beside each other, with 32 of it on the partitions of each quadrant; the quadrants share out the fast dimension.
Turned, the partitions hold the fast dimension, and what was slow lies together.

  source [a, b], b together      raw [quadrant, a % 32; a // 32, b]      turned [quadrant, b % 32; b // 32, a]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.tiling import loops
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import View
from nxcc.ir.dtypes import U16, U32, DType

BLOCK = 32
"""Rows and columns of what Vector transposes at once."""

CARRIERS: dict[int, DType] = {2: U16, 4: U32}
"""dtypes under which bits are moved."""

LEAST_BYTES = 32768
"""Bytes of a copy below which single elements are moved: that many descriptors take as long as a few more instructions."""

LEAST_SIDE = 16
"""Elements of the shorter side, at least."""

TILE_BYTES = 16384
"""Bytes a partition of a tile before it is turned, and after."""

SHARE_BLOCKS = 8
"""Blocks of the fast dimension in a quadrant, at most: elements of a transfer's runs into the tile."""


def move(kernel: Kernel, to: View, of: View) -> None:
    """to = of, both in HBM, of the same sizes and dtype."""
    sides = _sides(kernel, to, of)
    if sides is None:
        kernel.dma(to, of)
        return
    slow, fast = sides
    rest = [d for d in range(len(to.dims)) if d not in (slow, fast)]
    carrier = CARRIERS[to.dtype.byte_size]
    views = [replace(view.permute((*rest, slow, fast)), dtype=carrier) for view in (to, of)]
    for target, source in loops(kernel, views, len(rest)):
        _turn(kernel, target, source)


def _sides(kernel: Kernel, to: View, of: View) -> tuple[int, int] | None:
    """The dimension that lies together in `to`, and that in `of`; None where the copy is better made as it is."""
    unit = to.dtype.byte_size
    if to.dtype is not of.dtype or unit not in CARRIERS or to.elements * unit < LEAST_BYTES or not kernel.copies.rotates:
        return None
    if Engine.VECTOR not in kernel.target.engines or kernel.target.partitions % BLOCK:
        return None
    slow, fast = ([d for d, (stride, size) in enumerate(view.dims) if stride == unit and size > 1] for view in (to, of))
    if len(slow) != 1 or len(fast) != 1 or slow == fast:
        return None
    found = slow[0], fast[0]
    return found if min(to.sizes[d] for d in found) >= LEAST_SIDE else None


def _turn(kernel: Kernel, to: View, of: View) -> None:
    """to [a, b] = of [a, b], where `to` lies together along a and `of` along b, tile by tile."""
    a, b = of.sizes
    quadrants = kernel.target.partitions // BLOCK
    share = min(_blocks(-(-b // quadrants)), SHARE_BLOCKS) * BLOCK
    height = max(1, min(_blocks(a), TILE_BYTES // (share * of.dtype.byte_size))) * BLOCK
    for start, width in kernel.tiles(b, quadrants * share, outer=True):
        for first, rows in kernel.tiles(a, height):
            _turn_tile(kernel, to.cut(0, first, rows).cut(1, start, width), of.cut(0, first, rows).cut(1, start, width), share)


def _turn_tile(kernel: Kernel, to: View, of: View, share: int) -> None:
    """As _turn, for what one tile holds; share: of b that a quadrant takes."""
    a, b = of.sizes
    rows, columns = _blocks(a), share // BLOCK
    quadrants = -(-b // share)
    raw = kernel.sbuf((quadrants * BLOCK, rows, share), of.dtype)
    turned = kernel.sbuf((quadrants * BLOCK, columns, rows * BLOCK), of.dtype)
    if a % BLOCK or b % share:
        kernel.memset(raw.flat(), 0)
    for q, start, width in _shares(b, share):
        for first, count, size in _whole_and_rest(a):
            source = of.cut(0, first * BLOCK, count * size).cut(1, start, width)
            (slow, _), fast = source.dims
            lines = replace(source, dims=((slow, size), (slow * BLOCK, count), fast))
            place = raw.rows(q * BLOCK, BLOCK).rows(0, size).cut(0, first, count).cut(1, 0, width)
            kernel.dma(place, lines)
    by_column = raw.reshape(rows, columns, BLOCK).permute((1, 0, 2))
    for column in range(columns):
        kernel.emit(isa.vector.VECTOR_TRANSPOSE, data=by_column.at(0, column).flat(), out=turned.at(0, column).flat())
    for q, start, width in _shares(b, share):
        for first, count, size in _whole_and_rest(width):
            target = to.cut(1, start + first * BLOCK, count * size)
            fast, (slow, _) = target.dims
            lines = replace(target, dims=((slow, size), (slow * BLOCK, count), fast))
            kernel.dma(lines, turned.rows(q * BLOCK, size).cut(0, first, count).cut(1, 0, a))


def _shares(total: int, share: int) -> Iterator[tuple[int, int, int]]:
    """What each quadrant takes: number, first, size."""
    for q, start in enumerate(range(0, total, share)):
        yield q, start, min(share, total - start)


def _whole_and_rest(total: int) -> Iterator[tuple[int, int, int]]:
    """Blocks of 32 as (first block, number of blocks, elements of each): the full ones, and what is left."""
    full, rest = divmod(total, BLOCK)
    if full:
        yield 0, full, BLOCK
    if rest:
        yield full, 1, rest


def _blocks(elements: int) -> int:
    return -(-elements // BLOCK)
