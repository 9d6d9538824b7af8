"""Windows whose computation is no single operator, windows over several arrays at once, and select-and-scatter.

Cell by cell of the window: what it covers for all places at once is copied side by side and goes through the computation as a
tile. Padding and holes take no part, which a mask of the real elements sees to.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from nxcc.backends.lowering.bodies import body_reason, body_tiles, run_body, words_in
from nxcc.backends.lowering.halo import Axis, Strip, all_strips, load_halo, steps_within, whole_strips
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.tiling import row_tiles, unfolded
from nxcc.backends.lowering.turning import comes_in_elements
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import PRED, U8, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

CELLS = 64
"""Cells of a window, at most: the code has the computation once for each."""

TILE_ELEMENTS = 2048
"""Elements a partition of a tile with its halo, at most."""


def is_still(axis: Axis) -> bool:
    """Whether a dimension has no window: outputs are inputs."""
    w = axis.window
    return axis.size == axis.out and w.size == 1 and w.stride == 1 and w.base_dilation == 1 and w.padding_low == 0


def axes_of(sizes: Sequence[int], places: Sequence[int], instruction: Instruction) -> list[Axis]:
    """sizes: of the operand; places: how many windows there are along each dimension."""
    return [Axis(*axis) for axis in zip(sizes, places, instruction.attribute("window").dims, strict=True)]


def still_first(axes: Sequence[Axis]) -> tuple[int, ...]:
    """Dimensions without a window, then the others."""
    still = [d for d, axis in enumerate(axes) if is_still(axis)]
    return (*still, *(d for d in range(len(axes)) if d not in still))


def window_reason(instruction: Instruction, axes: Sequence[Axis], target: Target) -> str | None:
    """Why a window cannot be run cell by cell."""
    if math.prod(axis.window.size for axis in axes) > CELLS:
        return f"a window of more than {CELLS} cells with a computation of its own has no lowering"
    for computation in instruction.called:
        reason = body_reason(computation, target, "window's computation")
        if reason is not None:
            return reason
    return None


def reduce_window_by_body(kernel: Kernel, instruction: Instruction, axes: Sequence[Axis], operands: Sequence[View],
                          results: Sequence[View]) -> None:
    """results = the initial values combined with the operands' cells, window by window."""
    count = len(results)
    computation = instruction.called[0]
    order = still_first(axes)
    data, out = _with_rows([v.permute(order) for v in operands[:count]], [v.permute(order) for v in results], axes)
    moved = [axes[d] for d in order if not is_still(axes[d])]
    starts = [_column(kernel, view) for view in operands[count:]]
    tiles = 4 * sum(words_in(view.dtype) for view in results) + 3 + body_tiles(computation)
    steps = steps_within(moved, min(TILE_ELEMENTS, kernel.sbuf_free_bytes // (4 * tiles)))
    for views in row_tiles(kernel, [*data, *out], len(moved)):
        for pieces in all_strips(kernel, moved, steps):
            _reduce_tile(kernel, instruction, views[:count], views[count:], pieces, starts)


def _with_rows(data: list[View], out: list[View], axes: Sequence[Axis]) -> tuple[list[View], list[View]]:
    if any(is_still(axis) for axis in axes):
        return data, out
    return [v.insert(0) for v in data], [v.insert(0) for v in out]


def _column(kernel: Kernel, scalar: View) -> Access:
    """A scalar on all partitions."""
    lanes = kernel.target.partitions
    column = kernel.sbuf((lanes, 1), scalar.dtype)
    kernel.dma(column, View(scalar.memory, scalar.dtype, scalar.address, ((0, lanes), (0, 1))))
    return column


def _repeated(column: Access, tile: Access) -> Access:
    return Access(column.memory, column.dtype, column.partition, tile.partitions, column.offset, ((0, tile.free),))


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells of a window over tiles with their halo, for all places of the strips; real: None if every element is."""

    kernel: Kernel
    pieces: Sequence[Strip]
    rows: int

    @property
    def places(self) -> int:
        return math.prod(piece.count for piece in self.pieces)

    def all(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*(range(piece.axis.window.size) for piece in self.pieces))

    def load(self, view: View) -> Access:
        tile = self.spread(view.dtype)
        load_halo(self.kernel, tile, view, self.pieces)
        return tile

    def spread(self, dtype: DType) -> Access:
        """A tile [rows, spans..]."""
        return self.kernel.sbuf((self.rows, *(piece.axis.length(piece.count) for piece in self.pieces)), dtype)

    def real(self) -> Access | None:
        """1 where a tile with halo holds an element of the input; None if it does everywhere."""
        if all(piece.is_whole for piece in self.pieces):
            return None
        mask = self.spread(U8)
        self.kernel.memset(mask.flat(), 0.0)
        inside = self.inside(mask)
        if all(size for _, size in inside.dims):
            self.kernel.memset(inside, 1.0)
        return mask

    def inside(self, tile: Access) -> Access:
        """The part of a tile with halo that holds elements of the input."""
        for d, piece in enumerate(self.pieces):
            first, length = piece.axis.span(piece.first, piece.count)
            low, valid = piece.axis.valid(first, length)
            step = piece.axis.window.base_dilation
            tile = tile.cut(d, low * step - first if valid else 0, valid, step)
        return tile

    def at(self, tile: Access, cell: Sequence[int]) -> Access:
        """What a cell covers, for all places."""
        for d, (piece, place) in enumerate(zip(self.pieces, cell, strict=True)):
            window = piece.axis.window
            tile = tile.cut(d, place * window.window_dilation, piece.count, window.stride)
        return tile

    def gathered(self, tile: Access, cell: Sequence[int], to: Access) -> Access:
        """The same, side by side in `to`."""
        source = self.at(tile, cell)
        self.kernel.copy(to.reshape(*(size for _, size in source.dims)) if source.dims else to, source if source.dims else tile)
        return to

    def tile(self, dtype: DType) -> Access:
        """A tile [rows, places]."""
        return self.kernel.sbuf((self.rows, self.places), dtype)


def _reduce_tile(kernel: Kernel, instruction: Instruction, data: Sequence[View], results: Sequence[View],
                 pieces: Sequence[Strip], starts: Sequence[Access]) -> None:
    lead = len(data[0].dims) - len(pieces)
    cells = _Cells(kernel, pieces, math.prod(data[0].sizes[:lead]))
    spread = [cells.load(view) for view in data]
    mask = cells.real()
    inside = cells.tile(U8) if mask is not None else None
    taken = [cells.tile(view.dtype) for view in data]
    state, after = ([cells.tile(view.dtype) for view in results] for _ in range(2))
    for tile, start in zip(state, starts, strict=True):
        kernel.copy(tile, _repeated(start, tile))
    for cell in cells.all():
        covered = [cells.gathered(tile, cell, to) for tile, to in zip(spread, taken, strict=True)]
        with kernel.scope():
            run_body(kernel, instruction.called[0], [*state, *covered], after)
        if mask is None or inside is None:
            state, after = after, state
            continue
        cells.gathered(mask, cell, inside)
        for old, new in zip(state, after, strict=True):
            kernel.copy_predicated(old, inside, new)
    for tile, view in zip(state, results, strict=True):
        for d, piece in enumerate(pieces, lead):
            view = view.cut(d, piece.start, piece.count)
        kernel.dma(view, unfolded(tile, view))


# ---- select-and-scatter ------------------------------------------------------------------------------------------------


def _scatter_axes(instruction: Instruction) -> list[Axis]:
    data, source = (operand.shape.dims for operand in instruction.operands[:2])
    return axes_of(data, source, instruction)


def _scatter_bytes(instruction: Instruction) -> int:
    """Bytes a partition for one tile of rows: two tiles with halo, and those with an element a window."""
    axes = [axis for axis in _scatter_axes(instruction) if not is_still(axis)]
    spread = math.prod(_extent(axis) for axis in axes)
    places = math.prod(axis.out for axis in axes)
    words = words_in(instruction.shape.dtype)
    return (8 * words + 1) * spread + 4 * places * (3 + 4 * words + max(body_tiles(c) for c in instruction.called))


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    reason = window_reason(instruction, _scatter_axes(instruction), target)
    if reason is None and _scatter_bytes(instruction) > target.sbuf.usable_bytes * 9 // 10:
        return "the windows of one row do not fit on the chip together"
    return reason


def _scattered_order(instruction: Instruction) -> tuple[int, ...]:
    """Dimensions without a window come from partitions: a result that keeps them slowest is stored in long runs."""
    return still_first(_scatter_axes(instruction))


def _lies(instruction: Instruction, operands: Sequence[View | None]) -> Iterator[tuple[int, Sequence[int]]]:
    """Data, and values of the windows, that lie together along a dimension without a window."""
    still = [d for d, axis in enumerate(_scatter_axes(instruction)) if is_still(axis)]
    for number, view in enumerate(operands[:2]):
        if view is not None and any(comes_in_elements(view, d) for d in still):
            yield number, _scattered_order(instruction)


@rule("select-and-scatter", unsupported=_unsupported, order=_scattered_order, lies=_lies)
def lower_select_and_scatter(kernel: Kernel, instruction: Instruction, operands: Sequence[View],
                             results: Sequence[View]) -> None:
    """Each window's value of the source goes to the element that `select` picks in it, combined by `scatter`."""
    axes = _scatter_axes(instruction)
    order = still_first(axes)
    moved = [axes[d] for d in order if not is_still(axes[d])]
    start = _column(kernel, operands[2])
    (data, source), (result,) = _with_rows([v.permute(order) for v in operands[:2]], [results[0].permute(order)], axes)
    for a, b, out in row_tiles(kernel, [data, source, result], len(moved)):
        _scatter_tile(kernel, instruction, a, b, out, whole_strips(moved), start)


def _scatter_tile(kernel: Kernel, instruction: Instruction, data: View, source: View, result: View, pieces: Sequence[Strip],
                  start: Access) -> None:
    _select, scatter = instruction.called
    cells = _Cells(kernel, pieces, math.prod(data.sizes[:len(data.dims) - len(pieces)]))
    sums = kernel.sbuf((cells.rows, *(_extent(piece.axis) for piece in pieces)), data.dtype)
    kernel.copy(sums.flat(), _repeated(start, sums))
    if source.elements:
        picked = _picked(kernel, instruction, cells, data)
        updates, before, after, chosen = cells.tile(data.dtype), cells.tile(data.dtype), cells.tile(data.dtype), cells.tile(U8)
        kernel.dma(unfolded(updates, source), source)
        for number, cell in enumerate(cells.all()):
            place = _scattered(cells, sums, cell)
            shaped = before.reshape(*(size for _, size in place.dims))
            kernel.copy(shaped, place)
            with kernel.scope():
                run_body(kernel, scatter, [before, updates], [after])
            kernel.tensor_scalar(chosen, picked, "equal", float(number))
            kernel.copy_predicated(before, chosen, after)
            kernel.copy(place, shaped)
    for d, piece in enumerate(pieces):
        sums = sums.cut(d, max(0, piece.axis.window.padding_low), piece.axis.size, piece.axis.window.base_dilation)
    kernel.dma(result, unfolded_part(sums, result))


def _extent(axis: Axis) -> int:
    """Coordinates of a tile that holds all elements of the input and all that windows cover."""
    window = axis.window
    before = max(0, window.padding_low)
    elements = before + (axis.size - 1) * window.base_dilation + 1 if axis.size else 0
    return max(elements, before - window.padding_low + axis.length(axis.out)) if axis.out else max(elements, 1)


def _scattered(cells: _Cells, sums: Access, cell: Sequence[int]) -> Access:
    """The places of a tile of `_extent` that a cell covers, for all windows."""
    for d, (piece, place) in enumerate(zip(cells.pieces, cell, strict=True)):
        window = piece.axis.window
        start = max(0, window.padding_low) - window.padding_low + place * window.window_dilation
        sums = sums.cut(d, start, piece.count, window.stride)
    return sums


def _picked(kernel: Kernel, instruction: Instruction, cells: _Cells, data: View) -> Access:
    """The number of the cell that each window picks, CELLS for none: the first real one that no later one beats."""
    spread = cells.load(data)
    mask = cells.real()
    picked, best, value = cells.tile(U8), cells.tile(data.dtype), cells.tile(data.dtype)
    keep, take, inside = cells.tile(PRED), cells.tile(U8), cells.tile(U8)
    kernel.memset(picked, float(CELLS))
    kernel.memset(best, 0.0)
    for number, cell in enumerate(cells.all()):
        cells.gathered(spread, cell, value)
        with kernel.scope():
            run_body(kernel, instruction.called[0], [best, value], [keep])
        kernel.tensor_scalar(take, picked, "equal", float(CELLS))
        lost = keep.retype(U8)
        kernel.tensor_scalar(lost, lost, "equal", 0.0)
        kernel.tensor_tensor(take, take, lost, "maximum")
        if mask is not None:
            cells.gathered(mask, cell, inside)
            kernel.tensor_tensor(take, take, inside, "minimum")
        kernel.copy_predicated(best, take, value)
        kernel.memset(inside, float(number))
        kernel.copy_predicated(picked, take, inside)
    return picked


def unfolded_part(tile: Access, view: View) -> View:
    """Part of a tile [rows, spans..] as a DMA sees it, with the view's sizes [rows.., spans..]."""
    linear = tile.linear()
    lead = len(view.dims) - len(tile.dims)
    rows = View(linear.memory, linear.dtype, linear.address, linear.dims[:1]).reshape(view.sizes[:lead])
    assert rows is not None
    return View(linear.memory, linear.dtype, linear.address, (*rows.dims, *linear.dims[1:]))
