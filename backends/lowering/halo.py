"""Windows over a dimension: which elements a piece of the outputs reads, and how they are brought into SBUF with their halo.

Shared by convolutions and window reductions. An output dimension is cut into strips; strips away from the border have one form
and run in a loop. A strip's tile holds padding and the holes of base dilation as a fill value, so that every window cell is an
access pattern at an offset.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import WindowDimension


@dataclass(frozen=True, slots=True)
class Axis:
    """One windowed dimension: sizes of input, output and window, and how they relate."""

    size: int
    out: int
    window: WindowDimension

    def span(self, start: int, count: int) -> tuple[int, int]:
        """Dilated, padded coordinates that `count` outputs from `start` read: first and length."""
        w = self.window
        return start * w.stride - w.padding_low, (count - 1) * w.stride + (w.size - 1) * w.window_dilation + 1

    def length(self, count: int) -> int:
        """Coordinates that `count` outputs read."""
        return self.span(0, count)[1]

    def valid(self, first: int, length: int) -> tuple[int, int]:
        """Input elements inside the span: first index and count."""
        step = self.window.base_dilation
        low = max(0, -(-first // step))
        high = min(self.size, -(-(first + length) // step))
        return low, max(0, high - low)

    def is_interior(self, start: int, count: int) -> bool:
        """Whether the whole span lies inside the input, so that strips like this one differ only by their place."""
        first, length = self.span(start, count)
        return self.window.base_dilation == 1 and first >= 0 and first + length <= self.size

    def room(self, start: int, count: int) -> int:
        """How far the span of `count` outputs can move on and still lies inside the input, or still meets none of it."""
        first, length = self.span(start, count)
        if self.is_interior(start, count):
            return self.size - first - length
        low, valid = self.valid(first, length)
        if valid:
            return 0
        return low * self.window.base_dilation - first - length if low < self.size else self.out * self.window.stride


@dataclass(frozen=True, slots=True)
class Strip:
    """`count` outputs of an axis from `start`; first: the start of the first strip of the same form, a number."""

    axis: Axis
    start: Expr
    count: int
    first: int

    @property
    def is_whole(self) -> bool:
        """Whether every coordinate that the strip reads is an element of the input."""
        return self.axis.is_interior(self.first, self.count)


def runs(axis: Axis, step: int) -> Iterator[tuple[int, int, int]]:
    """Cut an output dimension into pieces of `step`: (start, size, how many alike follow each other)."""
    start = 0
    while start < axis.out:
        size = min(step, axis.out - start)
        count = min((axis.out - start) // size, 1 + axis.room(start, size) // (size * axis.window.stride))
        yield start, size, count
        start += size * count


def strips(kernel: Kernel, axis: Axis, step: int) -> Iterator[Strip]:
    """Pieces of an output dimension, alike ones in a loop."""
    for start, size, count in runs(axis, step):
        for index, _ in kernel.tiles(count * size, size):
            yield Strip(axis, index + start, size, start)


def steps_within(axes: Sequence[Axis], budget: int) -> list[int]:
    """Outputs of each axis in a strip that fits; inner axes are cut last."""
    steps = [max(axis.out, 1) for axis in axes]
    for d, axis in enumerate(axes):
        others = math.prod(a.length(s) for i, (a, s) in enumerate(zip(axes, steps, strict=True)) if i != d)
        while steps[d] > 1 and axis.length(steps[d]) * others > budget:
            steps[d] = -(-steps[d] // 2)
    return steps


def all_strips(kernel: Kernel, axes: Sequence[Axis], steps: Sequence[int]) -> Iterator[list[Strip]]:
    """Strips of all axes together."""
    if not axes:
        yield []
        return
    for strip in strips(kernel, axes[0], steps[0]):
        for others in all_strips(kernel, axes[1:], steps[1:]):
            yield [strip, *others]


def whole_strips(axes: Sequence[Axis]) -> list[Strip]:
    """All outputs of every axis at once."""
    return [Strip(axis, expr(0), axis.out, 0) for axis in axes]


def halo_place(destination: View, lead: int, pieces: Sequence[Strip]) -> View:
    """The places of a tile [lead.., spans.., ..] that elements of the input fill."""
    for d, strip in enumerate(pieces, lead):
        first, length = strip.axis.span(strip.first, strip.count)
        low, valid = strip.axis.valid(first, length)
        step = strip.axis.window.base_dilation
        destination = destination.cut(d, low * step - first if valid else 0, valid, step)
    return destination


def halo_source(data: View, lead: int, pieces: Sequence[Strip]) -> View:
    """The elements of data [lead.., windowed.., ..] that strips read."""
    for d, strip in enumerate(pieces, lead):
        low, valid = strip.axis.valid(*strip.axis.span(strip.first, strip.count))
        shift = (strip.start - strip.first) * strip.axis.window.stride
        data = data.cut(d, shift + low if valid else 0, valid)
    return data


def halo(destination: View, data: View, lead: int, pieces: Sequence[Strip]) -> tuple[View, View]:
    """What elements of the input fill in a tile, and these elements."""
    return halo_place(destination, lead, pieces), halo_source(data, lead, pieces)


def load_halo(kernel: Kernel, tile: Access, data: View, pieces: Sequence[Strip], fill: float = 0.0) -> None:
    """Fill a tile [rows, spans..] from data [rows.., windowed..]: `fill`, then what of the input lies inside."""
    lead = len(data.dims) - len(pieces)
    destination = tile.linear()
    if lead > 1:
        split = destination.reshape((*data.sizes[:lead], *tile.sizes[1:]))
        assert split is not None, f"a tile {tile.sizes} has no rows {data.sizes[:lead]}"
        destination = split
    destination, source = halo(destination, data, lead, pieces)
    _fill_around(kernel, tile, pieces, fill)
    kernel.dma(destination, source)


def _fill_around(kernel: Kernel, tile: Access, pieces: Sequence[Strip], fill: float) -> None:
    """Fill what no element of the input does; where that lies at the ends of one dimension, the load need not wait for it."""
    around = [d for d, strip in enumerate(pieces) if not strip.is_whole]
    if not around:
        return
    axis = pieces[around[0]].axis
    if len(around) > 1 or axis.window.base_dilation != 1:
        kernel.memset(tile.flat(), fill)
        return
    (d,) = around
    first, length = axis.span(pieces[d].first, pieces[d].count)
    low, valid = axis.valid(first, length)
    for start, end in ((0, low - first), (low - first + valid, length)) if valid else ((0, length),):
        if start < end:
            kernel.memset(tile.cut(d, start, end - start), fill)


def blocked(start: Index, size: int) -> Expr:
    """start // size, for a start that is a multiple of size."""
    value = expr(start)
    return Expr(value.constant // size, tuple((s, c // size) for s, c in value.terms))
