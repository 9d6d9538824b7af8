"""Convolutions as shifted matmuls: channels on partitions, one pass a window tap, sums in PSUM; never an im2col.

The input is cut into strips of output rows. A strip's input lies in SBUF with its halo: zeros where padding or base dilation
put them, data where the input has it, so that every tap is an access pattern at an offset. Strips away from the border have
one form and run in a loop. Depthwise convolutions multiply and add on Vector, a channel a partition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nxcc.backends.isa import instructions as isa
from nxcc.backends.lowering.region import accumulate_blocks
from nxcc.backends.lowering.registry import rule
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.attributes import WindowDimension
from nxcc.ir.hlo.module import Instruction

STRIP_BYTES = 65536
"""Bytes a partition that the input strip of one tile of rows may take."""

WEIGHT_BYTES = 73728
"""Bytes a partition up to which the weights of one tile of output channels stay in SBUF for a whole image."""

UNROLLED_TAPS = 64
"""Windows with more taps than this loop over them, at the price of one more pass that opens the sum."""

SPATIAL = 3
"""Spatial dimensions are filled up to depth, rows, columns with ones of size 1."""


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    for operand in instruction.operands:
        if operand.shape.dtype not in target.engines[isa.pe.MATMUL.engines[0]].dtypes:
            return f"the tensor engine does not multiply {operand.shape.dtype}"
    if not instruction.shape.dtype.is_float:
        return f"a convolution into {instruction.shape.dtype} has no lowering"
    if len(instruction.operands) > 2:
        return "convolutions with more than two operands have no lowering"
    return None


@dataclass(frozen=True, slots=True)
class _Axis:
    """One spatial dimension: sizes of input, output and window, and how they relate."""

    size: int
    out: int
    window: WindowDimension

    def span(self, start: int, count: int) -> tuple[int, int]:
        """Dilated, padded coordinates that `count` outputs from `start` read: first and length."""
        w = self.window
        return start * w.stride - w.padding_low, (count - 1) * w.stride + (w.size - 1) * w.window_dilation + 1

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


@dataclass(frozen=True, slots=True)
class _Problem:
    """One group: data [n, c, d, h, w], weights [c, o, d, h, w], result [n, o, d, h, w]."""

    data: View
    weights: View
    result: View
    axes: tuple[_Axis, _Axis, _Axis]


def _channels_first(instruction: Instruction) -> tuple[int, ...]:
    """Channels come from partitions: a result that keeps them slowest is stored in long runs."""
    dims = instruction.attribute("dim_labels")
    return (dims.output_batch, dims.output_feature, *dims.output_spatial)


@rule("convolution", unsupported=_unsupported, order=_channels_first)
def lower_convolution(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Group by group; groups of one channel together on Vector."""
    problem = _normalize(instruction, operands[0], operands[1], results[0])
    groups, batches = instruction.attribute("feature_group_count"), instruction.attribute("batch_group_count")
    if batches > 1:
        for part in _groups(kernel, problem, batches, data_dim=0, data_grouped=True):
            _convolve(kernel, part)
    elif groups > 1 and problem.weights.sizes[0] == 1:
        _depthwise(kernel, problem, groups)
    elif groups > 1:
        for part in _groups(kernel, problem, groups, data_dim=1, data_grouped=True):
            _convolve(kernel, part)
    else:
        _convolve(kernel, problem)


def _normalize(instruction: Instruction, data: View, weights: View, result: View) -> _Problem:
    dims = instruction.attribute("dim_labels")
    windows = list(instruction.attribute("window").dims)
    fill = SPATIAL - len(windows)
    axes = [_Axis(1, 1, WindowDimension(1))] * fill
    axes += [_Axis(data.sizes[i], result.sizes[o], w)
             for i, o, w in zip(dims.input_spatial, dims.output_spatial, windows, strict=True)]
    data = data.permute((dims.input_batch, dims.input_feature, *dims.input_spatial))
    weights = weights.permute((dims.kernel_input_feature, dims.kernel_output_feature, *dims.kernel_spatial))
    result = result.permute((dims.output_batch, dims.output_feature, *dims.output_spatial))
    for _ in range(fill):
        data, weights, result = data.insert(2), weights.insert(2), result.insert(2)
    for d, axis in enumerate(axes):
        if axis.window.reversal:
            weights = weights.cut(2 + d, axis.window.size - 1, axis.window.size, -1)
    return _Problem(data, weights, result, (axes[0], axes[1], axes[2]))


