"""Casts of transfers on a machine whose transfers only copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nxcc.backends.isa.program import DMA_PARTITION_STRIDE, Engine, Memory
from nxcc.backends.tile.program import Access, View
from nxcc.backends.tile.walks import joint_dims, seen_as, tile_of

if TYPE_CHECKING:
    from nxcc.backends.tile.builder import Kernel

CAST_COLUMNS = 4096
"""Columns of a tile of a cast from HBM to HBM where transfers cannot cast."""


def is_reachable(kernel: Kernel, tile: Access) -> bool:
    """Whether an engine's instruction may begin at the tile's first partition, where a transfer always may.

    A transfer may also begin at another partition in each turn of a loop.
    """
    if any(abs(step) >= DMA_PARTITION_STRIDE for _, step in tile.offset.terms):
        return False
    return tile.partition in kernel.target.start_partitions(tile.partitions)


def cast_on_chip(kernel: Kernel, to: View, of: View, accumulate: str, engine: Engine) -> None:
    """destination = source with another dtype, where a transfer only copies: by a tile and Vector's conversion."""
    with kernel.scope():
        if to.memory is Memory.SBUF:
            place, order = tile_of(to)
            staged = kernel.sbuf(place.sizes, of.dtype)
            kernel.dma(seen_as(staged, to, order), of, accumulate=accumulate, engine=engine)
            cast = place if is_reachable(kernel, place) else kernel.sbuf(place.sizes, to.dtype)
            _copy_pieces(kernel, cast, staged)
            if cast is not place:
                kernel.dma(to, seen_as(cast, to, order), engine=engine)
        elif of.memory is Memory.SBUF:
            place, order = tile_of(of)
            staged = kernel.sbuf(place.sizes, to.dtype)
            if not is_reachable(kernel, place):
                place = kernel.sbuf(place.sizes, of.dtype)
                kernel.dma(seen_as(place, of, order), of, engine=engine)
            _copy_pieces(kernel, staged, place)
            kernel.dma(to, seen_as(staged, of, order), accumulate=accumulate, engine=engine)
        else:
            _cast_between(kernel, to, of, accumulate, engine)


def _copy_pieces(kernel: Kernel, out: Access, data: Access) -> None:
    """As `copy`; operands of more elements than one instruction takes are cut."""
    out, data = out.flat(), data.flat()
    most = kernel.target.sbuf.operand_elements_max
    if len(out.dims) == len(data.dims) == 1:
        for start, size in kernel.tiles(out.free, most):
            kernel.copy(out.cut(0, start, size), data.cut(0, start, size))
    else:
        kernel.copy(out, data)


def _cast_between(kernel: Kernel, to: View, of: View, accumulate: str, engine: Engine) -> None:
    """A cast from HBM to HBM, row by row of a tile: the innermost dimension is cut, the next one lies on partitions."""
    sizes, to_strides, of_strides = joint_dims(to, of)
    if len(sizes) == 1:
        sizes, to_strides, of_strides = (1, *sizes), (0, *to_strides), (0, *of_strides)
    to = View(to.memory, to.dtype, to.address, tuple(zip(to_strides, sizes, strict=True)))
    of = View(of.memory, of.dtype, of.address, tuple(zip(of_strides, sizes, strict=True)))
    if len(sizes) > 2:
        with kernel.loop(sizes[0]) as index:
            _cast_between(kernel, to.at(0, index), of.at(0, index), accumulate, engine)
        return
    for column, width in kernel.tiles(sizes[1], CAST_COLUMNS):
        for row, height in kernel.tiles(sizes[0], kernel.target.partitions):
            tile = kernel.sbuf((height, width), to.dtype)
            kernel.dma(tile, of.cut(0, row, height).cut(1, column, width), engine=engine)
            kernel.dma(to.cut(0, row, height).cut(1, column, width), tile, accumulate=accumulate, engine=engine)
