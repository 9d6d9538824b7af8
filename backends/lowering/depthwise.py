"""Depthwise convolutions: a channel a partition, on Vector, which multiplies by each tap's weight and adds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nxcc.backends.isa import instructions as isa
from nxcc.backends.lowering.convolution_problem import Problem, place_of, strip_budget, strips_of
from nxcc.backends.lowering.halo import load_halo
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32

DEPTHWISE_COLUMNS = 2048
"""Columns of a piece of an image whose channels stay apart."""


def depthwise(kernel: Kernel, problem: Problem, channels: int) -> None:
    """One input channel an output channel: multiply by the tap's weight of each partition and add, on Vector.

    The first tap is Scalar's; images follow each other in tiles of their own.
    """
    multiplier = problem.weights.sizes[1] // channels
    lanes = kernel.target.partitions
    for m, _ in kernel.tiles(multiplier, 1, outer=True):
        weights = problem.weights.at(0, 0).cut(0, m, channels, multiplier)
        result = problem.result.cut(1, m, channels, multiplier)
        for start, size in kernel.tiles(channels, lanes, outer=True):
            part = replace(problem, data=problem.data.cut(1, start, size), weights=weights.cut(0, start, size),
                           result=result.cut(1, start, size))
            taps = math.prod(weights.sizes[1:])
            factors = kernel.sbuf((size, taps), F32)
            kernel.dma(factors.reshape(*weights.sizes[1:]), part.weights)
            places = _depthwise_places(kernel, problem, size)
            for n, _ in kernel.tiles(problem.data.sizes[0], 1):
                _depthwise_image(kernel, part, factors, part.data.at(0, n), part.result.at(0, n), places)


def _depthwise_places(kernel: Kernel, problem: Problem, channels: int) -> Iterator[tuple[Access, Access]]:
    """Memory for strips and their sums; in turn, so that a strip is loaded while the one before is worked on."""
    elements = strip_budget(kernel) // (problem.dtype.byte_size + F32.byte_size)
    return itertools.cycle([(kernel.sbuf((channels, elements), problem.dtype), kernel.sbuf((channels, elements), F32))
                            for _ in range(kernel.copies.inner)])


def _fit(kernel: Kernel, place: Access, sizes: Sequence[int]) -> Access:
    """A tile of these sizes, in the place if that is large enough."""
    elements = math.prod(sizes)
    return place.cut(0, 0, elements).reshape(*sizes) if elements <= place.free else kernel.sbuf(
        (place.partitions, *sizes), place.dtype)


def _depthwise_image(kernel: Kernel, problem: Problem, factors: Access, data: View, result: View,
                     places: Iterator[tuple[Access, Access]]) -> None:
    for pieces in strips_of(kernel, problem, problem.dtype.byte_size + F32.byte_size, DEPTHWISE_COLUMNS):
        place, totals = next(places)
        strip = _fit(kernel, place, [piece.axis.length(piece.count) for piece in pieces])
        load_halo(kernel, strip, data, pieces)
        out = place_of(result, pieces)
        sums = _fit(kernel, totals, out.sizes[1:])
        _depthwise_taps(kernel, problem, factors, strip, sums)
        tile = sums
        if out.dtype is not F32:
            tile = kernel.sbuf(out.sizes, out.dtype)
            kernel.copy(tile.flat(), sums.flat())
        kernel.dma(out, tile)


def _depthwise_taps(kernel: Kernel, problem: Problem, factors: Access, strip: Access, sums: Access) -> None:
    depth, rows, columns = (axis.window for axis in problem.axes)
    _, count, width = sums.sizes
    number = 0
    for kd in range(depth.size):
        for kh in range(rows.size):
            for kw in range(columns.size):
                window = strip.at(0, kd * depth.window_dilation).cut(0, kh * rows.window_dilation, count, rows.stride).cut(
                    1, kw * columns.window_dilation, width, columns.stride)
                factor = factors.cut(0, number, 1)
                if number == 0:
                    kernel.activation(sums, window, scale=factor)
                else:
                    kernel.emit(isa.vector.SCALAR_TENSOR_TENSOR, fields={"op0": "multiply", "op1": "add"},
                                data=window, scalar0=factor, b=sums, out=sums)
                number += 1
