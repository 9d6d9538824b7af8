"""Weights of image programs: in SBUF as [lanes; blocks, cells, outputs], once for all images.

In memory with input channels slowest and output channels fastest, they are one run a partition. In any other order they come
with outputs on partitions, as they lie, and the tensor engine turns them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.images.geometry import on_partitions, spread
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

TRANSFER_BYTES = 16384
"""Bytes a partition of one transfer, so that the first blocks are multiplied while the others come."""

TURNED_CELLS = 4
"""Window cells that are turned into one PSUM bank."""


@dataclass(frozen=True, slots=True)
class Weights:
    """One tile [lanes; blocks, cells, outputs] for each image that the convolution reads side by side."""

    parts: tuple[Access, ...]


def weights_view(convolution: Instruction, view: View) -> View:
    """[inputs, window.., outputs]."""
    labels = convolution.attribute("dim_labels")
    return view.permute((labels.kernel_input_feature, *labels.kernel_spatial, labels.kernel_output_feature))


def cells_of(convolution: Instruction) -> int:
    return math.prod(w.size for w in convolution.attribute("window").dims)


def weight_bytes(convolution: Instruction, parts: Sequence[int], partitions: int) -> int:
    """Bytes a partition of all weights. parts: channels of the images side by side."""
    shape = convolution.operands[1].shape
    outputs = shape.dims[convolution.attribute("dim_labels").kernel_output_feature]
    blocks = 0
    for channels in parts:
        found = spread(channels, partitions)
        assert found is not None
        blocks += found.blocks
    return blocks * cells_of(convolution) * int(outputs) * shape.dtype.byte_size


def load_weights(kernel: Kernel, convolution: Instruction, view: View, parts: Sequence[int], banks: Iterator[Access],
                 outputs: tuple[Index, int] | None, doubled: bool = False, shifts: Sequence[int] = (0,)) -> Weights:
    """Bring the weights. parts: as for weight_bytes; outputs: which output channels, all if None.

    doubled: once more on the partitions behind, there with the next window row's in each row's place. shifts: the output
    channels once for each, so many window rows further, with zeros in the rows that are left (see pairs).
    """
    source = weights_view(convolution, view)
    if outputs is not None:
        source = source.cut(len(source.dims) - 1, *outputs)
    start = 0
    tiles = []
    for channels in parts:
        found = spread(channels, kernel.target.partitions)
        assert found is not None
        lanes = found.lanes * (2 if doubled else 1)
        part = on_partitions(source.cut(0, start, channels), found)
        move = _bring if abs(part.dims[-1][0]) == view.dtype.byte_size or part.sizes[-1] == 1 else partial(_turn, banks=banks)
        rows, each = part.sizes[2], cells_of(convolution) // part.sizes[2]
        tile = kernel.sbuf((lanes, found.blocks, (rows + shifts[-1]) * each, len(shifts) * source.sizes[-1]), view.dtype)
        if len(shifts) > 1:
            kernel.memset(tile.flat(), 0.0)
        for time in range(lanes // found.lanes):
            for number, shift in enumerate(shifts):
                first, skipped = max(0, shift - time), max(0, time - shift)
                place = tile.rows(time * found.lanes, found.lanes).cut(1, first * each, (rows - skipped) * each)
                place = place.cut(2, number * source.sizes[-1], source.sizes[-1])
                move(kernel, place, part.cut(2, skipped, rows - skipped))
        tiles.append(tile)
        start += channels
    return Weights(tuple(tiles))


def _bring(kernel: Kernel, tile: Access, source: View) -> None:
    """tile [lanes; blocks, cells, outputs] = source [lanes, blocks, window.., outputs], in a few transfers."""
    blocks = tile.dims[0][1]
    each = math.prod(tile.sizes[2:]) * tile.dtype.byte_size
    step = max(1, TRANSFER_BYTES // each)
    for start in range(0, blocks, step):
        count = min(step, blocks - start)
        part = tile.cut(0, start, count).reshape(count, *source.sizes[2:])
        kernel.dma(part, source.cut(1, start, count), engine=Engine.SYNC)


def _turn(kernel: Kernel, tile: Access, source: View, banks: Iterator[Access]) -> None:
    """As _bring, from memory in which outputs do not lie side by side."""
    lanes = kernel.target.partitions
    outputs = tile.sizes[-1]
    with kernel.scope():
        for start, count in kernel.tiles(outputs, lanes):
            raw = _raw(kernel, source.cut(len(source.dims) - 1, start, count), tile.dtype)
            for block, _ in kernel.tiles(tile.sizes[1], 1):
                _turn_block(kernel, tile.at(0, block).cut(1, start, count), raw.at(1, block), banks)


def _raw(kernel: Kernel, source: View, dtype: DType) -> Access:
    """[outputs; lanes, blocks, cells] of a source [lanes, blocks, window.., outputs], each output's in the order of memory."""
    last = len(source.dims) - 1
    order = sorted(range(last), key=lambda d: -abs(source.dims[d][0]))
    raw = kernel.sbuf([source.sizes[d] for d in (last, *order)], dtype)
    kernel.dma(raw, source.permute((last, *order)), engine=Engine.SYNC)
    return raw.permute([order.index(d) for d in range(last)])


def _turn_block(kernel: Kernel, place: Access, raw: Access, banks: Iterator[Access]) -> None:
    """place [lanes; cells, outputs] = raw [outputs; lanes, window..] turned, a few cells at a time."""
    cells = _every_cell(raw)
    outputs = raw.partitions
    for start in range(0, len(cells), TURNED_CELLS):
        some = cells[start:start + TURNED_CELLS]
        bank = next(banks)
        turned = replace(bank.rows(0, place.partitions), dtype=place.dtype, dims=((outputs, len(some)), (1, outputs)))
        for number, cell in enumerate(some):
            kernel.pe_transpose(turned.at(0, number), cell)
        kernel.copy(place.cut(0, start, len(some)), turned, Engine.SCALAR)


def _every_cell(raw: Access) -> list[Access]:
    """[outputs; lanes] for each window cell of raw [outputs; lanes, window..]."""
    found = [raw]
    while len(found[0].dims) > 1:
        found = [cell.at(1, index) for cell in found for index in range(cell.dims[1][1])]
    return found
