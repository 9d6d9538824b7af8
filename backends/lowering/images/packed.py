"""Convolutions of a few channels: the rows of a window lie on partitions beside each other, so that a pass sums over them.

Partition `row * channels + c` holds channel c of the input rows that this row of the window reads, one for each output row,
zeros where there is none. A pass is then left for each column of the window. Output rows are dealt to as many groups of
partitions as have room, each with its own copy of the weights: transfers use more engines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.images.geometry import Cell, Phase, Strip, strips
from nxcc.backends.lowering.images.heads import Axis, Place
from nxcc.backends.lowering.images.weights import weights_view
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

FEW_CHANNELS = 8
"""Input channels below which window rows are packed."""


@dataclass(frozen=True, slots=True)
class Packing:
    """`lanes` partitions a group, groups `pitch` apart."""

    channels: int
    lanes: int
    pitch: int
    groups: int

    def rows(self, count: int) -> int:
        """Output rows of a group, of so many in all."""
        return -(-count // self.groups)


def packing(channels: int, window_rows: int, partitions: int) -> Packing | None:
    """None if the window's rows do not fit on the partitions."""
    lanes = channels * window_rows
    if lanes > partitions:
        return None
    pitch = next(size for size in (32, 64, 128) if lanes <= size)
    return Packing(channels, lanes, pitch, max(1, partitions // pitch))


@dataclass(frozen=True, slots=True)
class Packed:
    """Images as tiles [groups * pitch; images, rows of a group, columns] of the output rows of a strip."""

    packing: Packing
    tile: Access
    strip: Strip

    def groups(self) -> Iterator[tuple[int, Strip]]:
        """The groups' output rows."""
        step = self.packing.rows(self.strip.count)
        for number in range(self.packing.groups):
            count = min(step, self.strip.count - number * step)
            if count > 0:
                yield number, Strip(self.strip.at + number * step, count, self.strip.first + number * step)

    def lanes(self, group: int) -> Access:
        return self.tile.rows(group * self.packing.pitch, self.packing.lanes)


def packed_bytes(found: Packing, rows: int, columns: int, byte_size: int) -> int:
    """Bytes a partition for so many output rows."""
    return found.rows(rows) * columns * byte_size


def load_packed(kernel: Kernel, source: View, images: tuple[Index, int], phase: Phase, strip: Strip, found: Packing,
                dtype: DType) -> Packed:
    """source: [channels, images, rows, columns] in memory."""
    columns = source.sizes[3]
    tile = kernel.sbuf((found.groups * found.pitch, images[1], found.rows(strip.count), columns), dtype)
    packed = Packed(found, tile, strip)
    data = source.cut(1, *images)
    for group, rows in packed.groups():
        _clear_missing(kernel, packed.lanes(group), phase, rows)
        for first, count in _alike(phase, rows):
            cell = phase.cells[first]
            low, number = phase.outputs(cell, rows.first, rows.count)
            if number:
                place = packed.lanes(group).rows(first * found.channels, count * found.channels)
                place = place.cut(1, low - rows.first, number)
                row = (rows.at + (low - rows.first)) * phase.stride + cell.shift
                _load_rows(kernel, place, data, row, phase, count)
    return packed


def _load_rows(kernel: Kernel, place: Access, data: View, row: Index, phase: Phase, count: int) -> None:
    """place [cells x channels; images, rows, columns] of `count` neighbouring cells, the first of which reads from `row`."""
    channels = data.sizes[0]
    step = phase.cells[1].shift - phase.cells[0].shift if len(phase.cells) > 1 else 1
    number = place.dims[1][1]
    read = data.cut(2, row, number, phase.stride)
    stride = data.dims[2][0]
    source = replace(read, dims=((stride * step, count), *read.dims))
    (pitch, _), *free = place.linear().dims
    target = replace(place.linear(), dims=((pitch * channels, count), (pitch, channels), *free))
    kernel.dma(target, source, engine=Engine.SYNC)


def _alike(phase: Phase, rows: Strip) -> Iterator[tuple[int, int]]:
    """Runs of cells (first, number) that one transfer brings: those that all rows have, and each other one for itself."""
    first = 0
    while first < len(phase.cells):
        count = 1
        if phase.covers(phase.cells[first], rows.first, rows.count):
            while first + count < len(phase.cells) and phase.covers(phase.cells[first + count], rows.first, rows.count):
                count += 1
        yield first, count
        first += count


def _clear_missing(kernel: Kernel, lanes: Access, phase: Phase, rows: Strip) -> None:
    """Zeros in rows that some cell does not have."""
    spans = [phase.outputs(cell, rows.first, rows.count) for cell in phase.cells]
    low = max(first for first, _ in spans) - rows.first
    high = min(first + count for first, count in spans) - rows.first
    if high <= low:
        low, high = rows.count, rows.count
    for start, end in ((0, low), (high, rows.count)):
        if end > start:
            kernel.memset(lanes.cut(1, start, end - start).flat(), 0.0)


def load_packed_weights(kernel: Kernel, convolution: Instruction, view: View, found: Packing, rows: Sequence[Cell],
                        banks: Iterator[Access], outputs: tuple[Index, int] | None, shifts: Sequence[int] = (0,)) -> Access:
    """Weights [groups * pitch; columns, outputs], the same in each group. rows: the window's rows as they lie on partitions.

    shifts: as of weights.load_weights.
    """
    source = weights_view(convolution, view)
    if len(source.dims) == 3:
        source = source.insert(1)
    if outputs is not None:
        source = source.cut(3, *outputs)
    if rows[0].number:
        source = source.cut(1, rows[0].number, len(rows), -1)
    if len(shifts) > 1:
        return _load_shifted(kernel, source, found, shifts)
    tile = kernel.sbuf((found.groups * found.pitch, *source.sizes[2:]), view.dtype)
    if abs(source.dims[3][0]) != view.dtype.byte_size and source.sizes[3] > 1:
        _turn(kernel, tile, source, found, banks)
        return tile
    for group in range(found.groups):
        place = tile.rows(group * found.pitch, found.lanes).linear()
        (pitch, _), *free = place.dims
        place = replace(place, dims=((pitch * found.channels, len(rows)), (pitch, found.channels), *free))
        kernel.dma(place, source.permute((1, 0, 2, 3)), engine=Engine.SYNC)
    return tile


def _load_shifted(kernel: Kernel, source: View, found: Packing, shifts: Sequence[int]) -> Access:
    """Weights of neighbouring rows of the result, and zeros. source: [inputs, rows, columns, outputs]."""
    channels, rows, columns, outputs = source.sizes
    tile = kernel.sbuf((found.groups * found.pitch, columns, len(shifts) * outputs), source.dtype)
    kernel.memset(tile.flat(), 0.0)
    for group in range(found.groups):
        for number, shift in enumerate(shifts):
            lanes = tile.rows(group * found.pitch + shift * channels, rows * channels)
            place = lanes.cut(1, number * outputs, outputs).linear()
            (pitch, _), *free = place.dims
            place = replace(place, dims=((pitch * channels, rows), (pitch, channels), *free))
            kernel.dma(place, source.permute((1, 0, 2, 3)), engine=Engine.SYNC)
    return tile


def _turn(kernel: Kernel, tile: Access, source: View, found: Packing, banks: Iterator[Access]) -> None:
    """As load_packed_weights, by way of [outputs; ..] from memory in which outputs do not lie side by side."""
    lanes = kernel.target.partitions
    order = sorted(range(3), key=lambda d: -abs(source.dims[d][0]))
    with kernel.scope():
        for start, count in kernel.tiles(source.sizes[3], lanes):
            some = source.cut(3, start, count)
            raw = kernel.sbuf([some.sizes[d] for d in (3, *order)], tile.dtype)
            kernel.dma(raw, some.permute((3, *order)), engine=Engine.SYNC)
            cells = raw.permute([order.index(d) for d in (1, 0, 2)])
            for column in range(source.sizes[2]):
                bank = replace(next(banks).rows(0, found.lanes), dtype=tile.dtype, dims=((1, count),))
                kernel.pe_transpose(bank, cells.at(2, column).flat())
                for group in range(found.groups):
                    place = tile.rows(group * found.pitch, found.lanes).at(0, column).cut(0, start, count)
                    kernel.copy(place, bank, Engine.SCALAR)


def packed_pieces(kernel: Kernel, packed: Packed, weights: Access, made: tuple[int, int], images: int, columns: Axis,
                  banks: Iterator[Access]) -> Iterator[tuple[Place, Access]]:
    """Pieces of the result and their sums, as heads.product_pieces. made: partitions and blocks of the result."""
    (phase, whole), most = columns, kernel.target.tensor.moving_max
    lanes, blocks = made
    width = min(whole.count, most)
    height = max(1, most // width) if width == whole.count else 1
    for block in range(blocks):
        for group, rows in packed.groups():
            steady = Phase(0, 1, rows.count, 1, rows.count, (Cell(0, 0),))
            for n, _ in kernel.tiles(images, 1):
                for r in strips(kernel, (steady,), Strip(expr(0), rows.count, 0), height):
                    for c in strips(kernel, (phase,), whole, width):
                        sums = next(banks).rows(0, lanes).cut(0, 0, r.count * c.count).reshape(r.count, c.count)
                        stationary = weights.rows(group * packed.packing.pitch, packed.packing.lanes)
                        stationary = stationary.cut(1, block, lanes, blocks)
                        _sum_columns(kernel, packed.lanes(group).at(0, n), stationary, sums, r, (phase, c))
                        across = c.at * phase.step + phase.first, c.count, phase.step
                        yield Place(block, (n, 1), (rows.at + r.at, r.count, 1), across), sums.flat()


def _sum_columns(kernel: Kernel, data: Access, weights: Access, sums: Access, r: Strip, columns: Axis) -> None:
    """One pass a column of the window, beginning with one that all outputs have. weights: [lanes; columns, outputs]."""
    phase, c = columns
    cells = [cell for cell in phase.cells if phase.outputs(cell, c.first, c.count)[1]]
    full = [cell for cell in cells if phase.covers(cell, c.first, c.count)]
    assert full, "windows of few channels have a column that all outputs read"
    cells.sort(key=lambda cell: cell not in full[:1])
    for number, cell in enumerate(cells):
        left, width = phase.outputs(cell, c.first, c.count)
        start = (c.at + (left - c.first)) * phase.stride + cell.shift
        moving = data.cut(0, r.at, r.count).cut(1, start, width, phase.stride)
        kernel.matmul(sums.cut(1, left - c.first, width).flat(), weights.at(0, cell.number).flat(), moving.flat(),
                      accumulate=number > 0)


def covers_a_column(phase: Phase, most: int) -> bool:
    """Whether every piece of outputs has a column of the window that all of them read."""
    pieces = math.ceil(phase.count / most)
    return all(any(phase.covers(cell, i * most, min(most, phase.count - i * most)) for cell in phase.cells)
               for i in range(pieces))