def _groups(kernel: Kernel, problem: _Problem, count: int, data_dim: int, data_grouped: bool) -> Iterator[_Problem]:
    """A loop over groups: each has its part of the data's batch or channels, of the output channels and of the weights."""
    data, weights, result = problem.data, problem.weights, problem.result
    part, outputs = data.sizes[data_dim] // count, weights.sizes[1] // count
    with kernel.loop(count) as group:
        yield _Problem(data.cut(data_dim, group * part, part), weights.cut(1, group * outputs, outputs),
                       result.cut(1, group * outputs, outputs), problem.axes)


# ---- strips --------------------------------------------------------------------------------------------------------


def _strip_rows(problem: _Problem, bytes_per_row: int) -> int:
    """Output rows of a strip whose input fits."""
    rows = problem.axes[1]
    best = 1
    for count in range(1, rows.out + 1):
        if rows.span(0, count)[1] * bytes_per_row > STRIP_BYTES:
            break
        best = count
    return best


def _runs(axis: _Axis, step: int) -> Iterator[tuple[int, int, int]]:
    """Cut an output dimension into pieces of `step`: (start, size, how many alike follow each other)."""
    start = 0
    while start < axis.out:
        size = min(step, axis.out - start)
        count = 1
        if axis.is_interior(start, size):
            while start + (count + 1) * size <= axis.out and axis.is_interior(start + count * size, size):
                count += 1
        yield start, size, count
        start += size * count


def _strips(kernel: Kernel, axis: _Axis, step: int) -> Iterator[tuple[Expr, int, int]]:
    """Pieces of an output dimension, alike ones in a loop: (start, size, start of the first of its kind)."""
    for start, size, count in _runs(axis, step):
        if count > 1:
            with kernel.loop(count) as index:
                yield index * size + start, size, start
        else:
            with kernel.scope():
                yield expr(start), size, start


def _load_halo(kernel: Kernel, tile: Access, data: View, axes: Sequence[tuple[_Axis, Index, int, int]]) -> None:
    """Fill a tile [channels, spans..] from data [channels, spatial..]: zeros, then what of the input lies inside.

    axes: per spatial dimension its axis, the start of the outputs, the start of the first strip alike, and their number.
    """
    destination = tile
    source = data
    whole = True
    for d, (axis, start, first_start, count) in enumerate(axes):
        first, length = axis.span(first_start, count)
        low, valid = axis.valid(first, length)
        step = axis.window.base_dilation
        whole &= valid == length
        shift = (expr(start) - first_start) * axis.window.stride
        source = source.cut(1 + d, shift + low if valid else 0, valid)
        destination = destination.cut(d, low * step - first if valid else 0, valid, step)
    if not whole:
        kernel.memset(tile.flat(), 0.0)
    if source.elements:
        kernel.dma(destination, source)


# ---- matmul form ---------------------------------------------------------------------------------------------------


def _convolve(kernel: Kernel, problem: _Problem) -> None:
    """result[o, pixels] = sum over taps and channels of weights[c, o] * data[c, shifted pixels]."""
    if problem.result.elements == 0:
        return
    target = kernel.target
    outputs = problem.weights.sizes[1]
    for o, size in kernel.tiles(outputs, target.tensor.stationary_max, outer=True):
        part = _Problem(problem.data, problem.weights.cut(1, o, size), problem.result.cut(1, o, size), problem.axes)
        weights = _resident_weights(kernel, part.weights)
        if part.data.sizes[0] == 1:
            _images(kernel, part, weights, part.data.at(0, 0), part.result.at(0, 0))
        else:
            with kernel.loop(part.data.sizes[0]) as n:
                _images(kernel, part, weights, part.data.at(0, n), part.result.at(0, n))


