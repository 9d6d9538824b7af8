"""How images lie in SBUF and how windows walk over them: channels on partitions; then blocks, images, rows, columns.

Channel c lies on partition c // blocks: neighbouring channels share a partition, so that a partition's part of an image is one
run of memory where channels are the slowest dimension. There is no halo: a window cell that lies outside the image for some
outputs is added for the others only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import WindowDimension

LEAST_LANES = 32
"""Partitions that channels in several blocks must fill, at least."""


@dataclass(frozen=True, slots=True)
class Channels:
    """How channels are spread: `lanes` partitions with `blocks` neighbouring channels each."""

    lanes: int
    blocks: int


def spread(channels: int, partitions: int) -> Channels | None:
    """The fewest blocks of equal size; None if they would leave too many partitions empty."""
    for blocks in range(-(-channels // partitions), channels // LEAST_LANES + 2):
        if channels % blocks == 0:
            return Channels(channels // blocks, blocks)
    return None


@dataclass(frozen=True, slots=True)
class Cell:
    """A window cell: number of the kernel's element, and the input coordinate that output 0 reads (stride `Phase.stride`)."""

    number: int
    shift: int


@dataclass(frozen=True, slots=True)
class Phase:
    """Outputs first, first + step, .. of an axis, `count` of them, which read the same cells."""

    first: int
    step: int
    count: int
    stride: int
    size: int
    cells: tuple[Cell, ...]

    def outputs(self, cell: Cell, start: int, count: int) -> tuple[int, int]:
        """Of `count` outputs from `start`, those for which the cell lies inside the image: first and number."""
        low = max(start, -(cell.shift // self.stride))
        high = min(start + count, (self.size - 1 - cell.shift) // self.stride + 1)
        return low, max(0, high - low)

    def covers(self, cell: Cell, start: int, count: int) -> bool:
        return self.outputs(cell, start, count) == (start, count)

    def is_interior(self, start: int, count: int) -> bool:
        """Whether all cells lie inside for all these outputs, so that pieces like this one differ only by their place."""
        return all(self.covers(cell, start, count) for cell in self.cells)

    def span(self, start: int, count: int) -> tuple[int, int]:
        """Input elements that these outputs read: first and number."""
        if not self.cells:
            return 0, 0
        low = max(0, start * self.stride + min(cell.shift for cell in self.cells))
        high = min(self.size, (start + count - 1) * self.stride + max(cell.shift for cell in self.cells) + 1)
        return min(low, self.size), max(0, high - low)


def phases(size: int, out: int, window: WindowDimension) -> list[Phase] | None:
    """An axis as phases; None for stride and base dilation together. Without base dilation there is one."""
    dilation = window.base_dilation
    if dilation > 1 and window.stride > 1:
        return None
    found = []
    for first in range(min(dilation, out)):
        cells = []
        for number in range(window.size):
            place = number * window.window_dilation - window.padding_low + first
            if place % dilation == 0:
                kernel = window.size - 1 - number if window.reversal else number
                cells.append(Cell(kernel, place // dilation))
        found.append(Phase(first, dilation, -(-(out - first) // dilation), window.stride, size, tuple(cells)))
    return found


def runs(phases: Sequence[Phase], start: int, count: int, step: int) -> Iterator[tuple[int, int, int]]:
    """Cut outputs of phases that are made together into pieces of `step`: (start, size, how many alike follow each other).

    Later phases may have an output less than the first.
    """
    end = start + count

    def is_plain(first: int, size: int) -> bool:
        return all(first + size <= phase.count and phase.is_interior(first, size) for phase in phases)

    while start < end:
        size = min(step, end - start)
        alike = 1
        if is_plain(start, size):
            while start + (alike + 1) * size <= end and is_plain(start + alike * size, size):
                alike += 1
        yield start, size, alike
        start += size * alike


@dataclass(frozen=True, slots=True)
class Strip:
    """`count` outputs of a phase from `at`; first: the number of the first output of the first strip like this one."""

    at: Expr
    count: int
    first: int


def whole(phase: Phase) -> Strip:
    return Strip(expr(0), phase.count, 0)


def strips(kernel: Kernel, phases: Sequence[Phase], within: Strip, step: int) -> Iterator[Strip]:
    """Cut a strip into smaller ones, many alike in a loop. Tiles that are made for one take turns with its neighbours'.

    phases: those whose outputs a strip makes.
    """
    copies = kernel.copies.inner
    waiting: list[Strip] = []
    for first, size, alike in runs(phases, within.first, within.count, step):
        place = within.at + (first - within.first)
        rounds = alike // copies if alike >= 2 * copies else 0
        if rounds:
            yield from in_turns(kernel, waiting)
            waiting = []
            with kernel.loop(rounds) as index:
                for copy in range(copies):
                    yield Strip(place + index * (size * copies) + copy * size, size, first)
        waiting += [Strip(place + number * size, size, first) for number in range(rounds * copies, alike)]
    yield from in_turns(kernel, waiting)


T = TypeVar("T")


def in_turns(kernel: Kernel, pieces: Sequence[T]) -> Iterator[T]:
    """Pieces that are written one after the other: as many as there are copies have tiles of their own."""
    copies = kernel.copies.inner
    for start in range(0, len(pieces), copies):
        with kernel.scope():
            yield from pieces[start:start + copies]


def turns(kernel: Kernel, total: int, step: int) -> Iterator[tuple[Expr, int]]:
    """As kernel.tiles; what is not in a loop takes turns as well."""
    copies = kernel.copies.inner
    full, rest = divmod(total, step)
    rounds = full // copies if full >= 2 * copies else 0
    if rounds:
        with kernel.loop(rounds) as index:
            for copy in range(copies):
                yield index * (step * copies) + copy * step, step
    pieces = [(expr(number * step), step) for number in range(rounds * copies, full)]
    yield from in_turns(kernel, pieces + [(expr(full * step), rest)] * bool(rest))


@dataclass(frozen=True, slots=True)
class Image:
    """A value, or some rows of it from `row`, in SBUF: tile [lanes; blocks, images, rows, columns]."""

    tile: Access
    row: Expr = Expr()

    @property
    def blocks(self) -> int:
        return self.tile.dims[0][1]

    def place(self, block: Index, images: tuple[Index, int], rows: tuple[Index, int, int],
              columns: tuple[Index, int, int]) -> Access:
        """[lanes; images, rows, columns] of one block; rows, columns: first, number and step, as the value counts them."""
        part = self.tile.at(0, block).cut(0, *images)
        return part.cut(1, expr(rows[0]) - self.row, rows[1], rows[2]).cut(2, *columns)


def on_partitions(view: View, channels: Channels) -> View:
    """A view [channels, ..] as [lanes, blocks, ..]."""
    (stride, _), *others = view.dims
    dims = ((stride * channels.blocks, channels.lanes), (stride, channels.blocks), *others)
    return replace(view, dims=dims)
