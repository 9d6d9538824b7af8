"""Convolutions as shifted matmuls: channels on partitions, one pass a window tap, sums in PSUM; never an im2col.

The input is cut into strips of output rows. A strip's input lies in SBUF with its halo, so that every tap is an access pattern
at an offset. Few channels are packed: the rows of a window lie on partitions beside each other, loaded with their offset.
Depthwise convolutions multiply and add on Vector, a channel a partition. Integers are multiplied byte by byte.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.contraction import product_reason
from nxcc.backends.lowering.convolution_problem import (
    STRIP_BYTES,
    Problem,
    groups_of,
    normalize,
    place_of,
    strip_element_bytes,
    strips_of,
    work_dtype,
)
from nxcc.backends.lowering.depthwise import depthwise
from nxcc.backends.lowering.halo import Strip, blocked, halo, halo_place, halo_source, load_halo, whole_strips
from nxcc.backends.lowering.products.limbs import add_products, limbs_of, narrowed
from nxcc.backends.lowering.products.matmul import accumulate, open_sums
from nxcc.backends.lowering.registry import rule
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import PRED, S32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

IMAGE_BYTES = 49152
"""Bytes a partition up to which a single image stays in SBUF for all output channels."""

WEIGHT_BYTES = 73728
"""Bytes a partition up to which the weights of one tile of output channels stay in SBUF for a whole image."""

SPATIAL_DIMS_MAX = 3
"""Planes, rows and columns: what the strips are made of."""

INTERLEAVED_CHANNELS = 32
"""Channels that lie side by side, up to which the rows of an image are taken apart on the chip."""

TURN_BYTES = 16384
"""Bytes a partition of weights that are loaded together to be turned."""

UNROLLED_TAPS = 64
"""Windows with more taps than this loop over them, at the price of one more pass that opens the sum."""

TAP_CHUNK = 64
"""Taps along a row whose weights are loaded together where a window's weights do not fit."""