def _resident_weights(kernel: Kernel, weights: View) -> Callable[[Index, int], Access]:
    """Weights of a block of channels as [channels, taps, outputs]: loaded once if they fit, else on demand."""
    lanes = kernel.target.partitions
    channels, outputs = weights.sizes[:2]
    taps = math.prod(weights.sizes[2:])
    blocks = -(-channels // lanes)
    moved = weights.permute((0, 2, 3, 4, 1))

    def load(tile: Access, start: Index, size: int) -> None:
        kernel.dma(tile.rows(0, size).reshape(*moved.sizes[1:]), moved.cut(0, start, size))

    if blocks * taps * outputs * weights.dtype.byte_size > WEIGHT_BYTES:
        def fetch(start: Index, size: int) -> Access:
            tile = kernel.sbuf((size, taps, outputs), weights.dtype)
            load(tile, start, size)
            return tile
        return fetch
    resident = kernel.sbuf((min(lanes, channels), blocks, taps, outputs), weights.dtype)
    for start, size in kernel.tiles(channels, lanes):
        load(resident.at(0, _block(start, lanes)), start, size)
    return lambda start, size: resident.at(0, _block(start, lanes)).rows(0, size)


def _block(start: Index, lanes: int) -> Expr:
    value = expr(start)
    return Expr(value.constant // lanes, tuple((s, c // lanes) for s, c in value.terms))


def _images(kernel: Kernel, problem: _Problem, weights: Callable[[Index, int], Access], data: View, result: View) -> None:
    """One image: strips of rows, a depth at a time."""
    depth, rows, columns = problem.axes
    lanes = kernel.target.partitions
    blocks = -(-data.sizes[0] // lanes)
    limit = kernel.target.tensor.moving_max
    for c, width, c_first in _strips(kernel, columns, min(columns.out, limit)):
        planes = depth.span(0, 1)[1]
        row_bytes = planes * columns.span(0, width)[1] * data.dtype.byte_size * blocks
        for d, _, d_first in _strips(kernel, depth, 1):
            for r, count, r_first in _strips(kernel, rows, _strip_rows(problem, row_bytes)):
                spans = (planes, rows.span(0, count)[1], columns.span(0, width)[1])
                strip = kernel.sbuf((min(lanes, data.sizes[0]), blocks, *spans), data.dtype)
                places = ((depth, d, d_first, 1), (rows, r, r_first, count), (columns, c, c_first, width))
                for start, size in kernel.tiles(data.sizes[0], lanes):
                    _load_halo(kernel, strip.at(0, _block(start, lanes)).rows(0, size), data.cut(0, start, size), places)
                out = result.at(1, d).cut(1, r, count).cut(2, c, width)
                _strip_products(kernel, problem, weights, strip, out)


def _strip_products(kernel: Kernel, problem: _Problem, weights: Callable[[Index, int], Access], strip: Access, out: View) -> None:
    """out [o, rows, columns] of one strip, as many rows at a time as a PSUM bank holds."""
    depth, rows, columns = (axis.window for axis in problem.axes)
    outputs, count, width = out.sizes
    lanes = kernel.target.partitions
    channels = problem.data.sizes[1]
    taps = [(kd, kh, kw) for kd in range(depth.size) for kh in range(rows.size) for kw in range(columns.size)]
    looped = len(taps) > UNROLLED_TAPS
    for r, height in kernel.tiles(count, max(1, kernel.target.tensor.moving_max // width)):
        sums = kernel.psum((outputs, height, width))

        def moving(block: Access, tap: tuple[Index, Index, Index], r: Index = r, height: int = height) -> Access:
            kd, kh, kw = tap
            plane = block.at(0, expr(kd) * depth.window_dilation)
            return plane.cut(0, expr(r) * rows.stride + expr(kh) * rows.window_dilation, height, rows.stride).cut(
                1, expr(kw) * columns.window_dilation, width, columns.stride)

        def accumulate(start: Index, size: int, first: bool, sums: Access = sums) -> None:
            stationary = weights(start, size)
            block = strip.at(0, _block(start, lanes)).rows(0, size)
            if looped:
                _tap_loops(kernel, sums, stationary, block, (depth.size, rows.size, columns.size), moving, first)
                return
            for number, tap in enumerate(taps):
                kernel.matmul(sums, stationary.at(0, number), moving(block, tap), accumulate=not (first and number == 0))

        accumulate_blocks(kernel, channels, lanes, accumulate)
        tile = kernel.sbuf((outputs, height, width), out.dtype)
        kernel.copy(tile.flat(), sums.flat())
        kernel.dma(out.cut(1, r, height), tile)


def _tap_loops(kernel: Kernel, sums: Access, stationary: Access, block: Access, sizes: tuple[int, int, int],
               moving: Callable[[Access, tuple[Index, Index, Index]], Access], first: bool) -> None:
    """All taps in loops; a product with zeros opens the sum, since a loop body cannot tell its first run."""
    if first:
        zeros = kernel.sbuf((stationary.partitions, stationary.sizes[-1]), stationary.dtype)
        kernel.memset(zeros, 0.0)
        kernel.matmul(sums, zeros, moving(block, (0, 0, 0)), accumulate=False)
    with kernel.loop(sizes[0]) as kd, kernel.loop(sizes[1]) as kh, kernel.loop(sizes[2]) as kw:
        number = kd * (sizes[1] * sizes[2]) + kh * sizes[2] + kw
        kernel.matmul(sums, stationary.at(0, number), moving(block, (kd, kh, kw)), accumulate=True)


# ---- depthwise -----------------------------------------------------------------------------------------------------


def _depthwise(kernel: Kernel, problem: _Problem, channels: int) -> None:
    """One input channel an output channel: multiply by the tap's weight of each partition and add, on Vector."""
    multiplier = problem.weights.sizes[1] // channels
    lanes = kernel.target.partitions
    for m in range(multiplier):
        weights = problem.weights.at(0, 0).cut(0, m, channels, multiplier)
        result = problem.result.cut(1, m, channels, multiplier)
        for start, size in kernel.tiles(channels, lanes, outer=True):
            part = _Problem(problem.data.cut(1, start, size), weights.cut(0, start, size), result.cut(1, start, size),
                            problem.axes)
            taps = math.prod(weights.sizes[1:])
            factors = kernel.sbuf((size, taps), F32)
            kernel.dma(factors.reshape(*weights.sizes[1:]), part.weights)
            with kernel.loop(problem.data.sizes[0]) as n:
                _depthwise_image(kernel, part, factors, part.data.at(0, n), part.result.at(0, n))


def _depthwise_image(kernel: Kernel, problem: _Problem, factors: Access, data: View, result: View) -> None:
    depth, rows, columns = problem.axes
    planes = depth.span(0, 1)[1]
    row_bytes = planes * columns.span(0, columns.out)[1] * data.dtype.byte_size
    channels = data.sizes[0]
    for d, _, d_first in _strips(kernel, depth, 1):
        for r, count, r_first in _strips(kernel, rows, _strip_rows(problem, row_bytes + columns.out * 8)):
            spans = (planes, rows.span(0, count)[1], columns.span(0, columns.out)[1])
            strip = kernel.sbuf((channels, *spans), data.dtype)
            _load_halo(kernel, strip, data, ((depth, d, d_first, 1), (rows, r, r_first, count), (columns, 0, 0, columns.out)))
            sums = kernel.sbuf((channels, count, columns.out), F32)
            _depthwise_taps(kernel, problem, factors, strip, sums)
            tile = sums
            if result.dtype is not F32:
                tile = kernel.sbuf((channels, count, columns.out), result.dtype)
                kernel.copy(tile.flat(), sums.flat())
            kernel.dma(result.at(1, d).cut(1, r, count), tile)


def _depthwise_taps(kernel: Kernel, problem: _Problem, factors: Access, strip: Access, sums: Access) -> None:
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
                    kernel.tensor_scalar(sums, window, "multiply", factor)
                else:
                    kernel.emit(isa.vector.SCALAR_TENSOR_TENSOR, fields={"op0": "multiply", "op1": "add"},
                                data=window, scalar0=factor, b=sums, out=sums)
                number += 1
