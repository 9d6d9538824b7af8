"""Copies between orders of memory: elements that lie together on one side only are turned on the chip, in long transfers.

Vector transposes blocks of 32 x 32 elements in place, bit by bit as they are. A tile holds blocks of the source's slow
dimension beside each other, with 32 of it on the partitions of each quadrant; the quadrants share out the fast dimension.
Turned, the partitions hold the fast dimension, and what was slow lies together.

  source [a, b], b together      raw [quadrant, a % 32; a // 32, b]      turned [quadrant, b % 32; b // 32, a]

A few channels, beside each other for each place, are put in order within partitions that hold runs of places. Where runs are
short on one side for other reasons, a partition takes elements that lie close to each other on both sides, and an engine orders
them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.tiling import flat_tiles, join, load, loops, memory_order, row_tiles, store, tile_like, unfolded
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access, Dims, View
from nxcc.ir.dtypes import F32, U8, U16, U32, DType
from nxcc.ir.facts import dataclass

BLOCK = 32
"""Rows and columns of what Vector transposes at once."""

CARRIERS: dict[int, DType] = {2: U16, 4: U32}
"""dtypes under which bits are moved."""

FILLS: dict[int, DType] = {1: U8, 2: U16, 4: F32}
"""dtypes under which one element is repeated."""

FILL_COLUMNS = 2048
"""Columns of a tile that is written to many places."""

BACKWARDS_COLUMNS = 4096
"""Columns of a tile whose elements an engine brings into the opposite order."""

LEAST_ELEMENTS = 4096
"""Elements of a copy below which they are moved one by one: so many descriptors take as long as a few more instructions."""

FEW_ELEMENTS = 1024
"""The same of what few partitions read one by one, which few of the DMA engines serve."""

LEAST_SIDE = 16
"""Elements of the shorter side, at least."""

TILE_BYTES = 16384
"""Bytes a partition of a tile before it is turned, and after."""

ORDERING_GAIN = 1.5
"""How many times the bytes of long runs a copy of short ones must cost to go by way of the chip."""

CHOSEN_DIMENSIONS = 6
"""Dimensions of a copy, at most, of which any may lie on a partition beside each other."""

SHARE_BLOCKS = 8
"""Blocks of the fast dimension in a quadrant, at most: elements of a transfer's runs into the tile."""

MOST_ROWS = 8
"""Rows of short blocks that a quadrant holds beside each other, at most: each has transfers of its own."""


def comes_in_elements(view: View, dim: int) -> bool:
    """Whether a value, not a small one, lies together along a dimension, so that others are read element by element."""
    unit = view.dtype.byte_size
    stride, size = view.dims[dim]
    if stride != unit or not 1 < size < view.elements or view.elements < FEW_ELEMENTS:
        return False
    return unit in CARRIERS and all(stride > 0 for stride, size in view.dims if size > 1)


def unlike_the_first(dims: Sequence[int], operands: Sequence[View | None]) -> Iterator[tuple[int, Sequence[int]]]:
    """Operands of these sizes that lie together along another dimension than the first, whose order the result takes."""
    views = [(number, view) for number, view in enumerate(operands) if view is not None and view.sizes == tuple(dims)]
    if len(views) < 2:
        return
    order = memory_order(views[0][1])
    for number, view in views[1:]:
        if any(comes_in_elements(view, d) for d in order[:-1]):
            yield number, order


def move(kernel: Kernel, to: View, of: View) -> None:
    """to = of, both in HBM, of the same sizes and dtype."""
    if kernel.copies.rotates and to.elements >= LEAST_ELEMENTS and all(stride == 0 or size == 1 for stride, size in of.dims):
        fill(kernel, to, of)
        return
    order = memory_order(to)
    to, of = join([to.permute(order), of.permute(order)])
    if kernel.copies.rotates and to.elements >= LEAST_ELEMENTS and _runs_backwards(to, of):
        for target, source in flat_tiles(kernel, [to, of], BACKWARDS_COLUMNS):
            store(kernel, target, load(kernel, source))
        return
    sides = _sides(kernel, to, of)
    if sides is None:
        found = _ordering(kernel, to, of) if kernel.copies.rotates else None
        if found is None:
            kernel.dma(to, of)
        else:
            _order(kernel, *found)
        return
    slow, fast = sides
    rest = [d for d in range(len(to.dims)) if d not in (slow, fast)]
    carrier = CARRIERS[to.dtype.byte_size]
    views = [replace(view.permute((*rest, slow, fast)), dtype=carrier) for view in (to, of)]
    if min(views[0].sizes[-2:]) < LEAST_SIDE:
        for target, source in loops(kernel, views, len(rest)):
            _regroup(kernel, target, source)
        return
    together = bool(rest) and of.sizes[fast] <= SHARE_BLOCKS * BLOCK
    for target, source in loops(kernel, views, len(rest) - together):
        if together:
            _turn_rows(kernel, target, source)
        else:
            _turn(kernel, target, source)


