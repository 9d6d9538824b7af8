"""How an iteration space is cut into tiles of at most 128 rows: shared by the families that work elementwise or by row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import DType

COLUMNS_LEAST = 128
"""Columns that a long row is not cut shorter than: a piece is a descriptor of a transfer then."""

COLUMNS_MOST = 1024
"""Columns of short rows that a partition takes together, at most: half a megabyte of f32, which moves while it is worked on."""


def memory_order(view: View) -> list[int]:
    """A view's dimensions as they lie in memory, the slowest first; those that repeat or have size 1 stay in front."""
    strides = [abs(stride) if size > 1 and stride else math.inf for stride, size in view.dims]
    return sorted(range(len(strides)), key=lambda d: (-strides[d], d))


def join(views: Sequence[View]) -> list[View]:
    """The same views over the fewest common dimensions, in the same element order; at least one dimension."""
    kept: list[list[tuple[int, int]]] = [[] for _ in views]
    for d, size in enumerate(views[0].sizes):
        if size == 1:
            continue
        columns = [view.dims[d] for view in views]
        if kept[0] and all(dims[-1][0] == stride * size for dims, (stride, _) in zip(kept, columns, strict=True)):
            for dims, (stride, _) in zip(kept, columns, strict=True):
                dims[-1] = (stride, dims[-1][1] * size)
        else:
            for dims, column in zip(kept, columns, strict=True):
                dims.append(column)
    if not kept[0]:
        kept = [[(view.dtype.byte_size, 1)] for view in views]
    return [View(v.memory, v.dtype, v.address, tuple(dims)) for v, dims in zip(views, kept, strict=True)]


def loops(kernel: Kernel, views: Sequence[View], count: int) -> Iterator[list[View]]:
    """Loop over the first `count` dimensions of all views; yields the views without them."""
    if count == 0:
        yield list(views)
        return
    size = views[0].sizes[0]
    if size == 1:
        yield from loops(kernel, [v.at(0, 0) for v in views], count - 1)
        return
    with kernel.loop(size) as index:
        yield from loops(kernel, [v.at(0, index) for v in views], count - 1)


def row_tiles(kernel: Kernel, views: Sequence[View], free: int) -> Iterator[list[View]]:
    """Cut the leading dimensions into tiles of at most 128 rows; the last `free` dimensions stay whole.

    Yields views of [rows.., free..] whose leading sizes multiply to at most the number of partitions; none where there is no
    row.
    """
    limit = kernel.target.partitions
    sizes = views[0].sizes
    first = len(sizes) - free
    if 0 in sizes[:first]:
        return
    rows = 1
    while first and rows * sizes[first - 1] <= limit:
        first -= 1
        rows *= sizes[first]
    step = limit // rows
    if first == 0 or (step < 2 and rows > 1):
        yield from loops(kernel, views, first)
        return
    for outer in loops(kernel, views, first - 1):
        for start, size in kernel.tiles(sizes[first - 1], step):
            yield [v.cut(0, start, size) for v in outer]