def _unsupported(instruction: Instruction, target: Target) -> str | None:
    if len(instruction.operands) > 2:
        return "convolutions with more than two operands have no lowering"
    data, weights = (operand.shape for operand in instruction.operands)
    if instruction.shape.dtype is PRED:
        return "a convolution into pred has no lowering"
    if len(instruction.attribute("window").dims) > SPATIAL_DIMS_MAX:
        return f"a convolution of more than {SPATIAL_DIMS_MAX} spatial dimensions has no lowering"
    reason = product_reason(data.dtype, weights.dtype, instruction.shape.dtype, target)
    if reason is not None:
        return reason
    reach = math.prod((w.size - 1) * w.window_dilation + 1 for w in instruction.attribute("window").dims)
    channels = weights.dims[instruction.attribute("dim_labels").kernel_input_feature]
    blocks = -(-channels // target.partitions)
    if reach * blocks * strip_element_bytes(work_dtype(data.dtype, weights.dtype, instruction.shape.dtype)) > STRIP_BYTES:
        return f"the input that one output reads, {reach} places of {channels} channels, does not fit on the chip"
    return None


def _channels_first(instruction: Instruction) -> tuple[int, ...]:
    """Channels come from partitions: a result that keeps them slowest is stored in long runs."""
    dims = instruction.attribute("dim_labels")
    return (dims.output_batch, dims.output_feature, *dims.output_spatial)


@rule("convolution", unsupported=_unsupported, order=_channels_first)
def lower_convolution(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Group by group; groups of one channel together on Vector."""
    if results[0].elements == 0:
        return
    problem = normalize(instruction, operands[0], operands[1], results[0])
    groups, batches = instruction.attribute("feature_group_count"), instruction.attribute("batch_group_count")
    if batches > 1:
        for part in groups_of(kernel, problem, batches, data_dim=0):
            _convolve(kernel, part)
    elif groups > 1 and _is_depthwise(problem):
        depthwise(kernel, problem, groups)
    elif groups > 1:
        for part in groups_of(kernel, problem, groups, data_dim=1):
            _convolve(kernel, part)
    else:
        _convolve(kernel, problem)


def _is_depthwise(problem: Problem) -> bool:
    return problem.weights.sizes[0] == 1 and not problem.is_integer and math.prod(problem.taps) <= UNROLLED_TAPS


# ---- matmul form ---------------------------------------------------------------------------------------------------

Weights = Callable[[Index, int], list[Access]]
"""weights(start, size): those of channels from start as [channels, taps, outputs]; for integers one for each byte."""


def _convolve(kernel: Kernel, problem: Problem) -> None:
    """result[o, pixels] = sum over taps and channels of weights[c, o] * data[c, shifted pixels]."""
    problem = _packed(kernel, problem)
    if problem.data.sizes[0] == 1 and _is_one_strip(kernel, problem):
        _convolve_one_strip(kernel, problem)
        return
    for part in _output_tiles(kernel, problem):
        weights = _resident_weights(kernel, part)
        if part.data.sizes[0] == 1:
            _image(kernel, part, weights, part.data.at(0, 0), part.result.at(0, 0))
        else:
            with kernel.loop(part.data.sizes[0]) as n:
                _image(kernel, part, weights, part.data.at(0, n), part.result.at(0, n))


def _output_tiles(kernel: Kernel, problem: Problem) -> Iterator[Problem]:
    """As many output channels at a time as are stationary together."""
    for o, size in kernel.tiles(problem.weights.sizes[1], kernel.target.partitions, outer=True):
        yield replace(problem, weights=problem.weights.cut(1, o, size), result=problem.result.cut(1, o, size))


def _is_one_strip(kernel: Kernel, problem: Problem) -> bool:
    """Whether an image that several tiles of output channels read fits as a whole."""
    depth, _rows, columns = problem.axes
    blocks = max(1, -(-problem.channels // kernel.target.partitions))
    size = math.prod(axis.length(axis.out) for axis in problem.axes) * blocks * strip_element_bytes(problem.dtype)
    return depth.out == 1 and columns.out <= kernel.target.tensor.moving_max and size <= IMAGE_BYTES


def _convolve_one_strip(kernel: Kernel, problem: Problem) -> None:
    """One image that stays, while the weights of one tile of output channels after the other stream by."""
    pieces = whole_strips(problem.axes)
    strip = _load_strip(kernel, problem, problem.data.at(0, 0), pieces)
    for part in _output_tiles(kernel, problem):
        _multiply_strip(kernel, part, _resident_weights(kernel, part), strip, place_of(part.result.at(0, 0), pieces))


def _packed(kernel: Kernel, problem: Problem) -> Problem:
    """With few channels, all rows of a window on partitions."""
    rows = problem.axes[1].window.size
    if problem.is_integer or rows * problem.data.sizes[1] > kernel.target.partitions or problem.data.elements == 0:
        return problem
    return replace(problem, packed=rows)


def _load_weights(kernel: Kernel, problem: Problem, tile: Access, start: Index, size: int) -> None:
    """tile [channels of all packed rows, taps, outputs] from channel `start` on."""
    moved = problem.weights.permute((0, 2, 3, 4, 1))
    channels = problem.data.sizes[1]
    if problem.packed == 1:
        kernel.dma(tile.rows(0, size).reshape(*moved.sizes[1:]), moved.cut(0, start, size))
        return
    depth, _, columns = problem.taps
    for row in range(problem.packed):
        part = tile.rows(row * channels, channels).reshape(depth, columns, moved.sizes[-1])
        kernel.dma(part, moved.at(2, row))


def _resident_weights(kernel: Kernel, problem: Problem) -> Weights | None:
    """Weights of a block of channels: loaded once if they fit, else on demand; None if not even one block fits."""
    lanes, channels = kernel.target.partitions, problem.channels
    taps, outputs = math.prod(problem.taps), problem.weights.sizes[1]
    blocks = -(-channels // lanes)
    dtype = problem.weights.dtype if problem.is_integer else problem.dtype
    each = taps * outputs * strip_element_bytes(dtype)

    def load(start: Index, size: int) -> list[Access]:
        tile = kernel.sbuf((size, taps, outputs), dtype)
        _load_weights(kernel, problem, tile, start, size)
        return _limbs(kernel, problem, tile)

    if each > WEIGHT_BYTES or taps > UNROLLED_TAPS and blocks * each > WEIGHT_BYTES:
        return None
    if blocks * each > WEIGHT_BYTES:
        return load
    resident = kernel.sbuf((min(lanes, channels), blocks, taps, outputs), dtype)
    _clear_spare(kernel, problem, resident)
    if _weights_turn(kernel, problem):
        _turn_weights(kernel, problem, resident)
    else:
        for start, size in kernel.tiles(channels, lanes):
            _load_weights(kernel, problem, resident.at(0, blocked(start, lanes)), start, size)
    whole = _limbs(kernel, problem, resident)
    return lambda start, size: [limb.at(0, blocked(start, lanes)).rows(0, size) for limb in whole]


def _weights_turn(kernel: Kernel, problem: Problem) -> bool:
    """Whether outputs are so far apart in memory that weights are loaded with outputs on partitions and turned on the chip."""
    stride, outputs = problem.weights.dims[1]
    return kernel.copies.rotates and not problem.is_integer and outputs > 1 and abs(stride) != problem.weights.dtype.byte_size


def _turn_weights(kernel: Kernel, problem: Problem, resident: Access) -> None:
    """resident [channels, blocks, taps, outputs], in chunks of channels; a PSUM bank turns several taps at a time."""
    lanes, outputs, channels = kernel.target.partitions, problem.weights.sizes[1], problem.data.sizes[1]
    chunk = max(1, TURN_BYTES // (resident.dtype.byte_size * math.prod(problem.weights.sizes[2:]) * lanes)) * lanes
    with kernel.scope():
        sizes = (lanes, kernel.target.tensor.moving_max // outputs, outputs)
        ring = itertools.cycle([kernel.psum(sizes, resident.dtype) for _ in range(2)])
        for start, size in kernel.tiles(channels, chunk):
            raw = _raw_weights(kernel, problem.weights.cut(0, start, size), resident.dtype)
            for offset in range(0, size, lanes):
                part = min(lanes, size - offset)
                place = resident.at(0, blocked(start, lanes) + offset // lanes)
                _turn_cells(kernel, _cells(problem, raw.cut(0, offset, part)), place.rows(0, part * problem.packed), ring)


def _raw_weights(kernel: Kernel, weights: View, dtype: DType) -> Access:
    """Weights [c, o, d, h, w] as a tile [outputs, c, d, h, w], each output's in the order of memory."""
    order = sorted((0, 2, 3, 4), key=lambda d: -abs(weights.dims[d][0]))
    tile = kernel.sbuf([weights.sizes[d] for d in (1, *order)], dtype)
    kernel.dma(tile, weights.permute((1, *order)))
    return tile.permute([order.index(d) for d in (0, 2, 3, 4)])


def _cells(problem: Problem, raw: Access) -> list[Access]:
    """What one pass multiplies, for each tap: [outputs, channels], or [outputs, rows, channels] if window rows are packed."""
    depth, rows, columns = (range(size) for _, size in raw.dims[1:])
    if problem.packed > 1:
        by_row = raw.permute((2, 0, 1, 3))
        return [by_row.at(2, d).at(2, w) for d in depth for w in columns]
    return [raw.at(1, d).at(1, h).at(1, w) for d in depth for h in rows for w in columns]


def _turn_cells(kernel: Kernel, cells: Sequence[Access], place: Access, ring: Iterator[Access]) -> None:
    """place [channels, taps, outputs] = the turned cells, as many at a time as a bank holds."""
    start = 0
    while start < len(cells):
        bank = next(ring).rows(0, place.partitions)
        count = min(bank.sizes[1], len(cells) - start)
        for number in range(count):
            kernel.pe_transpose(bank.at(0, number), cells[start + number])
        kernel.copy(place.cut(0, start, count), bank.cut(0, 0, count), Engine.SCALAR)
        start += count


def _limbs(kernel: Kernel, problem: Problem, tile: Access) -> list[Access]:
    """What the tensor engine multiplies: the tile, or the bytes of integers."""
    if not problem.is_integer or not problem.channels:
        return [tile]
    return [limb.reshape(*tile.sizes[1:]) for limb in limbs_of(kernel, tile.flat())]


def _clear_spare(kernel: Kernel, problem: Problem, tile: Access) -> None:
    """Zeros where tile [channels, blocks, ..] has rows that no channel fills, but that are cut into bytes with the others."""
    if problem.is_integer and problem.channels % max(1, tile.partitions):
        kernel.memset(tile.at(0, tile.dims[0][1] - 1).flat(), 0.0)


def _image(kernel: Kernel, problem: Problem, weights: Weights | None, data: View, result: View) -> None:
    """One image, strip by strip."""
    blocks = max(1, -(-problem.channels // kernel.target.partitions))
    for pieces in strips_of(kernel, problem, blocks * strip_element_bytes(problem.dtype)):
        _multiply_strip(kernel, problem, weights, _load_strip(kernel, problem, data, pieces), place_of(result, pieces))


def _load_strip(kernel: Kernel, problem: Problem, data: View, pieces: Sequence[Strip]) -> list[Access]:
    """The input of a strip as tiles [channels, blocks, spans..]: one, or one for each byte of integers."""
    lanes = kernel.target.partitions
    blocks = -(-problem.channels // lanes)
    spans = [piece.axis.length(piece.count) for piece in _loaded(problem, pieces, 0)]
    strip = kernel.sbuf((min(lanes, problem.channels), blocks, *spans), problem.dtype)
    _clear_spare(kernel, problem, strip)
    if _is_interleaved(kernel, problem, data, pieces):
        _load_interleaved(kernel, problem, strip.at(0, 0), data, pieces)
    elif problem.packed > 1:
        _load_packed(kernel, problem, strip.at(0, 0), data, pieces)
    else:
        for start, size in kernel.tiles(data.sizes[0], lanes):
            load_halo(kernel, strip.at(0, blocked(start, lanes)).rows(0, size), data.cut(0, start, size), pieces)
    return _limbs(kernel, problem, strip)


def _multiply_strip(kernel: Kernel, problem: Problem, weights: Weights | None, strip: Sequence[Access], out: View) -> None:
    (_strip_integers if problem.is_integer else _strip_sums)(kernel, problem, weights, strip, out)


def _loaded(problem: Problem, pieces: Sequence[Strip], row: int) -> list[Strip]:
    """The strips as they are loaded for one of the packed window rows: that row alone."""
    plane, rows, column = pieces
    if problem.packed == 1:
        return [plane, rows, column]
    window = rows.axis.window
    single = replace(window, size=1, padding_low=window.padding_low - row * window.window_dilation)
    return [plane, replace(rows, axis=replace(rows.axis, window=single)), column]


def _load_packed(kernel: Kernel, problem: Problem, strip: Access, data: View, pieces: Sequence[Strip]) -> None:
    """strip [packed rows x channels, spans..]: each window row with its own offset."""
    channels = data.sizes[0]
    if not all(piece.is_whole for piece in pieces):
        kernel.memset(strip.flat(), 0.0)
    for row in range(problem.packed):
        kernel.dma(*halo(strip.rows(row * channels, channels).linear(), data, 1, _loaded(problem, pieces, row)))


def _is_interleaved(kernel: Kernel, problem: Problem, data: View, pieces: Sequence[Strip]) -> bool:
    """Whether a few channels lie side by side in memory, so that transfers by channel would move single elements."""
    channels, depth, _, columns = data.sizes
    rows = pieces[1].axis.valid(*pieces[1].axis.span(pieces[1].first, pieces[1].count))[1]
    unit = data.dtype.byte_size
    return kernel.copies.rotates and not problem.is_integer and 1 < channels <= INTERLEAVED_CHANNELS and depth == 1 and \
        rows <= kernel.target.partitions and data.dims[0][0] == unit and columns > 1 and abs(data.dims[3][0]) > unit


def _load_interleaved(kernel: Kernel, problem: Problem, strip: Access, data: View, pieces: Sequence[Strip]) -> None:
    """strip [packed rows x channels, spans..] by way of tiles [rows, columns, channels] and [rows, channels, columns]."""
    if not all(piece.is_whole for piece in pieces):
        kernel.memset(strip.flat(), 0.0)
    source = halo_source(data, 1, pieces)
    channels, depth, rows, columns = source.sizes
    if source.elements == 0 or depth == 0:
        return
    raw = kernel.sbuf((rows, columns, channels), strip.dtype)
    kernel.dma(raw, source.at(1, 0).permute((1, 2, 0)))
    planes = kernel.sbuf((rows, channels, columns), strip.dtype)
    kernel.copy(planes, raw.permute((1, 0)))
    staged = planes.linear().permute((1, 0, 2)).insert(1)
    row = pieces[1]
    first = row.axis.valid(*row.axis.span(row.first, row.count))[0]
    for number in range(problem.packed):
        loaded = _loaded(problem, pieces, number)
        low, count = loaded[1].axis.valid(*loaded[1].axis.span(row.first, row.count))
        part = strip.rows(number * channels, channels).linear()
        if count:
            kernel.dma(halo_place(part, 1, loaded), staged.cut(2, low - first, count))


@dataclass(frozen=True, slots=True)
class _Taps:
    """Where the taps of `height` output rows from `start` lie in a strip of a block of channels."""

    problem: Problem
    start: Index
    height: int
    width: int

    def moving(self, block: Access, depth: Index, row: Index, column: Index) -> Access:
        windows = [axis.window for axis in self.problem.axes]
        plane = block.at(0, expr(depth) * windows[0].window_dilation)
        first = expr(self.start) * windows[1].stride + expr(row) * windows[1].window_dilation
        return plane.cut(0, first, self.height, windows[1].stride).cut(
            1, expr(column) * windows[2].window_dilation, self.width, windows[2].stride)

    def all(self) -> list[tuple[int, int, int]]:
        depth, rows, columns = self.problem.taps
        return [(d, r, c) for d in range(depth) for r in range(rows) for c in range(columns)]


def _bank_rows(kernel: Kernel, out: View) -> Iterator[tuple[Index, int]]:
    """As many rows of outputs at a time as a PSUM bank holds."""
    _, count, width = out.sizes
    return kernel.tiles(count, max(1, kernel.target.tensor.moving_max // width))


def _strip_sums(kernel: Kernel, problem: Problem, weights: Weights | None, strip: Sequence[Access], out: View) -> None:
    """out [o, rows, columns] of one strip."""
    outputs, _, width = out.sizes
    lanes = kernel.target.partitions
    for r, height in _bank_rows(kernel, out):
        sums = kernel.psum((outputs, height, width))
        taps = _Taps(problem, r, height, width)
        looped = weights is None or math.prod(problem.taps) > UNROLLED_TAPS

        def unrolled(start: Index, size: int, first: bool, sums: Access = sums, taps: _Taps = taps) -> None:
            assert weights is not None
            stationary, block = weights(start, size)[0], strip[0].at(0, blocked(start, lanes)).rows(0, size)
            for number, tap in enumerate(taps.all()):
                kernel.matmul(sums, stationary.at(0, number), taps.moving(block, *tap), accumulate=not first or number > 0)

        if problem.channels == 0:
            open_sums(kernel, sums.flat(), problem.dtype)
        elif looped:
            open_sums(kernel, sums.flat(), problem.dtype)
            for stationary, (moving,) in _looped_taps(kernel, problem, weights, strip, taps):
                kernel.matmul(sums, stationary[0], moving, accumulate=True)
        else:
            accumulate(kernel, problem.channels, lanes, unrolled)
        tile = kernel.sbuf(sums.sizes, out.dtype)
        kernel.copy(tile.flat(), sums.flat())
        kernel.dma(out.cut(1, r, height), tile)


def _looped_taps(kernel: Kernel, problem: Problem, weights: Weights | None, strip: Sequence[Access],
                 taps: _Taps) -> Iterator[tuple[list[Access], list[Access]]]:
    """Loops over all taps and channels: what is stationary and what is moving in each pass."""
    lanes = kernel.target.partitions
    depth, rows, columns = problem.taps
    for start, size in kernel.tiles(problem.channels, lanes):
        blocks = [limb.at(0, blocked(start, lanes)).rows(0, size) for limb in strip]
        whole = weights(start, size) if weights is not None else None
        with kernel.loop(depth) as d, kernel.loop(rows) as r:
            for c, count in kernel.tiles(columns, columns if whole is not None else min(columns, TAP_CHUNK)):
                part = whole if whole is not None else _chunk_of_weights(kernel, problem, start, size, (d, r, c), count)
                base = d * (rows * columns) + r * columns + c if whole is not None else 0
                with kernel.loop(count) as tap:
                    yield ([limb.at(0, tap + base) for limb in part],
                           [taps.moving(block, d, r, c + tap) for block in blocks])


def _chunk_of_weights(kernel: Kernel, problem: Problem, start: Index, size: int, tap: tuple[Index, Index, Index],
                      count: int) -> list[Access]:
    """Weights [channels, taps, outputs] of some taps of one window row."""
    depth, row, column = tap
    view = problem.weights.cut(0, start, size).at(2, depth)
    dtype = problem.weights.dtype if problem.is_integer else problem.dtype
    tile = kernel.sbuf((size, count, view.sizes[1]), dtype)
    if problem.packed == 1:
        kernel.dma(tile, view.at(2, row).cut(2, column, count).permute((0, 2, 1)))
    else:
        channels = problem.data.sizes[1]
        for p in range(problem.packed):
            kernel.dma(tile.rows(p * channels, channels), problem.weights.at(2, depth).at(2, p).cut(2, column, count).permute(
                (0, 2, 1)))
    return _limbs(kernel, problem, tile)


def _strip_integers(kernel: Kernel, problem: Problem, weights: Weights | None, strip: Sequence[Access], out: View) -> None:
    """out [o, rows, columns] of one strip of integers, which wrap."""
    outputs, _, width = out.sizes
    for r, height in _bank_rows(kernel, out):
        total = kernel.sbuf((outputs, height, width), S32)
        kernel.memset(total.flat(), 0.0)
        if problem.channels:
            taps = _Taps(problem, r, height, width)
            for stationary, moving in _looped_taps(kernel, problem, weights, strip, taps):
                add_products(kernel, stationary, moving, total, out.dtype.byte_size)
        kernel.dma(out.cut(1, r, height), narrowed(kernel, total, out.dtype))