def _runs_backwards(to: View, of: View) -> bool:
    """Whether elements that lie together on both sides follow each other in opposite orders."""
    unit = to.dtype.byte_size
    return to.dtype is of.dtype and to.dims[-1][0] == unit and of.dims[-1][0] == -unit


def fill(kernel: Kernel, result: View, value: View) -> None:
    """Write one element everywhere, from tiles that are full of it."""
    carrier = FILLS.get(result.dtype.byte_size)
    lanes = kernel.target.partitions
    if carrier is None:
        kernel.dma(result, View(value.memory, value.dtype, value.address, tuple((0, size) for size in result.sizes)))
        return
    column = kernel.sbuf((lanes, 1), carrier)
    kernel.dma(column, View(value.memory, carrier, value.address, ((0, lanes), (0, 1))))
    for (out,) in flat_tiles(kernel, [replace(result, dtype=carrier)], FILL_COLUMNS):
        tile = tile_like(kernel, out)
        kernel.copy(tile, replace(column.rows(0, tile.partitions), dims=((0, tile.free),)))
        store(kernel, out, tile)


def _sides(kernel: Kernel, to: View, of: View) -> tuple[int, int] | None:
    """The dimension that lies together in `to`, and that in `of`; None where the copy is better made as it is."""
    unit = to.dtype.byte_size
    if to.dtype is not of.dtype or unit not in CARRIERS or to.elements < LEAST_ELEMENTS or not kernel.copies.rotates:
        return None
    if Engine.VECTOR not in kernel.target.engines or kernel.target.partitions % BLOCK:
        return None
    slow, fast = ([d for d, (stride, size) in enumerate(view.dims) if stride == unit and size > 1] for view in (to, of))
    if len(slow) != 1 or len(fast) != 1 or slow == fast:
        return None
    (a,), (b,) = slow, fast
    short, long = (a, b) if to.sizes[a] < to.sizes[b] else (b, a)
    neighbours = of.dims[a][0] == of.sizes[b] * unit if short == b else to.dims[b][0] == to.sizes[a] * unit
    return (a, b) if to.sizes[short] >= LEAST_SIDE or neighbours and to.sizes[long] >= kernel.target.partitions else None


def _ordering(kernel: Kernel, to: View, of: View) -> tuple[View, View, int] | None:
    """The views, perhaps with a dimension cut in two, and how many of their last dimensions a partition takes, where that
    moves long runs; None where the copy is better made as it is. Dimensions come as they lie in `to`."""
    if to.dtype is not of.dtype or to.elements < LEAST_ELEMENTS:
        return None
    if any(stride <= 0 for stride, _ in to.dims) or any(stride < 0 for stride, _ in of.dims):
        return None
    alone = _move_cost(kernel, list(zip(to.dims, of.dims, strict=True)), to.dtype.byte_size)
    best, found = alone / ORDERING_GAIN, None
    for order, free in _on_partitions(len(to.dims)):
        views = to.permute(order), of.permute(order)
        each = math.prod(views[0].sizes[-free:]) * to.dtype.byte_size
        for parts in _parts(views[0].sizes[-free], each):
            target, source = (_cut_in(view, len(view.dims) - free, parts) for view in views)
            cost = _ordering_cost(kernel, target, source, free)
            if cost < best:
                best, found = cost, (target, source, free)
    return found