def flat_tiles(kernel: Kernel, views: Sequence[View], width: int) -> Iterator[list[View]]:
    """Cut an elementwise iteration space into tiles [rows.., columns] of at most 128 rows and `width` columns."""
    joined = join(views)
    if len(joined[0].dims) == 1:
        yield from _line_tiles(kernel, joined, width)
        return
    joined = _more_rows(joined, width, kernel.target.partitions)
    size = joined[0].sizes[-1]
    if size <= width:
        free = 1
        while free < len(joined[0].dims) - 1 and size * joined[0].sizes[-1 - free] <= width and \
                math.prod(joined[0].sizes[:-1 - free]) >= kernel.target.partitions:
            size *= joined[0].sizes[-1 - free]
            free += 1
        if kernel.copies.rotates and free < len(joined[0].dims):
            together = rows_together(joined[0].sizes[:-free], min(width, COLUMNS_MOST) // size, kernel.target.partitions)
            if together > 1:
                joined, free = [parted(view, len(view.dims) - free - 1, together) for view in joined], free + 1
        yield from row_tiles(kernel, joined, free)
        return
    for start, columns in kernel.tiles(size, width):
        yield from row_tiles(kernel, [v.cut(len(v.dims) - 1, start, columns) for v in joined], 1)


def rows_together(rows: Sequence[int], most: int, lanes: int) -> int:
    """How many neighbouring short rows a partition takes: so many that two tiles are left, and that they are a part of the last
    of these dimensions."""
    most = min(most, math.prod(rows) // (2 * lanes))
    return max((n for n in range(1, most + 1) if rows[-1] % n == 0), default=1)


def parted(view: View, dim: int, together: int) -> View:
    """A dimension as two, the second of so many places."""
    stride, size = view.dims[dim]
    both = (stride * together, size // together), (stride, together)
    return replace(view, dims=(*view.dims[:dim], *both, *view.dims[dim + 1:]))


def _more_rows(views: list[View], width: int, lanes: int) -> list[View]:
    """Rows that are fewer than partitions, and long, are cut into pieces that are rows too: those that fill most partitions,
    the longest of them."""
    *leading, size = views[0].sizes
    rows = math.prod(leading)
    if rows >= lanes or size < 2 * COLUMNS_LEAST:
        return views

    def filled(columns: int) -> float:
        pieces = size // columns
        whole = pieces * min(rows, max(1, lanes // pieces))
        return whole / (-(-whole // lanes) * lanes)

    lengths = [columns for columns in range(COLUMNS_LEAST, min(size, width) + 1) if size % columns == 0]
    best = max(lengths, key=lambda columns: (filled(columns), columns), default=size)
    if best == size or filled(best) <= min(1.0, rows / lanes):
        return views
    shape = (*leading, size // best, best)
    return [View(v.memory, v.dtype, v.address, (*v.dims[:-1], (v.dims[-1][0] * best, shape[-2]), (v.dims[-1][0], best)))
            for v in views]


def _line_tiles(kernel: Kernel, views: Sequence[View], width: int) -> Iterator[list[View]]:
    """A single dimension, spread evenly over all partitions."""
    total, lanes = views[0].sizes[0], kernel.target.partitions
    columns = max(1, min(width, -(-total // lanes)))
    for start, size in kernel.tiles(total, lanes * columns):
        rows, rest = divmod(size, columns)
        if rows:
            yield [_rows(v.cut(0, start, rows * columns), rows, columns) for v in views]
        if rest:
            yield [_rows(v.cut(0, start + rows * columns, rest), 1, rest) for v in views]


def _rows(view: View, rows: int, columns: int) -> View:
    stride = view.dims[0][0]
    return View(view.memory, view.dtype, view.address, ((stride * columns, rows), (stride, columns)))


def tile_like(kernel: Kernel, view: View, dtype: DType | None = None, leading: int | None = None) -> Access:
    """An SBUF tile [rows, columns] for a view whose first `leading` dimensions are rows (see `fold` for the default)."""
    return kernel.sbuf(fold(view, leading), dtype or view.dtype)


def fold(view: View, leading: int | None = None, limit: int = 128) -> tuple[int, int]:
    """(rows, columns) of a tile; by default as many dimensions before the last as fit into the partitions are rows.

    For elementwise work any such split is right as long as all tiles have the same sizes.
    """
    if leading is None:
        leading, rows = 0, 1
        while leading < len(view.dims) - 1 and rows * view.sizes[leading] <= limit:
            rows *= view.sizes[leading]
            leading += 1
    return math.prod(view.sizes[:leading]), math.prod(view.sizes[leading:])


def load(kernel: Kernel, view: View, dtype: DType | None = None, leading: int | None = None) -> Access:
    """A fresh tile with the view's elements, cast on the way if dtype differs."""
    tile = tile_like(kernel, view, dtype, leading)
    kernel.dma(unfolded(tile, view), view)
    return tile


def store(kernel: Kernel, view: View, tile: Access) -> None:
    kernel.dma(view, unfolded(tile, view))


def unfolded(tile: Access, view: View) -> View:
    """The tile as a DMA sees it, with the view's sizes."""
    linear = tile.linear()
    shaped = linear.reshape(view.sizes)
    assert shaped is not None, f"tile {tile.sizes} cannot take {view.sizes}"
    return shaped


def retyped(bank: Access, dtype: DType) -> Access:
    """A bank of PSUM under another dtype, with as many bytes."""
    ratio = bank.dtype.byte_size // dtype.byte_size
    return replace(bank, dtype=dtype, dims=((1, bank.free * ratio),))