def _on_partitions(rank: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Orders of dimensions and how many of the last a partition takes: the last as they are first, then any."""
    for free in range(1, rank):
        yield tuple(range(rank)), free
    for free in range(1, rank if rank <= CHOSEN_DIMENSIONS else 1):
        for inside in itertools.combinations(range(rank), free):
            if inside != tuple(range(rank - free, rank)):
                yield (*(d for d in range(rank) if d not in inside), *inside), free


def _parts(size: int, each: int) -> Iterator[int]:
    """Into how many parts a dimension may be cut so that what a partition takes fits, the fewest first."""
    return itertools.islice((n for n in range(1, size + 1) if size % n == 0 and each // n <= TILE_BYTES), 2)


def _cut_in(view: View, dim: int, parts: int) -> View:
    stride, size = view.dims[dim]
    halves = (stride * (size // parts), parts), (stride, size // parts)
    return replace(view, dims=(*view.dims[:dim], *halves, *view.dims[dim + 1:]))


def _move_cost(kernel: Kernel, pairs: Sequence[tuple[tuple[int, int], tuple[int, int]]], unit: int) -> float:
    """Bytes that transferring elements costs, which walk over both sides in this order."""
    run = 1
    for (to, size), (of, _) in reversed(pairs):
        if to != run * unit or of != run * unit:
            break
        run *= size
    elements = math.prod(size for (_, size), _ in pairs)
    return elements / run * max(run * unit, kernel.target.dma.descriptor_bytes_min)


def _ordering_cost(kernel: Kernel, to: View, of: View, free: int) -> float:
    """The same by way of the chip; few rows are served by few of the DMA engines."""
    rows, unit = math.prod(to.sizes[:-free]), to.dtype.byte_size
    sides = [[(dim, dim) for dim in dims] for dims in (to.dims[-free:], _lying(of.dims[-free:]))]
    return rows * sum(_move_cost(kernel, side, unit) for side in sides) * kernel.target.partitions / min(
        rows, kernel.target.partitions)


def _lying(dims: Dims) -> Dims:
    """Dimensions as they lie in memory, without those that repeat."""
    return tuple(sorted((dim for dim in dims if dim[0]), reverse=True))


def _order(kernel: Kernel, to: View, of: View, free: int) -> None:
    """to = of; the last dimensions lie on a partition, first as in `of`, then as in `to`."""
    for target, source in row_tiles(kernel, [to, of], free):
        lead = len(target.dims) - free
        rows, order = math.prod(target.sizes[:lead]), sorted(
            (d for d in range(lead, lead + free) if source.dims[d][0]), key=lambda d: source.dims[d], reverse=True)
        raw = kernel.sbuf((rows, *(source.sizes[d] for d in order)), source.dtype)
        lines = replace(source, dims=tuple(source.dims[d] for d in (*range(lead), *order)))
        kernel.dma(unfolded(raw, lines), lines)
        ordered = kernel.sbuf((rows, *target.sizes[lead:]), target.dtype)
        steps = {d: stride for d, (stride, _) in zip(order, raw.dims, strict=True)}
        kernel.copy(ordered, replace(raw, dims=tuple((steps.get(d, 0), target.sizes[d]) for d in range(lead, lead + free))))
        kernel.dma(target, unfolded(ordered, target))


def _regroup(kernel: Kernel, to: View, of: View) -> None:
    """As _turn where one side is short: partitions take runs of the long one, and an engine puts the elements in order.

    What lies together comes last on both sides, whatever the strides of the other dimension: a broadcast has none.
    """
    long = 0 if to.sizes[0] > to.sizes[1] else 1
    lanes, each = kernel.target.partitions, to.sizes[1 - long]
    most = max(1, TILE_BYTES // (each * to.dtype.byte_size))
    for start, size in kernel.tiles(to.sizes[long], lanes * min(most, -(-to.sizes[long] // lanes))):
        for first, rows, count in _even(size, lanes):
            views = [_rows(view.cut(long, start + first, rows * count), long, rows) for view in (to, of)]
            target, source = (view.permute((0, 2, 1)) if long == fast else view for fast, view in enumerate(views))
            raw, ordered = (kernel.sbuf(view.sizes, view.dtype) for view in (source, target))
            kernel.dma(raw, source)
            kernel.copy(ordered, raw.permute((1, 0)))
            kernel.dma(target, ordered)


def _even(total: int, lanes: int) -> Iterator[tuple[int, int, int]]:
    """Runs of equal length, one a partition, and what is left: first, partitions, elements of each."""
    count = total // lanes
    if count:
        yield 0, lanes, count
    if total % lanes:
        yield count * lanes, total % lanes, 1


def _rows(view: View, long: int, rows: int) -> View:
    """[rows, long, short] of a view of two dimensions."""
    stride, size = view.dims[long]
    each = size // rows
    return replace(view, dims=((stride * each, rows), (stride, each), view.dims[1 - long]))


def _turn(kernel: Kernel, to: View, of: View) -> None:
    """to [a, b] = of [a, b], where `to` lies together along a and `of` along b, tile by tile; quadrants share out b."""
    a, b = of.sizes
    quadrants = kernel.target.partitions // BLOCK
    share = min(_blocks(-(-b // quadrants)), SHARE_BLOCKS) * BLOCK
    height = max(1, min(_blocks(a), TILE_BYTES // (share * of.dtype.byte_size))) * BLOCK
    for start, width in kernel.tiles(b, quadrants * share, outer=True):
        for first, rows in kernel.tiles(a, height):
            places = [_Place(q, 0, to.cut(0, first, rows).cut(1, start + begin, size),
                             of.cut(0, first, rows).cut(1, start + begin, size)) for q, begin, size in _shares(width, share)]
            _turn_tile(kernel, places, share)


def _turn_rows(kernel: Kernel, to: View, of: View) -> None:
    """As _turn for [rows, a, b] of a short b; quadrants share out rows, of which each holds several beside each other."""
    total, a, b = of.sizes
    quadrants = kernel.target.partitions // BLOCK
    share = _blocks(b) * BLOCK
    height = max(1, min(_blocks(a), TILE_BYTES // (share * of.dtype.byte_size))) * BLOCK
    held = max(1, min(TILE_BYTES // (share * height // BLOCK * of.dtype.byte_size), MOST_ROWS, -(-total // quadrants)))
    for start, count in kernel.tiles(total, quadrants * held, outer=True):
        for first, rows in kernel.tiles(a, height):
            places = [_Place(row // held, row % held, to.at(0, start + row).cut(0, first, rows),
                             of.at(0, start + row).cut(0, first, rows)) for row in range(count)]
            _turn_tile(kernel, places, share)


@dataclass(frozen=True)
class _Place:
    """What goes through a quadrant, behind others that it holds: `to` [a, b] and `of` [a, b]."""

    quadrant: int
    behind: int
    to: View
    of: View


def _turn_tile(kernel: Kernel, places: Sequence[_Place], share: int) -> None:
    """As _turn, for what one tile holds, of which all have the same a; share: of b that a quadrant takes."""
    a = places[0].of.sizes[0]
    rows, columns = _blocks(a), share // BLOCK
    lanes = BLOCK * (1 + max(place.quadrant for place in places))
    held = 1 + max(place.behind for place in places)
    raw = kernel.sbuf((lanes, held, rows, share), places[0].of.dtype)
    turned = kernel.sbuf((lanes, held, columns, rows * BLOCK), raw.dtype)
    if a % BLOCK or any(place.of.sizes[1] != share for place in places) or len(places) * BLOCK != lanes * held:
        kernel.memset(raw.flat(), 0)
    for place in places:
        _load(kernel, raw.rows(place.quadrant * BLOCK, BLOCK).at(0, place.behind), place.of)
    for behind in range(held):
        by_column = raw.at(0, behind).reshape(rows, columns, BLOCK).permute((1, 0, 2))
        for column in range(columns):
            out = turned.at(0, behind).at(0, column)
            kernel.emit(isa.vector.VECTOR_TRANSPOSE, data=by_column.at(0, column).flat(), out=out.flat())
    for place in places:
        _store(kernel, place.to, turned.rows(place.quadrant * BLOCK, BLOCK).at(0, place.behind))


def _load(kernel: Kernel, raw: Access, of: View) -> None:
    """raw [a % 32; a // 32, b] = of [a, b]."""
    for first, count, size in _whole_and_rest(of.sizes[0]):
        source = of.cut(0, first * BLOCK, count * size)
        (slow, _), fast = source.dims
        lines = replace(source, dims=((slow, size), (slow * BLOCK, count), fast))
        kernel.dma(raw.rows(0, size).cut(0, first, count).cut(1, 0, of.sizes[1]), lines)


def _store(kernel: Kernel, to: View, turned: Access) -> None:
    """to [a, b] = turned [b % 32; b // 32, a]."""
    for first, count, size in _whole_and_rest(to.sizes[1]):
        target = to.cut(1, first * BLOCK, count * size)
        fast, (slow, _) = target.dims
        lines = replace(target, dims=((slow, size), (slow * BLOCK, count), fast))
        kernel.dma(lines, turned.rows(0, size).cut(0, first, count).cut(1, 0, to.sizes[0]))


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
